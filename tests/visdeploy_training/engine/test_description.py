"""The recipes of the package and their fields, as the command line shows them."""

import re

import pytest
import yaml

from tests.conftest import REPOSITORY
from visdeploy.errors import CheckpointError, ConfigError
from visdeploy_training.engine import load_recipe, shipped_recipes, train
from visdeploy_training.engine.catalogue import list_recipes, recipe_text
from visdeploy_training.engine.description import describe, field_names, sections
from visdeploy_training.engine.recipe import DataRecipe, Recipe
from visdeploy_training.registry import method_names


def test_every_recipe_is_listed_with_a_summary():
    found = list_recipes()
    assert [each.name for each in found] == shipped_recipes()
    assert all(each.summary and each.network for each in found)
    (own,) = [each for each in found if each.name == "own_data"]
    assert own.network == "visolo tiny"
    assert own.summary.startswith("A training on videos of your own")


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shown_recipe_is_the_recipe(name, tmp_path):
    (tmp_path / "copy.yaml").write_text(recipe_text(name))
    assert load_recipe(tmp_path / "copy.yaml") == load_recipe(name)


@pytest.mark.parametrize("name", shipped_recipes())
def test_no_recipe_points_to_a_folder_that_a_clone_lacks(name, tmp_path, monkeypatch):
    """Data lie in folders that environment variables name, and a training without them says what to set."""
    recipe = load_recipe(name)
    for part in (*recipe.train, *recipe.val):
        for path in (part.annotations, part.images):
            assert re.match(r"\$\w+$", f"{recipe.data_root}/{path}".lstrip("./").split("/")[0]), path
    assert not re.search(r"\.\./|\bshared/", recipe_text(name))
    for variable in re.findall(r"\$(\w+)", recipe_text(name)):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"environment variable \w+ is not set .*Set it: export \w+=FOLDER"):
        train(name)
    assert not list(tmp_path.iterdir())


def test_the_data_root_can_be_set_instead():
    with pytest.raises(ConfigError, match=r"VISDEPLOY_DATA=FOLDER\. Or change data_root .*\(data_root=FOLDER\)"):
        load_recipe("own_data").path("train.json")
    assert str(load_recipe("own_data", ["data_root=mine"]).path("train.json")) == "mine/train.json"


@pytest.mark.parametrize("part", sorted(sections()))
def test_every_field_has_a_type_and_a_meaning(part):
    for field in describe(part):
        assert field.type
        assert field.default
        assert field.meaning, f"{part}.{field.name} is not described"


def test_parts_are_named_as_in_a_recipe():
    assert describe("val") == describe("train")
    kinds = [n for n, field in enumerate(describe("optim.schedule")) if field.name == "kind"]
    schedules = [describe("optim.schedule")[a:b] for a, b in zip(kinds, [*kinds[1:], None], strict=True)]
    assert {part[0].default: [f.name for f in part[1:]] for part in schedules} == {
        "constant": [],
        "steps": ["milestones", "gamma"],
        "polynomial": ["start", "end", "power"],
        "exponential": ["gamma", "every", "staircase", "start"],
        "cosine": ["start", "end"],
    }
    for part, hint in (("model", "those of a method: .*visolo"), ("augment", "those of a transform: .*flip")):
        with pytest.raises(ConfigError, match=hint):
            describe(part)


@pytest.mark.parametrize(
    ("part", "name", "kind", "default"),
    [
        ("recipe", "iterations", "whole number", "required"),
        ("recipe", "optim", "mapping", "{}"),
        ("recipe", "augment", "list of transform", "[]"),
        ("recipe", "init", "text or null", "null"),
        ("recipe", "mixture", "drawn or counted", "drawn"),
        ("recipe", "batch_size", "whole number", "4"),
        ("train", "layout", "ytvis or coco or stemseg", "required"),
        ("train", "strict", "true or false", "false"),
        ("train", "span", "list of 2: whole number or null", "null"),
        ("optim", "lr", "number", "0.0001"),
        ("optim", "schedule", "mapping", "constant"),
        ("optim.groups", "lr_factor", "number or null", "null"),
        ("optim.schedule", "milestones", "list of whole number", "required"),
        ("photometric_distort", "contrast", "list of 2: number", "[0.5, 1.5]"),
        ("visolo", "grid", "list of 2: whole number", "[12, 21]"),
        ("tevit", "backbone", "pvt_v2_b1 or pvt_small or resnet50 or swin_l or efficientnet_lite0", "pvt_v2_b1"),
    ],
)
def test_types_and_defaults_in_words(part, name, kind, default):
    (field,) = [each for each in describe(part) if each.name == name]
    assert (field.type, field.default) == (kind, default)


def test_all_parts_are_there():
    assert {"recipe", "train", "optim", "flip", "crop", *method_names()} <= set(sections())
    assert [each.name for each in describe()] == list(Recipe.model_fields)
    assert [each.name for each in describe("train")] == list(DataRecipe.model_fields)
    with pytest.raises(ConfigError, match=r"no such part of a recipe .*optimm.*Did you mean 'optim'\?"):
        describe("optimm")


def test_names_at_a_place():
    assert "milestones" in field_names(("optim", "schedule"))
    assert "lr_factor" in field_names(("optim", "groups", 0))
    assert "class_map" in field_names(("train", 1))
    assert "longest" in field_names(("augment", 0, "resize"))


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("iteratons=3", "iterations"),
        ("optim.lrr=3", "lr"),
        ("optim.groups=[{nam: backbone, lr_factor: 1}]", "name"),
        ("train.0.anotations=a", "annotations"),
        ("augment=[{resize: {shortr: [3]}}]", "shorter"),
        ("optim.schedule={kind: steps, milestone: [3]}", "milestones"),
    ],
)
def test_a_typo_in_a_field_gets_a_suggestion(typo, meant):
    with pytest.raises(ConfigError, match=rf"Did you mean '{meant}'\? `visdeploy recipes fields`"):
        load_recipe("own_data", [typo])


@pytest.mark.parametrize(
    ("overrides", "meant"),
    [(["method=visolo2"], "visolo"), (["variant=tinny"], "tiny"), (["model.heigth=64"], "height")],
)
def test_a_typo_in_the_network_gets_a_suggestion(overrides, meant, tmp_path):
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(ConfigError, match=rf"Did you mean '{meant}'\?"):
        train("own_data", [*overrides, f"data_root={tmp_path}", f"output={tmp_path}/out"])


@pytest.mark.parametrize("field", ["init", "pretrained"])
def test_missing_weights_say_what_to_set(field, tmp_path):
    options = [f"data_root={tmp_path}", f"output={tmp_path}/out", f"{field}=nowhere.pth", "variant=r50"]
    with pytest.raises(CheckpointError, match=rf"no such checkpoint: nowhere.pth \(seen: {field}: .*Set {field}=FILE"):
        train("own_data", options)


@pytest.mark.parametrize("name", ["own_dat", "own_data.yml", "visolo_tiny_dmo"])
def test_a_typo_in_the_name_of_a_recipe_gets_a_suggestion(name):
    with pytest.raises(ConfigError, match=r"no such recipe: .*Did you mean '(own_data|visolo_tiny_demo)'\?"):
        load_recipe(name)


def test_pages_name_recipes_that_exist():
    for page in (REPOSITORY / "README.md", REPOSITORY / "docs" / "own_data.md"):
        for name in re.findall(r"visdeploy recipes show ([a-z_\d]+)", page.read_text()):
            assert yaml.safe_load(recipe_text(name))
