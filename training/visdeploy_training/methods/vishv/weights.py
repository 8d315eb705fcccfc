"""Weights of VIShv from official checkpoints of VIShv and STEm-Seg, and from files of their backbones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from visdeploy.errors import CheckpointError, ConfigError
from visdeploy_training.backbones.pretrained import load_imagenet, load_weights
from visdeploy_training.backbones.resnet import from_torchvision
from visdeploy_training.checkpoint_file import read_tensors
from visdeploy_training.method import OfficialLayout
from visdeploy_training.methods.vishv.variants import VARIANTS
from visdeploy_training.model import VISModel

BACKBONE, STEM = "backbone.", "body.stem."
EMBEDDING = "embedding_head.conv_embedding.weight"
VARIANCE = "embedding_head.conv_variance.weight"
CLASSES = "semseg_head.conv_out.weight"
APPEARANCE = "offset_decoder.conv1_add.0.weight"
BANDWIDTHS = "embedding_loss_criterion.free_dim_bandwidths"
FLOW = "offset_head."
BLOCKS = ("block_32x", "block_16x", "block_8x", "block_4x")
UNUSED = ("offset_decoder.conv1_cat.", "offset_decoder.pooling_blocks.", BANDWIDTHS)
"""Official tensors without a counterpart: layers that are never used, and constants of the loss."""
FILE = "Use a file mask_rcnn_R_50_FPN_backbone.pth or mask_rcnn_R_101_FPN_backbone.pth, from Mask R-CNN. "
STRIDE = "Those of torchvision have the stride in another convolution of a block, and no feature pyramid."


def recognise(state: Mapping[str, Tensor]) -> bool:
    """Return whether the names are those of an official checkpoint of VIShv or STEm-Seg."""
    return EMBEDDING in state and f"{BACKBONE}fpn.fpn_inner1.weight" in state


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official tensors: those of the backbone change, all others keep their names; unused ones are dropped.

    Raises:
        CheckpointError: The bandwidths of the free dimensions do not fit the embedding.
    """
    free_dim_stds(state)
    body = {k.removeprefix(BACKBONE): v for k, v in state.items() if k.startswith(BACKBONE)}
    kept = {k: v for k, v in state.items() if not k.startswith((BACKBONE, *UNUSED))}
    return {BACKBONE + k: v for k, v in rename_backbone(body).items()} | kept


def rename_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of an official backbone, without the prefix `backbone.`."""
    body = {k.removeprefix("body.").removeprefix("stem."): v for k, v in state.items() if k.startswith("body.")}
    rest = {_pyramid(k): v for k, v in state.items() if not k.startswith("body.")}
    return {f"body.{k}": v for k, v in from_torchvision(body).items()} | rest


def _pyramid(key: str) -> str:
    match = re.fullmatch(r"fpn\.fpn_(inner|layer)(\d)\.(weight|bias)", key)
    if match is None:
        return key
    kind = "lateral_convs" if match[1] == "inner" else "fpn_convs"
    return f"fpn.{kind}.{int(match[2]) - 1}.conv.{match[3]}"


def free_dim_stds(state: Mapping[str, Tensor]) -> tuple[float, ...]:
    """Return the standard deviations of the free dimensions, from the constants of the loss if they are stored.

    Raises:
        CheckpointError: Their number differs from that of the embedding, or one is no positive bandwidth.
    """
    count = len(state[EMBEDDING]) - len(state[VARIANCE])
    stored = state.get(BANDWIDTHS)
    if stored is None:
        return (0.3,) * count
    if stored.numel() != count or not bool((stored > 0).all()):
        raise CheckpointError(
            f"the checkpoint has wrong values in {BANDWIDTHS}",
            seen=str(stored.flatten().tolist())[:100],
            expected=f"{count} positive numbers, as many as the embedding has free dimensions",
            hint="The file is damaged, or was put together from several checkpoints.",
        )
    return tuple(round(float(value) ** -0.5, 5) for value in stored.flatten())


def variant(state: Mapping[str, Tensor]) -> str:
    """Return the variant by backbone, appearance decoder, semantic head and free dimensions.

    Raises:
        CheckpointError: The backbone is a ResNeXt.
    """
    kernel = state.get(f"{BACKBONE}body.layer1.0.conv2.weight")
    if kernel is not None and kernel.shape[0] != kernel.shape[1]:
        raise CheckpointError(
            "a backbone of the checkpoint is not supported",
            seen="grouped convolutions, as in X-101-FPN",
            expected="R-50-FPN or R-101-FPN",
            hint="The published implementation registers X-101-FPN without its stages; use a ResNet.",
        )
    depth = 101 if f"{BACKBONE}body.layer3.22.conv1.weight" in state else 50
    layout = "davis"
    if CLASSES in state:
        plain = APPEARANCE not in state and len(state[EMBEDDING]) == len(state[VARIANCE])
        layout = "kitti" if plain else "ytvis"
    return f"{'hierarchical' if APPEARANCE in state else 'stemseg'}_{layout}_r{depth}"


def num_classes(state: Mapping[str, Tensor]) -> int:
    """Return the number of classes; the semantic head also has background and, with several classes, foreground."""
    rows = len(state[CLASSES]) if CLASSES in state else 2
    return max(1, rows - 2)


def overrides(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields of the variant that differ, read from names and shapes."""
    base = VARIANTS[variant(state)]
    found: dict[str, Any] = {
        "position": "tyx" if len(state[VARIANCE]) == 3 else "yx",
        "free_dim_stds": free_dim_stds(state),
        "decoder_channels": _channels(state, "embedding_head"),
        "separate_seediness": "seediness_head.conv_out.weight" in state,
        "pyramid_channels": len(state[f"{BACKBONE}fpn.fpn_inner1.weight"]),
        "norm": "group" if "embedding_head.block_4x.1.weight" in state else "none",
    }
    if CLASSES in state:
        found |= {
            "semantic_channels": _channels(state, "semseg_head"),
            "foreground_channel": len(state[CLASSES]) != 2,
        }
    if APPEARANCE in state:
        found |= {"appearance_dim": len(state[APPEARANCE]), **_flow(state)}
    return {name: value for name, value in found.items() if getattr(base, name) != value}


def _channels(state: Mapping[str, Tensor], head: str) -> tuple[int, ...]:
    return tuple(len(state[f"{head}.{block}.0.weight"]) for block in BLOCKS)


def _flow(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields of the flow; a checkpoint for deployment has none."""
    places = {tuple(map(int, m)) for k in state for m in re.findall(rf"^{FLOW}blocks\.(\d+)\.flows\.(\d+)\.", k)}
    if not places:
        return {"flow": False}
    first = f"{FLOW}blocks.0.flows.0."
    levels = 1 + max(level for level, _ in places)
    channels = len(state[f"{first}actnorm.scale"].flatten())
    conditional = f"{first}injector.net.0.weight" in state
    return {
        "flow_steps": 1 + max(step for _, step in places),
        "flow_levels": levels,
        "flow_affine": not conditional and len(state[f"{first}coupling.net.4.conv.weight"]) == channels,
        "flow_lu": levels > 1 and not conditional and f"{first}invconv.w_l" in state,
        "flow_width": len(state[f"{first}coupling.net.0.weight"]),
        "flow_conditional": conditional,
    }


OFFICIAL = OfficialLayout(
    recognise=recognise,
    rename=rename,
    variant=variant,
    num_classes=num_classes,
    class_tensors=(CLASSES,),
    spare_rows=2,
    overrides=overrides,
)


def load_backbone(model: VISModel, path: Path | None) -> None:
    """Load pretrained weights into the backbone.

    Args:
        model: VIShv network.
        path: File of the backbone and the feature pyramid of Mask R-CNN; None for EfficientNet-Lite0, whose ImageNet
            weights come with a package.

    Raises:
        ConfigError: A required file is missing, or a file is given for EfficientNet-Lite0.
        CheckpointError: The file does not contain the weights of this backbone.
    """
    name, backbone = model.config.backbone, model.get_submodule("backbone")
    if name == "efficientnet_lite0":
        return load_imagenet(backbone.get_submodule("body"), name, path)
    if path is None:
        raise ConfigError(
            f"no package ships weights of {name}", hint=f"Set pretrained to the path of a file. {FILE}{STRIDE}"
        )
    state = {k.removeprefix(BACKBONE): v for k, v in read_tensors(path).tensors.items()}
    return load_weights(backbone, rename_backbone(state), name, str(path), hint=FILE + STRIDE)
