"""The CMake files: which GPUs are built for, and that only CI turns warnings into errors."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY

FUNCTIONS = REPOSITORY / "plugins" / "cmake" / "cuda_architectures.cmake"
CUDA_11_8 = "35;37;50;52;53;60;61;62;70;72;75;80;86;87;89;90"
CUDA_12_9 = "50;52;53;60;61;62;70;72;75;80;86;87;89;90;100;101;103;120;121"
CUDA_13_0 = "75;80;86;87;88;89;90;100;103;110;120;121"


def cmake(tmp_path, *lines):
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake")
    script = tmp_path / "script.cmake"
    script.write_text("\n".join(["cmake_minimum_required(VERSION 3.24)", f'include("{FUNCTIONS}")', *lines]))
    command = ["cmake", "-P", str(script)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def chosen(tmp_path, known, wanted=""):
    done = cmake(tmp_path, f'visdeploy_choose_architectures("{known}" "{wanted}" found)', 'message("chosen: ${found}")')
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()[-1].removeprefix("chosen: "), done.stdout


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (CUDA_11_8, "75;80;86;87;89;90"),
        (CUDA_12_9, "75;80;86;87;89;90;100;120"),
        (CUDA_13_0, "75;80;86;87;89;90;100;120"),
        ("120;121;130", "120"),
        ("130", ""),
    ],
)
def test_the_default_list_is_what_the_compiler_knows(tmp_path, known, expected):
    found, said = chosen(tmp_path, known)
    assert found == expected
    assert ("does not build for compute capability 120" in said) == ("120" not in known.split(";"))


@pytest.mark.parametrize(("wanted", "expected"), [("90", "90"), ("120;75;90a;75", "75;90a;120")])
def test_named_architectures_are_taken_in_order(tmp_path, wanted, expected):
    assert chosen(tmp_path, CUDA_13_0, wanted)[0] == expected


def test_a_named_architecture_that_the_compiler_lacks_is_an_error(tmp_path):
    done = cmake(tmp_path, f'visdeploy_choose_architectures("{CUDA_13_0}" "70;90" found)')
    assert done.returncode != 0
    assert "this nvcc does not build for 70" in done.stderr
    assert "110" in done.stderr


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("echo compute_75; echo compute_80", "75;80"),
        ("exit 1", ""),
        ("echo 'nvcc fatal: Unknown option'; exit 1", ""),
    ],
)
def test_the_compiler_is_asked(tmp_path, program, expected):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f'#!/bin/sh\n[ "$1" = --list-gpu-arch ] || exit 2\n{program}\n')
    nvcc.chmod(0o755)
    done = cmake(tmp_path, f'visdeploy_nvcc_architectures("{nvcc}" found)', 'message("known: ${found}")')
    assert done.stderr.splitlines()[-1] == f"known: {expected}"


@pytest.mark.parametrize("strict", [False, True])
def test_warnings_are_errors_on_request_alone(tmp_path, strict):
    if shutil.which("cmake") is None or shutil.which("ninja") is None:
        pytest.skip("there is no cmake, or no ninja")
    configure = ["cmake", "-S", str(REPOSITORY / "plugins"), "-B", str(tmp_path), "-G", "Ninja", "-DVISDEPLOY_CUDA=OFF"]
    configure += ["-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", f"-DVISDEPLOY_WERROR={'ON' if strict else 'OFF'}"]
    subprocess.run(configure, capture_output=True, check=True)
    commands = (tmp_path / "compile_commands.json").read_text()
    assert "-Wall" in commands
    assert ("-Werror" in commands) == strict


def test_ci_asks_for_them(tmp_path):
    """`.ci/run` calls make with the option; whoever calls make has it not."""
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "$1: $VISDEPLOY_CMAKE_ARGS"\n')
    make.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "VISDEPLOY_CMAKE_ARGS": "-DVISDEPLOY_CUDA=OFF"}
    done = subprocess.run([str(REPOSITORY / ".ci" / "run")], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("test: -DVISDEPLOY_WERROR=ON ")
    assert done.stdout.rstrip().endswith("-DVISDEPLOY_CUDA=OFF")
    assert "WERROR" not in (REPOSITORY / "Makefile").read_text()
