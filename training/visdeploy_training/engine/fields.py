"""Common parts of the models of recipes: a strict base class, number ranges, errors for replaced fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Factor = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Model that refuses unknown fields, changes after validation, and infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def refuse_replaced(data: Any, instead: Mapping[str, str]) -> Any:
    """Refuse fields of an earlier recipe format.

    Args:
        data: Input of a model.
        instead: Map from a replaced field to its replacement.

    Returns:
        The input, unchanged.

    Raises:
        ValueError: The input has one of the fields.
    """
    found = [name for name in instead if isinstance(data, Mapping) and name in data]
    if found:
        raise ValueError("; ".join(f"{name} was replaced: write {instead[name]}" for name in found))
    return data
