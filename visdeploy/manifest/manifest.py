"""The bundle manifest: the complete description of a graph for the runtime (contract 1).

A field that is unknown, missing or inconsistent raises an error that names the field; no value is guessed.
"""

from __future__ import annotations

import json
import math
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from visdeploy.brief import Plain, brief, counted
from visdeploy.errors import BundleError
from visdeploy.manifest.base import Strict
from visdeploy.manifest.processing import Preprocessing, Window
from visdeploy.manifest.sizes import MAX_ELEMENTS, Dim, is_symbol, least_elements, symbols
from visdeploy.manifest.tensors import StateSpec, TensorSpec
from visdeploy.manifest.tolerance import Tolerances

SCHEMA_VERSION = 2


class Provenance(Strict):
    """Origin of a bundle: the checkpoint, the time of the export, and the versions of the software."""

    checkpoint: str
    checkpoint_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: str
    visdeploy: str
    torch: str
    onnx: str


class CustomOp(Strict):
    """One custom operator of the graph; the ONNX file contains its body of standard operators as a local function."""

    domain: str
    name: str
    version: int


class FileEntry(Strict):
    """Checksum and size of one file of the bundle."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class GraphSpec(Strict):
    """A graph and how it is run, as determined by the configuration of a method.

    Attributes:
        preprocessing: Conversion of frames to the input with the role `frames`.
        window: Frames of one step.
        dims: The range of every symbol.
        inputs: Inputs that are not state, in the order of the graph.
        outputs: Outputs that are not state, in the order of the graph.
        state: State tensors, in the order of the graph.
        decode: Parameters of the method's decoder, checked by the method.
        tracking: Parameters of the method's tracker, checked by the method.
    """

    preprocessing: Preprocessing
    window: Window
    dims: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Dim]
    inputs: Annotated[list[TensorSpec], Field(min_length=1)]
    outputs: Annotated[list[TensorSpec], Field(min_length=1)]
    state: list[StateSpec] = Field(default_factory=list)
    decode: dict[str, Any] = Field(default_factory=dict)
    tracking: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> GraphSpec:
        names = [t.name for t in self.inputs] + [s.input for s in self.state]
        outs = [t.name for t in self.outputs] + [s.output for s in self.state]
        for kind, listed in (("input", names), ("output", outs)):
            if len(set(listed)) != len(listed):
                raise ValueError(f"one {kind} name is listed twice: {sorted(listed)}")
        shapes = {t.name: t.shape for t in (*self.inputs, *self.outputs)} | {s.input: s.shape for s in self.state}
        used = {name: symbol for name, shape in shapes.items() for size in shape for symbol in symbols(size)}
        missing = {name: symbol for name, symbol in used.items() if symbol not in self.dims}
        for name, symbol in missing.items():
            raise ValueError(f"dims: no range of {symbol!r}, a size of {name!r}")
        alone = {size for shape in shapes.values() for size in shape if is_symbol(size)}
        hidden = {s for state in self.state for size in state.shape for s in symbols(size)} - alone
        if hidden:
            raise ValueError(f"state: the size {sorted(hidden)[0]!r} is used in expressions only")
        if unused := sorted(set(self.dims) - {s for shape in shapes.values() for size in shape for s in symbols(size)}):
            raise ValueError(f"dims: {unused[0]!r} is not a size of any tensor")
        return self

    @model_validator(mode="after")
    def _roles(self) -> GraphSpec:
        for tensors, kind, roles in (
            (self.inputs, "input", ("frames", "size")),
            (self.outputs, "output", ("decode", "proof")),
        ):
            for tensor in tensors:
                if tensor.role not in roles:
                    raise ValueError(f"{kind} {tensor.name!r} has the role {tensor.role!r}, not {' or '.join(roles)}")
        frames, size = ([t for t in self.inputs if t.role == role] for role in ("frames", "size"))
        if len(frames) != 1 or len(size) > 1:
            raise ValueError(f"{len(frames)} inputs of the role 'frames' and {len(size)} of 'size', not 1 and 0 or 1")
        shape = frames[0].shape
        if len(shape) != 4 or (isinstance(shape[0], int) and shape[0] != self.window.length):
            raise ValueError(
                f"input {frames[0].name!r} of shape {shape} contradicts the window: "
                f"expected [{self.window.length} or a symbol, 3, height, width]"
            )
        count, channels, *sides = shape
        plain = all(isinstance(side, int) or is_symbol(side) for side in (count, *sides))
        if frames[0].dtype != "float32" or channels != 3 or not plain:
            raise ValueError(
                f"input {frames[0].name!r} of the role 'frames' is {frames[0].dtype} {shape}, "
                "not float32 [frames, 3, height, width] of numbers and symbols"
            )
        if isinstance(count, str) and count in self.dims and self.window.length not in self.dims[count]:
            raise ValueError(f"dims: {count!r} is {self.dims[count]}, but a window has {self.window.length} frames")
        if size and (size[0].dtype, size[0].shape) != ("int64", [2]):
            raise ValueError(
                f"input {size[0].name!r} of the role 'size' is {size[0].dtype} {size[0].shape}, not int64 [2]"
            )
        return self

    @model_validator(mode="after")
    def _bounded(self) -> GraphSpec:
        made, sides = self.preprocessing, self.frames.shape[2:]
        if unknown := [side for side in sides if isinstance(side, str) and side not in self.dims]:
            raise ValueError(f"dims: no range of {unknown[0]!r}, a size of {self.frames.name!r}")
        ranges = [Dim(minimum=s, typical=s, maximum=s) if isinstance(s, int) else self.dims[s] for s in sides]
        if made.resize == "exact":
            given = [made.padded(made.height), made.padded(made.width)]
            for name, side, allowed in zip(("height", "width"), given, ranges, strict=True):
                if side not in allowed:
                    raise ValueError(f"preprocessing: {name} {side} with padding is outside its range, {allowed}")
        else:  # both sides of a square frame
            given = 2 * [made.padded(min(made.height, made.width))]
            most = max(allowed.maximum for allowed in ranges)
            if given[0] > most:
                raise ValueError(
                    f"preprocessing: an edge of {given[0]} with padding is outside its range, up to {most}"
                )
        elements = {self.frames.name: self.window.length * 3 * math.prod(given)}
        elements |= {state.input: least_elements(state.shape, self.dims) for state in self.state}
        for name, count in elements.items():
            if count > MAX_ELEMENTS:
                raise ValueError(f"{name!r} has {count} elements or more, at most {MAX_ELEMENTS} are allowed")
        return self

    @property
    def frames(self) -> TensorSpec:
        """The input with the role `frames`."""
        return next(t for t in self.inputs if t.role == "frames")

    @property
    def size(self) -> TensorSpec | None:
        """The input with the role `size`, the size of the frames without padding; None if the graph has none."""
        return next((t for t in self.inputs if t.role == "size"), None)

    def __repr__(self) -> str:
        names = {"inputs": self.inputs, "outputs": self.outputs}
        listed = {kind: Plain(", ".join(t.name for t in tensors)) for kind, tensors in names.items()}
        return brief(self, **listed, state=counted(self.state))

    def __str__(self) -> str:
        return repr(self)

    def output_names(self, *, proof: bool = True) -> tuple[str, ...]:
        """Return the names of the outputs that are not state.

        Args:
            proof: Include the outputs with the role `proof`, which only certificates compare.
        """
        return tuple(t.name for t in self.outputs if proof or t.role != "proof")


class ModelSpec(GraphSpec):
    """A graph and the meaning of its outputs: the complete description of a model for a pipeline.

    Attributes:
        method: Name of the method, which selects the decoder of the outputs.
        variant: Name of the variant, for display only.
        classes: Class names in label order.
        tolerance: Tolerances of parity.
    """

    method: str
    variant: str
    classes: Annotated[list[str], Field(min_length=1)]
    tolerance: Tolerances = Tolerances()

    def __repr__(self) -> str:
        return brief(self, method=self.method, variant=self.variant, classes=counted(self.classes))

    @field_validator("classes")
    @classmethod
    def _differ(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) != len(classes):
            raise ValueError("one class name is listed twice")
        return classes


class Manifest(ModelSpec):
    """The manifest of a bundle.

    Attributes:
        schema_version: Version of this layout.
        provenance: Origin of the weights.
        opset: ONNX operator set of the graph.
        custom_ops: Custom operators of the graph.
        precision: Precision of the graph's weights and arithmetic.
        files: All other files of the bundle.
    """

    schema_version: Literal[2] = 2
    provenance: Provenance
    opset: Annotated[int, Field(ge=20)]
    custom_ops: list[CustomOp] = Field(default_factory=list)
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    files: dict[str, FileEntry]

    @field_validator("files")
    @classmethod
    def _paths_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            path = PurePosixPath(name)
            if not name.isprintable():
                raise ValueError(f"file name {name!r} contains control characters")
            if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts or str(path) != name:
                raise ValueError(f"file name {name!r} leaves the bundle folder")
        return files

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str = "manifest.json") -> Manifest:
        """Parse and check a manifest.

        Raises:
            BundleError: It is not JSON, its schema is older or newer than this version's, or a field is unknown,
                missing or wrong.
        """
        try:
            data = json.loads(text)
        except (ValueError, UnicodeDecodeError, RecursionError) as error:
            raise BundleError(
                f"{where} is not valid JSON", seen=str(error), hint="The file is damaged; copy the bundle again."
            ) from error
        version = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version < SCHEMA_VERSION:
            raise BundleError(
                f"{where} is of an older schema",
                seen=f"schema_version {version}",
                expected=str(SCHEMA_VERSION),
                hint="Export the bundle again from its checkpoint with this version: visdeploy export CHECKPOINT.",
            )
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BundleError(
                f"{where} is of a newer schema",
                seen=f"schema_version {version}",
                expected=f"at most {SCHEMA_VERSION}",
                hint="Install a newer visdeploy, or export the bundle again with this one.",
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise BundleError(
                f"{where}: {describe_errors(error)}", hint="Export the bundle again; manifests are not edited by hand."
            ) from error


def describe_errors(error: ValidationError) -> str:
    """Return all errors found by pydantic in one line: field, problem and value seen of each."""
    parts = []
    for item in error.errors():
        field = ".".join(str(p) for p in item["loc"]) or "manifest"
        seen = "" if item["type"] == "missing" else f", seen {str(item.get('input'))[:60]!r}"
        parts.append(f"field {field!r}: {item['msg']}{seen}")
    return "; ".join(parts)
