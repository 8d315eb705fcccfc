"""Weights of TPR from official checkpoints of both stages, and from ImageNet backbones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from visdeploy.errors import ConfigError
from visdeploy_training.backbones.pretrained import load_imagenet, load_weights
from visdeploy_training.backbones.swin import from_swin
from visdeploy_training.checkpoint_file import read_tensors
from visdeploy_training.method import OfficialLayout
from visdeploy_training.methods.tpr.backbone import SWIN
from visdeploy_training.methods.tpr.config import VARIANTS
from visdeploy_training.model import VISModel

BODY = "backbone.bottom_up."
HEAD = "proposal_generator.fcos_head."
ROUTING = "temporal_align.fuse_subnets."
CLASSES = f"{HEAD}cls_logits.weight"
EMBED = f"{BODY}patch_embed.proj.weight"
DEFORMABLE = f"{BODY}res5.0.conv2_offset.weight"
UNUSED = ("temporal_align.fuse1.", "basis_module.seg_head.", "basis_module.logits.")
"""Official tensors without a counterpart: a layer that is never used, and the auxiliary head of the pre-training."""
BODY_UNUSED = ("stem.fc.", "linear.")
FILES = {
    False: "Use the original weights of the ResNet in the names of detectron2. Those of torchvision have the stride in "
    "another convolution of a block.",
    True: "Use the file of the authors of Swin Transformer. Those of timm and torchvision have other names.",
}
"""Description of the file of a backbone: of a ResNet, and of a Swin Transformer."""


def recognise(state: Mapping[str, Tensor]) -> bool:
    """Return whether the names are those of an official checkpoint of TPR, or of BlendMask for its pre-training."""
    return CLASSES in state and "top_layer.weight" in state and "basis_module.refine.0.0.weight" in state


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official tensors: pyramid and Swin Transformer change; heads, alignment and ResNet keep their names."""
    body = {k.removeprefix(BODY): v for k, v in state.items() if k.startswith(BODY)}
    kept = {k: v for k, v in state.items() if not k.startswith((BODY, *UNUSED))}
    swin = EMBED in state
    renamed = {_pyramid(key, first=2 if swin else 3): value for key, value in kept.items()}
    renamed |= {BODY + k: v for k, v in (from_swin(body) if swin else body).items()}
    return {k: v for k, v in renamed.items() if not k.endswith("num_batches_tracked")}


def _pyramid(key: str, first: int) -> str:
    """Rename a convolution of the pyramid; `first` is the number of its finest level."""
    match = re.fullmatch(r"backbone\.fpn_(lateral|output)(\d)\.(weight|bias)", key)
    if match is None:
        return key
    kind = "lateral_convs" if match[1] == "lateral" else "fpn_convs"
    return f"backbone.fpn.{kind}.{int(match[2]) - first}.conv.{match[3]}"


def backbone_of(state: Mapping[str, Tensor]) -> str:
    """Return the name of the backbone of an official checkpoint."""
    if EMBED not in state:
        return "resnet101" if f"{BODY}res4.22.conv1.weight" in state else "resnet50"
    dim = int(state[EMBED].shape[0])
    return next((name for name, sizes in SWIN.items() if sizes["dim"] == dim), "swin_t")


def cpr_of(state: Mapping[str, Tensor]) -> str:
    """Return the kind of the routing layers; empty for a checkpoint of the pre-training."""
    if not any(key.startswith(ROUTING) for key in state):
        return ""
    return "sepc" if any(".Pconv." in key for key in state if key.startswith(ROUTING)) else "routing"


def variant(state: Mapping[str, Tensor]) -> str:
    """Return the variant by backbone and routing layers."""
    name, end = backbone_of(state).replace("resnet", "r"), cpr_of(state) or "image"
    names = [f"{name}_dcn", name] if DEFORMABLE in state else [name]
    wanted = [each for each in (f"{name}_{end}" for name in names) if each in VARIANTS]
    # other combinations are those of the backbone with changed fields
    return wanted[0] if wanted else next(v for v in VARIANTS if v.startswith(f"{names[0]}_"))


def overrides(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields of the variant that differ: routing layers, deformable convolutions, no semantic head."""
    base, found = VARIANTS[variant(state)], dict[str, Any]()
    if cpr := cpr_of(state):
        pattern = re.compile(re.escape(ROUTING) + r"(\d)\.(\d+)\.")
        layers = {(int(m[1]), int(m[2])) for key in state if (m := pattern.match(key))}
        found |= {"cpr": cpr, "cpr_depths": tuple(sum(i == level for i, _ in layers) for level in range(5))}
    last = 3 * (base.tower_depth - 1)
    found["deformable_tower"] = f"{HEAD}cls_tower.{last}.conv.weight" in state
    found["deformable_backbone"] = DEFORMABLE in state
    found["semantic"] = False
    return {name: value for name, value in found.items() if getattr(base, name) != value}


OFFICIAL = OfficialLayout(
    recognise=recognise,
    rename=rename,
    variant=variant,
    num_classes=lambda state: int(state[CLASSES].shape[0]),
    class_tensors=(CLASSES, f"{HEAD}cls_logits.bias"),
    overrides=overrides,
)


def load_backbone(model: VISModel, path: Path | None) -> None:
    """Load ImageNet weights into the backbone.

    Args:
        model: TPR network.
        path: File with the original ResNet weights (stride in the first convolution of a block), or of a Swin
            Transformer; None for EfficientNet-Lite0, whose weights come with a package.

    Raises:
        ConfigError: A required file is missing, or a file is given for EfficientNet-Lite0.
        CheckpointError: The file does not contain the weights of this backbone.
    """
    name, body = model.config.backbone, model.get_submodule("backbone.bottom_up")
    if name == "efficientnet_lite0":
        return load_imagenet(body, name, path)
    if path is None:
        raise ConfigError(
            f"no package ships ImageNet weights of {name}",
            hint=f"Set pretrained to the path of a file. {FILES[name in SWIN]}",
        )
    state = dict(read_tensors(path).tensors)
    if name in SWIN:
        state = from_swin(state)
        own = body.state_dict()
        # files of a classifier have no norms of the outputs
        state |= {k: own[k] for k in own if re.fullmatch(r"norm\d\.(weight|bias)", k) and k not in state}
    else:
        state = {k: v for k, v in state.items() if not k.startswith(BODY_UNUSED) and not k.startswith("fc")}
        own = body.state_dict()
        state |= {k: own[k] for k in own if ".conv2_offset." in k and k not in state}
    return load_weights(body, state, name, str(path), hint=FILES[name in SWIN])
