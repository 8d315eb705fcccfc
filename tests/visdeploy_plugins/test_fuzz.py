"""The fuzz target with its own driver and g++, under Address- and UndefinedBehaviorSanitizer, for 20 seconds."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "plugins" / "tools" / "sanitize.sh"


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, ("cmake", "ninja", "g++"))), reason="needs cmake, ninja and g++")
def test_the_fuzz_target_finds_nothing():
    # Kept between runs: building everything with sanitizers takes minutes.
    command = [str(SCRIPT), "fuzz", "20", "1"]
    done = subprocess.run(command, env={**os.environ, "CXX": "g++"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    runs = int(done.stdout.split("Done ")[-1].split(" runs")[0])
    assert runs > 1000


def test_the_script_says_what_it_does():
    done = subprocess.run([str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "sanitize.sh fuzz" in done.stderr
