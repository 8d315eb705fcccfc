"""Registry of the methods that can be exported: method name → function from a network to a step graph."""

from __future__ import annotations

from collections.abc import Callable

from visdeploy import entry_points
from visdeploy.errors import ConfigError, DependencyError
from visdeploy_export.methods import tevit
from visdeploy_export.step import StepGraph
from visdeploy_training.model import VISModel
from visdeploy_training.registry import get_method

Builder = Callable[[VISModel], StepGraph]


def plain_step(model: VISModel) -> StepGraph:
    """Return the step graph that a method declares, traced with the typical value of every size."""
    method = get_method(model.info.method)
    return StepGraph(method.online_step(model), method.inference(model.config))


BUILDERS: dict[str, Builder] = {
    "defvis": plain_step,
    "tevit": tevit.build,
    "tpr": plain_step,
    "vishv": plain_step,
    "visolo": plain_step,
}


def build_step(model: VISModel) -> StepGraph:
    """Return the step graph of a network.

    Raises:
        ConfigError: The method cannot be exported.
        DependencyError: Another package exports it, but cannot be loaded, or returns something else.
    """
    method = model.info.method
    build: Builder | None = BUILDERS.get(method) or entry_points.load(
        entry_points.EXPORT_METHODS,
        method,
        fits=callable,
        expected="a function from a network to a visdeploy_export.step.StepGraph",
    )
    if build is None:
        known = sorted({*BUILDERS, *entry_points.names(entry_points.EXPORT_METHODS)})
        raise ConfigError(f"the method {method!r} cannot be exported", expected=f"one of {known}")
    step = build(model)
    if not isinstance(step, StepGraph):
        raise DependencyError(
            f"the package that exports the method {method!r} gives no step graph",
            seen=repr(step)[:120],
            expected="a visdeploy_export.step.StepGraph",
            hint="Update that package.",
        )
    return step
