"""The methods that can be exported: network → step graph. One line per method."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from visdeploy.errors import ConfigError
from visdeploy_export.step import StepGraph
from visdeploy_training.model import VISModel

BUILDERS = {
    "defvis": "visdeploy_export.methods.defvis:build",
    "tevit": "visdeploy_export.methods.tevit:build",
    "visolo": "visdeploy_export.methods.visolo:build",
}


def build_step(model: VISModel) -> StepGraph:
    """The step graph of a network.

    Raises:
        ConfigError: Its method cannot be exported.
    """
    method = model.info.method
    if method not in BUILDERS:
        raise ConfigError(f"the method {method!r} cannot be exported", expected=f"one of {sorted(BUILDERS)}")
    module, name = BUILDERS[method].split(":")
    build: Callable[[VISModel], StepGraph] = getattr(import_module(module), name)
    return build(model)
