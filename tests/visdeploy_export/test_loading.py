"""The size and the settings that an export asks for are those of the runtime."""

import pytest

from visdeploy.errors import ConfigError
from visdeploy.manifest import Window
from visdeploy_export.loading import load_model
from visdeploy_export.methods import build_step
from visdeploy_training import create_model, get_method, save_checkpoint

KEPT = {"resize": "shortest_edge", "height": 64, "width": 192}
EXACT = {"resize": "exact", "height": 64, "width": 192}


@pytest.mark.parametrize(
    ("method", "overrides", "expected"),
    [
        ("visolo", {"head_width": 16, "mask_width": 16, "neck_width": 16, "track_dim": 16}, EXACT),
        ("defvis", {"hidden_dim": 48, "num_heads": 4, "mask_groups": 1}, EXACT),
        ("defvis", {"hidden_dim": 48, "num_heads": 4, "mask_groups": 1, "size_multiple": 1}, KEPT),
        ("tevit", {}, EXACT),
        ("tevit", {"shortest_edge": 90, "longest_edge": 160}, KEPT),
    ],
)
def test_size(tmp_path, method, overrides, expected):
    model = create_model(method, "tiny", num_classes=2, **overrides)
    path = save_checkpoint(model, tmp_path / "model.safetensors")
    found = get_method(method).inference(load_model(path, height=64, width=192).config).preprocessing
    assert {name: getattr(found, name) for name in expected} == expected
    unchanged = get_method(method).inference(load_model(path).config).preprocessing
    assert unchanged == get_method(method).inference(model.config).preprocessing


NARROW = {"hidden_dim": 32, "dynamic_dim": 16, "feedforward_dim": 32}


def test_a_clip_method_takes_another_window_and_overlap(tmp_path):
    made = create_model("tevit", "tiny", num_classes=2, window=8, clip_overlap=3, **NARROW)
    path = save_checkpoint(made, tmp_path / "model.safetensors")
    model = load_model(path, overrides={"window": 60, "overlap": 20, "max_results": 2})
    spec = build_step(model).spec
    assert spec.window == Window(mode="clip", length=60, stride=40)
    assert spec.dims["frames"].maximum == 60
    assert (model.config.max_results, model.config.hidden_dim) == (2, 32)
    narrow = build_step(load_model(path, overrides={"window": 4})).spec
    assert narrow.window == Window(mode="clip", length=4, stride=3), "the overlap of 3 of 8 frames, scaled"
    with pytest.raises(
        ConfigError, match=r"clip_overlap has a wrong value \(seen: 3; expected: less than the window, 2"
    ):
        load_model(path, overrides={"window": 2, "overlap": 3})


def test_settings_are_checked_with_the_networks_own_classes(tmp_path):
    path = save_checkpoint(create_model("tevit", "tiny", num_classes=2, **NARROW), tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"max_results has a wrong value.*25.*at most 24, all pairs"):
        load_model(path, overrides={"max_results": 25})
