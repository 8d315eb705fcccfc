"""Maps the four packages and builds the operator libraries; everything declarative is in pyproject.toml."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PACKAGE_FOLDERS = {
    "visdeploy": ".",
    "visdeploy_training": "training",
    "visdeploy_export": "export",
    "visdeploy_plugins": "plugins",
}
LIBRARIES = (
    "libvisdeploy_ops.so",
    "libvisdeploy_onnxruntime.so",
    "libvisdeploy_tensorrt.so",
    "libvisdeploy_tensorrt_rtx_alias.so",
)


class BuildPlugins(build_ext):
    """Runs CMake on plugins/; VISDEPLOY_CMAKE_ARGS adds arguments, as in -DVISDEPLOY_CUDA=OFF.

    Without cmake or a C++ compiler nothing is built: the package then runs on function bodies and reference
    implementations, and `python -m visdeploy_plugins` says so.
    """

    def run(self) -> None:
        """Builds the libraries into the package: that of the source tree for editable installs."""
        if missing := missing_tool():
            sys.stderr.write(
                f"visdeploy: operator libraries NOT built: no {missing} found. The package works without them, slower; "
                f"install {missing} and reinstall to build them (`python -m visdeploy_plugins` tells what is there).\n"
            )
            return
        target = self._target()
        target.mkdir(parents=True, exist_ok=True)
        build = Path(self.build_temp).resolve() / "visdeploy_plugins"
        # A fresh configuration: an isolated build's cmake and ninja are gone the next time, but would be remembered.
        configure = ["cmake", "--fresh", "-S", str(ROOT / "plugins"), "-B", str(build)]
        # The emulation of the CUDA kernels serves tests alone: it is never part of a wheel.
        configure += [f"-DVISDEPLOY_EMULATION={'ON' if self._in_place() else 'OFF'}"]
        configure += [f"-DVISDEPLOY_OUTPUT_DIR={target}", *shlex.split(os.environ.get("VISDEPLOY_CMAKE_ARGS", ""))]
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)

    def _in_place(self) -> bool:
        return bool(self.inplace or getattr(self, "editable_mode", False))

    def _target(self) -> Path:
        root = ROOT / "plugins" if self._in_place() else Path(self.build_lib).resolve()
        return root / "visdeploy_plugins"

    def get_outputs(self) -> list[str]:
        """The files that were built."""
        return [str(path) for name in LIBRARIES if (path := self._target() / name).is_file()]

    def get_output_mapping(self) -> dict[str, str]:
        """Editable installs use the libraries where they lie."""
        return {}


class PlatformWheel(bdist_wheel):
    """The libraries speak C, not Python's C interface: one wheel serves every Python of a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """Any Python 3, no ABI, this platform."""
        return "py3", "none", super().get_tag()[2]


def missing_tool() -> str:
    """What is missing to build the libraries, or an empty text."""
    if shutil.which("cmake") is None:
        return "cmake"
    compilers = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return "" if any(map(shutil.which, compilers)) else f"C++ compiler ({', '.join(compilers)})"


setup(
    packages=[p for name, where in PACKAGE_FOLDERS.items() for p in find_packages(where, include=[name, f"{name}.*"])],
    package_dir={name: name if where == "." else f"{where}/{name}" for name, where in PACKAGE_FOLDERS.items()},
    # Only announces that there is something to build; CMake knows what.
    ext_modules=[Extension("visdeploy_plugins.libraries", sources=[])],
    cmdclass={"build_ext": BuildPlugins, "bdist_wheel": PlatformWheel},
)
