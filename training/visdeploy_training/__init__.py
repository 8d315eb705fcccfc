"""The methods as torch modules, their losses, data sets and recipes."""

from visdeploy_training.model import ModelInfo, VISModel
from visdeploy_training.registry import create_model, get_method

__all__ = ["ModelInfo", "VISModel", "create_model", "get_method"]
