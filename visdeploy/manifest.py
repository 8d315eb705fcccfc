"""The bundle manifest: everything the runtime needs to know about a graph (contract 1).

A field that is unknown, missing or inconsistent is an error that names the field, never a guess.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from visdeploy.errors import BundleError

SCHEMA_VERSION = 1
DType = Literal["float32", "float16", "int64", "int32", "uint8", "bool"]
Dim = Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


Measure = Literal["absolute", "exact", "mask", "area", "score", "identity", "ranking"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TensorSpec(_Strict):
    """One graph input or output.

    Attributes:
        name: Name in the graph.
        dtype: Element type.
        shape: Sizes; a string is a symbolic size.
        measure: How two engines' values of an output are compared (`visdeploy.parity`): largest `absolute`
            difference; `exact` equality; `mask` IoU over the last two axes; `area` in pixels, relative to the smaller
            of the two masks; `score`, the absolute difference beyond what differing pixels of the frame's masks
            explain; `identity` says which detection each row of every output with the same first symbol is (several
            such outputs say it together); `ranking` is `absolute`, and its mean over all axes but that of the rows
            decided which detections, the best few, are rows.
    """

    name: str
    dtype: DType
    shape: list[Dim]
    measure: Measure = "absolute"


class StateSpec(_Strict):
    """One tensor of memory: what `output` gives in one step goes into `input` of the next.

    Attributes:
        input: Name of the graph input.
        output: Name of the graph output.
        dtype: Element type.
        shape: Fixed shape.
        initial: Value that fills the tensor before the first frame.
    """

    input: str
    output: str
    dtype: DType
    shape: list[Annotated[int, Field(ge=0)]]
    initial: float = 0.0


class Preprocessing(_Strict):
    """From an RGB uint8 frame to the `frame` input: resize, order channels, `(x - mean) / std`, pad.

    Attributes:
        channel_order: Order of the channels in the tensor.
        mean: Per channel, in tensor order, on the 0..255 scale.
        std: Per channel, in tensor order, on the 0..255 scale.
        resize: `exact` scales straight to `height` x `width`; `shortest_edge` keeps the aspect ratio.
        rounding: How `shortest_edge` rounds the sides: to the `nearest` number, halves up, or `down`.
        interpolation: On uint8: `pil_bilinear` is Pillow's antialiased bilinear filter, `opencv_bilinear` is OpenCV's,
            which is not antialiased.
        height: Target height (`exact`) or target of the shorter edge (`shortest_edge`).
        width: Target width (`exact`) or largest longer edge (`shortest_edge`).
        pad_divisor: Zero padding at the right and bottom up to a multiple of this.
    """

    channel_order: Literal["rgb", "bgr"]
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]
    resize: Literal["exact", "shortest_edge"] = "exact"
    rounding: Literal["nearest", "down"] = "nearest"
    interpolation: Literal["pil_bilinear", "opencv_bilinear"] = "pil_bilinear"
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    pad_divisor: Annotated[int, Field(ge=1)] = 1


class Window(_Strict):
    """How many frames one step takes: one (`online`), or clips of `length` frames every `stride` frames."""

    mode: Literal["online", "clip"]
    length: Annotated[int, Field(ge=1)] = 1
    stride: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _online_is_one_frame(self) -> Window:
        if self.mode == "online" and (self.length, self.stride) != (1, 1):
            raise ValueError("an online window has length 1 and stride 1")
        if self.stride > self.length:
            raise ValueError("stride must not exceed length: frames would be skipped")
        return self

    @property
    def overlap(self) -> int:
        """Frames that two consecutive clips share."""
        return self.length - self.stride


class Provenance(_Strict):
    """Where the bundle came from."""

    checkpoint: str
    checkpoint_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: str
    visdeploy: str
    torch: str
    onnx: str


class CustomOp(_Strict):
    """One custom operator of the graph; its standard body travels as a local function of the file."""

    domain: str
    name: str
    version: int


class FileEntry(_Strict):
    """Checksum and size of one file of the bundle."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class Tolerance(_Strict):
    """What the parity certificate and the self-test allow.

    Attributes:
        atol: Largest absolute error of an output that is compared by `absolute`.
        rtol: The same as a share of the reference's largest value in that run of the graph; the larger of both counts.
            Rounding grows with the values: with the defaults it begins to count where logits pass 10.
        mask_iou: Smallest IoU of a mask (two pixels are always granted: rounding at the border of a small mask).
        agreement: Smallest share of detections, and of (frame, track) entries, that both engines have.
    """

    atol: Annotated[float, Field(gt=0)] = 1e-3
    rtol: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    mask_iou: Annotated[float, Field(ge=0, le=1)] = 0.999
    agreement: Annotated[float, Field(ge=0, le=1)] = 1.0

    def __str__(self) -> str:
        relative = f" or {self.rtol:g} of an output's largest value" if self.rtol else ""
        return f"errors up to {self.atol:g}{relative}, mask IoU from {self.mask_iou:g}"


class Manifest(_Strict):
    """The whole manifest. `decode` and `tracking` are checked by the method that reads them."""

    schema_version: Literal[1] = 1
    method: str
    variant: str
    classes: Annotated[list[str], Field(min_length=1)]
    provenance: Provenance
    preprocessing: Preprocessing
    window: Window
    opset: Annotated[int, Field(ge=20)]
    inputs: Annotated[list[TensorSpec], Field(min_length=1)]
    outputs: Annotated[list[TensorSpec], Field(min_length=1)]
    state: list[StateSpec] = []
    custom_ops: list[CustomOp] = []
    decode: dict[str, Any] = {}
    tracking: dict[str, Any] = {}
    precision: Literal["fp32", "fp16"] = "fp32"
    size_multiple: Annotated[int, Field(ge=1)] = 1
    tolerance: Tolerance = Tolerance()
    files: dict[str, FileEntry]

    @field_validator("files")
    @classmethod
    def _paths_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts or str(path) != name:
                raise ValueError(f"file name {name!r} leaves the bundle folder")
        return files

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [t.name for t in self.inputs] + [s.input for s in self.state]
        outs = [t.name for t in self.outputs] + [s.output for s in self.state]
        for kind, listed in (("input", names), ("output", outs)):
            if len(set(listed)) != len(listed):
                raise ValueError(f"one {kind} name is listed twice: {sorted(listed)}")
        shared = self.tracking.get("overlap", self.window.overlap)
        if self.window.mode == "clip" and shared != self.window.overlap:
            raise ValueError(
                f"tracking.overlap is {shared!r}, but clips of this window share {self.window.overlap} frames"
            )
        rows = [t.shape for t in self.outputs if t.measure == "identity"]
        ranked = [t.shape for t in self.outputs if t.measure == "ranking"]
        if any(shape != rows[0] or len(shape) != 1 or not isinstance(shape[0], str) for shape in rows):
            raise ValueError("the outputs of the measure 'identity' do not have one common symbol as their shape")
        if len(ranked) > 1 or any(not rows or shape.count(rows[0][0]) != 1 for shape in ranked):
            raise ValueError(
                "the measure 'ranking' is of one output, with the symbol of those of the measure 'identity'"
            )
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("one class name is listed twice")
        return self

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str = "manifest.json") -> Manifest:
        """Parse and check a manifest.

        Raises:
            BundleError: It is not JSON, is of a newer schema, or a field is unknown, missing or wrong.
        """
        try:
            data = json.loads(text)
        except (ValueError, UnicodeDecodeError, RecursionError) as error:
            raise BundleError(
                f"{where} is not valid JSON", seen=str(error), hint="The file is damaged; copy the bundle anew."
            ) from error
        version = data.get("schema_version") if isinstance(data, dict) else None
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
    """Every complaint of pydantic in one line: field, problem, value seen."""
    parts = []
    for item in error.errors():
        field = ".".join(str(p) for p in item["loc"]) or "manifest"
        seen = "" if item["type"] == "missing" else f", seen {str(item.get('input'))[:60]!r}"
        parts.append(f"field {field!r}: {item['msg']}{seen}")
    return "; ".join(parts)
