"""The recipes of the package describe the same training as before their format changed.

`shipped_recipes.json` was written by the engine of the earlier format. For each recipe it holds, for each training set
and two seeds, what augmentation makes of a clip (rows, columns, area and centre of the mask, mean of the image for each
frame), the parameter groups (learning rate, weight decay, number of parameters, checksum of their names), and factors
of the learning rate by iteration.
"""

import json
import zlib
from pathlib import Path

import pytest
import torch

from tests.visdeploy_training.material import square_clip
from visdeploy_training.datasets import class_list
from visdeploy_training.engine import load_recipe, shipped_recipes
from visdeploy_training.engine.optim import learning_rate_factor, parameter_groups
from visdeploy_training.registry import create_model

BEFORE = json.loads((Path(__file__).parent / "shipped_recipes.json").read_text())


def network(recipe):
    with torch.device("meta"):
        return create_model(recipe.method, recipe.variant, classes=class_list(recipe.classes), **recipe.model)


def measured(clip):
    rows = []
    for image, masks in clip:
        ys, xs = masks[0].nonzero(as_tuple=True)
        centre = [float(ys.float().mean()), float(xs.float().mean())]
        rows.append([*image.shape[1:], len(ys), *centre, float(image.float().mean())])
    return torch.tensor(rows)


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
            torch.manual_seed(seed)
            found = measured(chain(square_clip(2, 72, 128)))
            assert torch.equal(found[:, :2], expected[:, :2])
            torch.testing.assert_close(found[:, 2], expected[:, 2], rtol=0.01, atol=0)
            torch.testing.assert_close(found[:, 3:], expected[:, 3:], rtol=0, atol=0.6)


@pytest.mark.parametrize("name", sorted(BEFORE))
def test_parameter_groups_and_learning_rates_are_as_before(name):
    recipe = load_recipe(name)
    model = network(recipe)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = []
    for group in parameter_groups(model, recipe.optim):
        members = sorted(names[id(parameter)] for parameter in group["params"])
        checksum = zlib.crc32("\n".join(members).encode())
        groups.append([group["lr"], group["weight_decay"], len(members), checksum])
    for found, expected in zip(sorted(groups), BEFORE[name]["groups"], strict=True):
        assert found == pytest.approx(expected)
    factor = learning_rate_factor(recipe.optim, recipe.iterations)
    for iteration, expected in BEFORE[name]["factors"]:
        assert factor(iteration) == pytest.approx(expected, rel=1e-6), iteration
