"""The installed ONNX Runtime: imported in this one place, and what to install where it is missing or the wrong one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType

from visdeploy.errors import DependencyError
from visdeploy.optional import require

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
BUILDS = ("onnxruntime", "onnxruntime-gpu")
"""The distributions that install the module `onnxruntime`, each over the other's files."""
INSTALL = "Install one build of it: pip install 'visdeploy[cpu]', or pip install 'visdeploy[gpu]' for NVIDIA GPUs."
INSTALL_GPU = (
    "Install the GPU build alone: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'visdeploy[gpu]'. "
    "Both builds write the same files, so the one installed last wins."
)


@dataclass(frozen=True)
class Obstacle:
    """Why there is no CUDA provider.

    Attributes:
        reason: What was found.
        hint: What to install.
        level: Level of the log message where the CPU is taken instead.
    """

    reason: str
    hint: str
    level: int


def load_onnxruntime() -> ModuleType:
    """Import ONNX Runtime.

    Raises:
        DependencyError: No build of it is installed, or what is installed does not load.
    """
    try:
        module = require("onnxruntime", extra="cpu", purpose="running a bundle", hint=INSTALL)
    except ImportError as error:  # a library that it needs, or a damaged installation
        raise DependencyError("onnxruntime does not load", seen=str(error).split("\n")[0], hint=INSTALL) from error
    if not hasattr(module, "InferenceSession"):
        # an empty folder: uninstalling one of two builds takes the files of the other along
        raise DependencyError("onnxruntime is installed in part", seen=f"no InferenceSession in {module}", hint=INSTALL)
    return module


def installed_builds() -> list[str]:
    """Those of `BUILDS` that are installed."""
    return [name for name in BUILDS if _is_installed(name)]


def why_no_cuda(module: ModuleType) -> Obstacle | None:
    """Why ONNX Runtime has no CUDA provider, or None where it has one. Whether it starts is another question."""
    if CUDA in module.get_available_providers():
        return None
    builds = installed_builds()
    if "onnxruntime-gpu" in builds:
        # with the GPU build the fall to the CPU is worth a warning; without it nobody expects a GPU
        seen = f"{' and '.join(builds)} are installed, but the CUDA provider is missing"
        return Obstacle(seen, INSTALL_GPU, logging.WARNING)
    return Obstacle("the installed onnxruntime is the CPU build", INSTALL_GPU, logging.INFO)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
