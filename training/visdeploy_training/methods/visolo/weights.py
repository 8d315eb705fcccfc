"""Where VISOLO's weights come from: official checkpoints and ImageNet backbones (spec section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from visdeploy.errors import CheckpointError, ConfigError
from visdeploy_training.backbones.efficientnet_lite import imagenet_weights
from visdeploy_training.backbones.resnet import from_torchvision
from visdeploy_training.checkpoint_file import read_tensors
from visdeploy_training.model import VISModel
from visdeploy_training.registry import OfficialLayout

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
    """Put ImageNet weights into the backbone.

    Args:
        model: A VISOLO network.
        path: A torchvision ResNet-50 file; None for EfficientNet-Lite0, whose weights a package ships.

    Raises:
        ConfigError: The backbone needs a file and none was given, or the other way round.
        CheckpointError: The file does not hold a torchvision ResNet-50.
    """
    if model.config.backbone == "efficientnet_lite0":
        if path is not None:
            raise ConfigError(
                "EfficientNet-Lite0 takes its weights from a package", seen=str(path), hint="Set pretrained to true."
            )
        state = imagenet_weights()
    elif path is None:
        raise ConfigError(
            "no package ships ImageNet weights of ResNet-50",
            hint="Set pretrained to the path of torchvision's resnet50 file (.pth).",
        )
    else:
        state = from_torchvision(read_tensors(path).tensors)
        state = {k: v for k, v in state.items() if not k.startswith("res5.")}
    backbone = model.get_submodule("backbone")
    wanted = {k: tuple(v.shape) for k, v in backbone.state_dict().items()}
    wrong = sorted(wanted.keys() ^ state.keys()) or [k for k in wanted if tuple(state[k].shape) != wanted[k]]
    if wrong:
        raise CheckpointError(
            f"{path}: these are not the ImageNet weights of {model.config.backbone}",
            seen=f"{len(wrong)} wrong tensors, first {wrong[0]}",
            hint="Use torchvision's resnet50 file.",
        )
    backbone.load_state_dict(state)
