"""Pixels without a known label: union of ignored objects and of masks that a data set provides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from visdeploy.masks import Mask
from visdeploy.masks.combining import union
from visdeploy_training.datasets.categories import IGNORED
from visdeploy_training.datasets.records import ClipRecord, InstanceRecord

Masks = tuple[Mask | None, ...]


def add_ignored(record: ClipRecord, masks: Sequence[Masks]) -> ClipRecord:
    """Add masks to the ignored pixels of a record.

    Args:
        record: The record.
        masks: Tracks to ignore, each with one mask per frame.
    """
    tracks = [*masks, *([record.ignore] if record.ignore is not None else [])]
    found = tuple(union(frame) for frame in zip(*tracks, strict=True))
    return replace(record, ignore=found if any(mask is not None for mask in found) else None)


def hide(record: ClipRecord, instances: Sequence[InstanceRecord]) -> ClipRecord:
    """Remove objects of a record and ignore their pixels."""
    if not instances:
        return record
    chosen = {id(instance) for instance in instances}
    kept = tuple(instance for instance in record.instances if id(instance) not in chosen)
    return add_ignored(replace(record, instances=kept), [instance.masks for instance in instances])


def hide_ignored(record: ClipRecord) -> ClipRecord:
    """Remove the objects with the label `IGNORED` of a record and ignore their pixels."""
    return hide(record, [instance for instance in record.instances if instance.label == IGNORED])
