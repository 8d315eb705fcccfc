"""How fast the machine could be: bytes and operations of a call against the machine's own copy and matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnxruntime
import torch
from torch import Tensor

from op_suite.timing import Call, Schedule, Timer, measure


@dataclass(frozen=True)
class Work:
    """What a call cannot do without.

    Attributes:
        bytes: Each input element that is needed read once, each output element written once.
        flops: Additions and multiplications, a fused one counted as two.
    """

    bytes: int
    flops: int

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.bytes


@dataclass(frozen=True)
class Machine:
    """What the machine reaches, measured in the same run.

    Attributes:
        gb_s: Bytes read plus bytes written by a copy, in 1e9 per second.
        gflop_s: Operations of a matrix product, in 1e9 per second.
        clock: "cpu" when rates are per second of processor time, which others on the machine cannot spoil and which
            one thread on the CPU allows; "wall" otherwise.
        how: What was run to find out.
    """

    gb_s: float
    gflop_s: float
    clock: str
    how: str

    def roof_ms(self, work: Work) -> float:
        """Milliseconds that the work takes when either limit is reached."""
        return 1e3 * max(work.bytes / (1e9 * self.gb_s), work.flops / (1e9 * self.gflop_s))

    def bound(self, work: Work) -> str:
        """Which limit the work meets first."""
        return "memory" if work.bytes / self.gb_s > work.flops / self.gflop_s else "compute"


def measure_machine(timer: Timer, device: str, dtype: torch.dtype, threads: int, *, small: bool = False) -> Machine:
    """Runs a copy with PyTorch, and a matrix product with PyTorch and on the CPU with ONNX Runtime.

    Args:
        timer: Times one call.
        device: Where to run them.
        dtype: Element type of the matrix product.
        threads: Threads that PyTorch uses, for the description.
        small: Tiny sizes, whose figures mean nothing.
    """
    copied, side = (1 << 16, 64) if small else (1 << (28 if device == "cpu" else 30), 512 if device == "cpu" else 8192)
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (torch.ones((side, side), dtype=dtype, device=device) for _ in range(2))
    product = torch.empty((side, side), dtype=dtype, device=device)
    sides: dict[str, Call] = {"copy": lambda: target.copy_(source), "torch.mm": lambda: torch.mm(a, b, out=product)}
    if device == "cpu":
        # PyTorch's library leaves part of some processors unused; the roof is what the better of the two reaches.
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
