"""The parts of the script for GPU machines that run without a GPU."""

import os
import re
import shutil
import stat
import subprocess
import sys

import pytest
import torch

from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "gpu_check.sh"


def check(*arguments, **environment):
    env = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run([str(SCRIPT), *arguments], env=env, capture_output=True, text=True, check=False)


def test_it_is_valid_bash_and_executable():
    assert SCRIPT.stat().st_mode & stat.S_IXUSR
    assert subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True, check=True).stderr == b""


def test_without_a_gpu_it_says_so_and_touches_nothing(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    out = tmp_path / "results"
    done = check(OUT=str(out))
    assert done.returncode == 2
    assert "no CUDA device: PyTorch" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "build,nonsense"], "unknown part nonsense; there are: build tests"),
        (["--limit", "soon"], "--limit is no number of seconds: soon"),
        (["--fast"], "unknown argument --fast"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    done = check(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_missing_python_is_named():
    done = check(PYTHON="no-such-python")
    assert (done.returncode, "no no-such-python; set PYTHON" in done.stderr) == (2, True)


@pytest.fixture
def pretended(tmp_path):
    """Return an interpreter that reports a GPU; the test determines its other behaviour."""

    def make(rest):
        python = tmp_path / "python"
        python.write_text(
            f'#!/bin/bash\nif [[ $1 == -c && $2 == *get_device_capability* ]]; then echo "a warning"; '
            f"printf '90\\tPretended GPU\\n'; exit 0; fi\nif [[ $1 == -c ]]; then echo /nowhere; exit 0; fi\n{rest}\n"
        )
        python.chmod(0o755)
        return {"PYTHON": str(python), "OUT": str(tmp_path / "results")}

    return make


def test_table_tells_what_failed_and_what_did_not_run(pretended, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "compute-sanitizer").write_text("#!/bin/sh\necho 'Device not supported.'; exit 1\n")
    # What reads a part's output must not depend on how soon it is written.
    (tools / "tee").write_text(f'#!/bin/sh\nsleep 0.2; exec {shutil.which("tee")} "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environment = pretended('if [[ $1 == -m ]]; then echo "3 failed, 4 passed"; exit 1; fi; echo measured')
    path = f"{tools}:{os.environ['PATH']}"
    done = check("--only", "tests,memcheck,bench", PATH=path, **environment)
    assert done.returncode == 1, done.stderr
    (table,) = (tmp_path / "results").iterdir()
    assert table.name.endswith("_gpu_check_Pretended-GPU.txt")
    rows = [" ".join(row.split()[:2]) for row in table.read_text().splitlines()[1:]]
    assert rows == ["tests FAIL", "memcheck NOT", "bench pass"]
    assert "3 failed, 4 passed" in table.read_text()
    assert "compute-sanitizer does not support this device here" in table.read_text()
    assert done.stdout.endswith(table.read_text())


def test_all_well_is_status_zero(pretended):
    assert check("--only", "tests,bench", **pretended("echo fine")).returncode == 0


def test_time_runs_out(pretended):
    done = check("--only", "bench", "--limit", "6", **pretended("sleep 60"))
    assert done.returncode == 1
    assert "took longer than it may" in done.stdout


BUNDLE_LINES = "OK       demo: verify: fine\nNOT RUN  demo: compute-sanitizer: none here"


@pytest.mark.parametrize(
    ("lines", "status", "row"),
    [
        (BUNDLE_LINES, 0, "pass 1 OK, 0 FAILED, 1 NOT RUN: NOT RUN demo: compute-sanitizer: none here"),
        (f"{BUNDLE_LINES}\nFAILED   tevit: verify: wrong", 1, "FAIL 1 OK, 1 FAILED, 1 NOT RUN: FAILED tevit: verify"),
        (
            "NOT RUN  demo: verify: no provider",
            77,
            "NOT RUN 0 OK, 0 FAILED, 1 NOT RUN: NOT RUN demo: verify: no provider",
        ),
    ],
)
def test_bundles_are_summed_up(pretended, tmp_path, lines, status, row):
    (tmp_path / "lines").write_text(f"{lines}\n")
    asked = f"benchmarks/gpu_bundles.py check {tmp_path}/made --device cuda"
    environment = pretended(f'[[ "$*" == "{asked}"* ]] && cat {tmp_path}/lines; exit {status}')
    done = check("--only", "bundles", BUNDLES=f"{tmp_path}/made", **environment)
    assert done.returncode == (status == 1)
    shown = re.sub(r" \d+ s ", " ", " ".join(done.stdout.splitlines()[-1].split()))
    assert shown.startswith(f"bundles {row}")


def test_bundles_are_made_where_none_are_given(pretended, tmp_path):
    environment = pretended('echo "NOT RUN  make: no exporter"; exit 77')
    done = check("--only", "bundles", **environment)
    assert done.returncode == 0
    assert "NOT RUN  make: no exporter" in done.stdout.splitlines()[-1]
