"""Typed records of training and validation data, independent of the layout of the annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from visdeploy.evaluation import Annotation, AnnotationSet, Category, Video
from visdeploy.masks import Mask


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """Object in the frames of a clip.

    Attributes:
        label: Index into the classes of the training.
        masks: Mask in every frame, in the size of the clip; None if the object is absent.
    """

    label: int
    masks: tuple[Mask | None, ...]


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """Video, or image (a video of one frame).

    Attributes:
        name: Name, unique in the data set.
        height: Rows of every frame, in pixels.
        width: Columns of every frame, in pixels.
        files: Image file of every frame, in order.
        instances: Objects, without crowds and categories without a label.
        ignore: Pixels without a known label in every frame, in the size of the clip; None if a frame has none. None
            for the whole clip if no frame has any.
        shrink: Image files may be larger than `height` x `width`; they are scaled to that size when they are read.
    """

    name: str
    height: int
    width: int
    files: tuple[Path, ...]
    instances: tuple[InstanceRecord, ...]
    ignore: tuple[Mask | None, ...] | None = None
    shrink: bool = False

    def __len__(self) -> int:
        return len(self.files)


class Sample(NamedTuple):
    """Training clip of T frames with K objects.

    Attributes:
        images: `[T, 3, H, W]` uint8.
        masks: `[T, K, H, W]` bool.
        labels: `[K]` int64.
        ignore: `[T, H, W]` bool, pixels without a known label; None if all are known.
    """

    images: torch.Tensor
    masks: torch.Tensor
    labels: torch.Tensor
    ignore: torch.Tensor | None = None


def to_annotations(
    records: Sequence[ClipRecord], classes: Sequence[str], *, source: str = "validation"
) -> AnnotationSet:
    """Convert records to ground truth for `visdeploy.evaluation`, with the classes of the training.

    Video ids are indices into `records` plus one, category ids are labels plus one.
    """
    videos: list[Video] = []
    annotations: list[Annotation] = []
    for index, record in enumerate(records):
        videos.append(
            Video(index + 1, record.height, record.width, tuple(f"{record.name}/{f.name}" for f in record.files))
        )
        for instance in record.instances:
            areas = tuple(0.0 if m is None else float(m.area) for m in instance.masks)
            annotations.append(Annotation(len(annotations) + 1, index + 1, instance.label + 1, instance.masks, areas))
    categories = tuple(Category(i + 1, name) for i, name in enumerate(classes))
    return AnnotationSet(source, categories, tuple(videos), tuple(annotations))
