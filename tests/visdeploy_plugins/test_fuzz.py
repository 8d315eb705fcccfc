"""The fuzz target with its own driver and g++, under Address- and UndefinedBehaviorSanitizer, for 20 seconds."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "plugins" / "tools" / "sanitize.sh"


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, ("cmake", "ninja", "g++"))), reason="needs cmake, ninja and g++")
@pytest.mark.parametrize("kernels", ["baseline", pytest.param("all", marks=pytest.mark.campaign)])
def test_the_fuzz_target_finds_nothing(kernels):
    """The baseline kernels are the same code as the others, and take minutes less to build with sanitizers."""
    # Kept between runs: also this build takes a minute or two.
    build = REPOSITORY / "build" / f"fuzz-{kernels}"
    only = {"BASELINE_ONLY": "ON" if kernels == "baseline" else "OFF", "BUILD": str(build)}
    command = [str(SCRIPT), "fuzz", "20", "1"]
    done = subprocess.run(
        command, env={**os.environ, "CXX": "g++", **only}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    runs = int(done.stdout.split("Done ")[-1].split(" runs")[0])
    assert runs > 1000


def test_the_script_says_what_it_does():
    done = subprocess.run([str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "sanitize.sh fuzz" in done.stderr
