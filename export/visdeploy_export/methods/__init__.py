"""The methods that can be exported: network → step graph. One line per method; other packages add theirs."""

from __future__ import annotations

from collections.abc import Callable

from visdeploy import entry_points
from visdeploy.errors import ConfigError
from visdeploy_export.methods import defvis, tevit, visolo
from visdeploy_export.step import StepGraph
from visdeploy_training.model import VISModel

Builder = Callable[[VISModel], StepGraph]

BUILDERS: dict[str, Builder] = {"defvis": defvis.build, "tevit": tevit.build, "visolo": visolo.build}


def build_step(model: VISModel) -> StepGraph:
    """The step graph of a network.

    Raises:
        ConfigError: Its method cannot be exported.
        DependencyError: Another package exports it, and cannot be loaded.
    """
    method = model.info.method
    build: Builder | None = BUILDERS.get(method) or entry_points.load(entry_points.EXPORT_METHODS, method)
    if build is None:
        known = sorted({*BUILDERS, *entry_points.names(entry_points.EXPORT_METHODS)})
        raise ConfigError(f"the method {method!r} cannot be exported", expected=f"one of {known}")
    return build(model)
