"""Weights of TeViT from official checkpoints, QueryInst checkpoints and ImageNet backbones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from visdeploy.errors import ConfigError
from visdeploy_training.backbones.messenger_pvt import from_pvt
from visdeploy_training.backbones.pretrained import load_imagenet, load_weights
from visdeploy_training.backbones.resnet import from_torchvision
from visdeploy_training.backbones.swin import from_swin
from visdeploy_training.checkpoint import KeyReport, match_keys
from visdeploy_training.checkpoint_file import read_tensors
from visdeploy_training.method import Notes, OfficialLayout
from visdeploy_training.methods.tevit.config import VARIANTS, TeViTConfig
from visdeploy_training.model import VISModel

logger = logging.getLogger(__name__)

BODY = "backbone."
CLASSES = "roi_head.bbox_head.{}.fc_cls.weight"
PROPOSALS = "rpn_head.init_proposal_features.weight"
MESSENGERS = "msg_tokens"
COCO_CLASSES = 80
CLASS_TENSORS = tuple(
    name.format(stage) + kind
    for stage in range(6)
    for name in ("roi_head.bbox_head.{}.fc_cls.", "roi_head.mask_head.{}.conv_logits.")
    for kind in ("weight", "bias")
)


def recognise(state: Mapping[str, Tensor]) -> bool:
    """Return whether the names are those of an official checkpoint, which equal those of QueryInst."""
    return PROPOSALS in state and CLASSES.format(5) in state


def backbone_of(state: Mapping[str, Tensor]) -> str:
    """Return the name of the backbone to which tensors, named without `backbone.`, belong."""
    if "conv1.weight" in state:
        return "resnet50"
    if any(key.startswith(("patch_embed.proj.", "patch_embed.projection.")) for key in state):
        return "swin_l"
    return "pvt_v2_b1"


def body_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the backbone, named without `backbone.`."""
    return {k.removeprefix(BODY): v for k, v in state.items() if k.startswith(BODY)}


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official tensors: ResNet and original Swin backbones change; heads, neck and PVT keep their names."""
    body = body_of(state)
    found = backbone_of(body)
    if found != "pvt_v2_b1":
        body = from_torchvision(body) if found == "resnet50" else from_swin(body)
    kept = {k: v for k, v in state.items() if not k.startswith(BODY)}
    return kept | {BODY + k: v for k, v in body.items()}


def variant(state: Mapping[str, Tensor]) -> str:
    """Return the variant by the backbone; checkpoints of multi-scale training belong to the same network."""
    return {"resnet50": "r50", "swin_l": "swin_l", "pvt_v2_b1": "msgshift"}[backbone_of(body_of(state))]


def overrides(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the number of queries if it differs from that of the variant."""
    queries = int(state[PROPOSALS].shape[0])
    return {} if queries == VARIANTS[variant(state)].num_queries else {"num_queries": queries}


def mistaken(state: Mapping[str, Tensor], notes: Notes, named: bool) -> tuple[str, str] | None:
    """Return why a state dict with these names is that of a QueryInst, and advice; None if it may be a TeViT.

    A TeViT applies the attention of QueryInst a second time, to the frames of a query, with the same weights. Without
    messengers, only other facts tell the two apart.

    Args:
        state: Tensors.
        notes: Notes of the trainer; those of mmdetection contain the text of the configuration.
        named: Whether the user says that it is a TeViT, which decides where only the classes tell otherwise.
    """
    text, body = _config(notes), body_of(state)
    advice = "To start a training of a TeViT from a QueryInst, set pretrained in the recipe to the file."
    if "tevit" in text:
        return None
    if "queryinst" in text:
        return "a QueryInst, as its configuration says", advice
    if MESSENGERS not in body and backbone_of(body) == "pvt_v2_b1":
        return f"a QueryInst, because it has no {BODY}{MESSENGERS}", advice
    if any(key.startswith("patch_embed.proj.") for key in body):
        return "a QueryInst, because only its files name a Swin Transformer as its authors do", advice
    if MESSENGERS in body or named:
        return None
    count = int(state[CLASSES.format(0)].shape[0])
    if count == COCO_CLASSES:
        advice += f" If this is a TeViT that was trained on {count} classes, pass method tevit."
        return f"a QueryInst, to judge by its {count} classes, as many as in COCO", advice
    logger.warning("a TeViT without messengers has the names of a QueryInst; the file is taken for a TeViT")
    return None


def _config(notes: Notes) -> str:
    """Return the text of the configuration in the notes of mmdetection, in lower case; empty if there is none."""
    meta = notes.get("meta")
    texts = [meta.get(key) for key in ("config", "cfg")] if isinstance(meta, Mapping) else []
    return " ".join(text.lower() for text in texts if isinstance(text, str))


OFFICIAL = OfficialLayout(
    recognise=recognise,
    rename=rename,
    variant=variant,
    num_classes=lambda state: int(state[CLASSES.format(0)].shape[0]),
    class_tensors=CLASS_TENSORS,
    overrides=overrides,
    mistaken=mistaken,
)


def load_backbone(model: VISModel, path: Path | None) -> None:
    """Load ImageNet weights into the backbone, or all matching tensors of a QueryInst with the same backbone.

    Args:
        model: TeViT network.
        path: File of a torchvision ResNet, a PVTv2 or a Swin Transformer, or a QueryInst checkpoint; None for
            EfficientNet-Lite0, whose weights come with a package.

    Raises:
        ConfigError: A required file is missing, or the backbone has no published weights.
        CheckpointError: The file does not contain the weights of this backbone.
    """
    config: TeViTConfig = model.config
    if config.backbone == "pvt_small":
        raise ConfigError("tevit: there are no ImageNet weights of pvt_small", hint="Set pretrained to false.")
    if path is None or config.backbone == "efficientnet_lite0":
        return load_imagenet(model.get_submodule("backbone"), config.backbone, path)
    tensors = read_tensors(path).tensors
    if recognise(tensors):
        report = load_queryinst(model, tensors, where=str(path))
        for kind in ("missing", "unexpected", "misshapen"):
            keys = getattr(report, kind)
            logger.info("%s: %d tensors %s: %s", path, len(keys), kind, ", ".join(keys) or "none")
        logger.warning("%s: %d tensors loaded, others keep their initial values", path, len(report.loaded))
        return None
    if config.backbone == "resnet50":
        return load_imagenet(model.get_submodule("backbone"), config.backbone, path)
    body = from_pvt(tensors) if config.backbone == "pvt_v2_b1" else from_swin(body_of(tensors) or tensors)
    return _load_body(model, body, str(path))


def load_queryinst(model: VISModel, tensors: Mapping[str, Tensor], *, where: str) -> KeyReport:
    """Load the matching tensors of a QueryInst checkpoint; the backbone must match except for the messengers.

    Class predictors keep their initial weights if the number of classes differs, queries if their number differs.

    Args:
        model: TeViT network.
        tensors: Tensors of the checkpoint.
        where: Name of the checkpoint, for error messages.

    Returns:
        Comparison of the keys, with the names of visdeploy.

    Raises:
        CheckpointError: The weights of the backbone are incomplete or of another kind.
    """
    renamed = rename(tensors)
    _load_body(model, body_of(renamed), where)
    fitting, report = match_keys(model.state_dict(), renamed)
    model.load_state_dict(fitting, strict=False)
    return report


def _load_body(model: VISModel, body: Mapping[str, Tensor], where: str) -> None:
    backbone = model.get_submodule("backbone")
    own = backbone.state_dict()
    fresh = {MESSENGERS: own[MESSENGERS]} if MESSENGERS in own else {}
    load_weights(backbone, fresh | dict(body), model.config.backbone, where)
