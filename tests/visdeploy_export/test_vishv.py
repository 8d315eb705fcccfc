"""VIShv from checkpoint to bundle: outputs of both engines, sizes, and a video that is shorter than a clip."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import visdeploy
from tests.shallow import shallow_backbones
from tests.visdeploy_export.narrow import compare_widths
from tests.visdeploy_export.pipelines import in_onnx_runtime, in_pytorch
from tests.visdeploy_plugins.tensorrt_child import run
from tests.visdeploy_training.methods.vishv.conftest import small_network
from visdeploy.bundle import Bundle
from visdeploy.predictor import VISPredictor
from visdeploy_export.proof.clips import moving_clip
from visdeploy_export.rtx_graph import for_rtx
from visdeploy_plugins import native
from visdeploy_training import save_checkpoint
from visdeploy_training.methods.vishv import METHOD

pytestmark = pytest.mark.slow

VIDEO = "data/videos/sam2_01_dog.mp4"


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """Build backbones with few blocks: an export takes as long as its graph is large."""
    with shallow_backbones():
        yield


@pytest.fixture(scope="module", params=["semantic", "seediness"])
def exported(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle of each kind of head; its certificate was measured on a real video."""
    changes = {"window": 4, "clip_overlap": 2}
    if request.param == "seediness":
        changes |= {"semantic": False, "separate_seediness": True, "output": "davis", "resize_embeddings": True}
    model = small_network(**changes)
    METHOD.show_objects(model, 4)
    checkpoint = save_checkpoint(model, tmp_path_factory.mktemp(request.param) / "model.safetensors")
    return visdeploy.export(checkpoint, certify_on=shared / VIDEO, certify_frames=6)


def test_onnx_runtime_reproduces_pytorch_on_a_real_video(exported: Bundle):
    certificate = exported.certificate()
    assert not certificate["failures"]
    tracks = certificate["tracks"]
    assert tracks["reference"] == tracks["candidate"] == tracks["matched"] > 6
    outputs = {each["name"]: each for each in certificate["outputs"]}
    assert {"embeddings", "bandwidths", "seediness"} <= set(outputs)
    assert all(each["passed"] and each["compared"] and each["worst"] <= 1e-3 for each in outputs.values())
    ids = certificate["track_ids"]
    assert ids["reference"] == ids["candidate"] == ids["matched"] > 1


@pytest.mark.parametrize("size", [(96, 128), (128, 96)])
def test_other_sizes_give_the_same_outputs(exported: Bundle, size: tuple[int, int]):
    frames = np.random.default_rng(0).standard_normal((4, 3, *size), np.float32)
    found = [
        pipeline.backend.run({"frames": frames}, {})[0]
        for pipeline in (in_pytorch(exported), in_onnx_runtime(exported))
    ]
    assert set(found[0]) == {each.name for each in exported.manifest.outputs}
    for name, value in found[0].items():
        assert np.abs(value - found[1][name]).max() <= 1e-3 * max(1.0, float(np.abs(value).max())), name


def test_frames_are_scaled_as_floats_and_sizes_rounded_to_even(exported: Bundle):
    preprocessing = exported.manifest.preprocessing
    assert (preprocessing.interpolation, preprocessing.rounding) == ("float_bilinear", "half_even")


def test_the_flow_is_not_in_the_graph(exported: Bundle):
    names = [each.name for each in onnx.load(exported.path / "model.onnx").graph.initializer]
    assert names
    assert not [name for name in names if "offset_head" in name]


@pytest.mark.skipif(native.library_path("libvisdeploy_tensorrt.so") is None, reason="needs TensorRT's plugins")
def test_tensorrt_for_rtx_builds_an_engine_of_the_whole_graph(exported: Bundle, tmp_path: Path):
    """All its operators have kernels there: nothing is replaced, no plugin is needed, no GPU is needed to build."""
    pytest.importorskip("tensorrt_rtx")
    model = onnx.load(str(exported.model_path))
    replaced = for_rtx(model)
    assert [(n.op_type, *n.input) for n in replaced.graph.node] == [(n.op_type, *n.input) for n in model.graph.node]
    onnx.save(replaced, str(tmp_path / "rtx.onnx"))
    found = run("build", model=str(tmp_path / "rtx.onnx"), profile={"frames": [[4, 3, 96, 96], [4, 3, 96, 128]]})
    assert found["plan"] > 0, found["parser_errors"]
    assert [line for line in found["log"] if line.startswith("ERROR")] == []
    assert "PLUGIN_V3" not in found["layers"]
    assert {name: shape[0] for name, (shape, _) in found["outputs"].items()} == {
        each.name: 4 for each in exported.manifest.outputs
    }


def test_a_video_shorter_than_a_clip(exported: Bundle):
    frames = [np.full((90, 150, 3), 40 * i, np.uint8) for i in range(3)]
    result = VISPredictor(exported, device="cpu", threads=1)(frames)
    assert [each.index for each in result.frames()] == [0, 1, 2]


def test_integers_of_32_bits_give_the_same(exported: Bundle):
    assert compare_widths(exported, moving_clip(6, 64, 96)) == []
