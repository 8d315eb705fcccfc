"""Execution of CUDA kernels: current stream, CUDA graphs, several devices, no synchronisation."""

import pytest
import torch

from tests.visdeploy_plugins import device_checks
from tests.visdeploy_plugins.device_cases import OPS
from visdeploy_plugins import OpError

pytestmark = pytest.mark.gpu
ALL_OPS = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
A_WHILE = 200_000_000  # cycles that a stream is kept busy: a tenth of a second


def two_cases(op, device, *, grad=False):
    """Return cases of one shape with different numbers, and their tensors."""
    cases = [device_checks.random_case(op, seed) for seed in (81, 82)]
    return cases, [op.tensors(case, torch.float32, device, grad=grad) for case in cases]


def overwrite(tensors, others):
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(others[name])


@ALL_OPS
def test_work_waits_for_its_own_stream(op, device):
    """The inputs arrive late on a side stream: a kernel on any other stream would read what was there before."""
    (first, second), (tensors, late) = two_cases(op, device)
    expected, stale = op.run(late, second), op.run(tensors, first)
    assert not torch.equal(expected, stale)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        torch.cuda._sleep(A_WHILE)
        overwrite(tensors, late)
        output = op.run(tensors, second)
        idle = side.query()
    assert not idle, "the call waited for the device"
    side.synchronize()
    assert torch.equal(output, expected)


@ALL_OPS
def test_captured_graph_replays_on_new_numbers(op, device):
    """Forward and backward are captured, which allows neither waiting nor allocating, and replayed."""
    (first, second), (tensors, others) = two_cases(op, device, grad=True)
    expected = device_checks.outcome(op, second, others)
    grad = torch.from_numpy(first[op.grad]).to(device)
    wanted = [name for name in op.differentiable if name in tensors]

    def step():
        output = op.run(tensors, first)
        return [output, *torch.autograd.grad(output, [tensors[name] for name in wanted], grad)]

    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    overwrite(tensors, others)
    grad.copy_(torch.from_numpy(second[op.grad]))
    graph.replay()
    torch.cuda.synchronize(device)
    names = ["output", *(f"grad_{name}" for name in wanted)]
    for name, each in zip(names, found, strict=True):
        assert device_checks.worst(each, expected[name]) <= 1e-5, name


def test_compiled_graph_keeps_the_kernel(device):
    op = OPS["ms_deform_attn"]
    (case, _), (tensors, _) = two_cases(op, device)
    compiled = torch.compile(lambda given: op.run(given, case) * 2, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(tensors), op.run(tensors, case) * 2)


@ALL_OPS
def test_every_device(op, device):
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device only")
    other = torch.device("cuda", torch.cuda.device_count() - 1)
    (case, _), (tensors, _) = two_cases(op, device, grad=True)
    here = device_checks.outcome(op, case, tensors)
    there = device_checks.outcome(op, case, op.tensors(case, torch.float32, other, grad=True))
    assert torch.cuda.current_device() == 0
    assert all(each.device == other for each in there.values())
    assert all(device_checks.worst(there[name], here[name]) <= 1e-5 for name in here)


@ALL_OPS
def test_tensors_elsewhere_are_named(op, device):
    (case, _), (tensors, _) = two_cases(op, device)
    last = list(tensors)[-1]
    with pytest.raises((OpError, RuntimeError), match=r"is elsewhere \(seen: cpu; expected: cuda:0\)|same device"):
        op.run(tensors | {last: tensors[last].cpu()}, case)


def test_noncontiguous_tensors_are_named(device):
    op = OPS["ms_deform_attn"]
    (case, _), (tensors, _) = two_cases(op, device)
    value = tensors["value"].transpose(1, 2).contiguous().transpose(1, 2)
    with pytest.raises(OpError, match="ms_deform_attn: tensor value is not contiguous"):
        op.run(tensors | {"value": value}, case)


@pytest.mark.parametrize(
    ("shapes", "starts"),
    [([[5, 7], [2**40, 3]], [0, 35]), ([[5, 7], [2, 3]], [0, 10**9]), ([[-1, -7], [2, 3]], [0, -35])],
)
def test_levels_that_leave_the_values_read_nothing(device, shapes, starts):
    """The device alone sees the index tensors: what is wrong in them must not become an address."""
    op = OPS["ms_deform_attn"]
    (case, _), (tensors, _) = two_cases(op, device)
    tensors["spatial_shapes"] = torch.tensor(shapes, device=device)
    tensors["level_start_index"] = torch.tensor(starts, device=device)
    assert torch.isfinite(op.run(tensors, case)).all()
    torch.cuda.synchronize(device)


def test_boxes_of_no_image_give_zeros(device):
    op = OPS["multi_level_roi_align"]
    (case, _), (tensors, _) = two_cases(op, device)
    tensors["batch_indices"][::2] = torch.tensor([-1, 2**40, 10**6, 7, -(2**50), 2], device=device)
    assert not op.run(tensors, case)[::2].any()


def test_opcheck(device):
    op = OPS["ms_deform_attn"]
    (_, _), (tensors, _) = two_cases(op, device, grad=True)
    passed = torch.library.opcheck(torch.ops.visdeploy.ms_deform_attn, tuple(tensors.values()))
    assert set(passed.values()) == {"SUCCESS"}
