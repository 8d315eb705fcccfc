"""What the package says about itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import visdeploy_plugins
from visdeploy_plugins import OpError, __main__, capabilities, native
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
    assert own == {"ONNX Runtime CPU": "kernel", "PyTorch CPU": f"kernel ({found.instruction_set})"}


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
