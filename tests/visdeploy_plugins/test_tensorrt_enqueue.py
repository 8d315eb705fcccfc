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


def test_other_libraries_and_words_are_refused(tensorrt_emulation):
    assert harness().returncode == 2
    assert harness(tensorrt_emulation, "--elsewhere").returncode == 2
    done = harness(str(native.library_path(native.OPERATORS)), "--host")
    assert done.returncode == 1
    assert "has no getCreators" in done.stderr
