import pytest

from visdeploy.errors import ConfigError
from visdeploy_training.datasets.locations import VARIABLES, existing, expand


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.json", "a/b.json"),
        ("$DAVIS_BASE_DIR", "/data/davis"),
        ("$DAVIS_BASE_DIR/x.json", "/data/davis/x.json"),
        ("${DAVIS_BASE_DIR}_2017/x", "/data/davis_2017/x"),
        ("cost_5$", "cost_5$"),
    ],
)
def test_variables_are_replaced(monkeypatch, path, expected):
    monkeypatch.setenv("DAVIS_BASE_DIR", "/data/davis")
    assert expand(path) == expected


@pytest.mark.parametrize("name", [*VARIABLES, "MY_OWN_FOLDER"])
def test_a_missing_variable_is_named(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=f"{name} is not set.*export {name}="):
        expand(f"${name}/file.json")
    monkeypatch.setenv(name, "")
    with pytest.raises(ConfigError, match=name):
        expand(f"${{{name}}}")


@pytest.mark.parametrize(("there", "asked"), [("val", "valid"), ("valid", "val"), ("val", "val"), ("train", "train")])
def test_val_may_be_called_valid(tmp_path, there, asked):
    (tmp_path / there / "a").mkdir(parents=True)
    assert existing(tmp_path / asked / "a") == tmp_path / there / "a"


def test_a_missing_path_stays(tmp_path):
    assert existing(tmp_path / "val" / "gone") == tmp_path / "val" / "gone"
