"""Training: recipes, the Lightning module, the data module, and `train`."""

from visdeploy_training.engine.loading import load_recipe, shipped_recipes
from visdeploy_training.engine.recipe import Recipe
from visdeploy_training.engine.training import run_recipe, train

__all__ = ["Recipe", "load_recipe", "run_recipe", "shipped_recipes", "train"]
