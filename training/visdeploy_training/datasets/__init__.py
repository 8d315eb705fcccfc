"""Training and validation data: YouTube-VIS videos, and COCO images as pseudo-videos."""

from visdeploy_training.datasets.batching import MixedBatches
from visdeploy_training.datasets.categories import CLASS_LISTS, CLASS_MAPS, class_list, map_categories
from visdeploy_training.datasets.clips import ClipDataset, ClipPart, Sample, SampleKey, collate, paste_objects
from visdeploy_training.datasets.images import ImageStore
from visdeploy_training.datasets.reading import read_records
from visdeploy_training.datasets.records import ClipRecord, InstanceRecord, to_annotations
from visdeploy_training.datasets.sampling import (
    consecutive_frames,
    cyclic_frames,
    distinct_frames,
    near_frames,
    sample_frames,
)
from visdeploy_training.datasets.validation import ValidationClip, validation_clips

__all__ = [
    "CLASS_LISTS",
    "CLASS_MAPS",
    "ClipDataset",
    "ClipPart",
    "ClipRecord",
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
    "map_categories",
    "near_frames",
    "paste_objects",
    "read_records",
    "sample_frames",
    "to_annotations",
    "validation_clips",
]
