"""Feature extractors that the methods share."""

from visdeploy_training.backbones.efficientnet_lite import EfficientNetLite0
from visdeploy_training.backbones.resnet import ResNet

__all__ = ["EfficientNetLite0", "ResNet"]
