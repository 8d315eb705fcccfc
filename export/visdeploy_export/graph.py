"""Export of a step graph to a checked ONNX file."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch.export import ExportedProgram

from visdeploy.bundle import MODEL, MODEL_DATA
from visdeploy.errors import ExportError
from visdeploy.manifest import CustomOp
from visdeploy.manifest.sizes import evaluate, is_symbol, symbols
from visdeploy_export.step import StepGraph
from visdeploy_plugins.onnx_functions import DOMAIN, VERSION, add_function_bodies, translation_table

OPSET = 20
"""Default opset. From 21, GroupNorm is one node, but ONNX Runtime expands it: the same speed in fewer engines."""
SIZE_LIMIT = 2_000_000_000
"""Maximum size of the weights in a single ONNX file, in bytes; the limit of protobuf is 2 GiB."""


@dataclass(frozen=True)
class WrittenGraph:
    """Description of a graph that was written.

    Attributes:
        custom_ops: Custom operators of the graph, by name.
        program: Program traced by torch. The names of its nodes are those of the values in the file. It shares the
            weights of the network.
    """

    custom_ops: list[CustomOp]
    program: ExportedProgram


def write_onnx(step: StepGraph, folder: Path, *, opset: int = OPSET, metadata: Mapping[str, str]) -> WrittenGraph:
    """Export a step graph to `folder/model.onnx`, with its weights in a second file if they exceed 2 GB.

    Custom operators become nodes of the domain `visdeploy`, with functions of standard operators in the same file.

    Args:
        step: The graph.
        folder: An existing folder.
        opset: ONNX operator set, at least 20.
        metadata: Properties written into the file.

    Raises:
        ExportError: The exporter fails, the inputs or outputs of the graph are not those of the step, or the ONNX
            checker or shape inference refuses the file.
    """
    proto, program = _trace(step, opset)
    _clean(proto)
    _name_shapes(proto, step)
    helper.set_model_props(proto, dict(metadata))
    proto.producer_name, proto.graph.name = "visdeploy", metadata.get("method", "step")
    path = folder / MODEL
    large = sum(len(t.raw_data) for t in proto.graph.initializer) > SIZE_LIMIT
    onnx.save_model(proto, str(path), save_as_external_data=large, location=MODEL_DATA if large else None)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # checker and shape inference raise different exceptions
        raise ExportError("the exported graph is not valid ONNX", seen=str(error).splitlines()[0]) from error
    names = sorted({node.op_type for node in proto.graph.node if node.domain == DOMAIN})
    return WrittenGraph([CustomOp(domain=DOMAIN, name=name, version=VERSION) for name in names], program)


def _trace(step: StepGraph, opset: int) -> tuple[onnx.ModelProto, ExportedProgram]:
    """Run the exporter of torch without its output on the terminal."""
    with _quiet() as said, _no_collection():
        try:
            program = torch.onnx.export(
                step.module,
                step.example(),
                dynamo=True,
                opset_version=opset,
                input_names=step.input_names,
                output_names=step.output_names,
                dynamic_shapes=step.dynamic_shapes(),
                external_data=False,
                verbose=False,
                custom_translation_table=translation_table(),
            )
        except Exception as error:  # torch, onnxscript and onnx raise different exceptions
            cause = _root(error)
            raise ExportError(
                "torch could not export the step graph",
                seen=f"{type(cause).__name__}: {str(cause).strip()[:500]}",
                hint=f"Last output of the exporter: {said.getvalue().strip()[-300:]}" if said.getvalue() else "",
            ) from error
    if program is None or program.exported_program is None:
        raise ExportError("torch could not export the step graph", seen="no program")
    return add_function_bodies(program.model_proto), program.exported_program


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause Python's garbage collector, which takes a tenth of the time of tracing and finds little."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Capture the output, warnings and log messages of the exporter."""
    said = io.StringIO()
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "torch._dynamo")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            yield said
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _clean(proto: onnx.ModelProto) -> None:
    """Remove stack traces, source paths and intermediate shapes, which reveal where the file was made."""
    graphs = [proto.graph, *proto.functions]
    for graph in graphs:
        del graph.value_info[:]
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
    del proto.metadata_props[:]
    for value in [*proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]


def _name_shapes(proto: onnx.ModelProto, step: StepGraph) -> None:
    """Rename the sizes of the inputs and outputs to those of the manifest, after checking that they agree.

    Raises:
        ExportError: A name, a type, a rank or a fixed size differs; the message names the tensor.
    """
    state_in = [(s.input, s.dtype, list(s.shape)) for s in step.spec.state]
    bound = {symbol for t in step.spec.inputs for size in t.shape for symbol in symbols(size)}
    state_out = [(s.output, s.dtype, [_next(size, bound) for size in s.shape]) for s in step.spec.state]
    wanted_in = [(t.name, t.dtype, list(t.shape)) for t in step.spec.inputs] + state_in
    wanted_out = [(t.name, t.dtype, list(t.shape)) for t in step.spec.outputs] + state_out
    fixed = {name: dim.minimum for name, dim in step.spec.dims.items() if dim.minimum == dim.maximum}
    for kind, found, wanted in (
        ("inputs", proto.graph.input, wanted_in),
        ("outputs", proto.graph.output, wanted_out),
    ):
        if [v.name for v in found] != [name for name, _, _ in wanted]:
            raise ExportError(
                f"the graph's {kind} are not the step's",
                seen=str([v.name for v in found]),
                expected=str([name for name, _, _ in wanted]),
            )
        for value, (name, dtype, shape) in zip(found, wanted, strict=True):
            _name_shape(value, name, dtype, shape, free=kind == "inputs", fixed=fixed)


def _fixed(size: str, fixed: Mapping[str, int]) -> int | None:
    """Return the value of a size all of whose symbols have a single value."""
    return evaluate(size, fixed) if symbols(size) <= fixed.keys() else None


def _next(size: int | str, bound: set[str]) -> int | str:
    """Return the name of a size of the next state, which may change if the inputs do not bind it."""
    return size if not is_symbol(size) or size in bound else f"next_{size}"


def _name_shape(
    value: onnx.ValueInfoProto,
    name: str,
    dtype: str,
    shape: Sequence[int | str],
    *,
    free: bool,
    fixed: Mapping[str, int],
) -> None:
    """Rename the sizes of one tensor. With `free`, a size declared as a symbol with several values must be dynamic."""
    tensor = value.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim]
    name_of_type = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    type_fits = {"float": "float32"}.get(name_of_type, name_of_type) == dtype
    fits = len(dims) == len(shape) and all(
        isinstance(seen, str) or seen == size or (isinstance(size, str) and (not free or seen == _fixed(size, fixed)))
        for seen, size in zip(dims, shape, strict=True)
    )
    if not type_fits or not fits:
        raise ExportError(
            f"the graph's tensor {name!r} is not what the step declares",
            seen=f"{name_of_type} {dims}",
            expected=f"{dtype} {list(shape)}",
        )
    value.CopyFrom(helper.make_tensor_value_info(name, tensor.elem_type, list(shape)))
