"""Tests that a processor cannot run are deselected and counted; libraries that are held to less take less."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests import processors
from tests.processors import HELD, Capabilities, each_instruction_set, instruction_sets, main

CHOSEN = """
import cv2, torch
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from visdeploy_plugins import native
library, reason = native.load()
print("ours", library.vd_cpu_isa().decode() if library else reason)
print("torch", torch.backends.cpu.get_cpu_capability())
print("numpy", *(name for name in __cpu_dispatch__ if __cpu_features__[name]))
print("opencv", cv2.getCPUFeaturesLine(), flush=True)
torch.nn.functional.conv2d(torch.ones(4, 64, 56, 56), torch.ones(64, 64, 3, 3))  # too large for a plain loop
"""
EXPECTED = {
    "avx2": ["ours avx2", "torch AVX2", "numpy X86_V3", "*AVX2 *AVX512-SKX?", "isa:Intel AVX2"],
    "baseline": ["ours baseline", "torch DEFAULT", "numpy", "*AVX? *FP16? *AVX2? *AVX512-SKX?", "isa:Intel SSE4.1"],
}


@pytest.mark.parametrize("level", [each for each in each_instruction_set() if each.values[0] in HELD])
def test_libraries_are_held(operators, level):
    environment = {**os.environ, **HELD[level], "ONEDNN_VERBOSE": "1", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", CHOSEN], env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    for each in EXPECTED[level]:
        assert any(line.endswith(each) for line in lines), (each, lines)


class Item:
    """A collected test with marks: `name` or `name:argument`."""

    def __init__(self, *marks):
        self.marks = [mark.split(":") for mark in marks]

    def iter_markers(self, name):
        return [SimpleNamespace(args=tuple(args)) for found, *args in self.marks if found == name]


def collect(expression, *collected):
    """Return the selected tests, the number of deselected ones, and the summary about them."""
    items, deselected, lines, capabilities = list(collected), [], [], Capabilities()
    hook = SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items))
    config = SimpleNamespace(hook=hook, option=SimpleNamespace(markexpr=expression))
    capabilities.pytest_collection_modifyitems(config, items)
    capabilities.pytest_terminal_summary(SimpleNamespace(line=lambda text, **_: lines.append(text)))
    assert lines[0].startswith("processor: ")
    return items, len(deselected), lines[1:]


def test_tests_that_cannot_run_are_deselected_and_counted(monkeypatch):
    monkeypatch.setattr(processors, "instruction_sets", lambda: ["baseline", "avx2"])
    isa = [Item(f"needs_isa:{name}") for name in ("baseline", "avx512", "avx2", "avx512")]
    kept = [Item(), isa[0], isa[2]]
    seen = collect("not gpu", kept[0], *isa)
    assert seen == (kept, 2, ["2 tests not run: this processor has no avx512"])
    assert collect("not gpu", *kept) == (kept, 0, [])


def test_the_campaign_is_deselected_unless_it_is_asked_for():
    short, long = Item("slow"), Item("slow", "campaign")
    assert collect("not gpu", short, long) == ([short], 1, ["1 tests not run: left to `make campaign`"])
    assert collect("campaign", long) == ([long], 0, [])


def test_workers_of_which_one_crashed_count_once():
    capabilities = Capabilities()
    for node in (SimpleNamespace(workeroutput={"left_out": {"no avx512": 2}}), SimpleNamespace()):
        capabilities.pytest_testnodedown(node)
    capabilities.pytest_testnodedown(SimpleNamespace(workeroutput={"left_out": {"no avx512": 2}}))
    assert capabilities.left_out == {"no avx512": 2}


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("flags\t\t: fpu sse4_2 avx avx2 fma avx512f avx512vl avx512bw avx512dq", ["baseline", "avx2", "avx512"]),
        ("flags\t\t: fpu sse4_2 avx avx2 fma avx512f avx512dq", ["baseline", "avx2"]),
        ("flags\t\t: fpu avx avx2", ["baseline"]),
        ("Features\t: fp asimd", ["baseline"]),  # ARM
    ],
)
def test_instruction_sets_are_those_of_the_flags(monkeypatch, flags, found):
    monkeypatch.setattr(processors.Path, "read_text", lambda *_, **__: f"processor\t: 0\n{flags}\n")
    assert instruction_sets() == found


def test_what_the_processor_has_is_what_our_kernels_find(operators):
    from visdeploy_plugins import native

    library, _ = native.load()
    taken = os.environ.get("VISDEPLOY_PLUGINS_ISA") or instruction_sets()[-1]
    assert library is not None
    assert library.vd_cpu_isa().decode() == taken


def test_the_processor_s_own_level_is_not_run_again(monkeypatch, capsys):
    monkeypatch.setattr(processors, "instruction_sets", lambda: ["baseline", "avx2"])
    assert main("avx2") == 0
    assert "all that this processor has" in capsys.readouterr().out
