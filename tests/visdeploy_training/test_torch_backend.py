"""PyTorch behind the engines' interface: state of the frames' size, state that grows, bfloat16."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.visdeploy.sized_graph import BOUND, HALF, check_arrays, check_state, expected, fields, frames, run, start
from visdeploy.errors import EngineError, StreamError
from visdeploy.manifest import GraphSpec
from visdeploy_training.torch_backend import TorchBackend


class Sized(nn.Module):
    """The graph of `tests.visdeploy.sized_graph`."""

    def __init__(self, bound: int) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, frame: Tensor, near: Tensor, memory: Tensor, peak: Tensor, step: Tensor) -> tuple[Tensor, ...]:
        colour = frame.mean((2, 3))
        kept = torch.cat([memory, colour])[-self.bound :]
        highest = torch.maximum(peak.float(), colour[0]).to(peak.dtype)
        return memory.sum(0), near.clone(), near / 2 + F.avg_pool2d(frame, 8)[0] / 2, kept, highest, step + 1


def backend(bound=BOUND):
    spec = {name: value for name, value in fields().items() if name in GraphSpec.model_fields}
    return TorchBackend(Sized(bound), GraphSpec(**spec))


@pytest.mark.parametrize(("height", "width"), [(16, 48), (32, 32)])
def test_state_follows_the_frames_and_grows_to_its_bound(height, width):
    engine, video = backend(), frames(BOUND + 3, height, width)
    first = engine.state_to_host(start(engine, video[0]))
    assert (first["memory"].shape, first["peak"].tolist()) == ((0, 3), [HALF] * 3)
    outputs, state = run(engine, video)
    wanted, last = expected(video)
    for seen, each in zip(outputs, wanted, strict=True):
        check_arrays(seen, each)
    check_state(engine, state, last)


@pytest.mark.parametrize("saved", [0, 1, BOUND + 1])
def test_state_travels_over_the_host(saved):
    engine, video = backend(), frames(BOUND + 3, 16, 32)
    state = start(engine, video[0])
    if saved:
        _, state = run(engine, video[:saved], state)
    arrays = engine.state_to_host(state)
    assert arrays["peak"].dtype == np.uint16
    _, last = run(engine, video[saved:], engine.state_from_host(arrays, {"height": 16, "width": 32}))
    check_state(engine, last, expected(video)[1])
    with pytest.raises(StreamError, match=r"'near'.*height 32, width 32"):
        engine.state_from_host(arrays, {"height": 32, "width": 32})


def test_a_module_that_grows_beyond_its_bound_is_refused():
    engine = backend(bound=BOUND + 1)
    _, state = run(engine, frames(BOUND, 16, 16))
    with pytest.raises(EngineError, match=r"'next_memory': size 'memory' \(seen: 4; expected: 0 to 3\)"):
        run(engine, frames(1, 16, 16), state)
