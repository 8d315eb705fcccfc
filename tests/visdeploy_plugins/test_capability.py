"""Report of the package about its libraries and kernels."""

import ctypes.util
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import visdeploy_plugins
from visdeploy_plugins import OpError, __main__, capabilities, capability, native
from visdeploy_plugins.capability import OPS

ENGINES = ["ONNX Runtime CPU", "ONNX Runtime CUDA", "TensorRT", "PyTorch CPU", "PyTorch CUDA"]


def test_every_op_has_a_line_per_engine_and_reasons():
    found = capabilities()
    assert [each.engine for each in found.ops] == ENGINES * len(OPS)
    assert all(each.own_kernel != bool(each.why_not) for each in found.ops)


def test_kernels_are_taken_where_they_were_built(operators, custom_ops):
    found = capabilities()
    assert found.instruction_set in ("baseline", "avx2", "avx512")
    assert str(found.onnxruntime_library) == custom_ops
    own = {each.engine: each.runs for each in found.ops if each.own_kernel}
    assert own["ONNX Runtime CPU"] == "kernel"
    assert own["PyTorch CPU"] == f"kernel ({found.instruction_set})"


@pytest.mark.parametrize("installed", [(), ("tensorrt_rtx",)])
def test_tensorrt_takes_the_plugins_where_both_are(tensorrt_plugins, monkeypatch, installed):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in installed else None)
    found = capabilities()
    assert str(found.tensorrt_library) == tensorrt_plugins
    support = {each.engine: each for each in found.ops}["TensorRT"]
    assert support.runs.partition(":")[0] == ("plugin" if installed else "")
    assert support.why_not == ("" if installed else "no TensorRT is installed for Python")


def test_cuda_kernels_are_claimed_only_where_the_device_takes_them(operators, monkeypatch):
    for answer in ("", "kernels do not load on CUDA device 0"):
        monkeypatch.setattr(native, "set_cuda_device", lambda device, answer=answer: answer)
        support = {each.engine: each for each in capabilities().ops}["PyTorch CUDA"]
        assert (support.own_kernel, support.why_not) == (not answer, answer)
        assert support.runs == ("reference (plain PyTorch)" if answer else "kernel")


def test_the_question_leaves_the_threads_own_device_alone(operators, monkeypatch):
    """CUDA keeps a current device for each thread, and asking about another one changes it."""
    asked = []

    def set_cuda_device(device):
        asked.append((device, threading.get_ident()))
        return "no CUDA driver"

    monkeypatch.setattr(native, "set_cuda_device", set_cuda_device)
    assert visdeploy_plugins.why_no_cuda_kernels(3) == "no CUDA driver"
    ((device, thread),) = asked
    assert (device, thread != threading.get_ident()) == (3, True)


def test_without_a_device_there_is_a_reason(operators):
    if ctypes.util.find_library("cuda"):
        pytest.skip("there is a CUDA driver: the GPU tests show that the kernels run")
    assert visdeploy_plugins.why_no_cuda_kernels()


@pytest.mark.parametrize("provider", [False, True])
def test_onnxruntime_needs_its_cuda_provider(custom_ops, monkeypatch, tmp_path, provider):
    (tmp_path / "capi").mkdir()
    if provider:
        (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").touch()
    monkeypatch.setattr(native, "set_cuda_device", lambda device: "")
    spec = importlib.machinery.ModuleSpec("onnxruntime", None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    support = {each.engine: each for each in capabilities().ops}["ONNX Runtime CUDA"]
    assert support.own_kernel == provider
    assert support.why_not == ("" if provider else "this onnxruntime has no CUDA provider")


@pytest.mark.parametrize(
    ("installed", "built", "plugins", "own", "why"),
    [
        ((), True, OPS.values(), False, "no TensorRT is installed for Python"),
        (("tensorrt_rtx",), False, OPS.values(), False, "libvisdeploy_tensorrt.so was not built: it needs nvcc"),
        (("tensorrt",), True, (), False, "libvisdeploy_tensorrt.so has no plugin MSDeformAttn"),
        (("tensorrt_lean_bindings",), True, OPS.values(), True, ""),
    ],
)
def test_tensorrt_needs_itself_the_library_and_the_plugin(monkeypatch, installed, built, plugins, own, why):
    monkeypatch.setattr(capability, "PLUGINS", tuple(plugins))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name in installed else None)
    monkeypatch.setattr(native, "library_path", lambda name: Path(name) if built else None)
    for no_device in ("", "no CUDA device"):
        support = capability._tensorrt("ms_deform_attn", no_device)
        assert (support.own_kernel, support.why_not) == (own, why)
        assert not own or ("built here" in support.runs) == bool(no_device)


def test_names_in_onnx_files_are_those_of_the_ops():
    from visdeploy_plugins.onnx_functions.export import OPS as IN_FILES

    assert {op.torch_name: op.op_type for op in IN_FILES.values()}.items() <= OPS.items()


def test_nothing_built_is_said_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    native.load.cache_clear()
    try:
        found = capabilities()
        text = __main__.report(found)
        with pytest.raises(OpError, match=r"vd_ms_deform_attn_forward: libvisdeploy_ops.so was not built: install"):
            native.call("vd_ms_deform_attn_forward", [], threads=1)
    finally:
        native.load.cache_clear()
    assert found.operators_library is None
    assert visdeploy_plugins.onnxruntime_library() is None or found.onnxruntime_library is None
    assert not any(each.own_kernel for each in found.ops)
    assert "operators library    not built" in text
    assert "on PyTorch CPU: reference (plain PyTorch); not our kernel: libvisdeploy_ops.so was not built" in text


def test_damaged_library_is_said(monkeypatch, tmp_path):
    (tmp_path / native.OPERATORS).write_bytes(b"not a library")
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    native.load.cache_clear()
    try:
        library, reason = native.load()
    finally:
        native.load.cache_clear()
    assert library is None
    assert reason.startswith("libvisdeploy_ops.so does not load: ")


def test_library_of_another_version_is_said(monkeypatch, tmp_path):
    class Old:
        @staticmethod
        def vd_abi_version():
            return native.ABI_VERSION

    monkeypatch.setattr(native.ctypes, "CDLL", lambda path: Old())
    library, reason = native.open_library(tmp_path / native.OPERATORS)
    assert library is None
    assert reason.startswith("libvisdeploy_ops.so is of another version than this package (")
    assert "vd_last_error" in reason


def test_import_brings_no_engine():
    program = (
        "import sys, visdeploy_plugins; visdeploy_plugins.capabilities()\n"
        "sys.exit(' '.join({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "\n") or done.returncode == 0, done.stderr


def test_module_prints_the_report():
    command = [sys.executable, "-m", "visdeploy_plugins"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == __main__.report(capabilities())
    assert all(f"{op} on {engine}: " in done.stdout for op in OPS for engine in ENGINES)


@pytest.mark.parametrize(
    ("environment", "missing"),
    [({}, "cmake"), ({"CXX": "no-such-compiler -O2"}, "C++ compiler (no-such-compiler)")],
)
def test_build_without_tools_is_skipped_aloud(tmp_path, environment, missing):
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("the build needs setuptools 77; an isolated build brings it")
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "setup.py", "build_ext", f"--build-lib={tmp_path}/lib", f"--build-temp={tmp_path}/tmp"]
    if environment:
        (tmp_path / "cmake").touch(mode=0o755)
    env = {**os.environ, **environment, "PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=True)
    assert f"operator libraries NOT built: no {missing} found." in done.stderr
    assert not (tmp_path / "lib").exists()
