"""Map of the four packages to their folders, and build of the operator libraries; the rest is in pyproject.toml."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PACKAGE_FOLDERS = {
    "visdeploy": ".",
    "visdeploy_training": "training",
    "visdeploy_export": "export",
    "visdeploy_plugins": "plugins",
}
BUILT = ("libvisdeploy_*.so", "visdeploy_tensorrt_harness")
"""Names of the files that CMake builds."""
LIBRARIES = (
    "libvisdeploy_ops.so",
    "libvisdeploy_onnxruntime.so",
    "libvisdeploy_tensorrt.so",
    "libvisdeploy_tensorrt_rtx_alias.so",
)


class BuildPlugins(build_ext):
    """Build step that runs CMake on plugins/; VISDEPLOY_CMAKE_ARGS adds arguments, for example -DVISDEPLOY_CUDA=OFF.

    Without cmake or a C++ compiler nothing is built. The package then uses function bodies and reference
    implementations, which `python -m visdeploy_plugins` reports.
    """

    def run(self) -> None:
        """Build the libraries into the package, for editable installs into the source tree."""
        if missing := missing_tool():
            sys.stderr.write(
                f"visdeploy: operator libraries NOT built: no {missing} found. The package works without them, but "
                f"slower; install {missing} and reinstall to build them (see `python -m visdeploy_plugins`).\n"
            )
            return
        folder = Path(self.build_temp).resolve() / "visdeploy_plugins"
        made = folder / "libraries"
        shutil.rmtree(made, ignore_errors=True)  # so that it contains what this configuration builds, and nothing else
        # a fresh configuration, because a stored one contains the paths of an isolated build's cmake and ninja
        configure = ["cmake", "--fresh", "-S", str(ROOT / "plugins"), "-B", str(folder)]
        # the emulation of the CUDA kernels is for tests only, and never part of a wheel
        configure += [f"-DVISDEPLOY_EMULATION={'ON' if self._in_place() else 'OFF'}"]
        configure += [f"-DVISDEPLOY_OUTPUT_DIR={made}", *shlex.split(os.environ.get("VISDEPLOY_CMAKE_ARGS", ""))]
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(folder)], check=True)
        place_libraries(made, self._target())

    def _in_place(self) -> bool:
        return bool(self.inplace or getattr(self, "editable_mode", False))

    def _target(self) -> Path:
        root = ROOT / "plugins" if self._in_place() else Path(self.build_lib).resolve()
        return root / "visdeploy_plugins"

    def get_outputs(self) -> list[str]:
        """Return the paths of the files that were built."""
        return [str(path) for name in LIBRARIES if (path := self._target() / name).is_file()]

    def get_output_mapping(self) -> dict[str, str]:
        """Return an empty map: editable installs use the libraries in the source tree."""
        return {}


class FreshBuild(build):
    """Build that starts without the packages of an earlier one, because a wheel contains all files that lie there.

    These are modules that no longer exist, and libraries of another configuration.
    """

    def run(self) -> None:
        """Remove the packages of earlier builds, and build."""
        for name, where in PACKAGE_FOLDERS.items():
            old = Path(self.build_lib).resolve() / name
            if old != ROOT / where / name:  # as with --build-lib=.
                shutil.rmtree(old, ignore_errors=True)
        super().run()


class PlatformWheel(bdist_wheel):
    """Wheel for every version of Python on a platform, because the libraries do not use Python's C interface."""

    def run(self) -> None:
        """Remove what an interrupted build has left in the folder of the wheel's content, and build."""
        shutil.rmtree(self.bdist_dir, ignore_errors=True)
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag: any Python 3, no ABI, this platform."""
        return "py3", "none", super().get_tag()[2]


def place_libraries(made: Path, target: Path) -> list[Path]:
    """Replace all libraries in `target` by those in `made`, and return the new ones.

    Libraries of earlier builds are removed, with or without CUDA, also if they are links; links are not followed.
    """
    target.mkdir(parents=True, exist_ok=True)
    for old in [path for name in BUILT for path in target.glob(name)]:
        old.unlink()
    placed = []
    for path in sorted(path for name in BUILT for path in made.glob(name)):
        placed.append(Path(shutil.copy2(path, target / path.name)))
    return placed


def missing_tool() -> str:
    """Return the tool that is missing to build the libraries; empty if none is."""
    if shutil.which("cmake") is None:
        return "cmake"
    compilers = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return "" if any(map(shutil.which, compilers)) else f"C++ compiler ({', '.join(compilers)})"


setup(
    packages=[p for name, where in PACKAGE_FOLDERS.items() for p in find_packages(where, include=[name, f"{name}.*"])],
    package_dir={name: name if where == "." else f"{where}/{name}" for name, where in PACKAGE_FOLDERS.items()},
    # declares that there is something to build; the sources are listed for CMake only
    ext_modules=[Extension("visdeploy_plugins.libraries", sources=[])],
    # libraries that lie in the source tree are those of an editable installation, never part of a wheel
    exclude_package_data={"": ["*.so"]},
    cmdclass={"build": FreshBuild, "build_ext": BuildPlugins, "bdist_wheel": PlatformWheel},
)
