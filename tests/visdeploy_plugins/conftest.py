import os
import warnings

import pytest

from tests.visdeploy_plugins.emulation import Emulation, open_emulation
from visdeploy_plugins import native, onnxruntime_library, tensorrt_library

# Tests of other libraries than the installed ones, as `plugins/tools/sanitize.sh` builds them; for this process only.
if folder := os.environ.get("VISDEPLOY_TEST_LIBRARIES"):
    native.__file__ = os.path.join(folder, "native.py")


def _missing(what: str) -> None:
    message = f"{what}; build with `pip install -e .` or cmake (plugins/README.md)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def _needs_nvcc(what: str) -> None:
    """Skip the test, also in CI, if the libraries report that they were built without nvcc."""
    library, _ = native.load()
    if library is not None and not library.vd_cuda_architectures():
        pytest.skip(f"{what}: the libraries were built without nvcc")
    _missing(what)


@pytest.fixture(scope="session")
def operators() -> None:
    """Require the compiled operators; without them, tests fail in CI and are skipped otherwise."""
    library, reason = native.load()
    if library is None:
        _missing(reason)


@pytest.fixture(scope="session")
def custom_ops() -> str:
    """Return the path of the ONNX Runtime library; without it, tests fail in CI and are skipped otherwise."""
    path = onnxruntime_library()
    if path is None:
        _missing("no ONNX Runtime library")
    return str(path)


@pytest.fixture(scope="session")
def emulation() -> Emulation:
    """Return the CUDA kernels on the host (`emulation.py`); without them, tests fail in CI, otherwise are skipped."""
    found, reason = open_emulation()
    if found is None:
        _missing(reason)
    return found


@pytest.fixture(scope="session")
def tensorrt_plugins() -> str:
    """Return the path of the TensorRT plugin library, which is built only with nvcc."""
    path = tensorrt_library()
    if path is None:
        _needs_nvcc("no TensorRT plugin library")
    return str(path)


@pytest.fixture(scope="session")
def tensorrt_emulation() -> str:
    """Return the path of the plugins with kernels for the host, which are built only with nvcc."""
    path = native.library_path("libvisdeploy_tensorrt_emulation.so")
    if path is None or native.library_path("visdeploy_tensorrt_harness") is None:
        _needs_nvcc("no TensorRT plugins for the host")
    return str(path)


@pytest.fixture(scope="session")
def emulated_custom_ops() -> str:
    """Path of the ONNX Runtime ops whose CUDA kernels run on the host; like `custom_ops` where they are absent."""
    path = native.library_path(native.ONNXRUNTIME_EMULATION)
    if path is None:
        _missing(f"{native.ONNXRUNTIME_EMULATION} was not built (-DVISDEPLOY_EMULATION=ON)")
    return str(path)


@pytest.fixture
def without_library(monkeypatch):
    """Make the package behave as if no library was built."""
    from visdeploy_plugins.torch_ops import binding

    monkeypatch.setattr(native, "load", lambda: (None, "not built, says the test"))
    binding._warn_once.cache_clear()
    yield
    binding._warn_once.cache_clear()


@pytest.fixture(params=["kernel", "fallback"])
def either(request):
    """Run a test with our kernel, and with the fallback for packages without libraries."""
    request.getfixturevalue("operators" if request.param == "kernel" else "without_library")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if request.param == "fallback" else "error", RuntimeWarning)
        yield request.param
