"""The step function can be exported by `torch.onnx.export`, and ONNX Runtime agrees with PyTorch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.goldens.seeded import seeded_frames
from tests.shallow import shallow_backbones
from tests.visdeploy_training.methods.visolo.conftest import SMALL, seed_heads
from visdeploy_training import create_model
from visdeploy_training.methods.visolo import VISOLO, OnlineStep

PER_DETECTION = ("scores", "labels", "cells", "class_scores", "masks", "query", "reference", "mask_logits")


@pytest.fixture(scope="module")
def step() -> Iterator[OnlineStep]:
    """The time that an export takes grows with the blocks of the backbone; no test here asks for more of them."""
    with shallow_backbones():
        torch.manual_seed(0)
        model = create_model("visolo", "tiny", num_classes=5, **SMALL)
        assert isinstance(model, VISOLO)
        yield OnlineStep(seed_heads(model)).eval()


@pytest.fixture(scope="module")
def session(step: OnlineStep, tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    path: Path = tmp_path_factory.mktemp("onnx") / "step.onnx"
    height, width = (torch.export.Dim(n, min=1, max=64) for n in ("height", "width"))
    with torch.no_grad():
        program = torch.onnx.export(
            step,
            (torch.zeros(1, 3, 64, 96), *step.initial_state().values()),
            dynamo=True,
            opset_version=20,
            input_names=step.input_names,
            output_names=step.output_names,
            dynamic_shapes=[{2: 32 * height, 3: 32 * width}, *[None] * 5],
            verbose=False,
        )
    program.save(path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_runtime_agrees_over_12_frames(step: OnlineStep, session: onnxruntime.InferenceSession, size: tuple[int, int]):
    clip = (torch.from_numpy(seeded_frames("export", 12, *size)).float().permute(0, 3, 1, 2) - 116) / 57
    clip[7] = 0.0
    state = step.initial_state()
    mirror = {k: v.numpy() for k, v in state.items()}
    counts = []
    for frame in clip[:, None]:
        with torch.no_grad():
            ours = dict(zip(step.output_names, step(frame, **state), strict=True))
        values = session.run(None, {"frame": frame.numpy(), **mirror})
        theirs = dict(zip(step.output_names, values, strict=True))
        state = {k: ours[f"next_{k}"] for k in state}
        mirror = {k: theirs[f"next_{k}"] for k in mirror}
        compare({k: v.numpy() for k, v in ours.items()}, theirs)
        counts.append(len(theirs["scores"]))
    assert max(counts) > 0


def compare(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    order = {id(side): np.argsort(side["cells"]) for side in (ours, theirs)}
    for name in ours:
        a, b = ours[name], theirs[name]
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        if name in PER_DETECTION:  # equal scores may swap by rounding
            a, b = a[order[id(ours)]], b[order[id(theirs)]]
        if name in ("labels", "cells", "next_mem_frame", "next_step"):
            np.testing.assert_array_equal(a, b, err_msg=name)
        elif name == "masks":
            assert (a != b).mean() < 1e-3 if a.size else True
        elif name not in ("overlaps", "scores"):
            # random weights give logits of any size; sums of many of them round by a share of the largest
            largest = float(np.abs(a).max(initial=1.0))
            np.testing.assert_allclose(a, b, atol=max(1e-3, 2e-4 * largest), rtol=1e-3, err_msg=name)
    # a pixel on the threshold changes a mask score by one part in its area
    np.testing.assert_allclose(np.sort(ours["scores"]), np.sort(theirs["scores"]), atol=5e-3)


@pytest.mark.slow
def test_frame_without_detections(step: OnlineStep, session: onnxruntime.InferenceSession):
    state = {k: v.numpy() for k, v in step.initial_state().items()}
    # a later frame without any remembered one: its grid weight is zero everywhere, which leaves no candidate
    state["step"][:] = 2
    frame = np.zeros((1, 3, 64, 96), np.float32)
    outputs = dict(zip(step.output_names, session.run(None, {"frame": frame, **state}), strict=True))
    assert not outputs["grid_weight"].any()
    for name in PER_DETECTION:
        assert outputs[name].shape[0] == 0
    assert outputs["overlaps"].shape == (0, 0)
    assert outputs["masks"].shape == (0, 64, 96)
