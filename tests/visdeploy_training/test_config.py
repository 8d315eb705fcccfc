"""Every method's configuration refuses wrong values by name, and takes the lists of JSON and YAML."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from visdeploy.errors import ConfigError
from visdeploy_training.config import RUN_TIME, MethodConfig
from visdeploy_training.registry import METHODS, create_model, get_method

WEIGHT = "the first weight of a loss"
ACCEPTED = {10**9: ("flow_iterations",)}
TINY = {name: get_method(name).variants["tiny"] for name in METHODS}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_all_variants_know_their_method(name):
    for config in get_method(name).variants.values():
        assert isinstance(config, MethodConfig)
        assert config.method == name


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("num_classes", 0, "at least 1"),
        ("backbone", "lenet", "efficientnet_lite0"),
        ("height", 97, "a positive multiple of"),
        ("width", -32, "a positive multiple of"),
        ("height", 96.0, "a whole number"),
        ("height", 9024, "at most 8192"),
        ("num_classes", 10**9, "at most 1048576"),
        ("freeze_at", -1, "at least 0"),
        ("pixel_std", (1.0, 0.0, 1.0), "positive numbers"),
        ("num_classes", True, "a whole number"),
        (WEIGHT, "much", "a number"),
        (WEIGHT, float("nan"), "a number"),
        (WEIGHT, -0.5, "at least 0"),
        (WEIGHT, 1e300, "at most 1048576"),
        ("pixel_mean", (-1, 0, 0), "at least 0"),
        ("freeze_at", "x", "a whole number"),
        ("freeze_at", 6, "at most 5"),
        ("pixel_mean", (1.5, 2.5), "3 values, each a number"),
    ],
)
def test_wrong_value_is_named(name, field, value, expected):
    if field == WEIGHT:
        field = next(each.name for each in fields(TINY[name]) if each.name.endswith("_weight"))
    with pytest.raises(ConfigError, match=f"{name}: {field} has a wrong value") as caught:
        replace(TINY[name], **{field: value})
    assert repr(value) in str(caught.value)
    assert expected in str(caught.value)


WRONG = ("x", b"x", None, [], {}, [[1]], (), float("nan"), float("inf"), 1e300, -1e300, 10**9, -(10**9), 10**5000, -1)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_field_refuses_what_no_network_has(name):
    """Whatever the value, it is refused by name, or the network can be described."""
    for field in fields(TINY[name]):
        own = getattr(TINY[name], field.name)
        for value in WRONG:
            values = [value, (value,) * len(own)] if isinstance(own, tuple) else [value]
            for each in values:
                if field.name in ACCEPTED.get(each if isinstance(each, int) else None, ()):
                    assert get_method(name).inference(replace(TINY[name], **{field.name: each}))
                    continue
                with pytest.raises(ConfigError, match=f"^{name}: ") as caught:
                    replace(TINY[name], **{field.name: each})
                assert len(str(caught.value)) < 500


def test_an_array_is_no_choice():
    with pytest.raises(ConfigError, match=r"wrong (value|type)"):
        create_model("visolo", "tiny", backbone=np.array(["resnet50", "x"]))


@pytest.mark.parametrize(("value", "expected"), [(1e9, "a whole number"), (10**9, "at most 1024"), (3, "at least 4")])
def test_memory_slots(value, expected):
    with pytest.raises(ConfigError, match=f"memory_slots has a wrong value.*{expected}"):
        replace(TINY["visolo"], memory_slots=value)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_lists_become_tuples(name):
    assert replace(TINY[name], pixel_mean=[1.5, 2.5, 3.5]).pixel_mean == (1.5, 2.5, 3.5)


def another(field, value):
    """Return a value that the field takes as well; the numbers of frames of some networks are powers of two."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return {"gaussian": "linear", "ytvis": "davis"}[value]
    return type(value)(value / 2 if value <= 1 or field == "window" else value - 1)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_no_weight_depends_on_the_settings_of_an_export(name):
    """Each marked field is changed by itself: the network's weights stay as they are, by name and shape."""
    config = TINY[name]
    marked = {
        f.name: another(f.name, getattr(config, f.name))
        for f in fields(config)
        if f.metadata.items() >= RUN_TIME.items()
    }
    assert marked
    with torch.device("meta"):
        expected = {k: v.shape for k, v in create_model(name, "tiny").state_dict().items()}
        for field, value in marked.items():
            model = create_model(name, "tiny", **config.export_settings({field: value}))
            assert getattr(model.config, field) == value != getattr(config, field)
            assert {k: v.shape for k, v in model.state_dict().items()} == expected


@pytest.mark.parametrize(
    ("name", "overrides", "settings"),
    [
        ("visolo", {"memory_slots": 6, "score_threshold": 0.3}, {"memory_slots": 6, "score_threshold": 0.3}),
        ("tevit", {"window": 60, "overlap": 20}, {"window": 60, "clip_overlap": 20}),
        ("tevit", {"window": 60}, {"window": 60, "clip_overlap": 4}),
        ("tevit", {"window": 12}, {"window": 12}),
        ("tevit", {"window": 5, "overlap": 4}, {"window": 5, "clip_overlap": 4}),
        ("tevit", {"clip_overlap": 2, "max_results": 3}, {"clip_overlap": 2, "max_results": 3}),
        ("defvis", {"overlap": 3, "frame_score_threshold": 0.2}, {"clip_overlap": 3, "frame_score_threshold": 0.2}),
        ("defvis", {"window": 12}, {"num_frames": 12}),
        ("defvis", {}, {}),
    ],
)
def test_settings_of_an_export(name, overrides, settings):
    assert TINY[name].export_settings(overrides) == settings


@pytest.mark.parametrize(
    ("name", "overrides", "parts"),
    [
        ("visolo", {"window": 9}, ["visolo: unknown setting 'window'", "9", "memory_slots", "nms_pre"]),
        ("tevit", {"memory_slots": 9}, ["tevit: unknown setting 'memory_slots'", "clip_overlap (overlap)", "window"]),
        ("tevit", {"windwo": 60}, ["unknown setting 'windwo'", "60", "Did you mean 'window'?"]),
        ("tevit", {"hidden_dim": 32}, ["hidden_dim cannot be changed", "32", "64, as in the checkpoint"]),
        ("tevit", {"overlap": 2, "clip_overlap": 3}, ["clip_overlap (overlap) is given twice"]),
        ("tevit", ["window=60"], ["settings are malformed", "window=60", "mapping"]),
        ("defvis", {"window": 60}, ["num_frames (window) cannot", "60", "12, as in", "frames that its weights"]),
        ("defvis", {"num_frames": 60}, ["num_frames (window) cannot", "clip_overlap (overlap), frame_score_threshold"]),
        ("defvis", {"height": 64}, ["height cannot", "options height and width"]),
        ("visolo", {"focal_gamma": 1.0}, ["focal_gamma cannot", "the training depend"]),
    ],
)  # fmt: skip
def test_what_an_export_cannot_change(name, overrides, parts):
    with pytest.raises(ConfigError) as caught:
        TINY[name].export_settings(overrides)
    for part in parts:
        assert part in str(caught.value)


WINDOWS = [("tevit", "window"), ("defvis", "num_frames")]


@pytest.mark.parametrize(("name", "window"), WINDOWS)
def test_a_chosen_overlap_fits_the_window(name, window):
    chosen = create_model(name, "tiny", **{window: 3, "clip_overlap": 2}).config
    assert get_method(name).inference(chosen).window.overlap == 2
    with pytest.raises(ConfigError, match=r"clip_overlap has a wrong value \(seen: 3; expected: less than.* 3 frames"):
        create_model(name, "tiny", **{window: 3, "clip_overlap": 3})


@pytest.mark.parametrize(("name", "window"), WINDOWS)
@pytest.mark.parametrize(("length", "overlap"), [(1, 0), (2, 1), (3, 1), (6, 2), (7, 2)])
def test_a_window_alone_scales_an_overlap_of_more_than_half_of_it(name, window, length, overlap, caplog):
    """The variant has a window of 12 frames and an overlap of 4."""
    model = create_model(name, "tiny", **{window: length})
    settings = get_method(name).inference(model.config)
    assert (settings.window.length, settings.window.overlap) == (length, overlap)
    (message,) = caplog.messages
    assert f"overlap of 4 frames is too large for a window of {length} frames" in message
    assert f"scaled to {overlap} (stride {length - overlap})" in message
    caplog.clear()
    again = create_model(name, "tiny", **model.info.overrides)
    assert (again.config, caplog.messages) == (model.config, []), "a checkpoint states both"


@pytest.mark.parametrize(("name", "window"), WINDOWS)
@pytest.mark.parametrize("overrides", [{}, {"clip_overlap": 7}])
def test_an_overlap_of_at_most_half_of_the_window_or_a_chosen_one_is_kept(name, window, overrides, caplog):
    model = create_model(name, "tiny", **{window: 8} | overrides)
    assert model.config.clip_overlap == overrides.get("clip_overlap", 4)
    assert create_model(name, "tiny", **model.info.overrides).config == model.config
    assert caplog.messages == []


def test_the_variants_overlap_is_stored_if_it_was_chosen(caplog):
    model = create_model("tevit", "tiny", window=5, clip_overlap=4)
    assert create_model("tevit", "tiny", **model.info.overrides).config.clip_overlap == 4
    assert caplog.messages == []
