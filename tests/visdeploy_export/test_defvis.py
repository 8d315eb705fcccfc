"""DefVIS from checkpoint to bundle: our kernels, standard operators and PyTorch agree, whatever runs the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import visdeploy
import visdeploy_plugins
from tests.shallow import shallow_backbones
from tests.visdeploy_export.narrow import compare_widths
from tests.visdeploy_export.pipelines import in_onnx_runtime, in_pytorch, step_of
from tests.visdeploy_plugins.tensorrt_child import run
from tests.visdeploy_training.methods.defvis.conftest import small_network
from visdeploy.bundle import Bundle
from visdeploy_export.graph import write_onnx
from visdeploy_export.methods import build_step
from visdeploy_export.proof.certify import compare_engines
from visdeploy_export.proof.clips import moving_clip, open_frames
from visdeploy_plugins import native
from visdeploy_training import load_checkpoint, save_checkpoint
from visdeploy_training.methods.defvis import DefVIS

VIDEO = "data/videos/sam2_01_dog.mp4"
NODES_OF_A_LEVEL = 19
"""In the attention's function body, where each level is sampled on its own."""
FRAMES = {"tokens": 8, "queries": 8, "dilated": 3}
DILATED: dict[str, Any] = {"backbone": "resnet50", "train_norm": False, "dilated": True}
LAYERS = {"tokens": 2, "queries": 1, "dilated": 1}
"""Of the encoder and of the decoder."""


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """`test_whole_backbones.py` exports all blocks."""
    with shallow_backbones():
        yield


def make(name: str, **changes: Any) -> DefVIS:
    layers = {"encoder_layers": LAYERS[name], "decoder_layers": LAYERS[name]}
    return small_network(tokens=name == "tokens", **layers, **(DILATED if name == "dilated" else {}), **changes)


def talkative(model: DefVIS) -> DefVIS:
    """Return a network that finds objects in any image: no object is unlikely, masks cover about half of a frame."""
    model.class_embed.weight.data.mul_(4)
    model.class_embed.bias.data[[0, -1]] = -5
    last = model.insmask_head[-1]
    last.weight.data.mul_(4)
    last.bias.data.fill_(0.1)
    return model.eval()


@pytest.fixture(scope="module", params=FRAMES)
def exported(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Bundle]:
    """Return name and bundle; its certificate was measured on a real video."""
    name: str = request.param
    checkpoint = save_checkpoint(talkative(make(name)), tmp_path_factory.mktemp(name) / "model.safetensors")
    bundle = visdeploy.export(checkpoint, certify_on=shared / VIDEO, certify_frames=FRAMES[name])
    return name, bundle


def test_our_kernels_reproduce_pytorch_on_a_real_video(exported: tuple[str, Bundle]):
    name, bundle = exported
    certificate = bundle.certificate()
    assert (certificate["source"], certificate["frames"]) == (Path(VIDEO).name, FRAMES[name])
    check(certificate)


def test_standard_operators_reproduce_pytorch_on_a_real_video(
    exported: tuple[str, Bundle], shared: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without the library of custom operators the engine runs the function bodies."""
    name, bundle = exported
    monkeypatch.setattr(visdeploy_plugins, "onnxruntime_library", lambda: None)
    frames = open_frames(shared / VIDEO, FRAMES[name])
    found = compare_engines(in_pytorch(bundle), in_onnx_runtime(bundle), frames, source=VIDEO)
    check(found.model_dump())


def check(certificate: dict[str, Any]) -> None:
    assert not certificate["failures"]
    assert {o["name"]: o["worst"] <= 1e-3 for o in certificate["outputs"]} == dict.fromkeys(
        ("class_scores", "boxes", "mask_logits"), True
    )
    assert certificate["smallest_mask_iou"] >= 0.999
    tracks = certificate["tracks"]
    assert tracks["reference"] == tracks["candidate"] == tracks["matched"] >= certificate["frames"]
    ids = certificate["track_ids"]
    assert ids["reference"] == ids["candidate"] == ids["matched"] > 0


@pytest.mark.parametrize("kernels", [True, False])
def test_the_bundle_verifies(exported: tuple[str, Bundle], monkeypatch: pytest.MonkeyPatch, kernels: bool):
    if not kernels:
        monkeypatch.setattr(visdeploy_plugins, "onnxruntime_library", lambda: None)
    report = visdeploy.verify(exported[1].path, device="cpu", threads=1)
    assert report.passed
    assert {op.name for op in exported[1].manifest.custom_ops} == {"DeformConv", "MSDeformAttnFused"}


def nodes(path: Path) -> tuple[int, dict[str, int]]:
    """Return the nodes of the graph, and of each function body."""
    model = onnx.load(str(path))
    return len(model.graph.node), {f.name: len(f.node) for f in model.functions}


@pytest.mark.parametrize("exported", ["tokens", "queries"], indirect=True)
def test_the_number_of_nodes_does_not_depend_on_frames_and_slots(exported: tuple[str, Bundle], tmp_path: Path):
    """Only the attention's body has some nodes more for each level, which is a frame."""
    name, bundle = exported
    changes = {"num_frames": 5, "num_points": 3}
    changes |= {"instance_groups": 4, "tokens_per_group": 6} if name == "tokens" else {"queries_per_frame": 7}
    write_onnx(build_step(make(name, **changes).eval()), tmp_path, metadata={})
    (few, bodies), (many, larger) = nodes(bundle.model_path), nodes(tmp_path / "model.onnx")
    assert few == many
    assert bodies["DeformConv"] == larger["DeformConv"]
    assert larger["MSDeformAttnFused"] - bodies["MSDeformAttnFused"] == 2 * NODES_OF_A_LEVEL


def test_another_size_runs_in_the_same_graph(exported: tuple[str, Bundle]):
    name, bundle = exported
    length = bundle.manifest.window.length
    frames = np.random.default_rng(0).standard_normal((length, 3, 128, 64)).astype(np.float32)
    step = step_of({"frames": frames})
    expected, found = (engine(bundle).run(step, None, proof=True)[0] for engine in (in_pytorch, in_onnx_runtime))
    assert expected.keys() == found.keys() == {"class_scores", "boxes", "mask_logits"}
    assert found["mask_logits"].shape[-2:] == (32, 16)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-3, err_msg=f"{name} {key}")


@pytest.mark.skipif(native.library_path("libvisdeploy_tensorrt.so") is None, reason="needs TensorRT's plugins")
def test_an_engine_is_built_with_our_plugins(exported: tuple[str, Bundle]):
    """TensorRT for RTX takes the whole file and gives an engine, on a machine without a GPU."""
    pytest.importorskip("tensorrt_rtx")
    bundle = exported[1]
    length = bundle.manifest.window.length
    profile = {"frames": [[length, 3, 64, 96], [length, 3, 96, 160]]}
    found = run("build", model=str(bundle.model_path), profile=profile)
    assert found["parsed"], found["parser_errors"]
    assert found["plan"] > 0
    assert [line for line in found["log"] if line.startswith("ERROR")] == []
    layers = load_checkpoint(bundle.path.with_suffix(".safetensors"))[0].config.encoder_layers
    assert found["layers"].count("PLUGIN_V3") == layers + 1, "one attention a layer, one deformable convolution"
    outputs = {key: shape for key, (shape, kind) in found["outputs"].items() if kind == "FLOAT"}
    assert outputs["class_scores"] == list(bundle.manifest.outputs[0].shape)
    assert set(outputs) == {"class_scores", "boxes", "mask_logits"}


def test_integers_of_32_bits_give_the_same(exported: tuple[str, Bundle]):
    assert compare_widths(exported[1], moving_clip(4, 64, 96)) == []
