"""Conversion of checkpoints of all supported layouts, with a report on every key."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from visdeploy.arguments import check_path, check_type
from visdeploy.errors import CheckpointError
from visdeploy_training.checkpoint import Checkpoint, check_finite, match_keys, shapes
from visdeploy_training.checkpoint_file import TensorFile, from_object, read_tensors
from visdeploy_training.checkpoint_info import read_info
from visdeploy_training.method import Method, OfficialLayout
from visdeploy_training.model import ModelInfo, VISModel
from visdeploy_training.registry import get_method, method_names
from visdeploy_training.tensor_names import without_common

logger = logging.getLogger(__name__)


def convert_checkpoint(
    source: str | Path | Mapping[str, Any],
    *,
    method: str | None = None,
    variant: str | None = None,
    classes: str | Sequence[str] | None = None,
) -> Checkpoint:
    """Read an official checkpoint, a checkpoint of visdeploy, or a Lightning checkpoint of a training.

    The method of an official checkpoint is recognised by its keys. Files are never unpickled in a way that could run
    code. Keys that do not match the network are listed in `Checkpoint.report`; `Checkpoint.build` raises an error.

    Args:
        source: File, or a state dict (or a dictionary that contains one).
        method: Name of the method, if the keys do not determine it.
        variant: Name of the variant, if the checkpoint does not determine it.
        classes: Class names in label order, if the checkpoint has none or only placeholders: a list, or the name of a
            public list such as `ytvis2019`.

    Raises:
        CheckpointError: The checkpoint cannot be read safely, is damaged, has an unknown layout or another number of
            classes than `classes`, or contains NaN or infinite values or tensors of another kind than weights.
        ConfigError: `method` or `variant` is unknown.
    """
    for name, given in (("method", method), ("variant", variant)):
        if given is not None:
            check_type(given, str, f"{name} of a checkpoint")
    if isinstance(source, Mapping):
        where, file = "the state dict", from_object(source)
    else:
        path = check_path(source, "path of a checkpoint", error=CheckpointError)
        where, file = str(path), read_tensors(path)
    if file.metadata:
        info, state, layout = *_own(file, method, variant, where), "visdeploy"
    else:
        info, state, layout = _foreign(file, method, variant, where)
    if classes is None and info.classes == _made_up(len(info.classes)):
        logger.warning(
            "%s has no class names: its %d classes are called class_0 to class_%d; pass classes (--classes), "
            "such as ytvis2019, for their names",
            where, len(info.classes), len(info.classes) - 1,
        )  # fmt: skip
    info = _with_classes(info, classes, where)
    check_finite(state, where)
    expected = shapes(info)
    if not expected.keys() & state.keys():
        state = next((each for each in without_common(state) if expected.keys() & each.keys()), state)
    fitting, report = match_keys(expected, state)
    return Checkpoint(fitting, info, report, layout)


def _own(file: TensorFile, method: str | None, variant: str | None, where: str) -> tuple[ModelInfo, dict[str, Tensor]]:
    info = read_info(file.metadata, where)
    for name, wanted, seen in (("method", method, info.method), ("variant", variant, info.variant)):
        if wanted is not None and wanted != seen:
            raise CheckpointError(f"{where} has another {name}", seen=seen, expected=wanted)
    return info, file.tensors


def _foreign(
    file: TensorFile, method: str | None, variant: str | None, where: str
) -> tuple[ModelInfo, dict[str, Tensor], str]:
    """Return the info and the renamed tensors of a checkpoint without metadata of visdeploy, and its layout."""
    names = [method] if method is not None else method_names()
    for tensors in (file.tensors, *without_common(file.tensors)):
        # in turn: a broken package of another method must not hide those of visdeploy
        methods = map(get_method, names)
        if result := _recognised(replace(file, tensors=tensors), methods, method, variant, where):
            return result
    raise CheckpointError(
        f"{where} has an unknown layout" if method is None else f"{where} is not a checkpoint of {method}",
        seen=f"{len(file.tensors)} tensors, first {[name[:60] for name in sorted(file.tensors)[:3]]}",
        expected=f"an official checkpoint of {method or ', '.join(method_names())}, or a checkpoint of visdeploy",
        hint="For a state dict of visdeploy without metadata, pass method and variant.",
    )


def _recognised(
    file: TensorFile, methods: Iterable[Method], method: str | None, variant: str | None, where: str
) -> tuple[ModelInfo, dict[str, Tensor], str] | None:
    """Return what `_foreign` does; None if the names of the tensors belong to none of the methods."""
    tensors = file.tensors
    for found in methods:
        official = found.official
        if official is None:
            continue
        if official.recognise(tensors):
            if other := official.mistaken(tensors, file.notes, method is not None):
                raise CheckpointError(f"{where} is not a checkpoint of {found.name}", seen=other[0], hint=other[1])
            name, stated = _stated(found, official, file, variant, where)
            info = _placeholder(found, name, official.num_classes(tensors))
            info = replace(info, overrides=official.overrides(tensors) | stated)
            return info, official.rename(tensors), "official"
        counted = tensors.get(official.class_tensors[0])
        if counted is not None and method is not None and variant is not None:
            count = int(counted.shape[0]) - official.spare_rows
            return _placeholder(found, variant, count), dict(tensors), "bare"
    return None


def _stated(
    found: Method, official: OfficialLayout, file: TensorFile, variant: str | None, where: str
) -> tuple[str, dict[str, Any]]:
    """Return the variant with the fields that only the notes of the trainer state, and those that no variant has.

    Raises:
        CheckpointError: The user has chosen a variant that contradicts the notes.
    """
    name, stated = variant or official.variant(file.tensors), official.stated(file.notes)
    base = found.variants.get(name)
    changed = {k: v for k, v in stated.items() if base is not None and getattr(base, k) != v}
    if not changed:
        return name, {}
    wanted = dataclasses.replace(found.variants[name], **changed)
    same = next((each for each, config in found.variants.items() if config == wanted), None)
    if variant is not None:
        raise CheckpointError(
            f"{where} is not of the variant {variant}",
            seen=f"{', '.join(f'{k}={v}' for k, v in changed.items())} in the arguments of its training",
            expected=f"variant {same}" if same else f"{found.name} with these settings",
            hint="Leave out the variant, so that it is read from the checkpoint.",
        )
    return (name, changed) if same is None else (same, {})


def _placeholder(method: Method, variant: str, count: int) -> ModelInfo:
    return ModelInfo(method.name, variant, _made_up(count))


def _made_up(count: int) -> tuple[str, ...]:
    """Return names of classes that have none, as `create_model` also gives."""
    return tuple(f"class_{i}" for i in range(count))


def _with_classes(info: ModelInfo, names: str | Sequence[str] | None, where: str) -> ModelInfo:
    if names is None:
        return info
    from visdeploy_training.datasets.categories import class_list  # imports torchvision, which conversion does not need

    classes = class_list(names)
    if len(classes) != len(info.classes):
        raise CheckpointError(
            f"{where}: wrong number of classes",
            seen=f"{len(info.classes)} in the checkpoint",
            expected=f"{len(classes)}, the number of names in classes",
            hint="Pass the classes the checkpoint was trained on; to train on others, fine-tune from the checkpoint.",
        )
    return ModelInfo(info.method, info.variant, classes, info.overrides)


def load_checkpoint(
    path: str | Path,
    *,
    method: str | None = None,
    variant: str | None = None,
    classes: str | Sequence[str] | None = None,
) -> tuple[VISModel, ModelInfo]:
    """Return the network of a checkpoint, in evaluation mode, and its info; arguments as for `convert_checkpoint`.

    Raises:
        CheckpointError: The checkpoint cannot be read, or its keys do not match the network.
    """
    checkpoint = convert_checkpoint(path, method=method, variant=variant, classes=classes)
    return checkpoint.build(), checkpoint.info
