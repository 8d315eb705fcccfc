"""The ONNX file: valid, dynamic, clean, equal to PyTorch step by step; failures of the exporter are typed."""

import gc

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.visdeploy_export.narrow import compare_widths, narrowed
from tests.visdeploy_export.pipelines import in_onnx_runtime, in_pytorch, step_of
from visdeploy.bundle import MODEL, MODEL_DATA, Bundle
from visdeploy.errors import ExportError
from visdeploy.manifest import Dim, GraphSpec, Preprocessing, StateSpec, TensorSpec, Window
from visdeploy.parity.meter import ParityMeter
from visdeploy.streaming.pipeline import Pipeline
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


def counter_spec(**changes):
    fields = {
        "preprocessing": Preprocessing(channel_order="rgb", mean=[0] * 3, std=[1] * 3, height=5, width=7),
        "window": Window(mode="online"),
        "dims": {
            "height": Dim(minimum=2, typical=5, maximum=512),
            "width": Dim(minimum=2, typical=7, maximum=512),
            "n": Dim(minimum=0, typical=9, maximum=512 * 512),
        },
        "inputs": [TensorSpec(name="frame", dtype="float32", shape=[1, 3, "height", "width"], role="frames")],
        "outputs": places(),
        "state": [
            StateSpec(input="mean", output="next_mean", dtype="float32", shape=[1], initial=0.0),
            StateSpec(input="step", output="next_step", dtype="int64", shape=[1], initial=0.0),
        ],
    }
    return GraphSpec(**(fields | changes))


def places(**fields):
    fields = {"name": "places", "dtype": "int64", "shape": ["n", 2], "role": "decode", "measure": "exact"} | fields
    return [TensorSpec(**fields)]


def counter_step(module=None, **changes):
    return StepGraph((module or Counter()).eval(), counter_spec(**changes))


class Reference(nn.Module):
    """Cells that differ from the last frame's, and the mean colours of the last five frames: both kinds of memory."""

    def forward(self, frame, pyramid, colours):
        small = nn.functional.avg_pool2d(frame, 8)
        seen = torch.cat([colours, frame.mean(dim=(2, 3))])[-5:]
        return ((small - pyramid).abs().amax(dim=1)[0] > 0.1).nonzero(), small, seen


def reference_step():
    side = {"minimum": 16, "maximum": 512, "multiple": 8}
    shapes = {"pyramid": [1, 3, "height/8", "width/8"], "colours": ["held", 3]}
    spec = counter_spec(
        preprocessing=Preprocessing(channel_order="rgb", mean=[0] * 3, std=[1] * 3, height=32, width=48),
        dims={
            "height": Dim(typical=32, **side),
            "width": Dim(typical=48, **side),
            "n": Dim(minimum=0, typical=9, maximum=64 * 64),
            "held": Dim(minimum=0, typical=3, maximum=5),
        },
        state=[
            StateSpec(input=name, output=f"next_{name}", dtype="float32", shape=shape) for name, shape in shapes.items()
        ],
    )
    return StepGraph(Reference().eval(), spec)


def run_onnx(path, *inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, dict(zip([i.name for i in session.get_inputs()], inputs, strict=True)))


def test_a_small_step_end_to_end(tmp_path):
    step = counter_step()
    written = write_onnx(step, tmp_path, metadata={"method": "counter"})
    assert written.custom_ops == []
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


def test_a_state_follows_the_size_of_the_frames_or_grows(tmp_path):
    step = reference_step()
    write_onnx(step, tmp_path, metadata={})
    graph = onnx.load(tmp_path / MODEL).graph
    dims = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.output}
    assert dims["next_pyramid"] == [1, 3, "height/8", "width/8"]
    assert dims["next_colours"] == ["next_held", 3], "the next state may be larger than the last"
    for height, width in ((32, 48), (16, 80)):
        clip = torch.rand(7, 1, 3, height, width, generator=torch.Generator().manual_seed(height))
        state = [torch.zeros(1, 3, height // 8, width // 8), torch.zeros(0, 3)]
        ours = [each.numpy() for each in state]
        for count, frame in enumerate(clip, start=1):
            expected, *state = step.module(frame, *state)
            found, *ours = run_onnx(tmp_path / MODEL, frame.numpy(), *ours)
            np.testing.assert_array_equal(found, expected.numpy())
            for mine, theirs in zip(ours, state, strict=True):
                np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-6)
            assert ours[1].shape == (min(count, 5), 3)


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


class Talkative(Counter):
    """Step that returns more outputs than it declares."""

    def forward(self, frame, mean, step):
        found, *state = super().forward(frame, mean, step)
        return found, frame.mean().reshape(1), *state


class Failing(Counter):
    def forward(self, frame, mean, step):
        raise RuntimeError("no such weight: left_foot")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: counter_step(Branching()), "torch could not export"),
        (lambda: counter_step(Failing()), "torch could not export.*left_foot"),
        (lambda: counter_step(outputs=places(dtype="float32")), "'places'.*int64.*float32"),
        (lambda: counter_step(outputs=places(shape=["n"])), r"'places'.*\['n'\]"),
        (lambda: counter_step(outputs=places(shape=["n", 3])), r"'places'.*\['n', 3\]"),
        (lambda: counter_step(Talkative()), "the graph's outputs are not the step's"),
        (lambda: counter_step(outputs=[*places(), *places(name="others")]), "the graph's outputs are not the step's"),
    ],
)
def test_what_cannot_be_exported_is_an_export_error(tmp_path, make, message, capfd):
    with pytest.raises(ExportError, match=message):
        write_onnx(make(), tmp_path, metadata={})
    assert list(tmp_path.iterdir()) == []
    said = capfd.readouterr()
    assert said.out == said.err == "", "the exporter's chatter belongs into the error"


def test_the_garbage_collector_is_as_before(tmp_path):
    """Tracing pauses it."""
    write_onnx(counter_step(), tmp_path, metadata={})
    assert gc.isenabled()
    gc.disable()
    try:
        write_onnx(counter_step(), tmp_path, metadata={})
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_failing_tracer_leaves_the_garbage_collector_on(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        assert not gc.isenabled()
        raise RuntimeError("no")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError, match="could not export"):
        write_onnx(counter_step(), tmp_path, metadata={})
    assert gc.isenabled()


def test_an_invalid_graph_is_an_export_error(tmp_path, monkeypatch):
    def broken(step, opset):
        proto, program = trace(step, opset)
        proto.graph.node[0].op_type = "NoSuchOperator"
        return proto, program

    trace = graph._trace
    monkeypatch.setattr(graph, "_trace", broken)
    with pytest.raises(ExportError, match=r"not valid ONNX.*NoSuchOperator"):
        write_onnx(counter_step(), tmp_path, metadata={})


@pytest.fixture(scope="module")
def engines(tiny_bundle, tiny_checkpoint):
    """Return the exported graph and the same step in PyTorch."""
    bundle = Bundle.open(tiny_bundle)
    return in_onnx_runtime(bundle), in_pytorch(bundle, tiny_checkpoint)


def clip_steps(count, height, width):
    for index, frame in enumerate(moving_clip(count, height, width, seed=5)):
        yield step_of({"frame": ((frame.astype(np.float32) - 115) / 57).transpose(2, 0, 1)[None]}, index)


@pytest.mark.parametrize("size", [(64, 96), (96, 160), (128, 64), (32, 64)])
def test_height_and_width_are_dynamic(engines, size):
    found, reference = engines
    meter = ParityMeter(found.spec, height=70, width=90)
    states = [None, None]
    for step in clip_steps(4, *size):
        outputs, states[0] = found.run(step, states[0], proof=True)
        expected, states[1] = reference.run(step, states[1], proof=True)
        assert expected["masks"].shape[1:] == size
        meter.update(expected, outputs, step)
    certificate = meter.certificate(reference="torch", candidate="onnx", source="clip")
    assert certificate.failures == []
    assert certificate.detections.matched > 0


def frames_in_memory(last, slots):
    """Return key frames 0, 5, ... and the two latest frames; the oldest key frame except 0 is dropped if it is full."""
    keys = list(range(0, last - 1, 5))
    latest = [t for t in (last - 1, last) if t >= 0]
    while len(keys) + len(latest) > slots:
        keys.remove(min(k for k in keys if k))
    return sorted({*keys, *latest})


def test_state_follows_pytorch_beyond_a_full_memory(engines):
    """24 frames with 5 slots: frames are overwritten, key frames kept, and from frame 18 on key frames dropped."""
    found, reference = engines
    states = [None, None]
    slots = found.spec.state[0].shape[0]
    for index, step in enumerate(clip_steps(24, 64, 96)):
        outputs, states[0] = found.run(step, states[0], proof=True)
        expected, states[1] = reference.run(step, states[1], proof=True)
        held = [engine.backend.state_to_host(state) for engine, state in zip(engines, states, strict=True)]
        np.testing.assert_array_equal(held[0]["mem_frame"], held[1]["mem_frame"])
        assert sorted(f for f in held[0]["mem_frame"] if f >= 0) == frames_in_memory(index, slots)
        assert held[0]["step"] == held[1]["step"] == [index + 1]
        for name in ("mem_ref", "mem_cat", "mem_ker"):
            np.testing.assert_allclose(held[0][name], held[1][name], atol=1e-4)
        np.testing.assert_allclose(outputs["grid_weight"], expected["grid_weight"], atol=1e-4)


def test_a_frame_without_detections(engines):
    """A memory that holds none of the frames it should gives every cell the grid weight 0: nothing is found."""
    for pipeline in engines:
        backend, step = pipeline.backend, next(clip_steps(1, 64, 96))
        sizes = backend.bind_inputs(step.inputs)
        start = backend.state_to_host(backend.initial_state(sizes)) | {"step": np.int64([3])}
        outputs, state = pipeline.run(step, backend.state_from_host(start, sizes), proof=True)
        assert {k: v.shape[0] for k, v in outputs.items() if k in ("scores", "cells", "masks", "mask_logits")} == {
            "scores": 0, "cells": 0, "masks": 0, "mask_logits": 0,
        }  # fmt: skip
        assert outputs["overlaps"].shape == (0, 0)
        assert outputs["masks"].shape[1:] == (64, 96)
        assert (outputs["grid_weight"] == 0).all()
        assert backend.state_to_host(state)["step"] == [4]


def test_a_step_does_not_change_the_state_it_was_given(engines):
    for pipeline in engines:
        step = next(clip_steps(1, 64, 96))
        _, state = pipeline.run(step, None)
        before = pipeline.backend.state_to_host(state)
        first, _ = pipeline.run(step, state, proof=True)
        second, _ = pipeline.run(step, state, proof=True)
        after = pipeline.backend.state_to_host(state)
        for name, value in before.items():
            np.testing.assert_array_equal(value, after[name])
        np.testing.assert_array_equal(first["cell_scores"], second["cell_scores"])


def test_outputs_of_the_role_proof_are_fetched_by_certificates_only(engines):
    step = next(clip_steps(1, 64, 96))
    proof = {"labels", "cell_scores", "grid_weight", "mask_logits"}
    for pipeline in engines:
        every, few = (pipeline.run(step, None, proof=asked)[0] for asked in (True, False))
        assert every.keys() - few.keys() == proof
        for name, value in few.items():
            np.testing.assert_array_equal(value, every[name])


def test_a_reference_with_nan_is_refused(engines, tiny_checkpoint):
    class Broken(TorchBackend):
        def run(self, inputs, state, outputs=None):
            found, state = super().run(inputs, state, outputs)
            return found | {"cell_scores": found["cell_scores"] * np.nan}, state

    spec = engines[1].spec
    model, _ = load_checkpoint(tiny_checkpoint)
    with pytest.raises(ExportError, match=r"'cell_scores' that are not finite"):
        record_selftest(Pipeline(spec, Broken(build_step(model).module, spec)))


def test_integers_of_32_bits_give_the_same(tiny_bundle):
    """Longer than the memory, so that slots are written anew."""
    assert compare_widths(Bundle.open(tiny_bundle), moving_clip(14, 70, 90)) == []


def test_a_value_beyond_32_bits_is_found():
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        wide (int64[1] a) => (int64[1] b) <int64[1] last = {4611686018427387904}> { b = Add (a, last) }""")
    with pytest.raises(AssertionError, match="last is"):
        narrowed(model)
