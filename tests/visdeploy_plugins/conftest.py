import os

import pytest

from tests.visdeploy_plugins.emulation import Emulation, open_emulation
from visdeploy_plugins import native, onnxruntime_library


def _missing(what: str) -> None:
    message = f"{what}; build with `pip install -e .` or cmake (plugins/README.md)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def operators() -> None:
    """The compiled operators; their absence fails in CI and skips elsewhere."""
    library, reason = native.load()
    if library is None:
        _missing(reason)


@pytest.fixture(scope="session")
def custom_ops() -> str:
    """Path of the ONNX Runtime library; its absence fails in CI and skips elsewhere."""
    path = onnxruntime_library()
    if path is None:
        _missing("no ONNX Runtime library")
    return str(path)


@pytest.fixture(scope="session")
def emulation() -> Emulation:
    """The CUDA kernels on the host (`emulation.py`); their absence fails in CI and skips elsewhere."""
    found, reason = open_emulation()
    if found is None:
        _missing(reason)
    return found
