"""The exported step of TPR: its outputs are those of the modules computed at all locations; state and streams."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from tests.visdeploy_training.methods.tpr.conftest import pyramid, small_network
from visdeploy.errors import ConfigError
from visdeploy.manifest.sizes import evaluate
from visdeploy_training import create_model
from visdeploy_training.methods.tpr import METHOD, TPR, OnlineStep
from visdeploy_training.methods.tpr.detect import candidates
from visdeploy_training.methods.tpr.inference import gated_blocks, pyramid_specs
from visdeploy_training.predict import predict_clip

pytestmark = pytest.mark.isa

Outputs = dict[str, Tensor]


@pytest.fixture(scope="module", params=["tiny", "tiny_sepc"])
def talkative(request: pytest.FixtureRequest) -> TPR:
    """Return a network that finds objects in noise; tests must not change it."""
    model = small_network(request.param)
    METHOD.show_objects(model, 40)
    return model


def clip(count: int, size: tuple[int, int] = (96, 160), *, seed: int = 5) -> Tensor:
    return torch.randn(count, 1, 3, *size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def walk(model: TPR, frames: Tensor) -> list[Outputs]:
    """Return the outputs of every frame of a stream."""
    step = OnlineStep(model).eval()
    state, found = step.initial_state(*frames.shape[3:]), []
    for frame in frames:
        outputs = dict(zip(step.output_names, step(frame, **state), strict=True))
        state = {name: outputs[f"next_{name}"] for name in state}
        found.append(outputs)
    return found


def levels_of(outputs: Outputs) -> list[Tensor]:
    return [outputs[f"next_mem_p{i}"] for i in range(3, 8)]


@torch.no_grad()
def test_the_first_frame_is_not_aligned(talkative: TPR):
    """Whatever the state contains, as long as it says that no frame came before."""
    (frame,) = clip(1)
    step = OnlineStep(talkative).eval()
    state = step.initial_state(96, 160)
    noise = {name: torch.randn_like(value) for name, value in state.items() if name != "started"}
    plain = talkative.backbone(frame)
    for given in (state, state | noise):
        outputs = dict(zip(step.output_names, step(frame, **given), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(levels_of(outputs), plain, strict=True))
        assert (outputs["open_gates"] == -1).all()
        assert outputs["next_started"].tolist() == [1]
        check_heads(talkative, plain, outputs)


@torch.no_grad()
def test_later_frames_are_aligned_with_the_aligned_pyramid(talkative: TPR):
    """The memory is recurrent: it contains the aligned levels, not those of the frame alone."""
    frames = clip(3)
    found = walk(talkative, frames)
    assert talkative.temporal_align is not None
    for t in (1, 2):
        aligned = talkative.temporal_align(levels_of(found[t - 1]), talkative.backbone(frames[t]))
        assert all(torch.equal(a, b) for a, b in zip(levels_of(found[t]), aligned, strict=True))
        check_heads(talkative, aligned, found[t])
        shares = found[t]["open_gates"]
        assert shares.shape == (gated_blocks(talkative.config),)
        assert ((shares >= 0) & (shares <= 1)).all()
        assert shares.unique().numel() > 2


def check_heads(model: TPR, levels: list[Tensor], outputs: Outputs) -> None:
    """Compare with attention and embeddings that were computed at all locations."""
    config, found, count = model.config, model.heads(levels), len(outputs["scores"])
    assert count > 0
    every = candidates(found.predictions, config)
    rows = {cell: row for row, cell in enumerate(every.cells.tolist())}
    kept = torch.tensor([rows[cell] for cell in outputs["cells"].tolist()])
    for name in ("scores", "labels", "boxes"):
        torch.testing.assert_close(outputs[name], getattr(every, name)[kept])
    assert (outputs["scores"].diff() <= 0).all()
    dense = torch.cat([x[0].flatten(1).T for x in found.attention])
    maps = dense[outputs["cells"] // config.num_classes].unflatten(1, (config.num_bases, 4, 4))
    side = config.mask_size
    raised = torch.nn.functional.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
    crops = roi_align(found.bases, [outputs["boxes"]], (side, side), spatial_scale=0.25, sampling_ratio=1, aligned=True)
    masks = (crops * raised.softmax(dim=1)).sum(dim=1).sigmoid()
    torch.testing.assert_close(outputs["masks"], masks, rtol=1e-4, atol=1e-4)
    assert model.track_head is not None
    embedding_map = model.track_head(levels)[0]
    for box, embedding in zip(outputs["boxes"].tolist(), outputs["embeddings"], strict=True):
        x, y = (int(((box[i] + box[i + 2]) / 2) // 8) for i in (0, 1))
        x, y = min(max(x, 0), embedding_map.shape[2] - 1), min(max(y, 0), embedding_map.shape[1] - 1)
        torch.testing.assert_close(embedding, embedding_map[:, y, x], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [(96, 160), (160, 288), (32, 32), (160, 96), (384, 640)])
def test_sizes_of_the_state(size: tuple[int, int]):
    """Those of the initial state, of the manifest's expressions, and of the next state are the same."""
    model = small_network()
    state = OnlineStep(model).initial_state(*size)
    sides = {"height": size[0], "width": size[1]}
    for spec in pyramid_specs(model.config):
        assert tuple(state[spec.input].shape) == tuple(evaluate(each, sides) for each in spec.shape)
        assert str(state[spec.input].dtype) == f"torch.{spec.dtype}"
        assert not state[spec.input].any()
        assert spec.initial == 0
    if size != (384, 640):
        (outputs,) = walk(model, clip(1, size))
        assert {name: outputs[f"next_{name}"].shape for name in state} == {k: v.shape for k, v in state.items()}


def test_two_streams_of_different_sizes(talkative: TPR):
    """In turns, each gives what it gives alone."""
    sizes = ((96, 160), (64, 96))
    videos = [clip(3, size, seed=i) for i, size in enumerate(sizes)]
    alone = [walk(talkative, frames) for frames in videos]
    step = OnlineStep(talkative).eval()
    states = [step.initial_state(*size) for size in sizes]
    for t in range(3):
        for i, frames in enumerate(videos):
            with torch.no_grad():
                outputs = dict(zip(step.output_names, step(frames[t], **states[i]), strict=True))
            states[i] = {name: outputs[f"next_{name}"] for name in states[i]}
            assert all(torch.equal(outputs[k], alone[i][t][k]) for k in outputs)


@torch.no_grad()
def test_a_step_does_not_change_its_inputs(talkative: TPR):
    step, (frame,) = OnlineStep(talkative).eval(), clip(1)
    names = [f"mem_p{i}" for i in range(3, 8)]
    state = dict(zip(names, pyramid(96, 160), strict=True)) | {"started": torch.ones(1, dtype=torch.int64)}
    kept = {name: value.clone() for name, value in state.items()}
    step(frame, **state)
    assert all(torch.equal(state[name], kept[name]) for name in state)


def test_frames_without_detections():
    model = small_network(score_threshold=0.999)
    for outputs in walk(model, clip(2)):
        shapes = [tuple(outputs[name].shape) for name in ("scores", "labels", "boxes", "masks", "embeddings", "cells")]
        assert shapes == [(0,), (0,), (0, 4), (0, 8, 8), (0, 8), (0,)]


def test_networks_without_tracks_are_refused():
    with pytest.raises(ConfigError, match=r"image stage.*tiny_image"):
        OnlineStep(small_network("tiny_image"))
    with torch.device("meta"):
        other = create_model("visolo", "tiny", num_classes=1)
    with pytest.raises(TypeError, match="TPR"):
        OnlineStep(other)
    with pytest.raises(TypeError, match="TPR"):
        METHOD.show_objects(other, 3)


@pytest.mark.parametrize("variant", sorted(METHOD.variants))
def test_the_graph_of_every_variant_is_described(variant: str):
    """Numbers of gated blocks: two per level, and those of the routing layers."""
    config = METHOD.variants[variant]
    if config.stage == "image":
        return
    spec = METHOD.inference(config)
    outputs = {each.name: list(each.shape) for each in spec.outputs}
    counts = {"sepc": 10, "routing": 10 + (5 + 4 + 3 + 3 + 3 if "tiny" in variant else 32)}
    assert outputs["open_gates"] == [counts[config.cpr]]
    assert [each.input for each in spec.state] == ["mem_p3", "mem_p4", "mem_p5", "mem_p6", "mem_p7", "started"]
    assert spec.dims["n"].maximum == 5 * config.nms_pre
    assert (spec.preprocessing.pad_divisor, spec.preprocessing.resize) == (32, "shortest_edge")


@pytest.mark.parametrize("count", [20, 60])
@torch.no_grad()
def test_an_untrained_network_finds_about_so_many_objects(count: int):
    model = small_network(max_detections=1000)
    METHOD.show_objects(model, count)
    predictions = model.proposal_generator.fcos_head(model.backbone(clip(1, (160, 160))[0]))
    cells = candidates(predictions, model.config).cells
    assert count / 4 < len((cells // 3).unique()) < 4 * count


def test_prediction_of_a_video(talkative: TPR):
    """The pipeline of the runtime: identities last over frames, and the mode of the network is restored."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (70, 120, 3), dtype=np.uint8)
    talkative.train()
    video = predict_clip(talkative, [picture] * 4)
    assert talkative.training
    talkative.eval()
    assert (video.num_frames, video.height, video.width) == (4, 70, 120)
    assert video.tracks
    assert max(len(track.masks) for track in video.tracks) > 1


def test_settings_of_the_decoder_follow_the_configuration():
    config = dataclasses.replace(
        METHOD.variants["tiny"], mask_threshold=0.4, iou_weight=1.5, max_objects=7, rescale_first_frame_memory=False
    )
    spec = METHOD.inference(config)
    assert spec.decode == {"mask_threshold": 0.4}
    assert spec.tracking == {
        "score_weight": 1.0, "iou_weight": 1.5, "label_weight": 10.0, "rescale_first_frame_memory": False,
        "max_objects": 7,
    }  # fmt: skip
