"""Run-length encoded masks, and resizing and pasting of dense masks."""

from visdeploy.masks.mask import Mask

__all__ = ["Mask"]
