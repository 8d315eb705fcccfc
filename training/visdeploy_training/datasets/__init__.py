"""Training and validation data: videos, and images as pseudo-videos."""

from visdeploy_training.datasets.batching import MixedBatches
from visdeploy_training.datasets.categories import CLASS_LISTS, CLASS_MAPS, class_list, map_categories
from visdeploy_training.datasets.clips import ClipDataset, ClipPart, SampleKey, collate, paste_objects
from visdeploy_training.datasets.duplication import duplicate_object
from visdeploy_training.datasets.images import ImageStore
from visdeploy_training.datasets.locations import expand
from visdeploy_training.datasets.mixture import CountedBatches, mixture_indices
from visdeploy_training.datasets.reading import read_records
from visdeploy_training.datasets.records import ClipRecord, InstanceRecord, Sample, to_annotations
from visdeploy_training.datasets.sampling import (
    consecutive_frames,
    cyclic_frames,
    distinct_frames,
    near_frames,
    sample_frames,
    span_frames,
)
from visdeploy_training.datasets.selection import select
from visdeploy_training.datasets.validation import ValidationClip, validation_clips

__all__ = [
    "CLASS_LISTS",
    "CLASS_MAPS",
    "ClipDataset",
    "ClipPart",
    "ClipRecord",
    "CountedBatches",
    "ImageStore",
    "InstanceRecord",
    "MixedBatches",
    "Sample",
    "SampleKey",
    "ValidationClip",
    "class_list",
    "collate",
    "consecutive_frames",
    "cyclic_frames",
    "distinct_frames",
    "duplicate_object",
    "expand",
    "map_categories",
    "mixture_indices",
    "near_frames",
    "paste_objects",
    "read_records",
    "sample_frames",
    "select",
    "span_frames",
    "to_annotations",
    "validation_clips",
]
