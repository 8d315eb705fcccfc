"""The comparison of windows with the whole video sees exactly what differs."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from visdeploy.manifest import Preprocessing, Window

SIZE, FRAMES = 40, 10


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("window_difference")


def model(program: ModuleType, run: Any) -> Any:
    preprocessing = Preprocessing(channel_order="rgb", mean=[0] * 3, std=[1] * 3, height=SIZE, width=SIZE)
    return program.Model(
        "tevit", ("a", "b"), preprocessing, Window(mode="clip", length=4, stride=2), {}, {"overlap": 2}, run
    )


def clip_function(clip: np.ndarray) -> dict[str, np.ndarray]:
    """Two pairs; nothing depends on the length of the clip. A frame's score is its first pixel."""
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


def compare(program: ModuleType, run: Any, frames: list[np.ndarray]) -> dict[str, float]:
    network = model(program, run)
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
