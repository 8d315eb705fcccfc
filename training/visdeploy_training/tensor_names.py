"""Names of tensors without the additions of wrappers: parallel training, compilation, averaging of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from visdeploy.errors import CheckpointError

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Modules that PyTorch inserts anywhere in a network without changing its weights."""
_PARALLEL, _COUNTER = "module.", "n_averaged"
_Value = TypeVar("_Value")


def without_common(tensors: Mapping[str, _Value]) -> Iterator[dict[str, _Value]]:
    """Yield the tensors without the first part of their names, such as Lightning's `model.`, while all have the same.

    This is for names that mean nothing otherwise: weights of a single module have a common part, too.
    """
    named = dict(tensors)
    while named and len({name.partition(".")[0] for name in named}) == 1 and all("." in name for name in named):
        named = {name.partition(".")[2]: value for name, value in named.items()}
        yield named


def plain_names(tensors: Mapping[str, _Value], where: str) -> dict[str, _Value]:
    """Remove the names of wrappers, and a leading `module.` that all names have, however often.

    The counter of `AveragedModel` is removed with its `module.`.

    Raises:
        CheckpointError: Two names would become equal.
    """
    named = {name: ".".join(p for p in name.split(".") if p not in WRAPPERS) for name in tensors}
    while True:
        rest = {name: new for name, new in named.items() if new not in (_COUNTER, _PARALLEL + _COUNTER)}
        if not rest or not all(new.startswith(_PARALLEL) for new in rest.values()):
            break
        named = {name: new.removeprefix(_PARALLEL) for name, new in rest.items()}
    found: dict[str, str] = {}
    for name, new in named.items():
        if (other := found.setdefault(new, name)) != name:
            raise CheckpointError(
                f"{where} contains two tensors of one name",
                seen=f"{other[:100]} and {name[:100]}, both {new[:100]} without the names of wrappers",
                hint="Save the state dict of the network itself, without its wrapper.",
            )
    return {new: tensors[name] for name, new in named.items()}
