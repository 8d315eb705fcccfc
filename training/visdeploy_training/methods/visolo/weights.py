"""Where VISOLO's weights come from: official checkpoints and ImageNet backbones (spec section 4)."""

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
    """Whether these are the names of an official VISOLO checkpoint."""
    return f"{PREFIX}{PREDICTOR}.weight" in state and any(k.startswith(f"{PREFIX}Memory_module.") for k in state)


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names to ours: the leading `model.` goes, `tracking_module.*` (duplicates, Q7) is dropped."""
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
    """Put ImageNet weights into the backbone; see `load_imagenet`.

    Raises:
        ConfigError: The backbone needs a file and none was given, or the other way round.
        CheckpointError: The file does not hold these weights.
    """
    load_imagenet(model.get_submodule("backbone"), model.config.backbone, path)
