"""Augmentation of clips, as in the published recipes (spec 11.3). All draws come from torch's generator.

A clip is a list of frames; a frame is an image `[3, H, W]` uint8 and the masks of the clip's K objects `[K, H, W]`
uint8, both as torchvision tensors, so that torchvision knows to resample masks by nearest neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

Frame: TypeAlias = tuple[tv_tensors.Image, tv_tensors.Mask]
Clip: TypeAlias = list[Frame]
ClipTransform: TypeAlias = Callable[[Clip], Clip]
BILINEAR = InterpolationMode.BILINEAR


def uniform(low: float, high: float) -> float:
    """One number from `[low, high)`."""
    return low + (high - low) * float(torch.rand(()))


def size_of(frame: Frame) -> tuple[int, int]:
    """Rows and columns."""
    return int(frame[0].shape[-2]), int(frame[0].shape[-1])


def _resized(clip: Clip, rows: int, columns: int, *, antialias: bool) -> Clip:
    size = [rows, columns]
    return [
        (F.resize(image, size, interpolation=BILINEAR, antialias=antialias), F.resize(masks, size))
        for image, masks in clip
    ]


class Chain:
    """One transform after the other."""

    def __init__(self, steps: Sequence[ClipTransform]) -> None:
        self.steps = tuple(steps)

    def __call__(self, clip: Clip) -> Clip:
        """The clip behind the last step."""
        for step in self.steps:
            clip = step(clip)
        return clip


class Resize:
    """Scale the shorter edge to a size drawn once for the clip, then raise both edges to a minimum.

    Args:
        sizes: Sizes to draw from.
        max_size: Largest longer edge.
        minimum: Rows and columns that the result has at least; raising one edge changes the aspect ratio.
    """

    def __init__(self, sizes: Sequence[int], *, max_size: int = 1333, minimum: tuple[int, int] = (353, 625)) -> None:
        self.sizes, self.max_size, self.minimum = tuple(sizes), max_size, minimum

    def __call__(self, clip: Clip) -> Clip:
        """Every frame at the same new size."""
        height, width = size_of(clip[0])
        size = self.sizes[int(torch.randint(len(self.sizes), ()))]
        scale = min(size / min(height, width), self.max_size / max(height, width))
        rows = max(self.minimum[0], int(height * scale + 0.5))
        columns = max(self.minimum[1], int(width * scale + 0.5))
        return _resized(clip, rows, columns, antialias=True)


class Rescale:
    """Scale a clip into a longer and a shorter edge drawn once, keeping its shape (TeViT's spec, 7.2).

    Args:
        limits: Pairs of a longer and a shorter edge.
        between: Draw each edge on its own, from the whole numbers between its smallest and its largest limit; otherwise
            one of the pairs is drawn.
    """

    def __init__(self, limits: Sequence[tuple[int, int]], *, between: bool = False) -> None:
        self.limits, self.between = tuple(limits), between

    def __call__(self, clip: Clip) -> Clip:
        """Every frame at the same new size."""
        height, width = size_of(clip[0])
        longer, shorter = self._draw()
        scale = min(longer / max(height, width), shorter / min(height, width))
        # the network's authors resize with OpenCV, which leaves out no detail
        return _resized(clip, int(height * scale + 0.5), int(width * scale + 0.5), antialias=False)

    def _draw(self) -> tuple[int, int]:
        if not self.between:
            return self.limits[int(torch.randint(len(self.limits), ()))]
        longer, shorter = (int(torch.randint(min(edge), max(edge) + 1, ())) for edge in zip(*self.limits, strict=True))
        return longer, shorter


class Flip:
    """Mirror left and right with probability one half, decided once for the clip or for each frame."""

    def __init__(self, by: Literal["clip", "frame"] = "clip") -> None:
        self.by = by

    def __call__(self, clip: Clip) -> Clip:
        """The clip, mirrored or not."""
        draws = [uniform(0, 1) < 0.5 for _ in clip] if self.by == "frame" else [uniform(0, 1) < 0.5] * len(clip)
        return [(F.hflip(f[0]), F.hflip(f[1])) if flip else f for f, flip in zip(clip, draws, strict=True)]


class Rotate:
    """Turn each frame by its own uniform angle; the canvas grows, new corners are black.

    Args:
        degrees: Largest angle to either side.
    """

    def __init__(self, degrees: float = 15.0) -> None:
        self.degrees = degrees

    def __call__(self, clip: Clip) -> Clip:
        """The turned frames; their sizes differ."""
        turned = []
        for image, masks in clip:
            angle = uniform(-self.degrees, self.degrees)
            turned.append((F.rotate(image, angle, interpolation=BILINEAR, expand=True),
                           F.rotate(masks, angle, expand=True)))  # fmt: skip
        return turned


class Crop:
    """Cut a window from its own uniform position out of each frame; frames must be at least that large."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def __call__(self, clip: Clip) -> Clip:
        """Frames of `height` x `width`."""
        cut = []
        for frame in clip:
            rows, columns = size_of(frame)
            top = int(torch.randint(max(0, rows - self.height) + 1, ()))
            left = int(torch.randint(max(0, columns - self.width) + 1, ()))
            cut.append((F.crop(frame[0], top, left, self.height, self.width),
                        F.crop(frame[1], top, left, self.height, self.width)))  # fmt: skip
        return cut


class CropBetween:
    """Cut a window of drawn sides from a drawn position, the same in all frames.

    Args:
        smallest: Least side; a frame's own side where that is smaller.
        largest: Largest side.
    """

    def __init__(self, smallest: int, largest: int) -> None:
        self.smallest, self.largest = smallest, largest

    def __call__(self, clip: Clip) -> Clip:
        """Frames of one size."""
        window = []
        for side in size_of(clip[0]):
            most = min(side, self.largest)
            length = int(torch.randint(min(self.smallest, most), most + 1, ()))
            window.append((int(torch.randint(side - length + 1, ())), length))
        (top, rows), (left, columns) = window
        return [(F.crop(i, top, left, rows, columns), F.crop(m, top, left, rows, columns)) for i, m in clip]


class PhotometricDistort:
    """Change brightness, contrast, saturation, hue and the order of channels, drawn for each frame on its own.

    DefVIS's spec, 5.1, but for brightness, which is scaled here and shifted there.
    """

    def __init__(self) -> None:
        self.distort = v2.RandomPhotometricDistort()

    def __call__(self, clip: Clip) -> Clip:
        """Frames of the same size, masks unchanged."""
        return [(self.distort(image), masks) for image, masks in clip]


class ColourJitter:
    """Change brightness, contrast and saturation, the same in all frames. Not part of the published recipes.

    Args:
        strength: 0 changes nothing; 0.4 is usual.
    """

    def __init__(self, strength: float) -> None:
        self.jitter = v2.ColorJitter(strength, strength, strength)

    def __call__(self, clip: Clip) -> Clip:
        """Frames of the same size, masks unchanged."""
        images = self.jitter(torch.stack([image.as_subclass(torch.Tensor) for image, _ in clip]))
        return [(tv_tensors.Image(image), masks) for image, (_, masks) in zip(images, clip, strict=True)]
