"""Reading checkpoints of any known layout, with every key accounted for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from visdeploy.errors import CheckpointError
from visdeploy_training.checkpoint import FORMAT, Checkpoint, check_finite, match_keys, shapes
from visdeploy_training.checkpoint_file import TensorFile, from_object, read_tensors
from visdeploy_training.method import Method
from visdeploy_training.model import ModelInfo, VISModel
from visdeploy_training.registry import get_method, method_names

LIGHTNING_PREFIX = "model."


def convert_checkpoint(
    source: str | Path | Mapping[str, Any],
    *,
    method: str | None = None,
    variant: str | None = None,
    classes: str | Sequence[str] | None = None,
) -> Checkpoint:
    """Read a checkpoint of any known layout: official (method recognised by its keys), ours, or a Lightning file.

    Nothing is ever unpickled that could run code. Keys that do not fit are reported, not raised: look at
    `Checkpoint.report`, or call `build()`.

    Args:
        source: File, or a state dict (or a dictionary around one).
        method: Name of the method, where the keys do not tell.
        variant: Name of the variant, where the checkpoint does not tell.
        classes: Class names in label order, where the checkpoint holds none or only placeholders: a list, or the
            name of a public one such as `ytvis2019`.

    Raises:
        CheckpointError: It cannot be read safely, is of no known layout, has another number of classes than
            `classes`, or holds NaN or infinite values.
        ConfigError: `method` or `variant` is unknown.
    """
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    file = from_object(source, where=where) if isinstance(source, Mapping) else read_tensors(source)
    if file.metadata:
        info, state, layout = *_own(file, method, variant, where), "visdeploy"
    else:
        info, state, layout = _foreign(file.tensors, method, variant, where)
    info = _with_classes(info, classes, where)
    check_finite(state, where)
    fitting, report = match_keys(shapes(info), state)
    return Checkpoint(fitting, info, report, layout)


def _own(file: TensorFile, method: str | None, variant: str | None, where: str) -> tuple[ModelInfo, dict[str, Tensor]]:
    data = file.metadata
    try:
        if int(data["format"]) > FORMAT:
            raise CheckpointError(
                f"{where} is of a newer format",
                seen=f"format {data['format']}",
                expected=f"at most {FORMAT}",
                hint="Install a newer visdeploy.",
            )
        info = ModelInfo(
            str(data["method"]),
            str(data["variant"]),
            tuple(str(c) for c in data["classes"]),
            _overrides(data["overrides"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{where}: its metadata is malformed",
            seen=repr(error),
            expected="format, method, variant, classes, overrides",
        ) from error
    for name, wanted, seen in (("method", method, info.method), ("variant", variant, info.variant)):
        if wanted is not None and wanted != seen:
            raise CheckpointError(f"{where} is of another {name}", seen=seen, expected=wanted)
    return info, _strip(file.tensors, LIGHTNING_PREFIX)


def _overrides(data: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides as they were given: JSON has lists where configurations have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in dict(data).items()}


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    if all(k.startswith(prefix) for k in tensors):
        return {k.removeprefix(prefix): v for k, v in tensors.items()}
    return dict(tensors)


def _foreign(
    tensors: Mapping[str, Tensor], method: str | None, variant: str | None, where: str
) -> tuple[ModelInfo, dict[str, Tensor], str]:
    """Method, variant and number of classes of a file without our metadata, and its tensors in our naming."""
    for found in [get_method(method)] if method is not None else map(get_method, method_names()):
        official = found.official
        if official is None:
            continue
        if official.recognise(tensors):
            info = _placeholder(found, variant or official.variant(tensors), official.num_classes(tensors))
            info = replace(info, overrides=official.overrides(tensors))
            return info, official.rename(tensors), "official"
        counted = tensors.get(official.class_tensors[0])
        if counted is not None and method is not None and variant is not None:
            count = int(counted.shape[0]) - official.spare_rows
            return _placeholder(found, variant, count), dict(tensors), "bare"
    raise CheckpointError(
        f"{where} is of no known layout" if method is None else f"{where} is no checkpoint of {method}",
        seen=f"{len(tensors)} tensors, first {sorted(tensors)[:3]}",
        expected=f"an official checkpoint of {method or ', '.join(method_names())}, or one of ours",
        hint="For a bare state dict of ours, name method and variant.",
    )


def _placeholder(method: Method, variant: str, count: int) -> ModelInfo:
    return ModelInfo(method.name, variant, tuple(f"class_{i}" for i in range(count)))


def _with_classes(info: ModelInfo, names: str | Sequence[str] | None, where: str) -> ModelInfo:
    if names is None:
        return info
    from visdeploy_training.datasets.categories import class_list  # brings torchvision, which converting does not need

    classes = class_list(names)
    if len(classes) != len(info.classes):
        raise CheckpointError(
            f"{where}: wrong number of classes",
            seen=f"{len(info.classes)} in the checkpoint",
            expected=f"{len(classes)}, the class names given",
            hint="Give the names the checkpoint was trained with; to train on others, start from it by fine-tuning.",
        )
    return ModelInfo(info.method, info.variant, classes, info.overrides)


def load_checkpoint(
    path: str | Path,
    *,
    method: str | None = None,
    variant: str | None = None,
    classes: str | Sequence[str] | None = None,
) -> tuple[VISModel, ModelInfo]:
    """The network of a checkpoint, in evaluation mode, and what it is; arguments as for `convert_checkpoint`.

    Raises:
        CheckpointError: It cannot be read, or its keys do not all fit.
    """
    checkpoint = convert_checkpoint(path, method=method, variant=variant, classes=classes)
    return checkpoint.build(), checkpoint.info
