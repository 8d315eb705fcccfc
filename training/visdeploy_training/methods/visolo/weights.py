"""Weights of VISOLO from official checkpoints and ImageNet backbones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from visdeploy_training.backbones.pretrained import load_imagenet
from visdeploy_training.method import OfficialLayout
from visdeploy_training.model import VISModel

PREFIX = "model."
PREDICTOR = "Category_branch_post.pred"


def recognise(state: Mapping[str, Tensor]) -> bool:
    """Return whether the names are those of an official VISOLO checkpoint."""
    return f"{PREFIX}{PREDICTOR}.weight" in state and any(k.startswith(f"{PREFIX}Memory_module.") for k in state)


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official tensors: remove the leading `model.` and drop `tracking_module.*`, which are duplicates."""
    return {k.removeprefix(PREFIX): v for k, v in state.items() if not k.startswith("tracking_module.")}


def _num_classes(state: Mapping[str, Tensor]) -> int:
    return int(state[f"{PREFIX}{PREDICTOR}.weight"].shape[0])


OFFICIAL = OfficialLayout(
    recognise=recognise,
    rename=rename,
    variant=lambda state: "r50",
    num_classes=_num_classes,
    class_tensors=(f"{PREDICTOR}.weight", f"{PREDICTOR}.bias"),
)


def load_backbone(model: VISModel, path: Path | None) -> None:
    """Load ImageNet weights into the backbone; see `load_imagenet`.

    Raises:
        ConfigError: A required file is missing, or a file is given for EfficientNet-Lite0.
        CheckpointError: The file does not contain the weights of this backbone.
    """
    load_imagenet(model.get_submodule("backbone"), model.config.backbone, path)
