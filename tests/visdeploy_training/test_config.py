"""Every method's configuration refuses wrong values by name, and takes the lists of JSON and YAML."""

from dataclasses import replace

import pytest

from visdeploy.errors import ConfigError
from visdeploy_training.config import MethodConfig
from visdeploy_training.registry import METHODS, get_method

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
    ],
)
def test_wrong_value_is_named(name, field, value, expected):
    with pytest.raises(ConfigError, match=f"{name}: {field} has a wrong value") as caught:
        replace(TINY[name], **{field: value})
    assert repr(value) in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_lists_become_tuples(name):
    assert replace(TINY[name], pixel_mean=[1.5, 2.5, 3.5]).pixel_mean == (1.5, 2.5, 3.5)
