"""Sizes of tensors: numbers, symbols with a range, and expressions over symbols such as `height/8`."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from visdeploy.manifest.base import Strict

_FUNCTIONS = {"ceil": math.ceil, "floor": math.floor}
_MAX_LENGTH = 100
MAX_SIZE = 2**31 - 1
"""Largest size of a tensor along one axis."""
MAX_ELEMENTS = 2**31 - 1
"""Largest number of elements of an input or a state in the smallest case."""


class SizeError(ValueError):
    """A size is not allowed, or contradicts another size.

    Args:
        what: The tensor, axis or symbol.
        seen: The size found.
        expected: The sizes allowed.
    """

    def __init__(self, what: str, *, seen: str, expected: str) -> None:
        self.what, self.seen, self.expected = what, seen, expected
        super().__init__(f"{what}: {seen}, expected {expected}")


@lru_cache(maxsize=1024)
def _parse(text: str) -> ast.expr:
    """Return the syntax tree of an expression of integers, symbols, `+ - * /`, `ceil(…)` and `floor(…)`.

    Raises:
        ValueError: The expression contains anything else.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"a size of {len(text)} characters")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is not an expression over sizes") from error
    for node in ast.walk(tree):
        known = isinstance(node, ast.BinOp | ast.Name | ast.Load | ast.Add | ast.Sub | ast.Mult | ast.Div)
        number = isinstance(node, ast.Constant) and type(node.value) is int
        call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        if isinstance(node, ast.Call) and (len(node.args) != 1 or node.keywords):
            call = False
        if isinstance(node, ast.Name) and node.id in _FUNCTIONS and not _is_called(tree, node):
            known = False
        if not (known or number or call):
            raise ValueError(f"{text!r} is not an expression over sizes (numbers, symbols, + - * /, ceil, floor)")
    return tree


def _is_called(tree: ast.expr, name: ast.Name) -> bool:
    return any(isinstance(node, ast.Call) and node.func is name for node in ast.walk(tree))


def _check(text: str) -> str:
    symbols(text)
    return text


Size = (
    Annotated[int, Field(ge=0, le=MAX_SIZE)]
    | Annotated[str, Field(pattern=r"^[a-z][a-z0-9_ +*/().-]*$"), AfterValidator(_check)]
)
"""A number, a symbol, or an expression over symbols."""


def is_symbol(size: int | str) -> bool:
    """Return whether a size is a single symbol, not a number or an expression."""
    return isinstance(size, str) and size.isidentifier()


@lru_cache(maxsize=1024)
def symbols(size: int | str) -> frozenset[str]:
    """Return the symbols that a size depends on.

    Raises:
        ValueError: The size is not a valid expression, or contains no symbol.
    """
    if isinstance(size, int):
        return frozenset()
    found = {node.id for node in ast.walk(_parse(size)) if isinstance(node, ast.Name)} - set(_FUNCTIONS)
    if not found:
        raise ValueError(f"{size!r} contains no symbol; write the number")
    return frozenset(found)


def evaluate(size: int | str, sizes: Mapping[str, int]) -> int:
    """Compute the value of a size.

    Args:
        size: Number, symbol or expression.
        sizes: Value of every symbol in it.

    Raises:
        SizeError: A symbol has no value, or the result is negative or not an integer.
    """
    if isinstance(size, int):
        return size
    if missing := sorted(symbols(size) - set(sizes)):
        raise SizeError(f"size {size!r}", seen=f"no value of {missing[0]!r}", expected="a value of every symbol")
    try:
        value = _evaluate(_parse(size), sizes)
    except ZeroDivisionError:
        value = Fraction(-1)
    if value < 0 or value.denominator != 1:
        given = ", ".join(f"{name} {sizes[name]}" for name in sorted(symbols(size)))
        raise SizeError(f"size {size!r}", seen=f"{value} with {given}", expected="a whole number from 0")
    return int(value)


def _evaluate(node: ast.expr, sizes: Mapping[str, int]) -> Fraction:
    if isinstance(node, ast.Constant):
        return Fraction(int(node.value))  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return Fraction(sizes[node.id])
    if isinstance(node, ast.Call):
        return Fraction(_FUNCTIONS[node.func.id](_evaluate(node.args[0], sizes)))  # type: ignore[attr-defined]
    if not isinstance(node, ast.BinOp):
        raise TypeError(f"unexpected {type(node).__name__}")
    left, right = _evaluate(node.left, sizes), _evaluate(node.right, sizes)
    if isinstance(node.op, ast.Add):
        return left + right
    if isinstance(node.op, ast.Sub):
        return left - right
    return left * right if isinstance(node.op, ast.Mult) else left / right


class Dim(Strict):
    """Range of the sizes that a symbol may have.

    Attributes:
        minimum: Smallest size.
        typical: Size for which engines are optimised.
        maximum: Largest size.
        multiple: Every size is a multiple of this.
    """

    minimum: Annotated[int, Field(ge=0, le=MAX_SIZE)]
    typical: Annotated[int, Field(ge=0, le=MAX_SIZE)]
    maximum: Annotated[int, Field(ge=0, le=MAX_SIZE)]
    multiple: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 1

    @model_validator(mode="after")
    def _ordered(self) -> Dim:
        if not self.minimum <= self.typical <= self.maximum:
            raise ValueError("minimum, typical and maximum must be in ascending order")
        if any(size % self.multiple for size in (self.minimum, self.typical, self.maximum)):
            raise ValueError(f"minimum, typical and maximum must be multiples of {self.multiple}")
        return self

    def __contains__(self, size: int) -> bool:
        """Return whether a size is allowed."""
        return self.minimum <= size <= self.maximum and size % self.multiple == 0

    def __str__(self) -> str:
        if self.minimum == self.maximum:
            return str(self.minimum)
        multiples = f", multiples of {self.multiple}" if self.multiple > 1 else ""
        return f"{self.minimum} to {self.maximum}{multiples}"


class Shaped(NamedTuple):
    """A tensor whose shape is checked: its name, the declared sizes, and the sizes seen."""

    name: str
    declared: Sequence[int | str]
    seen: Sequence[int]


def bind(tensors: Iterable[Shaped], dims: Mapping[str, Dim], known: Mapping[str, int] | None = None) -> dict[str, int]:
    """Determine the value of every symbol, and check that all sizes agree with the values and the ranges.

    Args:
        tensors: Tensors with their declared and actual sizes.
        dims: The range of every symbol.
        known: Values of symbols that are already bound.

    Returns:
        Map from symbol to value, including those in `known`.

    Raises:
        SizeError: A rank or a size differs, two tensors contradict each other, or a value is out of its range.
    """
    sizes, tensors = dict(known or {}), list(tensors)
    for tensor in tensors:
        if len(tensor.declared) != len(tensor.seen):
            raise _misfit(tensor)
        for declared, seen in zip(tensor.declared, tensor.seen, strict=True):
            if is_symbol(declared) and declared not in sizes:
                sizes[str(declared)] = seen
                if (dim := dims.get(str(declared))) is not None and seen not in dim:
                    raise SizeError(f"{tensor.name!r}: size {declared!r}", seen=str(seen), expected=str(dim))
    for tensor in tensors:
        for declared, seen in zip(tensor.declared, tensor.seen, strict=True):
            if symbols(declared) <= set(sizes) and evaluate(declared, sizes) != seen:
                raise _misfit(tensor, sizes)
    return sizes


def _misfit(tensor: Shaped, sizes: Mapping[str, int] | None = None) -> SizeError:
    used = {name for size in tensor.declared for name in symbols(size)} & set(sizes or {})
    given = f" with {', '.join(f'{name} {(sizes or {})[name]}' for name in sorted(used))}" if used else ""
    return SizeError(f"{tensor.name!r}", seen=str(list(tensor.seen)), expected=f"{list(tensor.declared)}{given}")


def initial_sizes(shape: Sequence[int | str], sizes: Mapping[str, int], dims: Mapping[str, Dim]) -> list[int]:
    """Return the shape of a state before the first step; symbols not bound by the inputs start at their minimum.

    Args:
        shape: Declared shape.
        sizes: Values of the symbols bound by the inputs.
        dims: The range of every symbol.

    Raises:
        SizeError: A size cannot be evaluated.
    """
    start = {name: dims[name].minimum for size in shape for name in symbols(size) if name in dims}
    return [evaluate(size, {**start, **sizes}) for size in shape]


def least_elements(shape: Sequence[int | str], dims: Mapping[str, Dim]) -> int:
    """Return the number of elements of a tensor whose symbols have their minimums, 0 if a size has no value there."""
    try:
        return math.prod(evaluate(size, {name: dim.minimum for name, dim in dims.items()}) for size in shape)
    except SizeError:
        return 0
