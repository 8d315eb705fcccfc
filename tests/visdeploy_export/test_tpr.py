"""TPR from checkpoint to bundle: alignment with the previous frame, sizes, streams, and frames without detections."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import visdeploy
import visdeploy_plugins
from tests.shallow import shallow_backbones
from tests.visdeploy_export.narrow import compare_widths
from tests.visdeploy_export.pipelines import in_onnx_runtime, in_pytorch
from tests.visdeploy_plugins.tensorrt_child import run
from tests.visdeploy_training.methods.tpr.conftest import small_network
from visdeploy.bundle import Bundle
from visdeploy.errors import ConfigError, EngineError
from visdeploy.manifest.sizes import evaluate
from visdeploy.predictor import VISPredictor
from visdeploy.results import FrameResult
from visdeploy_export.proof.certify import compare_engines
from visdeploy_export.proof.clips import moving_clip, open_frames
from visdeploy_export.rtx_graph import for_rtx
from visdeploy_plugins import native
from visdeploy_training import save_checkpoint
from visdeploy_training.methods.tpr import METHOD
from visdeploy_training.methods.tpr.gates import SpatialGate

pytestmark = pytest.mark.slow

VIDEO = "data/videos/sam2_01_dog.mp4"
FRAMES = 6
SIZES = ((90, 160), (160, 160))
"""Of frames; those of the network's input are 160x288 and 160x160."""
Clips = list[list[NDArray[np.uint8]]]


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """Build backbones with few blocks: an export takes as long as its graph is large."""
    with shallow_backbones():
        yield


@pytest.fixture(scope="module", params=["tiny_sepc", "tiny"])
def exported(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle; its certificate was measured on a real video."""
    sizes = {"channels": 32, "num_groups": 8, "track_dim": 16, "cpr_depths": (1, 0, 0, 0, 1)}
    model = small_network(request.param, spread=0.02, **sizes)
    METHOD.show_objects(model, 60)
    checkpoint = save_checkpoint(model, tmp_path_factory.mktemp(request.param) / "model.safetensors")
    return visdeploy.export(checkpoint, certify_on=shared / VIDEO, certify_frames=FRAMES)


def check(certificate: dict[str, Any]) -> None:
    assert not certificate["failures"]
    outputs = {each["name"]: each for each in certificate["outputs"]}
    states = {name for name, each in outputs.items() if each["measure"] == "state"}
    assert set(outputs) - states == {"scores", "labels", "boxes", "masks", "embeddings", "cells", "open_gates"}
    assert states == {*(f"next_mem_p{level}" for level in range(3, 8)), "next_started"}
    assert all(each["passed"] and each["compared"] for each in outputs.values())
    share = float(outputs["open_gates"]["note"].removesuffix(" % of the gates open"))
    assert 5 < share < 95
    found, ids = certificate["detections"], certificate["track_ids"]
    assert found["reference"] == found["candidate"] == found["matched"] > FRAMES
    assert ids["reference"] == ids["candidate"] == ids["matched"] > 0
    assert certificate["mean_mask_iou"] >= 0.999


def test_our_kernels_reproduce_pytorch_on_a_real_video(exported: Bundle):
    certificate = exported.certificate()
    assert (certificate["source"], certificate["frames"]) == (Path(VIDEO).name, FRAMES)
    check(certificate)


def test_standard_operators_reproduce_pytorch_on_a_real_video(
    exported: Bundle, shared: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(visdeploy_plugins, "onnxruntime_library", lambda: None)
    frames = open_frames(shared / VIDEO, FRAMES)
    check(compare_engines(in_pytorch(exported), in_onnx_runtime(exported), frames, source=VIDEO).model_dump())


@pytest.mark.parametrize("kernels", [True, False])
def test_the_bundle_verifies(exported: Bundle, monkeypatch: pytest.MonkeyPatch, kernels: bool):
    if not kernels:
        monkeypatch.setattr(visdeploy_plugins, "onnxruntime_library", lambda: None)
    assert visdeploy.verify(exported.path, device="cpu", threads=1).passed


def test_the_graph_has_our_operators_and_the_pyramid_as_state(exported: Bundle):
    manifest = exported.manifest
    assert {op.name for op in manifest.custom_ops} == {"DeformConv", "MaskedConv", "MultiLevelRoiAlign"}
    assert [(each.name, list(each.shape)) for each in manifest.inputs] == [("frame", [1, 3, "height", "width"])]
    assert {each.input: list(each.shape) for each in manifest.state} == {
        "mem_p3": [1, 32, "height/8", "width/8"],
        "mem_p4": [1, 32, "height/16", "width/16"],
        "mem_p5": [1, 32, "height/32", "width/32"],
        "mem_p6": [1, 32, "ceil(height/64)", "ceil(width/64)"],
        "mem_p7": [1, 32, "ceil(height/128)", "ceil(width/128)"],
        "started": [1],
    }
    assert (manifest.dims["height"].minimum, manifest.dims["height"].multiple) == (160, 32)


@pytest.mark.skipif(native.library_path("libvisdeploy_tensorrt.so") is None, reason="needs TensorRT's plugins")
def test_an_engine_is_built_with_our_plugins(exported: Bundle, tmp_path: Path):
    """TensorRT for RTX gives an engine of the whole step, on a machine without a GPU."""
    pytest.importorskip("tensorrt_rtx")
    model = onnx.load(str(exported.model_path))
    onnx.save(for_rtx(model), str(tmp_path / "rtx.onnx"))
    shapes = {each.name: each.shape for each in exported.manifest.inputs}
    shapes |= {each.input: each.shape for each in exported.manifest.state}
    sizes = {"height": 192, "width": 256}
    profile = {name: [[evaluate(size, sizes) for size in shape]] * 2 for name, shape in shapes.items()}
    found = run("build", model=str(tmp_path / "rtx.onnx"), profile=profile)
    assert found["plan"] > 0, found["parser_errors"]
    assert [line for line in found["log"] if line.startswith("ERROR")] == []
    ours = [node for node in model.graph.node if node.domain == "visdeploy" or node.op_type == "DeformConv"]
    assert found["layers"].count("PLUGIN_V3") == len(ours)


@pytest.fixture(scope="module")
def predictor(exported: Bundle) -> VISPredictor:
    return VISPredictor(exported, device="cpu", threads=1)


@pytest.fixture(scope="module")
def clips(shared: Path) -> Clips:
    """Return frames of the video in both sizes, in which both networks find objects."""
    frames = [Image.fromarray(np.asarray(frame)) for frame in open_frames(shared / VIDEO, 5)]
    return [[np.asarray(frame.resize((width, height))) for frame in frames] for height, width in SIZES]


def push(stream: visdeploy.Stream, frame: NDArray[np.uint8]) -> FrameResult:
    result = stream.push(frame)
    assert result is not None
    return result


def same(ours: FrameResult, theirs: FrameResult) -> bool:
    return [(i.track_id, i.label, i.score, i.mask) for i in ours] == [
        (i.track_id, i.label, i.score, i.mask) for i in theirs
    ]


def test_streams_of_two_sizes_share_a_predictor(predictor: VISPredictor, clips: Clips):
    """In turns, each gives what it gives alone; the first frame of each is not aligned."""
    alone = []
    for clip in clips:
        with predictor.open_stream() as stream:
            alone.append([push(stream, frame) for frame in clip])
    assert all(len(result) for results in alone for result in results)
    with predictor.open_stream() as first, predictor.open_stream() as second:
        for t in range(5):
            for stream, clip, expected in zip((first, second), clips, alone, strict=True):
                assert same(push(stream, clip[t]), expected[t])


def test_a_saved_stream_goes_on_as_if_it_had_not_ended(predictor: VISPredictor, clips: Clips, tmp_path: Path):
    """Pyramid, remembered objects and class decisions are part of the saved state."""
    clip = clips[0]
    with predictor.open_stream() as stream:
        expected = [push(stream, frame) for frame in clip]
    with predictor.open_stream() as stream:
        for frame in clip[:2]:
            push(stream, frame)
        stream.save(tmp_path / "stream.npz")
    with predictor.load_stream(tmp_path / "stream.npz") as resumed, predictor.open_stream() as new:
        for t, frame in enumerate(clip[2:], start=2):
            assert same(push(resumed, frame), expected[t])
            assert not same(push(new, frame), expected[t])


def test_frames_without_detections(predictor: VISPredictor, clips: Clips):
    """A uniform frame of the mean colour shows nothing; the frames after it show objects."""
    blank = np.full((*SIZES[0], 3), 127, np.uint8)
    with predictor.open_stream() as stream:
        assert [len(push(stream, blank)) for _ in range(2)] == [0, 0]
        counts = [len(push(stream, frame)) for frame in clips[0]]
    assert min(counts) > 0


def test_narrow_frames_are_refused(predictor: VISPredictor):
    """The shorter side of the input is at least 160, which the longest edge does not leave here."""
    with predictor.open_stream() as stream, pytest.raises(EngineError, match=r"'height'.*160"):
        stream.push(np.zeros((40, 400, 3), np.uint8))


def test_a_gate_without_activation_is_closed_in_onnx_runtime(tmp_path: Path):
    """Tanh rounds differently there, so that the sum for an activation of 0 is not 0."""
    gate = SpatialGate(1)
    torch.nn.init.zeros_(gate.gate_conv.bias)
    features = torch.zeros(1, 1, 5, 37)
    features[..., 20:] = torch.randn(5, 17, generator=torch.Generator().manual_seed(0))
    torch.onnx.export(gate, (features,), str(tmp_path / "gate.onnx"), dynamo=True, opset_version=20, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "gate.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: features.numpy()})
    expected = gate(features).detach().numpy()
    assert not expected[..., :19].any()
    assert expected[..., 20:].any()
    np.testing.assert_array_equal(found > 0, expected > 0)


def test_a_network_of_the_pre_training_is_refused(tmp_path: Path):
    checkpoint = save_checkpoint(small_network("tiny_image"), tmp_path / "image.safetensors")
    with pytest.raises(ConfigError, match="image stage"):
        visdeploy.export(checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def test_integers_of_32_bits_give_the_same(exported: Bundle):
    assert compare_widths(exported, moving_clip(3, 64, 96)) == []
