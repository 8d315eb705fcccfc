"""Registry of the methods, and `create_model`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visdeploy import entry_points
from visdeploy.arguments import check_names, check_type
from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, suggestion
from visdeploy.manifest import ModelSpec
from visdeploy_training.method import Method
from visdeploy_training.methods import METHODS
from visdeploy_training.model import ModelInfo, VISModel


def method_names() -> list[str]:
    """Return the names of all methods: those of this package, then those of other packages (entry points)."""
    return [*sorted(METHODS), *(n for n in entry_points.names(entry_points.TRAINING_METHODS) if n not in METHODS)]


def get_method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        ConfigError: There is no such method.
        DependencyError: The entry point of another package cannot be loaded, or is not a method of this name.
    """
    if check_type(name, str, "method") in METHODS:
        return METHODS[name]()
    found: Method | None = entry_points.load(
        entry_points.TRAINING_METHODS,
        name,
        fits=lambda each: isinstance(each, Method) and each.name == name,
        expected=f"a visdeploy_training.method.Method with the name {name!r}",
    )
    if found is None:
        known = method_names()
        raise ConfigError(
            "unknown method", seen=shorten(name), expected=" or ".join(known), hint=suggestion(name, known)
        )
    return found


def create_model(
    method: str,
    variant: str,
    *,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    pretrained: bool | str | Path = False,
    **overrides: Any,
) -> VISModel:
    """Create a network with newly initialised weights.

    Args:
        method: Name of a method, for example `visolo`.
        variant: Name of one of its variants, for example `r50` or `tiny`.
        classes: Class names in label order.
        num_classes: Number of classes, sufficient if their names do not matter; by default that of the variant.
        pretrained: Initialise the backbone with ImageNet weights: True for weights included in a package, or the path
            of a torchvision file.
        overrides: Changed fields of the variant's configuration. A window without an overlap may scale the overlap, see
            `MethodConfig.overlap_for`.

    Returns:
        The network, in training mode, with `info` and `config` set.

    Raises:
        ConfigError: A name is unknown, or a value is invalid.
    """
    found = get_method(method)
    if check_type(variant, str, f"{method}: variant") not in found.variants:
        raise ConfigError(
            f"{method}: unknown variant",
            seen=shorten(variant),
            expected=" or ".join(found.variants),
            hint=suggestion(variant, found.variants),
        )
    base = found.variants[variant]
    allowed = {f.name for f in dataclasses.fields(base)} - {"num_classes"}
    unknown = sorted(set(overrides) - allowed)
    if unknown:
        raise ConfigError(
            f"{method}: unknown option {unknown[0]!r}",
            expected=", ".join(sorted(allowed)),
            hint="Pass the number of classes as classes or num_classes."
            if unknown[0] == "num_classes"
            else suggestion(unknown[0], allowed),
        )
    names = _class_names(classes, num_classes, base.num_classes)
    try:
        changed = {k: v for k, v in overrides.items() if getattr(base, k) != v} | base.overlap_for(overrides)
        config = dataclasses.replace(base, num_classes=len(names), **changed)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{method}: an option has a wrong type", seen=str(error)) from error
    config.check_given(overrides)
    model = found.build(config)
    model.info = ModelInfo(method, variant, names, {k: getattr(config, k) for k in changed})
    if pretrained:
        found.load_backbone(model, None if pretrained is True else Path(pretrained))
    return model


def model_spec(model: VISModel) -> ModelSpec:
    """Return the description of a network for a pipeline: its graph, the parameters of its decoder, its classes.

    Args:
        model: Network created by `create_model` or `load_checkpoint`.
    """
    info = model.info
    graph = get_method(info.method).inference(model.config)
    return ModelSpec(**dict(graph), method=info.method, variant=info.variant, classes=list(info.classes))


def _class_names(classes: Sequence[str] | None, num_classes: int | None, default: int) -> tuple[str, ...]:
    if classes is None:
        count = default if num_classes is None else num_classes
        if count < 1:
            raise ConfigError("wrong number of classes", seen=str(count), expected="at least 1")
        return tuple(f"class_{i}" for i in range(count))
    names = check_names(classes, "classes")
    if not names or len(set(names)) != len(names):
        raise ConfigError("there are no class names, or they are not distinct", seen=repr(names)[:200])
    if num_classes is not None and num_classes != len(names):
        raise ConfigError("classes and num_classes disagree", seen=f"{len(names)} names", expected=str(num_classes))
    return names
