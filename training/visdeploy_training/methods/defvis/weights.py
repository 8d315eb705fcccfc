"""Weights of DefVIS from official checkpoints, related COCO-trained models and ImageNet backbones."""

from __future__ import annotations

import logging
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from visdeploy.errors import CheckpointError
from visdeploy_training.backbones.pretrained import load_imagenet, load_weights
from visdeploy_training.backbones.resnet import from_torchvision
from visdeploy_training.checkpoint import KeyReport, match_keys
from visdeploy_training.checkpoint_file import read_tensors
from visdeploy_training.method import Notes, OfficialLayout
from visdeploy_training.methods.defvis.config import VARIANTS
from visdeploy_training.model import VISModel

logger = logging.getLogger(__name__)

PREFIX = "vistr."
BODY = "backbone.0.body."
OFFSETS = "transformer.encoder.layers.0.self_attn.sampling_offsets.weight"
TOKENS = "transformer.instance_encoders.weight"
UNUSED = ("resizer.", "text_encoder.", "vistr.resizer.", "vistr.text_encoder.")


def recognise(state: Mapping[str, Tensor]) -> bool:
    """Return whether the names are those of an official checkpoint of either layout, with a deformable encoder."""
    return PREFIX + OFFSETS in state and "insmask_head.0.weight" in state


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official tensors: remove `vistr.`, rename the backbone, and drop unused branches."""
    kept = {k.removeprefix(PREFIX): v for k, v in state.items() if not k.startswith(UNUSED)}
    body = {k.removeprefix(BODY): v for k, v in kept.items() if k.startswith(BODY)}
    renamed = {k: v for k, v in kept.items() if not k.startswith(BODY)}
    return renamed | {f"backbone.{k}": v for k, v in from_torchvision(body).items()}


def variant(state: Mapping[str, Tensor]) -> str:
    """Return the variant: `inst` or `enc` by the instance tokens, `r50` or `r101` by the depth of the backbone."""
    depth = "r101" if f"{PREFIX}{BODY}layer3.6.conv1.weight" in state else "r50"
    return f"{'inst' if PREFIX + TOKENS in state else 'enc'}_{depth}"


def overrides(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the clip length, from the rows of the sampling offsets, if it differs from that of the variant."""
    config = VARIANTS[variant(state)]
    levels = state[PREFIX + OFFSETS].shape[0] // (2 * config.num_heads * config.num_points)
    frames = levels - (config.num_levels - config.num_frames)
    return {} if frames == config.num_frames else {"num_frames": frames}


def stated(notes: Notes) -> dict[str, Any]:
    """Return whether the last stage is dilated (DC5), which no tensor shows, from the arguments of the training.

    Raises:
        CheckpointError: The argument is neither true nor false.
    """
    arguments = notes.get("args")
    values = vars(arguments) if isinstance(arguments, Namespace) else arguments
    value = values.get("dilation") if isinstance(values, Mapping) else None
    if value is None:
        return {}
    if not isinstance(value, bool | int) or value not in (0, 1):
        raise CheckpointError(
            "an argument of the training in the checkpoint has a wrong value",
            seen=f"args.dilation: {value[:40]!r}" if isinstance(value, str) else f"{type(value).__name__}, not 0 or 1",
            expected="dilation: true or false",
            hint="The file is damaged, or is not of this method; save its state dict alone to ignore the arguments.",
        )
    return {"dilated": bool(value)}


OFFICIAL = OfficialLayout(
    recognise=recognise,
    rename=rename,
    variant=variant,
    num_classes=lambda state: int(state[f"{PREFIX}class_embed.weight"].shape[0]) - 2,
    class_tensors=("class_embed.weight", "class_embed.bias"),
    spare_rows=2,
    overrides=overrides,
    stated=stated,
)


def load_backbone(model: VISModel, path: Path | None) -> None:
    """Load ImageNet weights into the backbone, or all matching tensors of a related COCO-trained model.

    Args:
        model: DefVIS network.
        path: File of a torchvision ResNet, or a checkpoint of the DETR family; None for EfficientNet-Lite0, whose
            weights come with a package.

    Raises:
        ConfigError: A required file is missing, or a file is given for EfficientNet-Lite0.
        CheckpointError: The file does not contain the weights of this backbone.
    """
    if path is not None and model.config.backbone != "efficientnet_lite0":
        tensors = read_tensors(path).tensors
        if any(BODY in k for k in tensors):
            report = load_relative(model, tensors, where=str(path))
            for kind in ("missing", "unexpected", "misshapen"):
                keys = getattr(report, kind)
                logger.info("%s: %d tensors %s: %s", path, len(keys), kind, ", ".join(keys) or "none")
            logger.warning("%s: %d tensors loaded, others keep their initial values", path, len(report.loaded))
            return
    load_imagenet(model.get_submodule("backbone"), model.config.backbone, path)


def load_relative(model: VISModel, tensors: Mapping[str, Tensor], *, where: str) -> KeyReport:
    """Load the matching tensors of a checkpoint of DETR, VisTR or Deformable DETR.

    The backbone must match completely. Class predictors and queries keep their initial weights, as in the published
    training. So do layers without a counterpart: DETR's dense encoder attention, and Deformable DETR's cross-attention
    and box heads, which predict offsets from reference points. Layers of another width are not loaded either; with
    Deformable DETR's published width of 256, only the backbone is.

    Args:
        model: DefVIS network.
        tensors: Tensors of the checkpoint.
        where: Name of the checkpoint, for error messages.

    Returns:
        Comparison of the keys, with the names of visdeploy.

    Raises:
        CheckpointError: The weights of the backbone are incomplete or of another depth.
    """
    renamed = rename({re.sub(r"^detr\.", PREFIX, k): v for k, v in tensors.items()})
    if "transformer.level_embed" in renamed or any(".cross_attn." in k for k in renamed):
        renamed = _from_deformable_detr(renamed)
    body = {k.removeprefix("backbone."): v for k, v in renamed.items() if k.startswith("backbone.")}
    load_weights(model.get_submodule("backbone"), body, model.config.backbone, where)
    fresh = ("class_embed.", "query_embed.")
    fitting, report = match_keys(model.state_dict(), {k: v for k, v in renamed.items() if not k.startswith(fresh)})
    model.load_state_dict(fitting, strict=False)
    return report


def _from_deformable_detr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename Deformable DETR's decoder norms, numbered in another order, and drop its box heads and projections."""
    swap = {"norm1": "norm2", "norm2": "norm1"}
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.startswith(("bbox_embed.", "input_proj.")):
            parts = key.split(".")
            if key.startswith("transformer.decoder.layers."):
                parts = [swap.get(p, p) for p in parts]
            renamed[".".join(parts)] = value
    return renamed
