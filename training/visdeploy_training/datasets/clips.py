"""Training clips: sampling of frames from a record, loading, augmentation, pasting of objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors

from visdeploy.errors import DataError
from visdeploy_training.clip import ClipBatch, ClipTargets
from visdeploy_training.datasets.duplication import duplicate_object
from visdeploy_training.datasets.images import ImageStore
from visdeploy_training.datasets.records import ClipRecord, Sample
from visdeploy_training.datasets.sampling import (
    Sampling,
    choose_clips,
    consecutive_frames,
    cyclic_frames,
    distinct_frames,
    near_frames,
    sample_frames,
    span_frames,
)
from visdeploy_training.datasets.selection import frames_with_objects
from visdeploy_training.datasets.transforms import Clip, Frame, uniform


class SampleKey(NamedTuple):
    """Key that determines a sample, independently of the process.

    Attributes:
        part: Index of the data set.
        record: Index of the record in the data set.
        seed: Seed of all random numbers of the sample.
        frame: Frame of the record if an epoch is a pass over frames, otherwise None.
    """

    part: int
    record: int
    seed: int
    frame: int | None = None


@dataclass(frozen=True)
class ClipPart:
    """Data set of a mixture of data sets.

    Attributes:
        records: Videos or images.
        transform: Augmentation; all frames of its result have one size.
        clip_length: Number of frames of a training clip.
        window: Maximum distance of a frame from the reference frame (random, near).
        sampling: Sampling of the frames, see `Recipe.sampling`.
        paste: Probability that objects of another clip of the mixture are pasted.
        store: Reader of the images.
        duplicate: Duplicate the object of clips with one object, see `duplicate_object`.
        ignore_background: Pixels outside all objects have no known label.
        span: Minimum and maximum distance of the last frame of a clip from the first one (span); by default, both are
            `clip_length`.
        clips: Number of clips of an epoch (span); by default, the number of frames of all videos.
        seed: Seed of the selection of these clips.
        items: Items of an epoch, pairs of the index of a record and a frame. The frame is None, except with `distinct`
            and `near` sampling: the items are then all frames with objects, with `distinct` of the records that have
            enough of them. With `span`, a video has a number of items in proportion to its length.

    Raises:
        DataError: No record has enough frames with objects (distinct, near) or enough frames (span).
    """

    records: Sequence[ClipRecord]
    transform: Callable[[Clip], Clip]
    clip_length: int = 3
    window: int = 20
    sampling: Sampling = "random"
    paste: float = 0.0
    store: ImageStore = field(default_factory=ImageStore)
    duplicate: bool = False
    ignore_background: bool = False
    span: tuple[int, int] | None = None
    clips: int | None = None
    seed: int = 0
    items: Sequence[tuple[int, int | None]] = field(init=False)

    def __post_init__(self) -> None:
        items: list[tuple[int, int | None]] = [(index, None) for index in range(len(self.records))]
        if self.sampling in ("distinct", "near"):
            least = self.clip_length if self.sampling == "distinct" else 1
            shown = [frames_with_objects(record) for record in self.records]
            items = [(i, t) for i, frames in enumerate(shown) if len(frames) >= least for t in frames]
            if not items:
                raise DataError(
                    "no video has enough frames with objects",
                    seen=f"at most {max((len(frames) for frames in shown), default=0)}",
                    expected=f"clip_length, {least}" if self.sampling == "distinct" else "at least 1",
                    hint="Use a smaller clip_length or another sampling.",
                )
        if self.sampling == "span":
            lengths = [len(record) for record in self.records]
            chosen = choose_clips(lengths, self.clips, shortest=self.frame_span[0], seed=self.seed)
            items = [(index, None) for index in chosen]
        object.__setattr__(self, "items", items)

    @property
    def frame_span(self) -> tuple[int, int]:
        """Minimum and maximum distance of the last frame of a clip from the first one (span)."""
        return self.span or (self.clip_length, self.clip_length)

    def draw(self, index: int, frame: int | None = None) -> Sample:
        """Return an augmented clip of an item: of a record, with `distinct` and `near` sampling for the given frame."""
        record = self.records[index]
        hidden = int(record.ignore is not None)
        clip = self.transform(load_clip(record, self._frames(record, frame), self.store, ignore=bool(hidden)))
        images = torch.stack([image.as_subclass(torch.Tensor) for image, _ in clip])
        planes = torch.stack([m.as_subclass(torch.Tensor) for _, m in clip]).bool()
        labels = torch.tensor([i.label for i in record.instances], dtype=torch.int64)
        masks = planes[:, hidden : hidden + len(labels)]
        seen = masks.flatten(2).any(dim=2).any(dim=0)
        sample = Sample(images, masks[:, seen], labels[seen], planes[:, 0] if hidden else None)
        if self.duplicate:
            sample = duplicate_object(sample)
        return sample._replace(ignore=~sample.masks.any(dim=1)) if self.ignore_background else sample

    def _frames(self, record: ClipRecord, first: int | None) -> list[int]:
        """Draw the frames of a clip, for the frame of its item if items have one."""
        if first is not None:
            candidates = frames_with_objects(record)
            if self.sampling == "near":
                return near_frames(candidates, self.clip_length, first=first, window=self.window)
            return distinct_frames(candidates, self.clip_length, first=first)
        if self.sampling == "span":
            return span_frames(len(record), self.clip_length, span=self.frame_span)
        if self.sampling == "random":
            return sample_frames(len(record), self.clip_length, window=self.window)
        in_order = consecutive_frames if self.sampling == "consecutive" else cyclic_frames
        return in_order(len(record), self.clip_length)


def load_clip(record: ClipRecord, frames: Sequence[int], store: ImageStore, *, ignore: bool = False) -> Clip:
    """Load frames of a record with the masks of all its objects; equal frames share their tensors.

    If there were no mask, there is an empty one, because torchvision cannot rotate zero masks.

    Args:
        record: The record.
        frames: Frames to load.
        store: Reader of the images.
        ignore: Load the ignored pixels as the first mask of every frame, so that objects cover them.
    """
    loaded: dict[int, Frame] = {}
    for t in set(frames):
        image = tv_tensors.Image(store(record.files[t], record.height, record.width, shrink=record.shrink))
        planes = [instance.masks[t] for instance in record.instances]
        if ignore:
            planes.insert(0, None if record.ignore is None else record.ignore[t])
        masks = torch.zeros(max(1, len(planes)), record.height, record.width, dtype=torch.uint8)
        for k, mask in enumerate(planes):
            if mask is not None:
                masks[k] = torch.from_numpy(mask.decode())
        loaded[t] = (image, tv_tensors.Mask(masks))
    return [loaded[t] for t in frames]


def paste_objects(onto: Sample, other: Sample, *, most: int = 3, least_visible: float = 0.15) -> Sample:
    """Paste up to `most` objects of another clip into a clip.

    An object of which less than the share `least_visible` remains visible in a frame is absent in that frame.
    """
    count = len(other.labels)
    if count == 0:
        return onto
    chosen = torch.randperm(count)[: int(torch.randint(1, min(most, count) + 1, ()))]
    pasted = other.masks[:, chosen]
    cover = pasted.any(dim=1)
    images = torch.where(cover[:, None], other.images, onto.images)
    visible = onto.masks & ~cover[:, None]
    areas = onto.masks.flatten(2).sum(dim=2), visible.flatten(2).sum(dim=2)
    keep = areas[1] >= least_visible * areas[0]
    visible = visible & keep[..., None, None]
    labels = torch.cat([onto.labels, other.labels[chosen]])
    return Sample(
        images, torch.cat([visible, pasted], dim=1), labels, None if onto.ignore is None else onto.ignore & ~cover
    )


class ClipDataset(Dataset[Sample]):
    """Mixture of data sets, indexed by `SampleKey`.

    Args:
        parts: The data sets.
        ratios: Probability of each as the source of pasted objects, relative to the others; equal by default.
    """

    def __init__(self, parts: Sequence[ClipPart], ratios: Sequence[float] | None = None) -> None:
        self.parts = tuple(parts)
        self.ratios = torch.tensor(ratios or [1.0] * len(self.parts))

    def __getitem__(self, key: SampleKey) -> Sample:
        """Return the sample of a key; the state of torch's global generator does not change."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key.seed)
            part = self.parts[key.part]
            sample = part.draw(key.record, key.frame)
            if part.paste and uniform(0, 1) < part.paste:
                source = self.parts[int(torch.multinomial(self.ratios, 1))]
                sample = paste_objects(sample, source.draw(*source.items[int(torch.randint(len(source.items), ()))]))
            return sample


def collate(samples: Sequence[Sample], *, multiple: int = 1) -> ClipBatch:
    """Combine samples to a batch, padded to one size.

    Args:
        samples: Clips of one length.
        multiple: Divisor of the rows and columns of the batch.
    """
    sizes = tuple((int(s.images.shape[2]), int(s.images.shape[3])) for s in samples)
    rows, columns = (-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))
    images, targets = [], []
    for sample, size in zip(samples, sizes, strict=True):
        border = (0, columns - size[1], 0, rows - size[0])
        images.append(F.pad(sample.images, border))
        ignore = None if sample.ignore is None else F.pad(sample.ignore, border)
        targets.append(ClipTargets(F.pad(sample.masks, border), sample.labels.expand(len(sample.masks), -1), ignore))
    return ClipBatch(torch.stack(images), tuple(targets), sizes)
