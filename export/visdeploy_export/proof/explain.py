"""Explanation of a failed certificate: the first layer that differs, and a page with all layers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn
from torch.export import ExportedProgram

from visdeploy.atomic import write_text
from visdeploy.backends import Backend, State
from visdeploy.backends.onnxruntime.session import start_session
from visdeploy.bundle import Bundle
from visdeploy.streaming.windows import Step
from visdeploy_export.proof.layer_report import BOUND, LayerReport
from visdeploy_export.proof.layers import compare_layers, difference
from visdeploy_export.proof.layers_page import MARK, layers_page
from visdeploy_export.proof.onnx_parts import Session
from visdeploy_export.proof.traced import run_program


@dataclass(frozen=True)
class Suspect:
    """Step in which the engines may begin to differ.

    Attributes:
        first: First frame of the step.
        inputs: Graph input → array, including the state of PyTorch before the step.
    """

    first: int
    inputs: Mapping[str, npt.NDArray[Any]]


class StepWatch:
    """Recorder of the first step in which an output exceeds its limit, and of the step before it."""

    def __init__(self) -> None:
        self._steps: list[tuple[Step, State | None]] = []
        self._failed = False

    def see(self, step: Step, state: State | None, *, failed: bool) -> None:
        """Take the next step.

        Args:
            step: The step.
            state: State of PyTorch before it; None at the start.
            failed: Whether an output has exceeded its limit in this step or before.
        """
        if not self._failed:
            self._steps, self._failed = [*self._steps[-1:], (step, state)], failed

    def suspects(self, reference: Backend) -> list[Suspect]:
        """Return the step that failed, then the one before it, whose state may show the fault first.

        Args:
            reference: PyTorch, whose states were recorded.
        """
        found = []
        for step, state in reversed(self._steps):
            if state is None:
                state = reference.initial_state(reference.bind_inputs(step.inputs))
            found.append(Suspect(step.first, {**step.inputs, **reference.state_to_host(state)}))
        return found


def explain_failure(
    module: nn.Module, program: ExportedProgram, bundle: Bundle, suspects: Sequence[Suspect], page: Path
) -> str:
    """Find the layer with which a failure begins, and write a page with all layers.

    Args:
        module: Step function.
        program: Program that torch traced from it.
        bundle: Staged bundle that failed.
        suspects: Steps to examine, the most probable first; the page shows the first one in which a layer differs.
        page: File to write.

    Returns:
        Two sentences that name the layer and the page.
    """
    model = onnx.load(str(bundle.model_path))

    def start(path: Path) -> Session:
        threads = torch.get_num_threads()
        session: Session = start_session(path, bundle.manifest, device="cpu", threads=threads, spinning=False)[0]
        return session

    found: list[tuple[Suspect, LayerReport]] = []
    for suspect in suspects:
        report = compare_layers(program, model, suspect.inputs, start)
        if report.first is None:
            report = replace(report, untraced=_untraced(module, program, model, suspect.inputs))
        found.append((suspect, report))
        if report.first is not None or report.untraced:
            break
    suspect, report = found[-1] if found[-1][1].first or found[-1][1].untraced else found[0]
    step = f"step from frame {suspect.first}"
    write_text(page, layers_page(report, title=f"{bundle.manifest.method} {bundle.manifest.variant}, {step}"))
    return f"In the {step}, {report}. All layers: {page}."


def free_page(target: Path) -> Path:
    """Return the path of the page about a bundle: `NAME.parity.html` beside `NAME.vis`.

    An earlier page is replaced. If any other file has that name, a number is added to the name of the page.
    """
    stem = f"{target.name.removesuffix('.vis')}.parity"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    paths = (target.with_name(f"{name}.html") for name in names)
    return next(path for path in paths if not os.path.lexists(path) or _is_page(path))


def _is_page(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK.encode()


def _untraced(
    module: nn.Module, program: ExportedProgram, model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]
) -> tuple[str, ...]:
    """Describe the outputs in which the traced program differs from the network."""
    tensors = [torch.from_numpy(np.array(inputs[value.name])) for value in model.graph.input]
    with torch.inference_mode():
        expected, traced = module(*tensors), run_program(program, tensors)
    pairs = zip([value.name for value in model.graph.output], expected, traced, strict=True)
    found = {name: difference(left, right.detach().numpy()) for name, left, right in pairs}
    wrong = {name: each for name, each in found.items() if each.share > BOUND or each.note}
    return tuple(f"output {name!r} differs by {each.error:.3g}" for name, each in wrong.items())
