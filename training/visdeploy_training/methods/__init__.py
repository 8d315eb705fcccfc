"""The methods of this package, one package each, imported on first use. A new method adds a function and a line."""

from __future__ import annotations

from collections.abc import Callable

from visdeploy_training.method import Method


def _defvis() -> Method:
    from visdeploy_training.methods.defvis import METHOD

    return METHOD


def _tevit() -> Method:
    from visdeploy_training.methods.tevit import METHOD

    return METHOD


def _tpr() -> Method:
    from visdeploy_training.methods.tpr import METHOD

    return METHOD


def _vishv() -> Method:
    from visdeploy_training.methods.vishv import METHOD

    return METHOD


def _visolo() -> Method:
    from visdeploy_training.methods.visolo import METHOD

    return METHOD


METHODS: dict[str, Callable[[], Method]] = {
    "defvis": _defvis,
    "tevit": _tevit,
    "tpr": _tpr,
    "vishv": _vishv,
    "visolo": _visolo,
}
