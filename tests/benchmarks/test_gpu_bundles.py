"""The program that checks bundles on a GPU, with the CPU in the GPU's place."""

import importlib
import shutil
from dataclasses import replace

import pytest

import visdeploy
from tests.conftest import REPOSITORY
from tests.visdeploy.clip_graph import make_clip_bundle, moving
from visdeploy.backends.onnxruntime.installation import CUDA
from visdeploy.masks import Mask


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("gpu_bundles")


@pytest.fixture
def checks(program):
    return importlib.import_module("bundle_checks")


@pytest.fixture
def clip_bundle(tmp_path):
    return make_clip_bundle(tmp_path / "clip.vis")


def lines_of(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("OK", "FAILED", "NOT RUN"))]


def test_every_check_of_an_exported_bundle(program, tiny_bundle, tmp_path, capsys):
    shutil.copytree(tiny_bundle, tmp_path / "tiny.vis")
    assert program.main(["check", str(tmp_path), "--device", "cpu", "--frames", "6"]) == 0
    verify, *streams, sanitizer = lines_of(capsys)
    assert verify.startswith("OK       tiny: verify: on cpu, largest errors scores ")
    assert streams == [
        "OK       tiny: saved on cpu, resumed on the CPU: equal to the last bit",
        "OK       tiny: saved on the CPU, resumed on cpu: equal to the last bit",
        "OK       tiny: two streams in two threads: equal to the last bit; equal to the last bit",
    ]
    assert sanitizer == "NOT RUN  tiny: compute-sanitizer: there is no compute-sanitizer on this machine"


def test_a_bundle_that_does_not_reproduce_itself_fails(program, clip_bundle, capsys):
    """The self-test of this bundle is not a clip: every check that reads it fails, and reports that."""
    assert program.main(["check", str(clip_bundle.path.parent), "--device", "cpu"]) == 1
    (line,) = lines_of(capsys)
    assert line.startswith(f"FAILED   clip: {clip_bundle.path / 'selftest.npz'} cannot be read")


def test_what_is_no_bundle_fails_and_the_others_are_checked(program, tiny_bundle, tmp_path, capsys):
    (tmp_path / "a.vis").mkdir()
    shutil.copytree(tiny_bundle, tmp_path / "b.vis")
    assert program.main(["check", str(tmp_path), "--device", "cpu", "--frames", "4"]) == 1
    outcomes = [line.split(":")[0] for line in lines_of(capsys)]
    assert outcomes == ["FAILED   a", "OK       b", "OK       b", "OK       b", "OK       b", "NOT RUN  b"]


def test_no_bundles_is_not_run(program, tmp_path, capsys):
    assert program.main(["check", str(tmp_path)]) == program.NOTHING_RAN
    assert "there is none in" in capsys.readouterr().out


def test_without_a_gpu_build_nothing_runs_and_the_reason_is_given(program, tiny_bundle, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("has CUDA")
    shutil.copytree(tiny_bundle, tmp_path / "tiny.vis")
    assert program.main(["check", str(tmp_path), "--device", "cuda:0"]) == program.NOTHING_RAN
    lines = lines_of(capsys)
    assert len(lines) == 5
    assert all(line.startswith("NOT RUN  tiny: ") for line in lines)
    assert sum("visdeploy[gpu]" in line for line in lines) == 4


def sanitizer(tmp_path, text):
    path = tmp_path / "compute-sanitizer"
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_one_step_under_the_sanitizer(checks, tiny_bundle, tmp_path, monkeypatch):
    """The sanitizer is called with the program, and the output of the program is returned."""
    folders = ("", "training", "export", "plugins")
    monkeypatch.setenv("PYTHONPATH", ":".join(str(REPOSITORY / folder) for folder in folders))
    bundle = visdeploy.Bundle.open(tiny_bundle)
    tool = sanitizer(tmp_path, 'while [[ $1 == --* ]]; do shift 2; done; "$@"')
    said = checks.check_sanitizer(bundle, "cpu", tool, 120)
    assert said.startswith("one step on cpu: ")
    assert said.endswith(" instances in 1 frames")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("echo 'Device not supported.'; exit 1", "NotRun", "does not support this device"),
        ("echo ========= Invalid __global__ read; exit 86", "AssertionError", "Invalid __global__ read"),
        ("exit 3", "AssertionError", "exit status 3"),
        ("sleep 20", "NotRun", "took longer than 1 s"),
    ],
)
def test_what_the_sanitizer_answers(checks, clip_bundle, tmp_path, text, error, message):
    with pytest.raises(getattr(checks, error, AssertionError), match=message):
        checks.check_sanitizer(clip_bundle, "cpu", sanitizer(tmp_path, text), 1)


def results(checks, bundle, frames):
    return checks.run(visdeploy.VISPredictor(bundle, "cpu").open_stream(), frames)


def test_streams_of_clips(checks, clip_bundle):
    frames = list(moving(21))
    assert checks.check_resumed(clip_bundle, "cpu", "cpu", frames) == "equal to the last bit"
    assert checks.check_threads(clip_bundle, "cpu", frames) == "equal to the last bit; equal to the last bit"


def test_the_comparison_sees_planted_differences(checks, clip_bundle):
    expected = results(checks, clip_bundle, list(moving(12)))

    def changed(**fields):
        first = expected[0]
        instances = (replace(first.instances[0], **fields), *first.instances[1:])
        return [replace(first, instances=instances), *expected[1:]]

    instance = expected[0].instances[0]
    smaller = instance.mask.decode().copy()
    smaller[:, smaller.any(0).argmax() + 2 :] = False
    total = sum(map(len, expected))
    assert checks.compare(expected, expected) == checks.Agreement(total, total, True)
    for fields, extra in (
        ({"score": instance.score / 2}, 0),
        ({"label": (instance.label + 1) % 3}, 0),
        ({"mask": Mask.encode(smaller)}, 0),
        ({"track_id": 77}, 1),
    ):
        found = checks.compare(expected, changed(**fields))
        assert found == checks.Agreement(total + extra, total - 1, False), fields
        with pytest.raises(AssertionError, match=r"of \d+ \(frame, track\) agree"):
            found.require()
    with pytest.raises(AssertionError, match="other frames"):
        checks.compare(expected, expected[1:])


def test_nothing_to_compare_is_a_failure(checks):
    with pytest.raises(AssertionError, match="nothing was compared"):
        checks.compare([], []).require()


def test_an_error_in_a_thread_is_an_error_of_the_check(checks, clip_bundle, monkeypatch):
    real = checks.run

    def fails_in_threads(stream, frames, **options):
        if checks.threading.current_thread() is not checks.threading.main_thread():
            raise visdeploy.EngineError("the graph failed")
        return real(stream, frames, **options)

    monkeypatch.setattr(checks, "run", fails_in_threads)
    with pytest.raises(visdeploy.EngineError, match="the graph failed"):
        checks.check_threads(clip_bundle, "cpu", list(moving(8)))


def test_bundles_are_made_once(program, tmp_path, monkeypatch, capsys):
    made = {}

    def export(checkpoint, out, certify_frames):
        made[out.name] = checkpoint.stat().st_size
        out.mkdir()

    monkeypatch.setattr(visdeploy, "export", export)
    assert program.main(["make", str(tmp_path / "new" / "bundles")]) == 0
    assert program.main(["make", str(tmp_path / "new" / "bundles")]) == 0
    assert list(made) == ["demo.vis", "defvis.vis", "tevit.vis", "tpr.vis"]
    assert all(size > 1e6 for size in made.values())
    assert len(lines_of(capsys)) == len(made)


def test_without_an_exporter_it_says_what_to_do(program, tmp_path, monkeypatch, capsys):
    real = importlib.import_module

    def import_module(name):
        if name == "onnxscript":
            raise ModuleNotFoundError("No module named 'onnxscript'")
        return real(name)

    monkeypatch.setattr(program.importlib, "import_module", import_module)
    assert program.main(["make", str(tmp_path / "bundles")]) == program.NOTHING_RAN
    assert capsys.readouterr().out == (
        "NOT RUN  make: No module named 'onnxscript'; make the bundles elsewhere and name their folder in BUNDLES\n"
    )
    assert not (tmp_path / "bundles").exists()
