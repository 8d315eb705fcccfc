"""Masks as run-length codes, and how dense masks are made, resized and pasted."""

from visdeploy.masks.mask import Mask

__all__ = ["Mask"]
