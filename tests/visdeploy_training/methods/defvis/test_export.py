"""The clip function as a graph: nothing is unrolled over frames, queries or groups, and any size runs."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.shallow import shallow_backbones
from tests.visdeploy_training.methods.defvis.conftest import small_network
from visdeploy_training.methods.defvis import ClipStep


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """The backbone sees frames as a batch: its blocks know neither frames, queries nor groups."""
    with shallow_backbones():
        yield


def graph(*, tokens: bool, dynamic: bool = False, **changes: Any) -> tuple[torch.export.ExportedProgram, ClipStep]:
    step = ClipStep(small_network(tokens=tokens, encoder_layers=1, decoder_layers=1, **changes).eval())
    frames = torch.zeros(step.model.config.num_frames, 3, 64, 96)
    rows, columns = (32 * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    shapes = ({2: rows, 3: columns},) if dynamic else None
    return torch.export.export(step, (frames,), dynamic_shapes=shapes), step


def calls(program: torch.export.ExportedProgram) -> int:
    return sum(node.op == "call_function" for node in program.graph.nodes)


@pytest.mark.parametrize("tokens", [True, False])
def test_the_number_of_nodes_does_not_depend_on_frames_queries_or_groups(tokens: bool):
    few, _ = graph(tokens=tokens)
    changes: dict[str, Any] = {"num_frames": 5, "num_points": 3}
    changes |= {"instance_groups": 4, "tokens_per_group": 6} if tokens else {"queries_per_frame": 7}
    many, _ = graph(tokens=tokens, **changes)
    assert calls(few) == calls(many)
    assert sum("deform_conv" in str(node.target) for node in many.graph.nodes) == 1
    assert sum("ms_deform_attn" in str(node.target) for node in many.graph.nodes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [True, False])
def test_one_graph_for_all_sizes(tokens: bool):
    program, step = graph(tokens=tokens, dynamic=True)
    for height, width in ((64, 96), (96, 160)):
        frames = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            for found, expected in zip(program.module()(frames), step(frames), strict=True):
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
