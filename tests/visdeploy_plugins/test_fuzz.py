"""The fuzz target with its own driver and g++, under Address- and UndefinedBehaviorSanitizer, for some seconds."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "plugins" / "tools" / "sanitize.sh"


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, ("cmake", "ninja", "g++"))), reason="needs cmake, ninja and g++")
@pytest.mark.parametrize(
    ("kernels", "seconds"), [("baseline", "8"), pytest.param("all", "60", marks=pytest.mark.campaign)]
)
def test_the_fuzz_target_finds_nothing(kernels: str, seconds: str):
    """The baseline kernels are the same code as the others, and build in a third of the time."""
    # Kept between runs: also this build takes most of a minute.
    build = REPOSITORY / "build" / f"fuzz-{kernels}"
    only = {"QUICK": "ON" if kernels == "baseline" else "OFF", "BUILD": str(build)}
    command = [str(SCRIPT), "fuzz", seconds, "1"]
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
