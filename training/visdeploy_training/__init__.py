"""The methods as torch modules, their losses, data sets and recipes."""

from visdeploy_training.checkpoint import Checkpoint, KeyReport, save_checkpoint, start_from
from visdeploy_training.convert import convert_checkpoint, load_checkpoint
from visdeploy_training.model import ModelInfo, VISModel
from visdeploy_training.registry import create_model, get_method

__all__ = [
    "Checkpoint",
    "KeyReport",
    "ModelInfo",
    "VISModel",
    "convert_checkpoint",
    "create_model",
    "get_method",
    "train",
    "load_checkpoint",
    "save_checkpoint",
    "start_from",
]
