"""What `pip install` and a wheel contain: the libraries of this build alone, whatever earlier builds have left."""

import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import setuptools

from tests.conftest import REPOSITORY

OLD = ("libvisdeploy_ops.so", "libvisdeploy_tensorrt.so", "libvisdeploy_tensorrt_rtx_alias.so")
NEW = ("libvisdeploy_onnxruntime.so", "libvisdeploy_ops.so")
CMAKE = """#!/bin/sh
for word in "$@"; do case "$word" in -DVISDEPLOY_OUTPUT_DIR=*) echo "${word#*=}" > "$0.out";; esac; done
[ "$1" = --build ] || exit 0
mkdir -p "$(cat "$0.out")"
for name in libvisdeploy_ops.so libvisdeploy_onnxruntime.so; do echo new > "$(cat "$0.out")/$name"; done
"""
"""Stands in for the build of a machine without nvcc."""


@pytest.fixture
def setup(monkeypatch):
    """Return the names in setup.py, which does not set up anything, and its arguments."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    return SimpleNamespace(**runpy.run_path(str(REPOSITORY / "setup.py"))), given


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Put a cmake first on PATH that builds for the CPU alone."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("cmake", "c++"):
        (folder / name).write_text(CMAKE)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path


def old_libraries(folder: Path) -> None:
    """Write the libraries of an earlier build with CUDA; one is a link, as in a second working tree."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in OLD[:2]:
        (folder / name).write_text("old")
    (folder / "elsewhere").write_text("kept")
    (folder / OLD[2]).symlink_to("elsewhere")


def test_libraries_are_replaced_together(setup, tmp_path):
    old_libraries(tmp_path / "package")
    (tmp_path / "package" / "native.py").write_text("")
    (tmp_path / "made").mkdir()
    for name in NEW:
        (tmp_path / "made" / name).write_text("new")
    placed = setup[0].place_libraries(tmp_path / "made", tmp_path / "package")
    assert [path.name for path in placed] == sorted(NEW)
    assert {path.name: path.read_text() for path in (tmp_path / "package").iterdir()} == {
        **dict.fromkeys(NEW, "new"), "elsewhere": "kept", "native.py": "",
    }  # fmt: skip


def test_a_build_without_nvcc_leaves_no_cuda_library(setup, machine):
    module = setup[0]
    command = module.BuildPlugins(setuptools.Distribution({"ext_modules": [], "packages": []}))
    command.build_lib, command.build_temp = str(machine / "lib"), str(machine / "temp")
    old_libraries(machine / "lib" / "visdeploy_plugins")
    old_libraries(machine / "temp" / "visdeploy_plugins" / "libraries")
    command.run()
    found = {path.name for path in (machine / "lib" / "visdeploy_plugins").glob("*.so")}
    assert found == set(NEW)
    assert {Path(name).name for name in command.get_outputs()} == set(NEW)


def test_a_build_starts_without_the_packages_of_an_earlier_one(setup, tmp_path):
    module = setup[0]
    old_libraries(tmp_path / "lib" / "visdeploy_plugins")
    (tmp_path / "lib" / "mine").mkdir()
    command = module.FreshBuild(setuptools.Distribution({}))
    command.build_lib = str(tmp_path / "lib")
    command.run()
    assert [path.name for path in (tmp_path / "lib").iterdir()] == ["mine"]


def test_the_source_is_not_taken_for_an_earlier_build(setup, tmp_path):
    module = setup[0]
    command = module.FreshBuild(setuptools.Distribution({}))
    command.build_lib, command.run.__func__.__globals__["ROOT"] = str(tmp_path), tmp_path
    (tmp_path / "visdeploy").mkdir()
    command.run()
    assert (tmp_path / "visdeploy").is_dir()


def test_setup_takes_no_library_of_the_source_tree(setup):
    assert setup[1]["exclude_package_data"] == {"": ["*.so"]}
    assert "global-exclude *.so" in (REPOSITORY / "MANIFEST.in").read_text()


def test_a_wheel_has_the_libraries_of_its_build_alone(machine):
    """Libraries of earlier builds lie in the source tree, in build/lib and in the folder of an interrupted wheel."""
    tree = machine / "tree"
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if name.startswith(("visdeploy", "plugins/visdeploy_plugins")) or "/" not in name:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, tree / name)
    old_libraries(tree / "plugins" / "visdeploy_plugins")
    for built in ("build/lib", "build/wheel"):
        old_libraries(tree / built / "visdeploy_plugins")
        (tree / built / "visdeploy_plugins" / "removed.py").write_text("")
    (tree / "setup.cfg").write_text("[build]\nbuild_lib = build/lib\n[bdist_wheel]\nbdist_dir = build/wheel\n")
    for package in ("training/visdeploy_training", "export/visdeploy_export"):
        (tree / package).mkdir(parents=True)
        (tree / package / "__init__.py").write_text("")
    command = [sys.executable, "setup.py", "-q", "bdist_wheel"]
    subprocess.run(command, cwd=tree, capture_output=True, check=True, env={**os.environ, "PYTHONPATH": ""})
    (wheel,) = (tree / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name).name: archive.read(name) for name in archive.namelist() if "_plugins/" in name}
    assert {name for name in names if name.endswith(".so")} == set(NEW)
    assert {names[name] for name in NEW} == {b"new\n"}
    assert "native.py" in names
    assert not {"removed.py", "elsewhere"} & names.keys()
