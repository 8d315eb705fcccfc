"""`visdeploy doctor`: its report on engines and libraries that are installed, missing or broken."""

import json
import subprocess
import sys
from types import SimpleNamespace

import onnxruntime
import pytest

import visdeploy
from tests.support import exit_code
from visdeploy import diagnosis


@pytest.fixture
def modules(monkeypatch):
    """Return a function that replaces importable modules: by a module, an exception, or None if not installed."""
    replaced = dict.fromkeys(("torch", "tensorrt", "tensorrt_rtx", "tensorrt_lean", "tensorrt_lean_bindings"))
    replaced["visdeploy_plugins"] = None
    real = diagnosis.importlib.import_module

    def import_module(name):
        found = replaced.get(name)
        if isinstance(found, Exception):
            raise found
        return found if name in replaced else real(name)

    def find_spec(name):
        return None if name in replaced and replaced[name] is None else True

    monkeypatch.setattr(diagnosis.importlib, "import_module", import_module)
    monkeypatch.setattr(diagnosis.importlib.util, "find_spec", find_spec)
    return replaced


def engine(found, name):
    return next(each for each in found.engines if each.name == name)


def test_the_runtime_alone_is_healthy(modules, capsys):
    found = visdeploy.doctor()
    assert found.healthy
    assert engine(found, "onnxruntime").version == onnxruntime.__version__
    assert "CPU" in engine(found, "onnxruntime").detail
    assert "visdeploy[export]" in engine(found, "torch").hint
    assert "visdeploy[tensorrt-rtx]" in engine(found, "tensorrt_rtx").hint
    assert "visdeploy[tensorrt]" in engine(found, "tensorrt").hint
    assert [each.path for each in found.libraries] == [""]
    assert "standard ones" in found.libraries[0].hint
    assert not found.operators
    assert exit_code("doctor") == 0
    assert "not installed" in capsys.readouterr().out


@pytest.mark.parametrize("broken", [None, ImportError("libcuda.so.1: cannot open\nshared object"), RuntimeError("no")])
def test_without_onnxruntime_nothing_runs(modules, capsys, broken):
    modules["onnxruntime"] = broken
    found = visdeploy.doctor()
    seen = engine(found, "onnxruntime")
    assert (found.healthy, seen.runs_bundles) == (False, False)
    assert seen.detail.startswith("not installed" if broken is None else f"does not load: {type(broken).__name__}: ")
    assert "\n" not in seen.detail
    assert "visdeploy[cpu]" in seen.hint
    assert "visdeploy[gpu]" in seen.hint
    assert exit_code("doctor") == 1
    assert "No engine can run a bundle here" in capsys.readouterr().out


def test_half_an_onnxruntime_is_none(modules):
    """If one of two installed builds is uninstalled, an importable but empty folder remains."""
    modules["onnxruntime"] = SimpleNamespace()
    seen = engine(visdeploy.doctor(), "onnxruntime")
    assert (seen.runs_bundles, seen.detail) == (False, "installed in part")
    assert "visdeploy[cpu]" in seen.hint


@pytest.mark.parametrize("builds", [["onnxruntime"], ["onnxruntime", "onnxruntime-gpu"]])
def test_both_builds_at_once_are_named(modules, monkeypatch, builds):
    monkeypatch.setattr(diagnosis, "installed_builds", lambda: builds)
    modules["onnxruntime"] = SimpleNamespace(
        __version__="9.9", get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    hint = engine(visdeploy.doctor(), "onnxruntime").hint
    both = "onnxruntime and onnxruntime-gpu are both installed: remove one, and install the other again"
    assert hint == (both if len(builds) > 1 else "")


def test_providers_and_devices_are_named(modules):
    modules["onnxruntime"] = SimpleNamespace(
        __version__="9.9", get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1, get_device_name=lambda i: f"Card {i}")
    modules["torch"] = SimpleNamespace(__version__="8.8", cuda=cuda)
    modules["tensorrt_lean_bindings"] = SimpleNamespace(__version__="11.4")
    found = visdeploy.doctor()
    assert (engine(found, "onnxruntime").detail, engine(found, "onnxruntime").hint) == ("CUDA, CPU", "")
    assert engine(found, "torch").detail.startswith("CPU, Card 0")
    assert engine(found, "tensorrt_lean").version == "11.4"


def test_an_engine_without_the_cpu_provider_runs_nothing(modules):
    modules["onnxruntime"] = SimpleNamespace(__version__="1", get_available_providers=list)
    assert not visdeploy.doctor().healthy


def test_operators_and_reasons_are_printed(modules, capsys, tmp_path):
    support = [
        SimpleNamespace(op="an_op", engine="ONNX Runtime CPU", runs="kernel", own_kernel=True, why_not=""),
        SimpleNamespace(op="an_op", engine="TensorRT", runs="", own_kernel=False, why_not="no plugin"),
    ]
    offered = {"instruction_set": "avx2", "cuda_architectures": ("80", "90"), "operators_library": tmp_path / "ops.so"}
    found = SimpleNamespace(ops=support, onnxruntime_library=None, tensorrt_library=None, **offered)
    modules["visdeploy_plugins"] = SimpleNamespace(capabilities=lambda: found)
    assert exit_code("doctor") == 0
    shown = capsys.readouterr().out
    assert "TensorRT: not our kernel: no plugin" in shown
    assert "cannot run" in shown
    assert exit_code("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["detail"] for each in found["libraries"]] == [
        "CPU kernels (avx2), CUDA kernels for 80 90",
        "not built",
        "not built",
    ]
    assert found["operators"][1]["why_not"] == "no plugin"
    assert found["healthy"] is True


def test_the_real_installation_answers_without_torch():
    code = "import sys; sys.modules['torch'] = None; from visdeploy.cli import main; main(['doctor', '--json'])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert next(each for each in found["engines"] if each["name"] == "onnxruntime")["runs_bundles"]
    assert {each["op"] for each in found["operators"]} >= {"ms_deform_attn"}
