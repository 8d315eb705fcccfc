"""Backbones shared by the methods."""

from visdeploy_training.backbones.efficientnet_lite import EfficientNetLite0
from visdeploy_training.backbones.messenger_pvt import MessengerPVT
from visdeploy_training.backbones.resnet import ResNet
from visdeploy_training.backbones.swin import SwinTransformer

__all__ = ["EfficientNetLite0", "MessengerPVT", "ResNet", "SwinTransformer"]
