"""Checkpoints with random weights for benchmarks: every method is supported, and its network finds objects."""

import importlib

import pytest

from tests.conftest import REPOSITORY
from visdeploy.errors import ConfigError
from visdeploy_export.proof.clips import moving_clip
from visdeploy_training import load_checkpoint
from visdeploy_training.predict import predict_clip
from visdeploy_training.registry import METHODS, get_method


@pytest.fixture
def random_weights(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("random_weights")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_finds_objects(random_weights, tmp_path, method):
    model, info = load_checkpoint(random_weights.random_checkpoint(tmp_path / "a.safetensors", method, "tiny"))
    assert (info.method, info.variant, dict(info.overrides)) == (method, "tiny", {})
    assert predict_clip(model, moving_clip(4, 90, 160)).tracks


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_window_where_there_is_one(random_weights, tmp_path, method):
    path, variant = tmp_path / "a.safetensors", get_method(method).variants["tiny"]
    if get_method(method).inference(variant).window.mode == "online":
        with pytest.raises(ConfigError, match="unknown setting 'window'"):
            random_weights.random_checkpoint(path, method, "tiny", frames=4)
    else:
        model, _ = load_checkpoint(random_weights.random_checkpoint(path, method, "tiny", frames=4))
        window = get_method(method).inference(model.config).window
        assert (window.length, window.overlap) == (4, 1)


def test_the_same_weights_each_time(random_weights, tmp_path):
    files = [random_weights.random_checkpoint(tmp_path / name, "visolo", "tiny", objects=n) for name, n in CASES]
    first, second, third = (file.read_bytes() for file in files)
    assert first == second != third


CASES = (("a.safetensors", 15), ("b.safetensors", 15), ("c.safetensors", 3))
