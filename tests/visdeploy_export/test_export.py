"""`visdeploy.export` writes a bundle with a certificate, or raises an error and writes nothing."""

import json
import os
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import visdeploy
from tests.bundles import CLASSES, OPTIONS
from visdeploy.bundle import CERTIFICATE, MANIFEST, MODEL, SELFTEST, Bundle
from visdeploy.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    DataError,
    DependencyError,
    ExportError,
    SourceError,
    VisdeployError,
)
from visdeploy.manifest import Tolerance
from visdeploy.parity.certificate import AveragePrecision, Certificate
from visdeploy_export import exporter
from visdeploy_export.proof.clips import moving_clip


@pytest.fixture
def quick(monkeypatch, tiny_export):
    """Let exports of `tiny_checkpoint` use the graph of `tiny_bundle` instead of tracing it again."""
    bundle, written = tiny_export

    def copy(step, folder, **options):
        shutil.copy(bundle / MODEL, folder / MODEL)
        return written

    monkeypatch.setattr(exporter, "write_onnx", copy)


def test_the_bundle_says_what_it_is(tiny_bundle, tiny_checkpoint):
    bundle = Bundle.open(tiny_bundle)
    manifest = bundle.manifest
    assert (manifest.method, manifest.variant, tuple(manifest.classes)) == ("visolo", "tiny", CLASSES)
    assert set(manifest.files) == {MODEL, SELFTEST, CERTIFICATE}
    assert (manifest.opset, manifest.precision, manifest.window.mode) == (20, "fp32", "online")
    assert (manifest.preprocessing.height, manifest.preprocessing.width) == (OPTIONS["height"], OPTIONS["width"])
    assert manifest.preprocessing.mean == [123.675, 116.28, 103.53]
    assert {name: (dim.multiple, dim.typical) for name, dim in manifest.dims.items() if name != "n"} == {
        "height": (32, OPTIONS["height"]),
        "width": (32, OPTIONS["width"]),
    }
    assert [(s.input, s.output, s.initial) for s in manifest.state] == [
        ("mem_ref", "next_mem_ref", 0),
        ("mem_cat", "next_mem_cat", 0),
        ("mem_ker", "next_mem_ker", 0),
        ("mem_frame", "next_mem_frame", -1),
        ("step", "next_step", 0),
    ]
    assert manifest.state[0].shape[0] == OPTIONS["memory_slots"]
    assert manifest.decode == {"overlap_threshold": 0.5}
    assert manifest.tracking == {"affinity_threshold": 0.1}
    assert manifest.provenance.checkpoint == tiny_checkpoint.name
    assert manifest.provenance.torch == torch.__version__


@pytest.mark.isa
def test_the_certificate_is_stored_and_passed(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    certificate = Certificate.model_validate(bundle.certificate())
    assert certificate.passed
    assert (certificate.frames, certificate.source) == (8, "a synthetic clip")
    compared = [*(t.name for t in bundle.manifest.outputs), *(s.output for s in bundle.manifest.state)]
    assert [o.name for o in certificate.outputs] == compared
    assert all(o.compared for o in certificate.outputs if o.measure == "state")
    assert all(o.worst <= 1e-3 for o in certificate.outputs if o.measure == "absolute")
    assert certificate.detections.reference > 8
    assert certificate.tracks.ratio == 1
    assert certificate.candidate.startswith("ONNX Runtime")


def test_the_selftest_shows_every_rule_of_the_memory(tiny_bundle):
    selftest = Bundle.open(tiny_bundle).selftest()
    assert len(selftest.frames) == 9, "frame 8 reads frame 5 as a key frame"
    assert any(len(o["cells"]) for o in selftest.outputs)
    weights = [o["grid_weight"] for o in selftest.outputs]
    assert (weights[0] == 1).all()
    assert all(w.std() > 0 for w in weights[1:])


BAD_CHECKPOINTS = {
    "missing": (None, CheckpointError),
    "empty": (b"", CheckpointError),
    "garbage": (b"\x00\xff" * 500, CheckpointError),
    "truncated": (lambda good: good[: len(good) // 2], CheckpointError),
    "text": (b"{}", CheckpointError),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_bad_checkpoints(tiny_checkpoint, tmp_path, case):
    content, error = BAD_CHECKPOINTS[case]
    path = tmp_path / "bad.safetensors"
    if content is not None:
        path.write_bytes(content(tiny_checkpoint.read_bytes()) if callable(content) else content)
    with pytest.raises(error):
        visdeploy.export(path, tmp_path / "new" / "out.vis")
    assert [p.name for p in tmp_path.iterdir()] == ([path.name] if content is not None else [])


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil-was-here",)


def test_a_pickle_with_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError):
        visdeploy.export(tmp_path / "evil.pth")
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pth"]


def test_nan_weights(tiny_checkpoint, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(str(tiny_checkpoint), "pt") as file:
        fields = json.loads(file.metadata()["visdeploy"])
    del fields["sha256"]
    state = load_file(tiny_checkpoint)
    name = next(n for n in state if n.startswith("Mask_branch"))
    state[name].view(-1)[0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors", {"visdeploy": json.dumps(fields)})
    with pytest.raises(CheckpointError, match="NaN"):
        visdeploy.export(tmp_path / "nan.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["nan.safetensors"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"precision": "fp16"}, ConfigError, r"precision.*fp16.*\['fp32'\]"),
        ({"precision": "int4"}, ConfigError, "precision"),
        ({"opset": 17}, ConfigError, "opset"),
        ({"certify_frames": 0}, ConfigError, "certify_frames"),
        ({"certify_frames": True}, ConfigError, "certify_frames"),
        ({"tolerance": 0.1}, ConfigError, "tolerance"),
        ({"method": "nosuch"}, VisdeployError, "nosuch"),
        ({"variant": "huge"}, VisdeployError, "huge"),
        ({"classes": ["cat"]}, CheckpointError, "class"),
        ({"height": 100}, ConfigError, "height"),
        ({"width": -32}, ConfigError, "width"),
        ({"overrides": {"memory_slots": 2}}, ConfigError, "memory_slots.*2.*at least 4"),
        ({"overrides": {"tracking_threshold": 7}}, ConfigError, "tracking_threshold.*7.*0 <= tracking_threshold <= 1"),
        ({"overrides": {"window": 60}}, ConfigError, "unknown setting 'window'.*60.*memory_slots"),
        ({"overrides": {"head_width": 16}}, ConfigError, "head_width cannot be changed at export.*16.*memory_slots"),
        ({"overrides": "window=60"}, ConfigError, "overrides.*window=60.*a map from the name of a setting"),
    ],
)
def test_bad_options(tiny_checkpoint, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        visdeploy.export(tiny_checkpoint, tmp_path / "out.vis", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_is_refused_before_any_work(tiny_bundle, tmp_path):
    with pytest.raises(BundleError, match="exists already"):
        visdeploy.export(tmp_path / "not even there", tiny_bundle)


NARROW = Tolerance(atol=1e-12, rtol=0)


def test_a_broken_limit_names_the_tensor_and_leaves_one_page(quick, tiny_checkpoint, tmp_path):
    """A limit below rounding fails, and no layer is at fault."""
    with pytest.raises(ExportError, match=r"output '(scores|mask_logits)': absolute error .* in frame \d") as caught:
        visdeploy.export(tiny_checkpoint, tmp_path / "new" / "out.vis", certify_frames=2, tolerance=NARROW)
    page = tmp_path / "new" / "out.parity.html"
    assert list(tmp_path.rglob("*.*")) == [page]
    assert "no layer differs by more than rounding" in str(caught.value)
    assert f"All layers: {page}. No bundle was written" in str(caught.value)


def test_a_planted_fault_is_named_in_the_error_and_on_the_page(monkeypatch, tiny_export, tiny_checkpoint, tmp_path):
    bundle, written = tiny_export

    def break_graph(step, folder, **options):
        model = onnx.load(bundle / MODEL)
        weight = next(t for t in model.graph.initializer if t.name.endswith("kernel_conv3.weight"))
        values = numpy_helper.to_array(weight).copy()
        values[0, 0, 1, 1] += 1
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        onnx.save(model, folder / MODEL)
        return written

    monkeypatch.setattr(exporter, "write_onnx", break_graph)
    (tmp_path / "out.parity.html").write_text("notes of the user")
    with pytest.raises(ExportError, match="does not reproduce PyTorch") as caught:
        visdeploy.export(tiny_checkpoint, tmp_path / "out.vis", certify_frames=2)
    layer = "model.Kernel_branch.conv_layers.kernel_conv3"
    assert f"In the step from frame 0, the first layer that differs is {layer} (conv2d" in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} == {"out.parity.html", "out.parity-2.html"}
    assert (tmp_path / "out.parity.html").read_text() == "notes of the user"
    page = (tmp_path / "out.parity-2.html").read_text()
    assert page.count('id="first"') == page.count('class="differs"') == 1
    assert "visolo tiny, step from frame 0" in page


def test_an_explanation_that_fails_does_not_hide_the_failure(quick, monkeypatch, tiny_checkpoint, tmp_path):
    def fail(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(exporter, "explain_failure", fail)
    with pytest.raises(ExportError, match=r"in frame \d.*could not be compared: OSError: no space left on device"):
        visdeploy.export(tiny_checkpoint, tmp_path / "out.vis", certify_frames=1, tolerance=NARROW)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_of_other_weights_fails_its_certificate(quick, tiny_checkpoint, tmp_path):
    from visdeploy_training import create_model, save_checkpoint

    torch.manual_seed(8)
    other = save_checkpoint(create_model("visolo", "tiny", classes=CLASSES, **OPTIONS), tmp_path / "other.safetensors")
    with pytest.raises(ExportError, match=r"does not reproduce PyTorch.*what torch traced is not the network: output"):
        visdeploy.export(other, tmp_path / "out.vis", certify_frames=2)
    assert {p.name for p in tmp_path.iterdir()} == {"other.safetensors", "out.parity.html"}


def test_overwrite_keeps_the_old_bundle_until_the_new_one_is_proved(quick, tiny_bundle, tiny_checkpoint, tmp_path):
    out = shutil.copytree(tiny_bundle, tmp_path / "out.vis")
    old = Bundle.open(out).identity
    with pytest.raises(ExportError):
        visdeploy.export(tiny_checkpoint, out, certify_frames=1, tolerance=NARROW, overwrite=True)
    assert Bundle.open(out).identity == old
    visdeploy.export(tiny_checkpoint, out, certify_frames=1, tolerance=Tolerance(atol=5e-3), overwrite=True)
    assert Bundle.open(out).manifest.tolerance.default.atol == 5e-3
    assert {p.name for p in tmp_path.iterdir()} == {"out.vis", "out.parity.html"}


def test_overrides_reach_the_manifest(quick, tiny_checkpoint, tmp_path):
    changed = {"tracking_threshold": 0.25, "overlap_threshold": 0.75}
    manifest = visdeploy.export(tiny_checkpoint, tmp_path / "out.vis", certify_frames=1, overrides=changed).manifest
    assert manifest.tracking == {"affinity_threshold": 0.25}
    assert manifest.decode == {"overlap_threshold": 0.75}


def test_certify_on_arrays_and_default_name(quick, tiny_checkpoint, tmp_path):
    checkpoint = shutil.copy(tiny_checkpoint, tmp_path / "mine.safetensors")
    clip = moving_clip(6, 50, 70, seed=2)
    bundle = visdeploy.export(checkpoint, certify_on=iter(clip), certify_frames=4)
    assert bundle.path == tmp_path / "mine.vis"
    certificate = bundle.certificate()
    assert (certificate["frames"], certificate["height"], certificate["width"]) == (4, 50, 70)
    assert certificate["source"] == "frames given by the caller"


def test_the_stages_are_announced(quick, tiny_checkpoint, tmp_path):
    said = []
    visdeploy.export(tiny_checkpoint, tmp_path / "a.vis", certify_frames=2, on_stage=said.append)
    assert said == [
        "reading tiny.safetensors",
        "tracing visolo tiny and writing the graph",
        "recording the self-test with PyTorch",
        "opening the graph in the engine",
        "comparing with PyTorch, frame 1 of 2",
        "comparing with PyTorch, frame 2 of 2",
        "running the self-test of the bundle",
    ]


def test_certify_on_a_folder_of_images(quick, tiny_checkpoint, tmp_path):
    from PIL import Image

    (tmp_path / "frames").mkdir()
    for i, frame in enumerate(moving_clip(3, 50, 70)):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{i:03}.png")
    bundle = visdeploy.export(tiny_checkpoint, tmp_path / "out.vis", certify_on=tmp_path / "frames")
    assert (bundle.certificate()["frames"], bundle.certificate()["source"]) == (3, "frames")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "no frames"),
        ([np.zeros((4, 4, 3), np.float32)], "float32"),
        ([np.zeros((40, 60, 3), np.uint8), np.zeros((40, 61, 3), np.uint8)], "frame 1"),
        ("nowhere.mp4", "nowhere.mp4"),
    ],
)
def test_sources_that_cannot_certify(quick, tiny_checkpoint, tmp_path, source, message):
    with pytest.raises(SourceError, match=message):
        visdeploy.export(tiny_checkpoint, tmp_path / "out.vis", certify_on=source)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def mini_set(tiny_bundle, tmp_path):
    """Write two short videos whose ground truth is the output of the model: AP is 1 by construction."""
    from PIL import Image

    predictor = visdeploy.VISPredictor(tiny_bundle, device="cpu", threads=1)
    videos, annotations = [], []
    for number in (1, 2):
        names = [f"clip{number}/{t}.png" for t in range(3)]
        (tmp_path / "images" / f"clip{number}").mkdir(parents=True)
        with predictor.open_stream(collect=True) as stream:
            for name, frame in zip(names, moving_clip(3, 60, 96, seed=number), strict=True):
                Image.fromarray(frame).save(tmp_path / "images" / name)
                stream.push(frame)
            result = stream.result()
        videos.append({"id": number, "height": 60, "width": 96, "length": 3, "file_names": names})
        for track in result.tracks:
            masks = [track.masks.get(t) for t in range(3)]
            annotations.append({
                "id": len(annotations) + 1, "video_id": number, "category_id": track.label + 1, "iscrowd": 0,
                "segmentations": [m and m.to_coco() for m in masks],
                "areas": [m and m.area for m in masks], "bboxes": [m and list(m.box) for m in masks],
            })  # fmt: skip
    assert annotations
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"videos": videos, "annotations": annotations, "categories": categories}))
    return path


def test_average_precision_of_both_engines(quick, tiny_checkpoint, mini_set, tmp_path):
    bundle = visdeploy.export(
        tiny_checkpoint, tmp_path / "out.vis", ground_truth=mini_set, certify_on=tmp_path / "images"
    )
    certificate = bundle.certificate()
    assert certificate["average_precision"] == pytest.approx({"reference": 1.0, "candidate": 1.0, "videos": 2})
    assert (certificate["frames"], certificate["source"]) == (3, "the first video of truth.json")


def test_another_average_precision_is_no_bundle(quick, monkeypatch, tiny_checkpoint, mini_set, tmp_path):
    lower = AveragePrecision(reference=1.0, candidate=0.9, videos=2)
    monkeypatch.setattr(exporter, "measure_average_precision", lambda *arguments: lower)
    with pytest.raises(ExportError, match=r"average precision: 0\.9000 against 1\.0000 on 2 videos"):
        visdeploy.export(tiny_checkpoint, tmp_path / "out.vis", ground_truth=mini_set, certify_on=tmp_path / "images")
    assert not (tmp_path / "out.vis").exists()


def test_bad_ground_truth(quick, tiny_checkpoint, mini_set, tmp_path):
    with pytest.raises(SourceError, match=r"clip1/0\.png"):
        visdeploy.export(tiny_checkpoint, tmp_path / "out.vis", ground_truth=mini_set)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError):
        visdeploy.export(tiny_checkpoint, tmp_path / "out.vis", ground_truth=tmp_path / "broken.json")
    assert not (tmp_path / "out.vis").exists()
    assert not list(tmp_path.glob(".out*"))


def test_without_torch_the_extra_is_named(monkeypatch, tmp_path):
    for name in [n for n in sys.modules if n.split(".")[0] == "visdeploy_export"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DependencyError, match=r"torch.*visdeploy\[export\]"):
        visdeploy.export("x.pth", tmp_path / "out.vis")


def test_manifest_and_certificate_hold_no_folder(tiny_bundle, tiny_checkpoint):
    for name in (MANIFEST, CERTIFICATE, MODEL):
        content = (tiny_bundle / name).read_bytes()
        assert str(tiny_checkpoint.parent).encode() not in content
        assert b"visdeploy_training/" not in content
        assert b"site-packages" not in content
