"""Adds shipped recipes to `shipped_recipes.json`: `python -m tests.visdeploy_training.engine.recording NAME ...`."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.visdeploy_training.material import square_clip
from visdeploy_training.datasets import class_list
from visdeploy_training.datasets.transforms import Chain
from visdeploy_training.engine import load_recipe
from visdeploy_training.engine.optim import learning_rate_factor, parameter_groups
from visdeploy_training.engine.recipe import Recipe
from visdeploy_training.registry import create_model

FILE = Path(__file__).parent / "shipped_recipes.json"
SEEDS = 2
ITERATIONS = (0, 1, 5, 100, 769, 770)


def network(recipe: Recipe) -> Any:
    """The network of a recipe without values."""
    with torch.device("meta"):
        return create_model(recipe.method, recipe.variant, classes=class_list(recipe.classes), **recipe.model)


def measured(chain: Chain, seed: int) -> list[list[float]]:
    """What a chain makes of the test clip: rows, columns, area and centre of the mask, mean of the image per frame."""
    torch.manual_seed(seed)
    rows = []
    for image, masks in chain(square_clip(2, 72, 128)):
        ys, xs = masks[0].nonzero(as_tuple=True)
        centre = [float(ys.float().mean()), float(xs.float().mean())]
        rows.append([*image.shape[1:], len(ys), *centre, float(image.float().mean())])
    return rows


def groups(recipe: Recipe, model: nn.Module) -> list[list[float]]:
    """Learning rate, weight decay, number of parameters and checksum of their names of each group, sorted."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = []
    for group in parameter_groups(model, recipe.optim):
        members = sorted(names[id(parameter)] for parameter in group["params"])
        checksum = zlib.crc32("\n".join(members).encode())
        found.append([group["lr"], group["weight_decay"], len(members), checksum])
    return sorted(found)


def recorded(name: str) -> dict[str, Any]:
    """The entry of a recipe."""
    recipe = load_recipe(name)
    model, factor = network(recipe), learning_rate_factor(recipe.optim, recipe.iterations)
    chains = [recipe.transforms(part).sized(model.config.height, model.config.width) for part in recipe.train]
    clips = [[[[round(v, 1) for v in row] for row in measured(c, seed)] for seed in range(SEEDS)] for c in chains]
    total, steps = recipe.iterations, getattr(recipe.optim.schedule, "milestones", [])
    kept = {*ITERATIONS, total // 3, total // 2, 2 * total // 3, total - 1, *steps, *(step - 1 for step in steps)}
    factors = [[i, float(f"{factor(i):.8g}")] for i in sorted(kept) if i < total]
    return {"clips": clips, "groups": groups(recipe, model), "factors": factors}


def main(names: Sequence[str]) -> None:
    entries = json.loads(FILE.read_text()) | {name: recorded(name) for name in names}
    texts = []
    for name, entry in sorted(entries.items()):
        lines = ",\n".join(f'    "{key}": {json.dumps(value)}' for key, value in entry.items())
        texts.append(f'  "{name}": {{\n{lines}\n  }}')
    FILE.write_text("{\n" + ",\n".join(texts) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
