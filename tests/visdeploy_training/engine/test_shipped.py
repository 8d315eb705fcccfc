"""The recipes of the package describe the same training as before their format changed.

`shipped_recipes.json` holds for each recipe, for each training set and two seeds, what augmentation makes of a clip
(rows, columns, area and centre of the mask, mean of the image for each frame), the parameter groups (learning rate,
weight decay, number of parameters, checksum of their names), and factors of the learning rate by iteration. The engine
of the earlier recipe format wrote it for the recipes of that time; `recording` adds new ones.
"""

import json

import pytest
import torch

from tests.visdeploy_training.engine import recording
from tests.visdeploy_training.engine.recording import measured, network
from visdeploy_training.engine import load_recipe, shipped_recipes
from visdeploy_training.engine.optim import learning_rate_factor

BEFORE = json.loads(recording.FILE.read_text())


def test_all_shipped_recipes_are_held():
    assert shipped_recipes() == sorted(BEFORE)


@pytest.mark.parametrize("name", sorted(BEFORE))
def test_augmentation_is_as_before(name):
    """Same draws, sizes and places. Nearest pixels and means may differ a little with the processor's rounding."""
    recipe = load_recipe(name)
    config = network(recipe).config
    assert len(recipe.train) == len(BEFORE[name]["clips"])
    for part, by_seed in zip(recipe.train, BEFORE[name]["clips"], strict=True):
        chain = recipe.transforms(part).sized(config.height, config.width)
        for seed, expected in enumerate(torch.tensor(by_seed)):
            found = torch.tensor(measured(chain, seed))
            assert torch.equal(found[:, :2], expected[:, :2])
            torch.testing.assert_close(found[:, 2], expected[:, 2], rtol=0.01, atol=0)
            torch.testing.assert_close(found[:, 3:], expected[:, 3:], rtol=0, atol=0.6)


@pytest.mark.parametrize("name", sorted(BEFORE))
def test_parameter_groups_and_learning_rates_are_as_before(name):
    recipe = load_recipe(name)
    for found, expected in zip(recording.groups(recipe, network(recipe)), BEFORE[name]["groups"], strict=True):
        assert found == pytest.approx(expected)
    factor = learning_rate_factor(recipe.optim, recipe.iterations)
    for iteration, expected in BEFORE[name]["factors"]:
        assert factor(iteration) == pytest.approx(expected, rel=1e-6), iteration


def test_recording_a_recipe_again_changes_little(tmp_path, monkeypatch):
    copy = tmp_path / "recipes.json"
    copy.write_text(recording.FILE.read_text())
    monkeypatch.setattr(recording, "FILE", copy)
    recording.main(["tevit_r50_ytvis2019", "visolo_tiny_overfit"])
    again = json.loads(copy.read_text())
    assert again.keys() == BEFORE.keys()
    for name, entry in again.items():
        for key in ("groups", "factors"):
            assert [pytest.approx(row) for row in entry[key]] == BEFORE[name][key]
        torch.testing.assert_close(
            torch.tensor(entry["clips"]), torch.tensor(BEFORE[name]["clips"]), rtol=0.01, atol=0.6
        )
