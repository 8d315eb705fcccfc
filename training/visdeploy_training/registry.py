"""The methods by name, and `create_model`."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from visdeploy.errors import ConfigError
from visdeploy_training.inference import InferenceSettings
from visdeploy_training.methods import METHODS
from visdeploy_training.model import ModelInfo, VISModel

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class OfficialLayout:
    """How the upstream project of a method names its weights.

    Attributes:
        recognise: Whether a state dict (without a leading `module.`) is of this layout.
        rename: Upstream names to ours; drops what is a duplicate.
        variant: Which variant such a state dict belongs to.
        num_classes: Number of classes, read from a shape.
        class_tensors: Names (ours) of the tensors whose shape depends on the number of classes.
        spare_rows: Rows of these tensors beyond the classes, for example for no object.
        overrides: Fields of the variant's configuration that the shapes tell.
    """

    recognise: Callable[[StateDict], bool]
    rename: Callable[[StateDict], dict[str, Tensor]]
    variant: Callable[[StateDict], str]
    num_classes: Callable[[StateDict], int]
    class_tensors: tuple[str, ...]
    spare_rows: int = 0
    overrides: Callable[[StateDict], dict[str, Any]] = lambda state: {}


@dataclass(frozen=True)
class Method:
    """What a method exposes to the rest of the project; each method's package holds one as `METHOD`.

    Attributes:
        name: Its name in recipes, checkpoints and bundles.
        variants: Named configurations, frozen dataclasses with a field `num_classes`.
        build: Configuration to an untrained network.
        load_backbone: Puts ImageNet weights in; the path is None for weights that a package ships.
        official: Layout of official checkpoints.
        losses: Training output, targets of each clip and configuration to weighted losses by name.
        online_step: Network to the pure step function that is exported.
        inference: Configuration to the settings of the runtime.
        show_objects: Changes fresh weights in place so that a network in evaluation mode finds objects, about as many
            as asked for where the method leaves their number open: for benchmarks and tests without a checkpoint.
    """

    name: str
    variants: Mapping[str, Any]
    build: Callable[[Any], VISModel]
    load_backbone: Callable[[VISModel, Path | None], None]
    official: OfficialLayout
    losses: Callable[[Any, Sequence[Any], Any], dict[str, Tensor]]
    online_step: Callable[[VISModel], nn.Module]
    inference: Callable[[Any], InferenceSettings]
    show_objects: Callable[[VISModel, int], None] = lambda model, count: None


def get_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        ConfigError: There is none.
    """
    if name not in METHODS:
        raise ConfigError("unknown method", seen=repr(name), expected=" or ".join(sorted(METHODS)))
    return cast(Method, importlib.import_module(METHODS[name]).METHOD)


def create_model(
    method: str,
    variant: str,
    *,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    pretrained: bool | str | Path = False,
    **overrides: Any,
) -> VISModel:
    """Make a network with fresh weights.

    Args:
        method: Name of a method, for example `visolo`.
        variant: Name of one of its variants, for example `r50` or `tiny`.
        classes: Class names in label order.
        num_classes: Their number; enough when the names do not matter. Default: the variant's own.
        pretrained: Start the backbone from ImageNet: True for weights that a package ships, or the path of
            a torchvision file.
        overrides: Fields of the variant's configuration.

    Returns:
        The network, in training mode, with `.info` and `.config` set.

    Raises:
        ConfigError: A name is unknown, or a value cannot work.
    """
    found = get_method(method)
    if variant not in found.variants:
        raise ConfigError(f"{method}: unknown variant", seen=repr(variant), expected=" or ".join(found.variants))
    base = found.variants[variant]
    allowed = {f.name for f in dataclasses.fields(base)} - {"num_classes"}
    unknown = sorted(set(overrides) - allowed)
    if unknown:
        raise ConfigError(
            f"{method}: unknown option {unknown[0]!r}",
            expected=", ".join(sorted(allowed)),
            hint="Give the number of classes as classes or num_classes." if "num_classes" in unknown else "",
        )
    names = _class_names(classes, num_classes, base.num_classes)
    changed = {k: v for k, v in overrides.items() if getattr(base, k) != v}
    try:
        config = dataclasses.replace(base, num_classes=len(names), **changed)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{method}: an option has a wrong type", seen=str(error)) from error
    config.check_given(overrides)
    model = found.build(config)
    model.info = ModelInfo(method, variant, names, {k: getattr(config, k) for k in changed})
    if pretrained:
        found.load_backbone(model, None if pretrained is True else Path(pretrained))
    return model


def _class_names(classes: Sequence[str] | None, num_classes: int | None, default: int) -> tuple[str, ...]:
    if classes is None:
        count = default if num_classes is None else num_classes
        if count < 1:
            raise ConfigError("wrong number of classes", seen=str(count), expected="at least 1")
        return tuple(f"class_{i}" for i in range(count))
    names = tuple(classes)
    if not names or len(set(names)) != len(names):
        raise ConfigError("class names must be there and differ", seen=repr(names)[:200])
    if num_classes is not None and num_classes != len(names):
        raise ConfigError("classes and num_classes disagree", seen=f"{len(names)} names", expected=str(num_classes))
    return names
