"""Time of the gated blocks of TPR in ONNX Runtime against the share of open gates, beside dense convolutions.

The graph has the gated blocks of a frame: two for each level of the temporal alignment, and the layers of cross pyramid
routing, with random weights at full width. The gates are an input: open in a disc, as around an object, whose area is
the given share of each level. The same file runs in two sessions. With the operator library, closed gates are not
computed. Without it, the operators are dense: a convolution of the whole map, then a selection. Their time does not
depend on the gates. Sessions take turns; the minimum of the processor time counts.

    python benchmarks/gates.py
    python benchmarks/gates.py --variant r50_sepc --plot gates.svg
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from machine import machine_line
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import visdeploy_plugins
from visdeploy_plugins.onnx_functions import add_function_bodies, translation_table
from visdeploy_training.methods.tpr import VARIANTS, TPRConfig
from visdeploy_training.methods.tpr.alignment import TemporalAlign
from visdeploy_training.methods.tpr.gates import GatedBlock, SpatialGate
from visdeploy_training.methods.tpr.output import STRIDES

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
OPEN = 0.5
LIBRARY, DENSE = "our operators", "dense"


class GivenGate(nn.Module):
    """Gate that is an input of the graph: the map of the size of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Return the map for features `[1, C, H, W]`."""
        return self.maps[x.shape[-1]]


class GatedPart(nn.Module):
    """The gated blocks of a frame, in the order of the alignment and without its deformable convolutions."""

    def __init__(self, config: TPRConfig) -> None:
        super().__init__()
        align = TemporalAlign(config).eval()
        self.blocks = nn.ModuleList(each for each in align.align_tower if isinstance(each, GatedBlock))
        routed = config.cpr == "routing"
        self.layers = nn.ModuleList(align.fuse_subnets if routed else [nn.ModuleList() for _ in STRIDES])
        self.gate = GivenGate()
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, SpatialGate):
                    setattr(module, name, self.gate)

    def forward(self, levels: list[Tensor], gates: list[Tensor]) -> tuple[Tensor, ...]:
        """Transform five levels `[1, C, H_l, W_l]` with gates `[1, 1, H_l, W_l]`."""
        self.gate.maps = {gate.shape[-1]: gate for gate in gates}
        levels, found = list(levels), []
        for i, layers in enumerate(self.layers):
            for block in self.blocks:
                levels[i] = block(levels[i])
            first = min(i, len(levels) - 3)
            part = levels[first:]
            for layer in layers:  # type: ignore[attr-defined]
                part = layer(part)
            levels[first:] = part
            found.append(levels[i])
        return tuple(found)


def sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return rows and columns of the levels of a padded frame."""
    return [(-(-height // stride), -(-width // stride)) for stride in STRIDES]


def disc(rows: int, columns: int, share: float) -> np.ndarray:
    """Return a gate `[1, 1, rows, columns]` that is open at this share of the positions, nearest to the middle."""
    y, x = np.mgrid[:rows, :columns]
    distance = ((y - (rows - 1) / 2) / rows) ** 2 + ((x - (columns - 1) / 2) / columns) ** 2
    order = distance.ravel().argsort(kind="stable")
    gate = np.zeros(rows * columns, np.float32)
    gate[order[: round(share * rows * columns)]] = OPEN
    return gate.reshape(1, 1, rows, columns)


def write(config: TPRConfig, path: Path, shapes: list[tuple[int, int]]) -> None:
    """Export the gated part to an ONNX file with function bodies."""
    torch.manual_seed(0)
    levels = [torch.randn(1, config.channels, *shape) for shape in shapes]
    gates = [torch.from_numpy(disc(*shape, 0.5)) for shape in shapes]
    program = torch.onnx.export(
        GatedPart(config).eval(),
        (levels, gates),
        dynamo=True,
        opset_version=20,
        input_names=[f"{kind}{i}" for kind in ("level", "gate") for i in range(len(shapes))],
        verbose=False,
        custom_translation_table=translation_table(),
    )
    if program is None:
        raise RuntimeError("torch exported nothing")
    onnx.save(add_function_bodies(program.model_proto), str(path))


def open_session(path: Path, *, library: bool, threads: int) -> onnxruntime.InferenceSession:
    """Open the file in ONNX Runtime, with or without the operator library."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if library:
        options.register_custom_ops_library(str(visdeploy_plugins.onnxruntime_library()))
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure(path: Path, feeds: dict[float, dict[str, np.ndarray]], *, rounds: int, threads: int) -> dict[str, Any]:
    """Return the seconds of processor time per session and share, and the largest difference of their results."""
    sessions = {name: open_session(path, library=name == LIBRARY, threads=threads) for name in (LIBRARY, DENSE)}
    best: dict[str, dict[float, float]] = {name: {} for name in sessions}
    worst = 0.0
    for number in range(rounds + 1):
        for share, feed in feeds.items():
            found = {}
            for name, session in sessions.items():
                started = time.process_time()
                found[name] = session.run(None, feed)
                seconds = time.process_time() - started
                if number:  # the first round warms up
                    best[name][share] = min(seconds, best[name].get(share, np.inf))
            pairs = zip(found[LIBRARY], found[DENSE], strict=True)
            worst = max(worst, *(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs))
    return {"seconds": best, "worst": worst}


def plot(path: Path, seconds: dict[str, dict[float, float]], title: str) -> None:
    """Draw the times against the share of open gates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, times in seconds.items():
        axes.plot([100 * share for share in times], [1000 * value for value in times.values()], marker="o", label=name)
    axes.set(xlabel="open gates (%)", ylabel="processor time per frame (ms)", ylim=(0, None), title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="swin_l_routing")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=864)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", type=Path, default=None, help="also draw the times to this file (needs matplotlib)")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures")
    options = parser.parse_args()
    config, shapes = VARIANTS[options.variant], sizes(options.height, options.width)
    rng = np.random.RandomState(0)
    levels = {f"level{i}": rng.randn(1, config.channels, *s).astype(np.float32) for i, s in enumerate(shapes)}
    feeds = {p: levels | {f"gate{i}": disc(*s, p) for i, s in enumerate(shapes)} for p in SHARES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gates.onnx"
        write(config, path, shapes)
        figures = measure(path, feeds, rounds=options.rounds, threads=options.threads)
    seconds = figures["seconds"]
    title = f"gated blocks of tpr {options.variant}, {options.height}x{options.width}, {options.threads} threads"
    console = Console(width=None if Console().is_terminal else 120)
    console.print(machine_line())
    table = Table(title=title, title_justify="left")
    for column in ("open gates", f"{LIBRARY} (ms)", f"{DENSE} (ms)", f"{DENSE} / {LIBRARY}"):
        table.add_column(column, justify="right")
    for share in SHARES:
        ours, dense = (seconds[name][share] for name in (LIBRARY, DENSE))
        table.add_row(f"{100 * share:.0f} %", f"{1000 * ours:.1f}", f"{1000 * dense:.1f}", f"{dense / ours:.2f}")
    console.print(table)
    console.print(f"largest difference of the results: {figures['worst']:.1e} of the largest value")
    if options.plot is not None:
        plot(options.plot, seconds, title)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
