"""Roofline of the machine: minimum time of a call for the rates measured with a copy and a matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnxruntime
import torch
from torch import Tensor

from op_suite.timing import Call, Schedule, Timer, measure


@dataclass(frozen=True)
class Work:
    """Minimum work of a call.

    Attributes:
        bytes: Bytes to read each required input element once, and to write each output element once.
        flops: Number of additions and multiplications; a fused operation counts as two.
    """

    bytes: int
    flops: int

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.bytes


@dataclass(frozen=True)
class Machine:
    """Rates that the machine reaches, measured in the same run.

    Attributes:
        gb_s: Bytes read plus bytes written by a copy, in 1e9 per second.
        gflop_s: Operations of a matrix product, in 1e9 per second.
        clock: "cpu" if rates are per second of processor time, which other processes do not affect; this requires a
            single thread on the CPU. Otherwise "wall".
        how: Description of the measurement.
    """

    gb_s: float
    gflop_s: float
    clock: str
    how: str

    def roof_ms(self, work: Work) -> float:
        """Return the minimum time of the work in milliseconds."""
        return 1e3 * max(work.bytes / (1e9 * self.gb_s), work.flops / (1e9 * self.gflop_s))

    def bound(self, work: Work) -> str:
        """Return the rate that limits the work: "memory" or "compute"."""
        return "memory" if work.bytes / self.gb_s > work.flops / self.gflop_s else "compute"


def measure_machine(timer: Timer, device: str, dtype: torch.dtype, threads: int, *, small: bool = False) -> Machine:
    """Measure a copy in PyTorch, and a matrix product in PyTorch and, on the CPU, in ONNX Runtime.

    Args:
        timer: Function that times one call.
        device: Device of the tensors.
        dtype: Element type of the matrix product.
        threads: Number of threads of PyTorch, for the description.
        small: Use tiny sizes, for tests; the rates are meaningless.
    """
    copied, side = (1 << 16, 64) if small else (1 << (28 if device == "cpu" else 30), 512 if device == "cpu" else 8192)
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (torch.ones((side, side), dtype=dtype, device=device) for _ in range(2))
    product = torch.empty((side, side), dtype=dtype, device=device)
    sides: dict[str, Call] = {"copy": lambda: target.copy_(source), "torch.mm": lambda: torch.mm(a, b, out=product)}
    if device == "cpu":
        # The library of PyTorch does not use some processors fully, so the roofline is that of the faster of the two.
        sides["ORT MatMul"] = _onnxruntime_product(a, b, threads)
    times = measure(sides, timer, Schedule(rounds=3, seconds=0.0 if small else 0.2))
    where = f"{threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else torch.cuda.get_device_name()
    clock = "cpu" if device == "cpu" and threads == 1 else "wall"
    fastest = min((name for name in sides if name != "copy"), key=lambda name: times[name].ms(clock))
    return Machine(
        gb_s=2 * copied / 1e6 / times["copy"].ms(clock),
        gflop_s=2 * side**3 / 1e6 / times[fastest].ms(clock),
        clock=clock,
        how=f"torch copy of {copied >> 20} MiB (read + written) and {fastest} {side}^3 {str(dtype)[6:]}, the "
        f"fastest of {len(sides) - 1}, {where}, by {'processor time' if clock == 'cpu' else 'the clock'}, in this run",
    )


def _onnxruntime_product(a: Tensor, b: Tensor, threads: int) -> Call:
    value = onnx.helper.make_tensor_value_info
    kinds = [value(name, onnx.TensorProto.FLOAT, None) for name in "abc"]
    node = onnx.helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph([node], "product", kinds[:2], kinds[2:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"a": a.numpy(), "b": b.numpy()}
    return lambda: torch.from_numpy(session.run(None, feeds)[0])
