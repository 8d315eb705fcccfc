"""Starting a session: the device, what is missing for it, TF32, the search for convolutions, custom operators."""

import contextlib
import logging
import sys
import types

import pytest

from tests.visdeploy.step_graph import fields, make_bundle
from visdeploy import VISPredictor, verify
from visdeploy.backends import open_backend
from visdeploy.backends.onnxruntime import backend as onnxruntime_backend
from visdeploy.backends.onnxruntime import installation
from visdeploy.backends.onnxruntime import session as ort_session
from visdeploy.backends.onnxruntime.installation import CPU, CUDA
from visdeploy.errors import ConfigError, DependencyError, EngineError
from visdeploy.manifest import Tolerance, Tolerances

ort = pytest.importorskip("onnxruntime")
without_cuda = pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="has CUDA")


def start(bundle, device="cpu", **options):
    arguments = {"device": device, "threads": 1, "spinning": False, **options}
    return ort_session.start_session(bundle.model_path, bundle.manifest, **arguments)


@without_cuda
def test_cuda_without_cuda_says_what_to_install(bundle, caplog):
    with pytest.raises(DependencyError, match=r"pip install 'visdeploy\[gpu\]'"):
        open_backend(bundle, "cuda:0")
    with caplog.at_level(logging.INFO):
        assert open_backend(bundle, "auto").device == "cpu"
    assert "running on the CPU" in caplog.text


@without_cuda
def test_both_builds_installed_side_by_side_is_a_warning(bundle, caplog, monkeypatch):
    monkeypatch.setattr(installation, "_is_installed", lambda name: True)
    assert open_backend(bundle, "auto").device == "cpu"
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "onnxruntime and onnxruntime-gpu are installed" in record.getMessage()
    with pytest.raises(DependencyError, match="pip uninstall"):
        open_backend(bundle, "cuda")


@pytest.mark.parametrize("absent", ["no module", "an empty folder", "a library is missing"])
def test_without_a_build_it_says_which_to_take(bundle, monkeypatch, absent):
    stand_in = {"no module": None, "an empty folder": types.ModuleType("onnxruntime")}.get(absent)
    monkeypatch.setitem(sys.modules, "onnxruntime", stand_in)
    if absent == "a library is missing":

        def fails(*_, **__):
            raise ImportError("libcudart.so.13: cannot open shared object file\nmore")

        monkeypatch.setattr(installation, "require", fails)
    for device in ("cpu", "auto", "cuda"):
        with pytest.raises(DependencyError) as caught:
            open_backend(bundle, device)
        assert "visdeploy[cpu]" in str(caught.value)
        assert "visdeploy[gpu]" in str(caught.value)
        assert "\n" not in str(caught.value)


class PretendedCuda:
    """A GPU build whose CUDA provider starts, or does not; the CPU does the work. Keeps the options it was given."""

    def __init__(self, monkeypatch, *, starts=True, **answers):
        self.cuda, self.libraries = [], []
        session_class, options_class = ort.InferenceSession, ort.SessionOptions
        pretended = self

        class Options(options_class):
            def register_custom_ops_library(self, path):
                pretended.libraries.append(path)

        def session(model, options, providers):
            real = session_class(model, options, providers=[CPU])
            if providers == [CPU]:
                return real
            (_, cuda), rest = providers
            assert rest == CPU
            pretended.cuda.append(cuda)
            if starts:
                real.get_providers = lambda: [CUDA, CPU]
                real.get_provider_options = lambda: {CUDA: {**cuda, **answers}, CPU: {}}
                parts = real.get_provider_graph_assignment_info()
                moved = [types.SimpleNamespace(ep_name=CUDA, get_nodes=part.get_nodes) for part in parts]
                real.get_provider_graph_assignment_info = lambda: moved
            return real

        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(ort, "preload_dlls", lambda: print("" if starts else "Failed to load libcuda.so.1"))
        monkeypatch.setattr(ort, "InferenceSession", session)
        monkeypatch.setattr(ort, "SessionOptions", Options)


@without_cuda
def test_a_cuda_provider_that_does_not_start(bundle, caplog, monkeypatch):
    """The GPU build on a machine without a driver: the provider is offered, and the session comes up without it."""
    PretendedCuda(monkeypatch, starts=False)
    with caplog.at_level(logging.INFO):
        assert open_backend(bundle, "auto").device == "cpu"
    assert "Failed to load libcuda.so.1" in caplog.text
    assert any(r.levelno == logging.WARNING and "did not start" in r.getMessage() for r in caplog.records)
    with pytest.raises(EngineError, match=r"did not start; Failed to load libcuda\.so\.1"):
        open_backend(bundle, "cuda")


@pytest.mark.parametrize(("device", "number"), [("auto", 0), ("cuda", 0), ("cuda:3", 3)])
def test_float32_is_float32_on_cuda(bundle, caplog, monkeypatch, device, number):
    pretended = PretendedCuda(monkeypatch)
    with caplog.at_level(logging.INFO):
        session, name = start(bundle, device)
    (options,) = pretended.cuda
    assert (name, options["device_id"], options["use_tf32"]) == (f"cuda:{number}", str(number), "0")
    assert ort_session.running_precision(session, "fp32") == "fp32"
    assert f"running on cuda:{number}, TF32 off" in caplog.text
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


def test_tf32_on_request(bundle, monkeypatch):
    pretended = PretendedCuda(monkeypatch)
    session, _ = start(bundle, "cuda", tf32=True)
    assert pretended.cuda[0]["use_tf32"] == "1"
    assert ort_session.running_precision(session, "fp32") == "tf32"
    assert ort_session.running_precision(session, "fp16") == "fp16"


def test_the_backend_states_the_precision_that_it_runs(bundle, monkeypatch):
    assert open_backend(bundle, "cpu").description.precision == "fp32"
    monkeypatch.setattr(onnxruntime_backend, "running_precision", lambda session, precision: "tf32")
    assert open_backend(bundle, "cpu").description.precision == "tf32"


def test_the_predictor_and_verify_pass_tf32_on(bundle, tiny_bundle):
    for action, path in ((VISPredictor, bundle.path), (verify, tiny_bundle)):
        with pytest.raises(ConfigError, match="TF32 is a precision of CUDA"):
            action(path, device="cpu", tf32=True)


def test_tf32_has_a_tolerance_of_its_own():
    table = Tolerances.standard(Tolerance(atol=1e-4))
    assert table.of("onnxruntime", "fp32") == Tolerance(atol=1e-4)
    assert table.of("onnxruntime", "tf32").atol > 10 * table.of("onnxruntime", "fp32").atol


def test_tf32_is_no_precision_of_the_cpu(bundle, caplog, monkeypatch):
    with pytest.raises(ConfigError, match="TF32 is a precision of CUDA"):
        start(bundle, "cpu", tf32=True)
    PretendedCuda(monkeypatch, starts=False)
    session, device = start(bundle, "auto", tf32=True)
    assert (device, ort_session.running_precision(session, "fp32")) == ("cpu", "fp32")
    assert "the CPU computes in float32" in caplog.text


@pytest.mark.parametrize(("asked", "answers"), [(False, {"use_tf32": "1"}), (True, {"use_tf32": "0"})])
def test_a_precision_that_was_not_taken_is_an_error(bundle, monkeypatch, asked, answers):
    PretendedCuda(monkeypatch, **answers)
    with pytest.raises(EngineError, match="does not use the requested precision"):
        start(bundle, "cuda", tf32=asked)


def test_half_precision_without_tensor_cores_is_a_warning(bundle, caplog, monkeypatch):
    PretendedCuda(monkeypatch)
    manifest = bundle.manifest.model_copy(update={"precision": "fp16"})
    arguments = {"device": "cuda", "threads": 1, "spinning": False}
    ort_session.start_session(bundle.model_path, manifest, **arguments, tf32=True)
    assert "tensor cores" not in caplog.text
    ort_session.start_session(bundle.model_path, manifest, **arguments)
    assert "fp16 convolutions without tensor cores" in caplog.text


def test_free_sizes_are_searched_by_heuristics(bundle):
    manifest = bundle.manifest
    fixed = {name: dim.model_copy(update={"minimum": 8, "maximum": 8}) for name, dim in manifest.dims.items()}
    search = {}
    for what, dims in (
        ("free", manifest.dims),
        ("fixed", fixed),
        ("found objects alone are free", fixed | {"n": manifest.dims["n"]}),
        ("no symbols", {}),
    ):
        changed = manifest.model_copy(update={"dims": dims})
        search[what] = ort_session.cuda_options(changed, 0, False)["cudnn_conv_algo_search"]
    assert search == {
        "free": "HEURISTIC",
        "fixed": "EXHAUSTIVE",
        "found objects alone are free": "HEURISTIC",
        "no symbols": "EXHAUSTIVE",
    }


def test_the_session_never_goes_on_with_another_provider(bundle, monkeypatch):
    PretendedCuda(monkeypatch)
    assert start(bundle, "cuda")[0]._enable_fallback is False


CUSTOM = [{"domain": "visdeploy", "name": "Fast", "version": 1}]


@contextlib.contextmanager
def plugins(monkeypatch, **offers):
    stand_in = types.ModuleType("visdeploy_plugins")
    for name, value in offers.items():
        setattr(stand_in, name, value)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "visdeploy_plugins", stand_in)
        yield


@pytest.mark.parametrize(
    ("library", "said"),
    [(None, "not built here"), ("/nowhere/library.so", EngineError), (ImportError, "not installed")],
)
def test_custom_operators_come_from_the_plugins(tmp_path, caplog, monkeypatch, library, said):
    made = make_bundle(tmp_path / "a.vis", custom_ops=CUSTOM)
    offers = {} if library is ImportError else {"onnxruntime_library": lambda: library}
    with plugins(monkeypatch, **offers):
        if said is EngineError:
            with pytest.raises(EngineError, match="cannot be loaded"):
                open_backend(made, "cpu")
            return
        with caplog.at_level(logging.INFO):
            assert open_backend(made, "cpu").device == "cpu"
    assert said in caplog.text


@pytest.mark.parametrize("reason", ["", "built without nvcc", "kernels do not load on CUDA device 2"])
def test_on_cuda_the_library_is_taken_where_its_kernels_run(tmp_path, caplog, monkeypatch, reason):
    made = make_bundle(tmp_path / "a.vis", custom_ops=CUSTOM)
    pretended, asked = PretendedCuda(monkeypatch), []

    def why_no_cuda_kernels(device):
        asked.append(device)
        return reason

    with plugins(monkeypatch, onnxruntime_library=lambda: "library.so", why_no_cuda_kernels=why_no_cuda_kernels):
        assert start(made, "cuda:2")[1] == "cuda:2"
    assert (asked, pretended.libraries) == ([2], [] if reason else ["library.so"])
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [
        f"custom operators Fast run as standard operators on cuda:2: our CUDA kernels cannot run on it: {reason}"
    ] * bool(reason)


def test_the_cpu_takes_the_library_after_cuda_did_not_start(tmp_path, monkeypatch):
    """The CPU session registers the library even if it has no CUDA kernels."""
    made = make_bundle(tmp_path / "a.vis", custom_ops=CUSTOM)
    pretended = PretendedCuda(monkeypatch, starts=False)
    offers = {"onnxruntime_library": lambda: "library.so", "why_no_cuda_kernels": lambda device: "no CUDA driver"}
    with plugins(monkeypatch, **offers):
        assert start(made, "auto")[1] == "cpu"
    assert pretended.libraries == ["library.so"]


def test_a_graph_without_custom_operators_asks_for_no_library(bundle, monkeypatch):
    assert not fields().get("custom_ops")
    with plugins(monkeypatch):
        assert start(bundle)[1] == "cpu"
