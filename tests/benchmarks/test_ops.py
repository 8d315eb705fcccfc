"""The benchmark of the operators runs completely on small inputs and reports its measurements; speed is not checked."""

import importlib
import json
from types import ModuleType

import pytest
import torch

from tests.conftest import REPOSITORY

TIMES = {"wall_ms", "cpu_ms", "calls"}


@pytest.fixture
def ops(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("ops")


@pytest.fixture
def case(ops):
    return next(ops.CASES["ms_deform_attn"](small=True))


def test_every_op_is_measured_against_every_baseline(custom_ops, ops, tmp_path, capsys):
    file = tmp_path / "ops.json"
    assert ops.main(["--small", "--targets", "--threads", "1", "2", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert (found["device"], found["small"], len(found["machines"])) == ("cpu", True, 1)
    settings = {(row["op"], row["setting"]) for row in found["rows"]}
    assert {op for op, _ in settings} == set(ops.CASES)
    assert {(roof["op"], roof["setting"]) for roof in found["roofline"]} == settings
    for op, setting in settings:
        rows = [row for row in found["rows"] if (row["op"], row["setting"]) == (op, setting)]
        baselines = [row["baseline"] for row in rows]
        assert len(set(baselines)) == len(baselines) >= 3
        assert [row["ours"] for row in rows if row["threads"] == 2] == ["ORT kernel, 2 threads"]
    for row in found["rows"]:
        assert set(row["ours_ms"]) == set(row["baseline_ms"]) == TIMES
        assert row["wall_ratio"] == pytest.approx(row["baseline_ms"]["wall_ms"] / row["ours_ms"]["wall_ms"])
        assert row["difference"] < 1e-3
    shown = capsys.readouterr().out
    assert "targets" in shown
    assert "GB/s" in shown
    assert all(op in shown for op in ops.CASES)


def test_units_of_the_roofline(ops):
    from op_suite.roofline import Machine, Work

    machine = Machine(gb_s=10, gflop_s=100, clock="cpu", how="")
    assert machine.bound(Work(bytes=10, flops=1)) == "memory"
    assert machine.bound(Work(bytes=10, flops=1000)) == "compute"
    assert machine.roof_ms(Work(bytes=10**9, flops=1)) == pytest.approx(100)
    assert machine.roof_ms(Work(bytes=1, flops=10**9)) == pytest.approx(10)
    assert Work(bytes=4, flops=10).intensity == 2.5


def test_compulsory_traffic_of_attention(ops, case):
    tokens, heads, levels, points = 100, 8, 2, 4
    output = torch.empty(1, tokens, 256)
    moved = 4 * (2 * tokens * 256 + 3 * tokens * heads * levels * points) + 8 * 3 * levels
    assert case.work(output).bytes == moved
    assert case.flops == tokens * heads * levels * points * (8 * 32 + 20)


def test_sides_take_turns_and_minima_count(ops):
    from op_suite.timing import Schedule, measure

    order, clock = [], iter(range(100, 0, -1))
    sides = {name: lambda name=name: order.append(name) for name in "ab"}

    def timer(call):
        call()
        return next(clock) / 1e3, 0.5

    times = measure(sides, timer, Schedule(rounds=2, seconds=0))
    assert order == list("ab" * 3)
    assert (times["a"].wall_ms, times["b"].wall_ms, times["a"].cpu_ms, times["a"].calls) == (96, 95, 500, 2)


@pytest.mark.parametrize(
    "op", ["ms_deform_attn", "ms_deform_attn_fused", "deform_conv", "masked_conv", "multi_level_roi_align"]
)
def test_operators_in_torch_are_measured_as_on_cuda(ops, op):
    """The part of the CUDA run that needs no device: our PyTorch operators against eager forms."""
    from op_suite.roofline import Machine
    from op_suite.run import run_in_torch
    from op_suite.timing import Schedule, time_on_cpu

    for case in ops.CASES[op](small=True):
        machine = Machine(1, 1, "wall", "made up")
        rows, roof = run_in_torch(case, "cpu", torch.float32, time_on_cpu, machine, Schedule(1, 0))
        assert {row.baseline for row in rows} == set(case.eager)
        assert roof.as_json()["gflop_s"] > 0


def test_a_baseline_that_computes_something_else_is_refused(ops, case):
    from op_suite.case import torch_side
    from op_suite.run import _differences

    sides = {"ours": torch_side(case.ours, case.inputs), "other": torch_side(lambda t: case.ours(t) + 1, case.inputs)}
    with pytest.raises(SystemExit, match=r"ms_deform_attn .*other differs from ours by"):
        _differences(sides, "ours", case, torch.float32)


@pytest.mark.parametrize("words", [["--threads", "0"], ["--rounds", "0"], ["--op", "none"], ["--device", "tpu"]])
def test_bad_options_are_refused(ops, words):
    with pytest.raises(SystemExit) as refused:
        ops.main(words)
    assert refused.value.code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_without_a_device_is_refused(ops, capsys):
    with pytest.raises(SystemExit):
        ops.main(["--device", "cuda"])
    assert "PyTorch finds no CUDA device" in capsys.readouterr().err


@pytest.mark.gpu
def test_cuda_run(ops, tmp_path):
    file = tmp_path / "ops.json"
    assert ops.main(["--device", "cuda", "--small", "--json", str(file)]) == 0
    assert {row["dtype"] for row in json.loads(file.read_text())["rows"]} == {"float32", "float16"}
