"""Loading of ImageNet weights into a backbone, with a check of all tensor names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from visdeploy.errors import CheckpointError, ConfigError
from visdeploy_training.backbones.efficientnet_lite import imagenet_weights
from visdeploy_training.backbones.resnet import ResNet, from_torchvision
from visdeploy_training.checkpoint_file import read_tensors


def load_imagenet(backbone: nn.Module, name: str, path: Path | None) -> None:
    """Load ImageNet weights into a backbone.

    Args:
        backbone: A ResNet or an EfficientNet-Lite0.
        name: Name of the backbone in configurations: `resnet50`, `resnet101`, `efficientnet_lite0`.
        path: File of torchvision with the weights of this ResNet; None for EfficientNet-Lite0, whose weights come with
            a package.

    Raises:
        ConfigError: A required file is missing, or a file is given for EfficientNet-Lite0.
        CheckpointError: The file does not contain the weights of this backbone.
    """
    if name == "efficientnet_lite0":
        if path is not None:
            raise ConfigError(
                "EfficientNet-Lite0 takes its weights from a package", seen=str(path), hint="Set pretrained to true."
            )
        state = imagenet_weights()
    elif path is None:
        raise ConfigError(
            f"no package ships ImageNet weights of {name.replace('resnet', 'ResNet-')}",
            hint=f"Set pretrained to the path of torchvision's {name} file (.pth).",
        )
    else:
        state = from_torchvision(read_tensors(path).tensors)
    load_weights(backbone, state, name, str(path))


def load_weights(
    backbone: nn.Module, state: Mapping[str, Tensor], name: str, where: str, *, hint: str | None = None
) -> None:
    """Load tensors, named as in the backbone; ResNet stages that the backbone lacks are ignored.

    Args:
        backbone: Any backbone.
        state: Tensors of a file.
        name: Name of the backbone in configurations.
        where: Name of the file, for error messages.
        hint: Description of the right file, for error messages; None for the published file of this name.

    Raises:
        CheckpointError: Any other tensor is missing, unexpected, or has another shape.
    """
    if isinstance(backbone, ResNet):
        cut = tuple(f"res{i}." for i in range(2, 6) if f"res{i}" not in backbone.stages)
        state = {k: v for k, v in state.items() if not k.startswith(cut)} if cut else state
    wanted = {k: tuple(v.shape) for k, v in backbone.state_dict().items()}
    wrong = sorted(wanted.keys() ^ state.keys()) or [k for k in wanted if tuple(state[k].shape) != wanted[k]]
    if wrong:
        raise CheckpointError(
            f"{where}: these are not the ImageNet weights of {name}",
            seen=f"{len(wrong)} wrong tensors, first {wrong[0]}",
            hint=f"Use the published {name} file." if hint is None else hint,
        )
    backbone.load_state_dict(dict(state))
