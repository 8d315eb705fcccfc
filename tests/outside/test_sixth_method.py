"""A method of another package trains, exports, certifies, streams, saves and resumes; nothing of visdeploy knows it."""

import ast
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import visdeploy
from tests.bundles import tamper
from tests.outside.conftest import METHOD
from tests.outside.packages import SIXTH, tomllib
from tests.shared_folder import REPOSITORY
from tests.visdeploy.step_graph import clip
from tests.visdeploy.streams import check_interleaved, plain, plain_tracks, pushed
from tests.visdeploy_training.material import CLASSES
from visdeploy.bundle import SELFTEST, Bundle
from visdeploy.errors import BundleError, ConfigError, StreamError, VerificationError
from visdeploy.methods import decoder_class
from visdeploy.parity.certificate import Certificate, certificate_rows

MEASURE = f"{METHOD}.direction"
BOUND, EVERY = 3, 2
"""Codes in the memory, and frames from one to the next."""
WIDE, TALL = (60, 90), (90, 60)


def run(pipeline, frames, state=None):
    """Return all outputs of every step, and the state after each."""
    outputs, states = [], []
    for step in pipeline.steps(frames):
        found, state = pipeline.run(step, state, proof=True)
        outputs.append(found)
        states.append(state)
    return outputs, states


def test_a_recipe_trains_it(trained):
    from lightning import seed_everything

    from visdeploy_training import convert_checkpoint, create_model
    from visdeploy_training.checkpoint_file import read_tensors

    made = convert_checkpoint(trained / "model.safetensors")
    assert (made.method, made.variant, made.classes, made.report.ok) == (METHOD, "small", CLASSES, True)
    seed_everything(0, verbose=False)
    fresh = create_model(METHOD, "small", classes=CLASSES, height=48, width=80).state_dict()
    assert sum(tensor.numel() for tensor in fresh.values()) < 10_000
    assert all(not torch.equal(made.state[name], tensor) for name, tensor in fresh.items())
    distance = max(float((made.state[name] - tensor).abs().max()) for name, tensor in fresh.items())
    assert distance == pytest.approx(0.01, rel=0.1), "AdamW's first step is as long as its learning rate"
    notes = read_tensors(trained / "model.safetensors").metadata["notes"]
    assert notes["iterations"] == 1
    assert 0 <= notes["val/AP"] <= 1
    assert (trained / "last.ckpt").is_file()
    assert convert_checkpoint(trained / "last.ckpt").report.ok


def test_fine_tuning_on_other_classes_keeps_all_but_the_classifier(trained):
    from visdeploy_training import convert_checkpoint, create_model, start_from

    made = convert_checkpoint(trained / "model.safetensors")
    model = create_model(METHOD, "small", num_classes=5)
    report = start_from(model, made)
    assert {text.split()[0] for text in report.misshapen} == {"classifier.weight", "classifier.bias"}
    assert torch.equal(model.state_dict()["slots"], made.state["slots"])


def test_the_certificate_names_its_measure(sixth_bundle):
    bundle = Bundle.open(sixth_bundle)
    assert (bundle.manifest.method, bundle.manifest.provenance.checkpoint) == (METHOD, "sixth.safetensors")
    assert {s.input: s.shape for s in bundle.manifest.state} == {
        "near": [8, "height/8", "width/8"], "far": [8, "height/16", "width/16"], "memory": ["memory", 8], "step": [1],
    }  # fmt: skip
    certificate = Certificate.model_validate(bundle.certificate())
    assert certificate.passed
    assert certificate.detections.reference > 6
    code = next(o for o in certificate.outputs if o.name == "code")
    assert (code.measure, code.quantity, code.compared) == (MEASURE, "1 - cosine", 6)
    assert any("code: 1 - cosine" in row for row, _, _ in certificate_rows(bundle.certificate()))


def changed_selftest(change):
    """Return an argument of `tamper` that changes one output of frame 5 in the self-test."""

    def apply(folder, data):
        with np.load(folder / SELFTEST) as archive:
            arrays = dict(archive)
        arrays["f5/code"] = change(arrays["f5/code"])
        np.savez(folder / SELFTEST, **arrays)

    return apply


def test_verify_uses_its_measure(sixth_bundle, tmp_path):
    assert visdeploy.verify(sixth_bundle, device="cpu", threads=1).passed
    longer = tamper(sixth_bundle, tmp_path / "longer.vis", changed_selftest(lambda code: 3 * code))
    assert visdeploy.verify(longer, device="cpu", threads=1).passed, "the length of a code means nothing"
    turned = tamper(sixth_bundle, tmp_path / "turned.vis", changed_selftest(lambda code: -code))
    with pytest.raises(VerificationError, match=rf"output 'code': {MEASURE} error 2 in frame 5"):
        visdeploy.verify(turned, device="cpu", threads=1)


def test_a_measure_that_the_method_does_not_bring(sixth_bundle, tmp_path):
    def rename(folder, data):
        next(o for o in data["outputs"] if o["name"] == "code")["measure"] = f"{METHOD}.angle"

    bundle = tamper(sixth_bundle, tmp_path / "angle.vis", rename)
    with pytest.raises(BundleError, match="measure of parity") as caught:
        visdeploy.verify(bundle, device="cpu", threads=1)
    assert caught.value.seen == repr(f"{METHOD}.angle")
    assert MEASURE in caught.value.expected


def test_without_its_package_the_bundle_is_refused(site, sixth_bundle, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(site)])
    with pytest.raises(BundleError, match=r"Install .* the package that brings the method") as caught:
        visdeploy.VISPredictor(sixth_bundle, device="cpu")
    assert caught.value.seen == repr(METHOD)


@pytest.mark.parametrize("size", [WIDE, TALL])
def test_both_engines_agree_from_an_empty_memory_on(sixth, in_torch, size):
    frames = clip(9, seed=1, size=size)
    (reference, before), (candidate, after) = run(in_torch, frames), run(sixth.pipeline, frames)
    for left, right in zip(reference, candidate, strict=True):
        assert set(left) == set(right)
        for name, value in left.items():
            np.testing.assert_allclose(right[name], value, rtol=1e-4, atol=1e-4, err_msg=name)
    rows, columns = sixth.pipeline.preprocess.tensor_size(*size)
    assert (rows, columns) != size
    for index, (left, right) in enumerate(zip(before, after, strict=True)):
        wanted, found = in_torch.backend.state_to_host(left), sixth.backend.state_to_host(right)
        remembered = min(index // EVERY + 1, BOUND)
        assert {name: each.shape for name, each in found.items()} == {
            "near": (8, rows // 8, columns // 8), "far": (8, rows // 16, columns // 16),
            "memory": (remembered, 8), "step": (1,),
        }  # fmt: skip
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_detections_come_and_go(sixth):
    """Check the assumptions of the tests of streams: results depend on earlier frames, and detections come and go."""
    frames = clip(12, seed=1)
    results = pushed(sixth, frames)
    assert len({len(outputs["slots"]) for outputs in run(sixth.pipeline, frames)[0]}) > 1
    assert sum(len(result) for result in results) > 12
    assert plain(pushed(sixth, frames[7:])[0]) != plain(results[7])


def test_streams_of_two_sizes_take_turns(sixth):
    check_interleaved(sixth, [clip(7, seed=1, size=WIDE), clip(9, seed=2, size=TALL)])


@pytest.mark.parametrize("saved", [0, 1, 4, 7])
def test_a_stream_resumes_as_if_it_had_never_stopped(sixth, tmp_path, saved):
    frames = clip(12, seed=1)
    with sixth.open_stream(collect=True) as whole, sixth.open_stream(collect=True) as first:
        wanted = [whole.push(frame) for frame in frames]
        found = [first.push(frame) for frame in frames[:saved]]
        path = first.save(tmp_path / "stream.npz")
    with sixth.load_stream(path) as second:
        assert second.num_frames == saved
        found += [second.push(frame) for frame in frames[saved:]]
        assert found == wanted
        assert plain_tracks(second.result()) == plain_tracks(whole.result())


CONTINUE = """
import json, sys
sys.modules["torch"] = None  # the runtime of the method needs none
from tests.visdeploy.step_graph import clip
from tests.visdeploy.streams import plain, plain_tracks
from visdeploy import VISPredictor
stream = VISPredictor(sys.argv[1], device="cpu", threads=1).load_stream(sys.argv[2])
found = [plain(stream.push(frame)) for frame in clip(12, seed=1)[5:]]
print(json.dumps({"frames": found, "tracks": plain_tracks(stream.result())}))
"""


def test_a_stream_resumes_in_a_new_process_without_torch(sixth, sixth_bundle, tmp_path):
    frames = clip(12, seed=1)
    with sixth.open_stream(collect=True) as stream:
        for frame in frames[:5]:
            stream.push(frame)
        saved = stream.save(tmp_path / "stream.npz")
        wanted = {"frames": [plain(stream.push(frame)) for frame in frames[5:]]}
        wanted["tracks"] = plain_tracks(stream.result())
    done = subprocess.run(
        [sys.executable, "-c", CONTINUE, str(sixth_bundle), str(saved)],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(wanted))


@pytest.fixture
def saved(sixth, tmp_path):
    with sixth.open_stream() as stream:
        for frame in clip(5, seed=1, size=WIDE):
            stream.push(frame)
        return stream.save(tmp_path / "stream.npz")


def test_a_resumed_stream_takes_frames_of_its_size_only(sixth, saved):
    with (
        sixth.load_stream(saved) as stream,
        pytest.raises(StreamError, match=r"size of frame.*seen: 60x90; expected: 90x60"),
    ):
        stream.push(clip(1, size=TALL)[0])


def test_a_state_of_another_size_is_refused(sixth, saved):
    """The archive says that it was saved with frames of another size than its state has."""
    with np.load(saved) as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())
    header["height"], header["width"] = TALL
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(saved, **arrays)
    rows, columns = sixth.pipeline.preprocess.tensor_size(*TALL)
    with pytest.raises(StreamError, match=rf"'near'.*seen: \[8, 6, .*height {rows}, width {columns}"):
        sixth.load_stream(saved)


def test_a_memory_beyond_its_bound_is_refused(sixth, saved):
    with np.load(saved) as archive:
        state = {name.removeprefix("graph/"): archive[name] for name in archive if name.startswith("graph/")}
    assert sixth.pipeline.load_state(state, WIDE, started=True) is not None
    state["memory"] = np.zeros((BOUND + 1, 8), np.float32)
    with pytest.raises(StreamError, match=r"'memory': size 'memory'.*seen: 4; expected: 0 to 3"):
        sixth.pipeline.load_state(state, WIDE, started=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.pop("totals"), "totals"),
        (lambda a: a.update(tracks=a["tracks"][:, :3]), "tracks"),
        (lambda a: a.update(next_id=np.array(0)), "out of its range"),
    ],
)
def test_damaged_tracks_are_refused(sixth, spoil, message):
    with sixth.open_stream() as stream:
        stream.push(clip(1, seed=1)[0])
        arrays = stream.decoder.state()
    assert len(arrays["tracks"])
    spoil(arrays)
    with pytest.raises(StreamError, match=message):
        sixth.pipeline.decoder().load_state(arrays)


def test_options_are_checked_by_the_method(site, sixth_bundle, tmp_path):
    from visdeploy_training import create_model

    with pytest.raises(ConfigError, match="recurrent_segmenter: memory_frames"):
        create_model(METHOD, "small", memory_frames=0)
    with pytest.raises(ConfigError, match="recurrent_segmenter has no ImageNet weights"):
        create_model(METHOD, "small", pretrained=True)
    bundle = tamper(sixth_bundle, tmp_path / "gap.vis", lambda folder, data: data["tracking"].update(gap=3))
    with pytest.raises(BundleError, match=r"tracking\.gap"):
        visdeploy.VISPredictor(bundle, device="cpu")


def test_the_guide_says_what_the_package_declares(site):
    guide = (REPOSITORY / "CONTRIBUTING.md").read_text()
    snippets = re.findall(r"```toml\n(.*?)```", guide, flags=re.S)
    assert len(snippets) == 1
    declared = tomllib.loads((SIXTH / "pyproject.toml").read_text())["project"]["entry-points"]
    assert tomllib.loads(snippets[0])["project"]["entry-points"] == declared
    assert decoder_class(METHOD).__module__ == declared["visdeploy.methods"][METHOD].partition(":")[0]


OWN = ("defvis", "tevit", "visolo")


def strings(path):
    """Return the string constants of a module, without the docstrings."""
    tree = ast.parse(path.read_text())
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in bare)
    return [node.value for node in constants if isinstance(node.value, str)]


def test_no_module_names_a_method_but_those_of_methods():
    folders = [REPOSITORY / name for name in ("visdeploy", "training/visdeploy_training", "export/visdeploy_export")]
    modules = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(modules) > 100
    named = {
        path.relative_to(REPOSITORY).as_posix(): text
        for path in modules
        for text in strings(path)
        if "methods" not in path.parts and any(name in text.lower() for name in (*OWN, METHOD))
    }
    assert named == {}
    assert not any(METHOD in path.read_text() for path in modules)
