"""The ONNX file: valid, dynamic, clean, equal to PyTorch step by step; failures of the exporter are typed."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from visdeploy.backends import open_backend
from visdeploy.bundle import MODEL, MODEL_DATA, Bundle
from visdeploy.errors import ExportError
from visdeploy.manifest import Preprocessing, StateSpec, TensorSpec, Window
from visdeploy.parity.meter import ParityMeter
from visdeploy.streaming.windows import Step
from visdeploy_export import graph
from visdeploy_export.graph import write_onnx
from visdeploy_export.methods import build_step
from visdeploy_export.proof.certify import record_selftest
from visdeploy_export.proof.clips import moving_clip
from visdeploy_export.step import StepGraph
from visdeploy_training import load_checkpoint
from visdeploy_training.torch_backend import TorchBackend


class Counter(nn.Module):
    """Pixels brighter than the running mean, and the mean of the frame: a step with data-dependent rows."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 1, 1)

    def forward(self, frame, mean, step):
        level = self.mix(frame)[0, 0]
        return (level > mean).nonzero(), 0.5 * mean + 0.5 * level.mean().reshape(1), step + 1


def counter_step(module=None, **changes):
    size = torch.export.Dim("rows", min=2), torch.export.Dim("columns", min=2)
    state = (
        StateSpec(input="mean", output="next_mean", dtype="float32", shape=[1], initial=0.0),
        StateSpec(input="step", output="next_step", dtype="int64", shape=[1], initial=0.0),
    )
    step = StepGraph(
        module=(module or Counter()).eval(),
        inputs=(TensorSpec(name="frame", dtype="float32", shape=[1, 3, "height", "width"]),),
        outputs=(TensorSpec(name="places", dtype="int64", shape=["n", 2], measure="exact"),),
        state=state,
        example=(torch.randn(1, 3, 5, 7), torch.zeros(1), torch.zeros(1, dtype=torch.int64)),
        dynamic_shapes=({2: size[0], 3: size[1]}, None, None),
        preprocessing=Preprocessing(channel_order="rgb", mean=[0] * 3, std=[1] * 3, height=5, width=7),
        window=Window(mode="online"),
        decode={},
        tracking={},
        size_multiple=1,
    )
    return replace(step, **changes)


def run_onnx(path, *inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, dict(zip([i.name for i in session.get_inputs()], inputs, strict=True)))


def test_a_small_step_end_to_end(tmp_path):
    step = counter_step()
    assert write_onnx(step, tmp_path, metadata={"method": "counter"}) == []
    path = tmp_path / MODEL
    model = onnx.load(path)
    assert [p.name for p in tmp_path.iterdir()] == [MODEL]
    assert model.opset_import[0].version == 20
    assert {p.key: p.value for p in model.metadata_props} == {"method": "counter"}
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input]
    assert dims == [[1, 3, "height", "width"], [1], [1]]
    assert [v.name for v in model.graph.output] == ["places", "next_mean", "next_step"]
    frame = torch.randn(1, 3, 9, 4, generator=torch.Generator().manual_seed(0))
    expected = step.module(frame, torch.tensor([0.1]), torch.tensor([3]))
    found = run_onnx(path, frame.numpy(), np.float32([0.1]), np.int64([3]))
    np.testing.assert_array_equal(found[0], expected[0].numpy())
    np.testing.assert_allclose(found[1], expected[1].detach().numpy(), atol=1e-6)
    assert found[2] == [4]


def test_weights_over_the_limit_go_into_a_second_file(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "SIZE_LIMIT", 10_000)
    module = Counter()
    module.mix = nn.Conv2d(3, 1, 71, padding=35)
    step = counter_step(module)
    write_onnx(step, tmp_path, metadata={})
    path = tmp_path / MODEL
    assert {p.name for p in tmp_path.iterdir()} == {MODEL, MODEL_DATA}
    assert path.stat().st_size < 10_000 < (tmp_path / MODEL_DATA).stat().st_size
    frame = torch.randn(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    found = run_onnx(path, frame.numpy(), np.float32([0]), np.int64([0]))
    expected = step.module(frame, torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    np.testing.assert_allclose(found[1], expected[1].detach().numpy(), atol=1e-5)


class Branching(Counter):
    def forward(self, frame, mean, step):
        if frame.sum() > 0:
            return super().forward(frame, mean, step)
        return super().forward(-frame, mean, step)


class Failing(Counter):
    def forward(self, frame, mean, step):
        raise RuntimeError("no such weight: left_foot")


def renamed(**fields):
    return (TensorSpec(**{"name": "places", "dtype": "int64", "shape": ["n", 2]} | fields),)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: counter_step(Branching()), "torch could not export"),
        (lambda: counter_step(Failing()), "torch could not export.*left_foot"),
        (lambda: counter_step(outputs=renamed(dtype="float32")), "'places'.*int64.*float32"),
        (lambda: counter_step(outputs=renamed(shape=["n"])), r"'places'.*\['n'\]"),
        (lambda: counter_step(outputs=renamed(shape=["n", 3])), r"'places'.*\['n', 3\]"),
        (lambda: counter_step(outputs=()), "places|outputs|output_names"),
    ],
)
def test_what_cannot_be_exported_is_an_export_error(tmp_path, make, message, capfd):
    with pytest.raises(ExportError, match=message):
        write_onnx(make(), tmp_path, metadata={})
    assert list(tmp_path.iterdir()) == []
    said = capfd.readouterr()
    assert said.out == said.err == "", "the exporter's chatter belongs into the error"


def test_an_invalid_graph_is_an_export_error(tmp_path, monkeypatch):
    def broken(step, opset):
        proto = trace(step, opset)
        proto.graph.node[0].op_type = "NoSuchOperator"
        return proto

    trace = graph._trace
    monkeypatch.setattr(graph, "_trace", broken)
    with pytest.raises(ExportError, match=r"not valid ONNX.*NoSuchOperator"):
        write_onnx(counter_step(), tmp_path, metadata={})


@pytest.fixture(scope="module")
def engines(tiny_bundle, tiny_checkpoint):
    """The exported graph and the same step in PyTorch."""
    bundle = Bundle.open(tiny_bundle)
    model, _ = load_checkpoint(tiny_checkpoint)
    return open_backend(bundle, "cpu", 1), TorchBackend(build_step(model).module, bundle.manifest)


def clip_tensors(count, height, width):
    for frame in moving_clip(count, height, width, seed=5):
        yield {"frame": ((frame.astype(np.float32) - 115) / 57).transpose(2, 0, 1)[None]}


@pytest.mark.parametrize("size", [(64, 96), (96, 160), (128, 64)])
def test_height_and_width_are_dynamic(engines, size):
    found, reference = engines
    meter = ParityMeter(found.manifest, height=70, width=90)
    states = [found.initial_state(), reference.initial_state()]
    for index, inputs in enumerate(clip_tensors(4, *size)):
        outputs, states[0] = found.run(inputs, states[0])
        expected, states[1] = reference.run(inputs, states[1])
        assert expected["masks"].shape[1:] == size
        meter.update(expected, outputs, Step(inputs, index, (0.0,), 1))
    certificate = meter.certificate(reference="torch", candidate="onnx", source="clip")
    assert certificate.failures == []
    assert certificate.detections.matched > 0


def frames_in_memory(last, slots):
    """Section 6 with the documented bound: key frames 0, 5, ... and the two latest; the oldest key but 0 goes."""
    keys = list(range(0, last - 1, 5))
    latest = [t for t in (last - 1, last) if t >= 0]
    while len(keys) + len(latest) > slots:
        keys.remove(min(k for k in keys if k))
    return sorted({*keys, *latest})


def test_state_follows_pytorch_beyond_a_full_memory(engines):
    """24 frames with 5 slots: frames are overwritten, key frames kept, and from frame 18 on key frames dropped."""
    found, reference = engines
    states = [found.initial_state(), reference.initial_state()]
    slots = found.manifest.state[0].shape[0]
    for index, inputs in enumerate(clip_tensors(24, 64, 96)):
        outputs, states[0] = found.run(inputs, states[0])
        expected, states[1] = reference.run(inputs, states[1])
        held = [found.state_to_host(states[0]), reference.state_to_host(states[1])]
        np.testing.assert_array_equal(held[0]["mem_frame"], held[1]["mem_frame"])
        assert sorted(f for f in held[0]["mem_frame"] if f >= 0) == frames_in_memory(index, slots)
        assert held[0]["step"] == held[1]["step"] == [index + 1]
        for name in ("mem_ref", "mem_cat", "mem_ker"):
            np.testing.assert_allclose(held[0][name], held[1][name], atol=1e-4)
        np.testing.assert_allclose(outputs["grid_weight"], expected["grid_weight"], atol=1e-4)


def test_a_frame_without_detections(engines):
    """A memory that holds none of the frames it should gives every cell the grid weight 0: nothing is found."""
    for backend in engines:
        start = backend.state_to_host(backend.initial_state()) | {"step": np.int64([3])}
        outputs, state = backend.run(next(clip_tensors(1, 64, 96)), backend.state_from_host(start))
        assert {k: v.shape[0] for k, v in outputs.items() if k in ("scores", "cells", "masks", "mask_logits")} == {
            "scores": 0, "cells": 0, "masks": 0, "mask_logits": 0,
        }  # fmt: skip
        assert outputs["overlaps"].shape == (0, 0)
        assert outputs["masks"].shape[1:] == (64, 96)
        assert (outputs["grid_weight"] == 0).all()
        assert backend.state_to_host(state)["step"] == [4]


def test_a_step_does_not_change_the_state_it_was_given(engines):
    for backend in engines:
        inputs = next(clip_tensors(1, 64, 96))
        _, state = backend.run(inputs, backend.initial_state())
        before = backend.state_to_host(state)
        first, _ = backend.run(inputs, state)
        second, _ = backend.run(inputs, state)
        after = backend.state_to_host(state)
        for name, value in before.items():
            np.testing.assert_array_equal(value, after[name])
        np.testing.assert_array_equal(first["cell_scores"], second["cell_scores"])


def test_a_reference_with_nan_is_refused(engines):
    class Broken(TorchBackend):
        def run(self, inputs, state):
            outputs, state = super().run(inputs, state)
            return outputs | {"cell_scores": outputs["cell_scores"] * np.nan}, state

    with pytest.raises(ExportError, match=r"'cell_scores' that are not finite"):
        record_selftest(Broken(engines[1]._module, engines[1].manifest))
