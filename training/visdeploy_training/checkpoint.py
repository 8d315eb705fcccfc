"""Checkpoints of ours: what they hold, how they are written, and how their keys meet a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visdeploy.atomic import replacing_file
from visdeploy.errors import CheckpointError, ConfigError
from visdeploy_training.checkpoint_file import METADATA_KEY
from visdeploy_training.model import ModelInfo, VISModel
from visdeploy_training.registry import create_model

FORMAT = 1


@dataclass(frozen=True)
class KeyReport:
    """What became of every key.

    Attributes:
        loaded: Keys that fit.
        missing: Keys of the network that the checkpoint lacks.
        unexpected: Keys of the checkpoint that the network lacks.
        misshapen: Keys of both whose shapes differ, with both shapes.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every key of either side fits."""
        return not (self.missing or self.unexpected or self.misshapen)

    def raise_on_problem(self) -> None:
        """Refuse a checkpoint whose keys do not all fit.

        Raises:
            CheckpointError: Some do not; the first of each kind is named.
        """
        if self.ok:
            return
        kinds = {k: getattr(self, k) for k in ("missing", "unexpected", "misshapen")}
        raise CheckpointError(
            "the checkpoint does not fit the network",
            seen="; ".join(f"{len(keys)} {kind}, first {keys[0]}" for kind, keys in kinds.items() if keys),
            expected="the same keys and shapes",
            hint="Check method, variant and number of classes.",
        )


@dataclass(frozen=True)
class Checkpoint:
    """Weights in our naming and the network they belong to.

    Attributes:
        state: Name to tensor; only keys that fit the network.
        info: How to make the network.
        report: What became of every key.
        layout: `official`, `visdeploy`, or `bare` (our names without our metadata).
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
        """The network with these weights, in evaluation mode.

        Raises:
            CheckpointError: Not all keys fit.
        """
        self.report.raise_on_problem()
        model = make_model(self.info)
        model.load_state_dict(self.state)
        return model.eval()


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights with NaN or infinite values.

    Raises:
        CheckpointError: There are some; the first tensor is named.
    """
    bad = [k for k, v in state.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if bad:
        raise CheckpointError(
            f"{where} holds NaN or infinite values",
            seen=f"in {len(bad)} of {len(state)} tensors, first {bad[0]}",
            hint="The training diverged, or the file is damaged; take an earlier checkpoint.",
        )


def make_model(info: ModelInfo) -> VISModel:
    """The network that a checkpoint describes, with fresh weights.

    Raises:
        CheckpointError: This version cannot make it.
    """
    try:
        return create_model(info.method, info.variant, classes=info.classes, **info.overrides)
    except ConfigError as error:
        raise CheckpointError(
            f"the checkpoint describes a network that this version cannot make: {error.what}",
            seen=error.seen,
            expected=error.expected,
            hint="It may come from another version of visdeploy.",
        ) from error


def shapes(info: ModelInfo) -> dict[str, Tensor]:
    """State dict of that network on the meta device: names, shapes and dtypes, no values."""
    with torch.device("meta"):
        return make_model(info).state_dict()


def match_keys(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], KeyReport]:
    """Tensors of `state` that fit the network's state dict, in its dtypes, and what became of all keys."""
    both = [k for k in expected if k in state]
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


def _class_tensors(info: ModelInfo) -> set[str]:
    """Names of the tensors whose shape depends on the number of classes."""
    fewer, more = (
        shapes(replace(info, classes=tuple(f"class_{i}" for i in range(count))))
        for count in (len(info.classes), len(info.classes) + 1)
    )
    return {name for name, tensor in fewer.items() if tensor.shape != more[name].shape}


def start_from(model: VISModel, checkpoint: Checkpoint) -> KeyReport:
    """Fine-tuning: load all that fits; only class predictors of another number of classes keep their fresh weights.

    Raises:
        CheckpointError: The method differs, or anything but the class predictors does not fit.
    """
    if checkpoint.method != model.info.method:
        raise CheckpointError(
            "cannot start from a checkpoint of another method", seen=checkpoint.method, expected=model.info.method
        )
    fitting, report = match_keys(model.state_dict(), checkpoint.state)
    allowed = _class_tensors(model.info)
    rest = tuple(k for k in report.misshapen if k.split(" ", 1)[0] not in allowed)
    KeyReport(report.loaded, report.missing, report.unexpected, rest).raise_on_problem()
    checkpoint.report.raise_on_problem()
    model.load_state_dict(fitting, strict=False)
    return report


def metadata(info: ModelInfo) -> dict[str, Any]:
    """What a checkpoint of ours says about itself; Lightning files carry it under the key `visdeploy`."""
    return {
        "format": FORMAT,
        "method": info.method,
        "variant": info.variant,
        "overrides": dict(info.overrides),
        "classes": list(info.classes),
    }


def save_checkpoint(model: VISModel | Checkpoint, path: str | Path, *, notes: Mapping[str, Any] | None = None) -> Path:
    """Write a checkpoint of ours: safetensors with JSON metadata. It appears complete or not at all.

    Args:
        model: Network made by `create_model`, or a converted checkpoint.
        path: File to write, `.safetensors`.
        notes: JSON values kept beside the metadata, for example where the weights were trained.

    Returns:
        The path.

    Raises:
        CheckpointError: The keys do not all fit, or there are NaN or infinite values.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if isinstance(model, Checkpoint):
        model.report.raise_on_problem()
        state, info = model.state, model.info
    else:
        state, info = model.state_dict(), model.info
    check_finite(state, "the network")
    text = json.dumps({**metadata(info), **({"notes": dict(notes)} if notes else {})})
    with replacing_file(path) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, temporary, {METADATA_KEY: text})
    return path
