"""The size that an export asks for is the size that the runtime scales frames to."""

import pytest

from visdeploy_export.loading import load_model
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
