"""Augmentation of clips: transforms with a name and parameters, which a recipe lists in order."""

from visdeploy_training.datasets.transforms.base import INPUT, Clip, Frame, FrameSize, Transform, size_of, uniform
from visdeploy_training.datasets.transforms.colour import ColourJitter, PhotometricDistort
from visdeploy_training.datasets.transforms.cropping import Crop, CropBetween
from visdeploy_training.datasets.transforms.geometry import Fit, Flip, Rescale, Resize, Rotate
from visdeploy_training.datasets.transforms.motion import MovingWindow
from visdeploy_training.datasets.transforms.registry import find_transform, register, transform_names
from visdeploy_training.datasets.transforms.steps import Chain, Choice, Step, parse_step, spell_step
from visdeploy_training.datasets.transforms.synthetic import SyntheticClip

__all__ = [
    "INPUT",
    "Chain",
    "Choice",
    "Clip",
    "ColourJitter",
    "Crop",
    "CropBetween",
    "Fit",
    "Flip",
    "Frame",
    "FrameSize",
    "MovingWindow",
    "PhotometricDistort",
    "Rescale",
    "Resize",
    "Rotate",
    "Step",
    "SyntheticClip",
    "Transform",
    "find_transform",
    "parse_step",
    "register",
    "size_of",
    "spell_step",
    "transform_names",
    "uniform",
]
