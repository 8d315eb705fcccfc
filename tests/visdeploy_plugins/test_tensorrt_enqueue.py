"""The harness that drives the plugins without an engine, on kernels compiled for the host."""

import subprocess

from visdeploy_plugins import native
from visdeploy_plugins.tensorrt import PLUGINS


def harness(*arguments):
    program = native.library_path("visdeploy_tensorrt_harness")
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)


def test_every_plugin_runs_and_agrees_with_the_cpu_kernels(tensorrt_plugins, tensorrt_emulation):
    done = harness(tensorrt_emulation, "--host")
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, summary = done.stdout.splitlines()
    assert all(line.endswith(" ok") for line in lines)
    for plugin in PLUGINS:
        for dtype in ("float32", "float16", "bfloat16"):
            assert sum(line.startswith(f"{plugin} (") and f" {dtype} " in line for line in lines) >= 4
    assert summary == f"{len(lines)} of {len(lines)} cases right, {len(PLUGINS)} of {len(PLUGINS)} plugins covered"


def test_the_build_accepts_what_the_run_accepts_and_nothing_else(tensorrt_plugins, tensorrt_emulation):
    """Every combination of element types was given to each plugin in both phases; the count says what was accepted.

    Attention: values, offsets or locations and weights in the type of the values or, beside halves, in float32: five
    combinations, times two types of index tensors. The fused form doubles none of them: its references are float32.
    """
    lines = harness(tensorrt_emulation, "--host").stdout.splitlines()
    found = {line.split()[0]: line.split()[2:5] for line in lines if " combinations of types" in line}
    assert set(found) == set(PLUGINS)
    assert found["MSDeformAttn"][:2] == ["10", "of"]
    assert found["MSDeformAttnFused"][:2] == ["10", "of"]
    assert int(found["MSDeformAttnFused"][2]) >= 5**7


def test_other_libraries_and_words_are_refused(tensorrt_emulation):
    assert harness().returncode == 2
    assert harness(tensorrt_emulation, "--elsewhere").returncode == 2
    done = harness(str(native.library_path(native.OPERATORS)), "--host")
    assert done.returncode == 1
    assert "has no getCreators" in done.stderr
