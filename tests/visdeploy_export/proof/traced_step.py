"""A small step of every kind of layer that a report must find its way through, exported once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visdeploy.manifest import Dim, GraphSpec, Preprocessing, StateSpec, TensorSpec, Window
from visdeploy_export.step import StepGraph
from visdeploy_plugins.torch_ops import deform_conv

CHANNELS = 8


class Deformable(nn.Module):
    """A deformable convolution, our own operator."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(CHANNELS, 18, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(CHANNELS, CHANNELS, 3, 3) / 9)

    def forward(self, x: Tensor) -> Tensor:
        options = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, "offset_groups": 1}
        return deform_conv(x, self.offset(x), self.weight, **options)


class Network(nn.Module):
    """Convolutions with norms, our operator, attention to a memory, and rows that depend on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU())
        self.middle = Deformable()
        self.norm = nn.GroupNorm(2, CHANNELS)
        self.project = nn.Linear(CHANNELS, CHANNELS)
        self.place = nn.Parameter(torch.randn(1, CHANNELS))
        self.head = nn.Sequential(nn.Linear(CHANNELS, 2 * CHANNELS), nn.GELU(), nn.Linear(2 * CHANNELS, 3))

    def forward(self, frame: Tensor, memory: Tensor, step: Tensor) -> tuple[Tensor, ...]:
        features = self.norm(self.middle(self.stem(frame)))
        tokens = self.project(features.flatten(2)[0].transpose(0, 1))
        tokens = tokens + self.place.expand(tokens.shape[0], -1)  # a view of a weight
        attention = (tokens @ memory.transpose(0, 1)).softmax(dim=1)
        left, right = (tokens + attention @ memory).split([CHANNELS // 2, CHANNELS // 2], dim=1)
        scores = self.head(torch.cat([right, left], dim=1)).sigmoid()
        best = scores.amax(dim=1).topk(4)
        cells = (scores[:, 0] > 0.5).nonzero()[:, 0]
        return scores, best.values, best.indices, cells, 0.5 * memory + 0.5 * tokens[best.indices], step + 1


def traced_step() -> StepGraph:
    """Return the step with weights that are the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network()
        network.stem[1].running_mean.normal_()
        network.stem[1].running_var.uniform_(0.5, 2.0)
    size = {side: Dim(minimum=4, typical=typical, maximum=64) for side, typical in (("height", 8), ("width", 10))}
    count = Dim(minimum=0, typical=9, maximum=64 * 64)
    outputs = (("scores", "float32", ["cells", 3]), ("best", "float32", [4]), ("places", "int64", [4]))
    spec = GraphSpec(
        preprocessing=Preprocessing(channel_order="rgb", mean=[0] * 3, std=[1] * 3, height=8, width=10),
        window=Window(mode="online"),
        dims=size | {"cells": count, "n": count},
        inputs=[TensorSpec(name="frame", dtype="float32", shape=[1, 3, "height", "width"], role="frames")],
        outputs=[
            TensorSpec(name=name, dtype=dtype, shape=shape, role="decode")
            for name, dtype, shape in (*outputs, ("rows", "int64", ["n"]))
        ],
        state=[
            StateSpec(input="memory", output="next_memory", dtype="float32", shape=[4, CHANNELS], initial=0.0),
            StateSpec(input="step", output="next_step", dtype="int64", shape=[1], initial=0.0),
        ],
    )
    return StepGraph(network.eval(), spec)
