"""The comparison of windows with the whole video finds exactly the differences."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from visdeploy.backends.base import Backend, EngineDescription
from visdeploy.manifest import Dim, ModelSpec, Preprocessing, Window
from visdeploy_training import create_model, get_method, save_checkpoint

SIZE, FRAMES = 40, 10
Function = Callable[[np.ndarray], dict[str, np.ndarray]]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("window_difference")


class InPython(Backend):
    """Engine that computes a function of a clip."""

    def __init__(self, spec: ModelSpec, function: Function) -> None:
        super().__init__(spec, EngineDescription("python", "1", "cpu"))
        self.function = function

    def run(self, inputs: Any, state: Any, outputs: Any = None) -> Any:
        self.bind_inputs(inputs)
        found = self.function(inputs["frames"])
        return {name: found[name] for name in self.check_outputs(outputs)}, {}

    def _place_state(self, arrays: Any) -> Any:
        return dict(arrays)


def model(program: ModuleType, function: Function) -> Any:
    window = Window(mode="clip", length=4, stride=2)
    preprocessing = Preprocessing(channel_order="rgb", mean=[0] * 3, std=[1] * 3, height=SIZE, width=SIZE)
    network = get_method("tevit").inference(get_method("tevit").variants["tiny"])
    dims = network.dims | {
        "frames": Dim(minimum=1, typical=4, maximum=FRAMES),
        "pairs": Dim(minimum=2, typical=2, maximum=2),
        "height": Dim(minimum=SIZE, typical=SIZE, maximum=SIZE),
        "width": Dim(minimum=SIZE, typical=SIZE, maximum=SIZE),
    }
    fields = dict(network) | {"preprocessing": preprocessing, "window": window, "dims": dims}
    spec = ModelSpec(**fields, method="tevit", variant="tiny", classes=["a", "b"])
    return program.Model(spec, InPython(spec, function), window)


def clip_function(clip: np.ndarray) -> dict[str, np.ndarray]:
    """Return two pairs, independently of the length of the clip. The score of a frame is its first pixel."""
    frames = len(clip)
    boxes = np.array([[0.1, 0.1, 0.4, 0.5], [0.5, 0.4, 0.9, 0.9]], np.float32)
    scores = clip[:, 0, 0, 0][:, None] / np.array([100, 200], np.float32)
    return {
        "scores": scores.astype(np.float32),
        "labels": np.array([0, 1]),
        "queries": np.array([3, 8]),
        "boxes": np.tile(boxes, (frames, 1, 1)),
        "mask_logits": np.full((frames, 2, 28, 28), 2.0, np.float32),
    }


@pytest.fixture
def frames() -> list[np.ndarray]:
    return [np.full((SIZE, SIZE, 3), 40 + 3 * t, np.uint8) for t in range(FRAMES)]


def compare(program: ModuleType, function: Function, frames: list[np.ndarray]) -> dict[str, float]:
    network = model(program, function)
    whole, parts = program.predict(network, frames, FRAMES, 0), program.predict(network, frames, 4, 2)
    assert [(s.first, s.length) for s, _ in parts.raw] == [(0, 4), (2, 4), (4, 4), (6, 4)]
    return program.compare_raw(whole, parts) | program.compare_tracks(whole, parts, FRAMES)


def test_a_network_without_a_clip_does_not_mind_windows(program: ModuleType, frames: list[np.ndarray]):
    found = compare(program, clip_function, frames)
    assert found["pairs in common"] == 1
    assert all(v == 0 for name, v in found.items() if "of scores" in name or "of boxes" in name or "logits" in name)
    assert (found["tracks, whole"], found["tracks, windows"], found["tracks in common"]) == (2, 2, 2)
    assert (found["mask IoU of common tracks, smallest"], found["identical ids"]) == (1, 1)
    assert found["common tracks of one class"] == 2


def test_what_windows_change_is_found(program: ModuleType, frames: list[np.ndarray]):
    """In short clips scores are higher, the second pair is another query, and its box has moved."""

    def short(clip: np.ndarray) -> dict[str, np.ndarray]:
        outputs = clip_function(clip)
        if len(clip) < FRAMES:
            outputs["scores"] += np.float32(0.125)
            outputs["queries"][1] = 5
            outputs["boxes"][:, 1] = [0.0, 0.7, 0.3, 1.0]
        return outputs

    found = compare(program, short, frames)
    assert found["pairs in common"] == 0.5
    assert found["mean difference of scores"] == pytest.approx(0.125, rel=1e-5)
    assert found["largest difference of boxes"] == 0
    assert (found["tracks, whole"], found["tracks, windows"], found["tracks in common"]) == (2, 2, 1)
    assert found["identical ids"] == 0
    assert found["score difference of common tracks, largest"] == pytest.approx(0.125, rel=1e-3)


def test_a_checkpoint_takes_the_whole_video_whatever_its_window(program: ModuleType, tmp_path: Path):
    network = create_model("tevit", "tiny", num_classes=2, num_queries=4, window=6, clip_overlap=2)
    path = save_checkpoint(network, tmp_path / "model.safetensors")
    found = program.open_model(path, 1, 9)
    assert (found.window.length, found.window.overlap) == (6, 2)
    assert (found.spec.window.length, found.backend.spec.dims["frames"].maximum) == (9, 9)
    assert program.open_model(path, 1, 3).spec.window.length == 6


def test_clips_of_one_length_only_are_refused(program: ModuleType, tmp_path: Path):
    network = create_model("defvis", "tiny", num_classes=2, hidden_dim=48, num_heads=4, mask_groups=1)
    path = save_checkpoint(network, tmp_path / "model.safetensors")
    with pytest.raises(SystemExit, match="accepts only clips of 12 frames"):
        program.open_model(path, 1, 9)
