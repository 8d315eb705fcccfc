"""TeViT from checkpoint to bundle: clips of any length and size in one file, whatever runs it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import visdeploy
import visdeploy_plugins
from tests.shallow import shallow_backbones
from tests.visdeploy_export.narrow import compare_widths
from tests.visdeploy_export.pipelines import in_onnx_runtime, in_pytorch, step_of
from tests.visdeploy_plugins.tensorrt_child import run
from tests.visdeploy_training.methods.tevit.conftest import small_network
from visdeploy.bundle import Bundle
from visdeploy.parity.certificate import Certificate
from visdeploy.predictor import VISPredictor
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy.streaming.windows import Step
from visdeploy_export.graph import write_onnx
from visdeploy_export.methods import build_step
from visdeploy_export.proof.certify import compare_engines
from visdeploy_export.proof.clips import moving_clip, open_frames
from visdeploy_plugins import native
from visdeploy_training import save_checkpoint
from visdeploy_training.model import VISModel

VIDEO = "data/videos/sam2_01_dog.mp4"
WINDOW, OVERLAP = 8, 3
FRAMES = 20
"""Three windows, the last one short: 0-7, 5-12, 10-17, 12-19."""
BACKBONES = ("pvt_small", "resnet50", "efficientnet_lite0", "swin_l")
"""With few blocks, pvt_v2_b1 is the graph of pvt_small."""


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """Build backbones with few blocks; `test_whole_backbones.py` exports all of them."""
    with shallow_backbones():
        yield


def make(backbone: str, **changes: int) -> VISModel:
    """Return a network with small rounding errors: boxes change little, no norm is over only a few channels."""
    widths = {"hidden_dim": 32, "dynamic_dim": 16, "feedforward_dim": 32}
    model = small_network(backbone=backbone, window=WINDOW, clip_overlap=OVERLAP, **(widths | changes))
    for name, parameter in model.named_parameters():
        if name.endswith("fc_reg.weight"):
            parameter.data.mul_(0.1)
    return model


@pytest.fixture(scope="module", params=BACKBONES)
def exported(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle; its certificate was measured on a real video."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = save_checkpoint(make(request.param), folder / "model.safetensors")
    return visdeploy.export(checkpoint, certify_on=shared / VIDEO, certify_frames=FRAMES)


def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the library, so that the engine runs the function bodies."""
    monkeypatch.setattr(visdeploy_plugins, "onnxruntime_library", lambda: None)


def check(certificate: dict[str, Any]) -> None:
    assert not certificate["failures"]
    assert {o["name"]: o["worst"] <= 1e-3 for o in certificate["outputs"]} == dict.fromkeys(
        ("scores", "labels", "queries", "boxes", "mask_logits"), True
    )
    assert certificate["mean_mask_iou"] >= 0.999
    windows, pairs = 4, 4
    found = certificate["detections"]
    assert found["reference"] == found["candidate"] == found["matched"] + found["tied"] == windows * pairs
    tracks = certificate["tracks"]  # matched: a mask IoU of 0.999, or two pixels of a small mask
    assert tracks["reference"] == tracks["candidate"] == tracks["matched"] >= FRAMES
    ids = certificate["track_ids"]
    assert ids["reference"] == ids["candidate"] == ids["matched"] > 0


def check_clip(found: Certificate, count: int) -> None:
    assert (found.frames, found.failures) == (count, [])
    assert all(output.worst <= 1e-3 and output.compared for output in found.outputs)
    assert found.tracks.reference == found.tracks.candidate == found.tracks.matched >= count
    assert (found.mean_mask_iou or 0) >= 0.999


def test_our_kernels_reproduce_pytorch_on_a_real_video(exported: Bundle):
    certificate = exported.certificate()
    assert (certificate["source"], certificate["frames"]) == (Path(VIDEO).name, FRAMES)
    check(certificate)


def test_standard_operators_reproduce_pytorch_on_a_real_video(
    exported: Bundle, shared: Path, monkeypatch: pytest.MonkeyPatch
):
    without_library(monkeypatch)
    frames = open_frames(shared / VIDEO, FRAMES)
    check(compare_engines(in_pytorch(exported), in_onnx_runtime(exported), frames, source=VIDEO).model_dump())


@pytest.mark.parametrize("count", [3, 5, 8])
def test_a_real_clip_of_any_length_has_the_same_tracks(exported: Bundle, shared: Path, count: int):
    frames = open_frames(shared / VIDEO, count)
    check_clip(compare_engines(in_pytorch(exported), in_onnx_runtime(exported), frames, source=VIDEO), count)


@pytest.mark.parametrize("kernels", [True, False])
def test_the_bundle_verifies(exported: Bundle, monkeypatch: pytest.MonkeyPatch, kernels: bool):
    if not kernels:
        without_library(monkeypatch)
    report = visdeploy.verify(exported.path, device="cpu", threads=1)
    assert report.passed
    assert [op.name for op in exported.manifest.custom_ops] == ["MultiLevelRoiAlign"]


def test_the_size_of_the_content_is_an_input(exported: Bundle):
    declared = {each.name: (each.role, each.dtype, list(each.shape)) for each in exported.manifest.inputs}
    assert declared == {
        "frames": ("frames", "float32", ["frames", 3, "height", "width"]),
        "size": ("size", "int64", [2]),
    }
    graph = onnx.load(str(exported.model_path), load_external_data=False).graph
    assert [each.name for each in graph.input] == ["frames", "size"]


@pytest.mark.parametrize("kernels", [True, False])
def test_one_file_takes_clips_of_any_length_and_size(exported: Bundle, monkeypatch: pytest.MonkeyPatch, kernels: bool):
    """The messengers go around the ends of a clip of 1, 2 or 3 frames, too; each clip has a padding of its own."""
    if not kernels:
        without_library(monkeypatch)
    engines = in_pytorch(exported), in_onnx_runtime(exported)
    for length, height, width in ((1, 64, 64), (2, 64, 64), (3, 96, 160), (5, 128, 64), (WINDOW, 64, 96), (1, 32, 32)):
        frames = np.random.default_rng(length).standard_normal((length, 3, height, width)).astype(np.float32)
        frames[..., height - 9 :, :] = 0
        frames[..., width - 21 :] = 0
        step = clip_step(frames, height - 9, width - 21)
        expected, found = (engine.run(step, None, proof=True)[0] for engine in engines)
        assert expected["mask_logits"].shape == (length, 4, 28, 28)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, atol=1e-3, err_msg=f"{key} of {length}x{height}x{width}")


def clip_step(frames: NDArray[np.float32], rows: int, columns: int) -> Step:
    return step_of({"frames": frames, "size": np.array([rows, columns], np.int64)})


def test_black_borders_of_a_frame_are_no_padding(exported: Bundle):
    """Pixels that normalise to zero look like padding; only the input `size` tells one from the other."""
    frames = np.random.default_rng(0).standard_normal((2, 3, 64, 96)).astype(np.float32)
    frames[..., 50:, :] = 0
    for engine in (in_pytorch(exported), in_onnx_runtime(exported)):
        padded, black = (engine.run(clip_step(frames, rows, 96), None)[0]["boxes"] for rows in (50, 64))
        assert np.abs(padded - black).max() > 1e-3


def test_frames_of_a_clip_reach_each_other_through_the_file(exported: Bundle):
    """A change of the last frame is seen in the first one: nothing of the clip's length was fixed."""
    engine = in_onnx_runtime(exported)
    frames = np.random.default_rng(0).standard_normal((6, 3, 64, 64)).astype(np.float32)
    changed = frames.copy()
    changed[5] *= -1
    before, after = (engine.run(clip_step(each, 64, 64), None)[0]["boxes"] for each in (frames, changed))
    assert (np.abs(before - after).max(axis=(1, 2)) > 1e-6).all()


def test_the_predictor_cuts_a_video_into_windows(exported: Bundle, shared: Path, monkeypatch: pytest.MonkeyPatch):
    """Its tracks are those of PyTorch in the same windows; the last window reaches back and is not filled up."""
    frames, predictor = list(open_frames(shared / VIDEO, FRAMES)), VISPredictor(exported, device="cpu", threads=1)
    videos, lengths = [], []
    for pipeline in (predictor.pipeline, in_pytorch(exported)):
        monkeypatch.setattr(predictor, "pipeline", pipeline)
        engine = pipeline.backend.run
        monkeypatch.setattr(
            pipeline.backend, "run", lambda i, s, o, e=engine: lengths.append(len(i["frames"])) or e(i, s, o)
        )
        videos.append(predictor(iter(frames)))
    assert lengths == [WINDOW] * 4 * 2
    ours, theirs = videos
    assert ours.num_frames == theirs.num_frames == FRAMES
    assert [t.track_id for t in ours.tracks] == [t.track_id for t in theirs.tracks]
    for first, second in zip(ours.tracks, theirs.tracks, strict=True):
        assert (first.label, first.masks.keys()) == (second.label, second.masks.keys())
        assert first.score == pytest.approx(second.score, abs=1e-3)


def test_a_video_shorter_than_a_window_is_one_clip_of_its_own_length(exported: Bundle, shared: Path):
    prepare = Preprocessor(exported.manifest.preprocessing)
    frames = [np.asarray(frame) for frame in open_frames(shared / VIDEO, 3)]
    clip = np.concatenate([prepare(frame) for frame in frames])
    expected = in_pytorch(exported).run(clip_step(clip, *prepare.content_size(*frames[0].shape[:2])), None)[0]
    video = VISPredictor(exported, device="cpu", threads=1)(iter(frames))
    assert video.num_frames == 3
    found = sorted((round(track.score, 4), track.label) for track in video.tracks)
    pairs = zip(expected["scores"].mean(axis=0), expected["labels"], strict=True)
    shown = {(round(float(score), 4), int(label)) for score, label in pairs}
    assert found
    assert set(found) <= shown


def nodes(path: Path) -> tuple[int, list[str], list[int]]:
    """Return the nodes of the graph, custom nodes, nodes of the function bodies."""
    model = onnx.load(str(path))
    custom = [node.op_type for node in model.graph.node if node.domain == "visdeploy"]
    return len(model.graph.node), custom, [len(f.node) for f in model.functions]


@pytest.mark.parametrize("exported", ["efficientnet_lite0"], indirect=True)
def test_the_number_of_nodes_does_not_depend_on_queries_and_results(exported: Bundle, tmp_path: Path):
    write_onnx(build_step(make("efficientnet_lite0", num_queries=17, max_results=9)), tmp_path, metadata={})
    found = nodes(tmp_path / "model.onnx")
    assert found == nodes(exported.model_path)
    assert found[1] == ["MultiLevelRoiAlign"] * 3, "one for each stage, one for the masks"


@pytest.mark.skipif(native.library_path("libvisdeploy_tensorrt.so") is None, reason="needs TensorRT's plugins")
def test_an_engine_is_built_with_our_plugin(exported: Bundle):
    """TensorRT for RTX takes the whole file and gives an engine, on a machine without a GPU."""
    pytest.importorskip("tensorrt_rtx")
    profile = {"frames": [[1, 3, 64, 96], [WINDOW, 3, 96, 160]], "size": [[2], [2]]}
    found = run("build", model=str(exported.model_path), profile=profile)
    assert found["parsed"], found["parser_errors"]
    assert found["plan"] > 0
    assert [line for line in found["log"] if line.startswith("ERROR")] == []
    assert found["layers"].count("PLUGIN_V3") == 3
    assert set(found["outputs"]) == {"scores", "labels", "queries", "boxes", "mask_logits"}


def test_integers_of_32_bits_give_the_same(exported: Bundle):
    assert compare_widths(exported, moving_clip(6, 64, 96)) == []
