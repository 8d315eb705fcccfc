"""Checkpoints of visdeploy: content, writing, and matching of their keys with a network."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visdeploy.atomic import replacing_file
from visdeploy.errors import CheckpointError, ConfigError
from visdeploy_training.checkpoint_digest import DIGEST, content_digest
from visdeploy_training.checkpoint_file import METADATA_KEY
from visdeploy_training.checkpoint_info import metadata
from visdeploy_training.model import ModelInfo, VISModel
from visdeploy_training.registry import create_model, get_method

logger = logging.getLogger(__name__)
_LARGEST = 1e15


@dataclass(frozen=True)
class KeyReport:
    """Comparison of the keys of a checkpoint with those of a network.

    Attributes:
        loaded: Keys in both, with equal shapes.
        missing: Keys of the network that the checkpoint lacks.
        unexpected: Keys of the checkpoint that the network lacks.
        misshapen: Keys in both whose shapes differ, with both shapes.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if all keys match."""
        return not (self.missing or self.unexpected or self.misshapen)

    def raise_on_problem(self) -> None:
        """Raise an error if any key does not match.

        Raises:
            CheckpointError: Some keys do not match; the message names the first of each kind.
        """
        if self.ok:
            return
        kinds = {k: getattr(self, k) for k in ("missing", "unexpected", "misshapen")}
        raise CheckpointError(
            "the checkpoint does not match the network",
            seen="; ".join(f"{len(keys)} {kind}, first {keys[0]}" for kind, keys in kinds.items() if keys),
            expected="the same keys and shapes",
            hint="Check method, variant and number of classes.",
        )


@dataclass(frozen=True)
class Checkpoint:
    """Weights with the names of visdeploy, and a description of their network.

    Attributes:
        state: Map from name to tensor, for the keys that match the network.
        info: Description of the network.
        report: Comparison of the keys of the file with those of the network.
        layout: `official`, `visdeploy`, or `bare` (names of visdeploy without metadata).
    """

    state: dict[str, Tensor]
    info: ModelInfo
    report: KeyReport
    layout: str

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.info.method

    @property
    def variant(self) -> str:
        """Name of the variant."""
        return self.info.variant

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.info.classes

    def build(self) -> VISModel:
        """Return the network with these weights, in evaluation mode.

        Raises:
            CheckpointError: Some keys do not match.
        """
        self.report.raise_on_problem()
        model = make_model(self.info)
        model.load_state_dict(self.state)
        return model.eval()


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raise an error if weights have NaN, infinite or absurd values.

    A file without checksums, such as safetensors of other tools, shows a flipped bit of an exponent in no other way.

    Raises:
        CheckpointError: A tensor has such values; the message names the first.
    """
    bad = [k for k, v in state.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if bad:
        raise CheckpointError(
            f"{where} contains NaN or infinite values",
            seen=f"in {len(bad)} of {len(state)} tensors, first {bad[0]}",
            hint="The training diverged, or the file is damaged; use an earlier checkpoint.",
        )
    huge = [k for k, v in state.items() if v.is_floating_point() and v.numel() and float(v.abs().max()) > _LARGEST]
    if huge:
        raise CheckpointError(
            f"{where} contains values that no trained network has",
            seen=f"up to {float(state[huge[0]].abs().max()):.0e} in {huge[0]}, one of {len(huge)} such tensors",
            expected=f"at most {_LARGEST:.0e}",
            hint="The file is damaged; copy or download it again.",
        )


def make_model(info: ModelInfo) -> VISModel:
    """Create the network that a checkpoint describes, with newly initialised weights.

    Raises:
        CheckpointError: This version cannot create the network.
    """
    try:
        return create_model(info.method, info.variant, classes=info.classes, **info.overrides)
    except ConfigError as error:
        raise CheckpointError(
            f"the checkpoint describes a network that this version cannot create: {error.what}",
            seen=error.seen,
            expected=error.expected,
            hint="It may come from another version of visdeploy.",
        ) from error
    except (ArithmeticError, RuntimeError, MemoryError, TypeError, ValueError) as error:  # values that do not combine
        raise CheckpointError(
            "the checkpoint describes a network that this version cannot create",
            seen=f"{type(error).__name__} with the settings {dict(info.overrides)}"[:300],
            hint="Its settings contradict each other, or are too large; it may be damaged.",
        ) from error


def shapes(info: ModelInfo) -> dict[str, Tensor]:
    """Return the state dict of the network on the meta device: names, shapes and dtypes without values."""
    with torch.device("meta"):
        return make_model(info).state_dict()


def match_keys(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], KeyReport]:
    """Return the tensors of `state` that match `expected`, in its dtypes, and a report on all keys.

    Raises:
        CheckpointError: A tensor contains integers instead of real numbers, or fractions instead of integers.
    """
    both = [k for k in expected if k in state]
    for key in both:
        _check_kind(key, expected[key], state[key])
    fitting = {k: state[k].to(expected[k].dtype) for k in both if state[k].shape == expected[k].shape}
    report = KeyReport(
        loaded=tuple(fitting),
        missing=tuple(k for k in expected if k not in state),
        unexpected=tuple(k for k in state if k not in expected),
        misshapen=tuple(
            f"{k} (seen {tuple(state[k].shape)}, expected {tuple(expected[k].shape)})" for k in both if k not in fitting
        ),
    )
    return fitting, report


def _check_kind(name: str, expected: Tensor, seen: Tensor) -> None:
    """Raise an error unless conversion to the expected dtype keeps the meaning of the values."""
    if expected.is_floating_point() == seen.is_floating_point():
        return
    if seen.is_floating_point() and bool((seen == seen.trunc()).all()):  # counters in a file saved in one precision
        return
    raise CheckpointError(
        f"tensor {name!r} of the checkpoint has another type of numbers than the network",
        seen=str(seen.dtype).removeprefix("torch."),
        expected=str(expected.dtype).removeprefix("torch."),
        hint="Quantised weights cannot be used; save the checkpoint in floating point.",
    )


def _class_tensors(info: ModelInfo) -> set[str]:
    """Return the names of the tensors whose shape depends on the number of classes."""
    fewer, more = (
        shapes(replace(info, classes=tuple(f"class_{i}" for i in range(count))))
        for count in (len(info.classes), len(info.classes) + 1)
    )
    return {name for name, tensor in fewer.items() if tensor.shape != more[name].shape}


def start_from(model: VISModel, checkpoint: Checkpoint) -> KeyReport:
    """Load a checkpoint for fine-tuning.

    Class predictors for another number of classes, layers of another shape in another variant
    (`Method.variable_tensors`), and parts of the network that only its stage of the training has
    (`Method.stage_tensors`), keep their initial weights. The log names them.

    Returns:
        Comparison of the keys; those that keep their initial weights are in `missing` and `misshapen`.

    Raises:
        CheckpointError: The method differs, or another tensor does not match.
    """
    if checkpoint.method != model.info.method:
        raise CheckpointError(
            "cannot start from a checkpoint of another method", seen=checkpoint.method, expected=model.info.method
        )
    fitting, report = match_keys(model.state_dict(), checkpoint.state)
    method = get_method(model.info.method)
    rest = tuple(k for k in report.misshapen if k.split(" ", 1)[0] not in method.variable_tensors)
    if rest:  # some networks have a fixed number of classes
        allowed = _class_tensors(model.info)
        rest = tuple(k for k in rest if k.split(" ", 1)[0] not in allowed)
    stages = method.stage_tensors
    missing, unexpected = (
        tuple(k for k in keys if not k.startswith(stages)) for keys in (report.missing, report.unexpected)
    )
    KeyReport(report.loaded, missing, unexpected, rest).raise_on_problem()
    checkpoint.report.raise_on_problem()
    model.load_state_dict(fitting, strict=False)
    logger.info("%d tensors of the %s checkpoint loaded", len(fitting), checkpoint.variant)
    for kind, keys in (("not in the checkpoint", report.missing), ("of another shape", report.misshapen)):
        if keys:
            logger.info("%d tensors keep their initial weights, %s: %s", len(keys), kind, ", ".join(keys))
    return report


def save_checkpoint(model: VISModel | Checkpoint, path: str | Path, *, notes: Mapping[str, Any] | None = None) -> Path:
    """Write a checkpoint atomically, as safetensors with JSON metadata and a digest of the content.

    Args:
        model: Network created by `create_model`, or a converted checkpoint.
        path: File to write, `.safetensors`.
        notes: JSON values stored with the metadata, for example a description of the training.

    Returns:
        Path of the file.

    Raises:
        CheckpointError: Some keys do not match, or a tensor has NaN or infinite values.
        OutputError: The file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    if isinstance(model, Checkpoint):
        model.report.raise_on_problem()
        state, info = model.state, model.info
    else:
        state, info = model.state_dict(), model.info
    check_finite(state, "the network")
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    # as it will be read: JSON turns tuples into lists
    fields = json.loads(json.dumps({**metadata(info), **({"notes": dict(notes)} if notes else {})}))
    text = json.dumps({**fields, DIGEST: content_digest(tensors, fields)})
    with replacing_file(path) as temporary:
        try:
            save_file(tensors, temporary, {METADATA_KEY: text})
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))
            raise (OSError(int(code[1]), os.strerror(int(code[1]))) if code else OSError(str(error))) from error
    return path
