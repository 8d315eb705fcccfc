"""Import of ONNX Runtime, and advice on what to install if it is missing or lacks CUDA."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType

from visdeploy.errors import DependencyError
from visdeploy.optional import require

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
BUILDS = ("onnxruntime", "onnxruntime-gpu")
"""Distributions that install the module `onnxruntime`; each overwrites the files of the other."""
INSTALL = "Install one build of it: pip install 'visdeploy[cpu]', or pip install 'visdeploy[gpu]' for NVIDIA GPUs."
INSTALL_GPU = (
    "Install the GPU build alone: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'visdeploy[gpu]'. "
    "Both builds write the same files, so the one installed last wins."
)


@dataclass(frozen=True)
class Obstacle:
    """Reason why there is no CUDA provider.

    Attributes:
        reason: Description of the installation.
        hint: What to install.
        level: Level of the log message if the CPU is used instead.
    """

    reason: str
    hint: str
    level: int


def load_onnxruntime() -> ModuleType:
    """Import ONNX Runtime.

    Raises:
        DependencyError: ONNX Runtime is not installed, or cannot be imported.
    """
    try:
        module = require("onnxruntime", extra="cpu", purpose="running a bundle", hint=INSTALL)
    except ImportError as error:  # a library that it needs, or a damaged installation
        raise DependencyError("onnxruntime does not load", seen=str(error).split("\n")[0], hint=INSTALL) from error
    if not hasattr(module, "InferenceSession"):
        # an empty folder: uninstalling one of two builds also removes the files of the other
        raise DependencyError("onnxruntime is installed in part", seen=f"no InferenceSession in {module}", hint=INSTALL)
    return module


def installed_builds() -> list[str]:
    """Return the names in `BUILDS` that are installed."""
    return [name for name in BUILDS if _is_installed(name)]


def why_no_cuda(module: ModuleType) -> Obstacle | None:
    """Return the reason why ONNX Runtime has no CUDA provider; None if it has one, even if it may not start."""
    if CUDA in module.get_available_providers():
        return None
    builds = installed_builds()
    if "onnxruntime-gpu" in builds:
        # a user who installed the GPU build expects a GPU, so using the CPU instead is a warning
        seen = f"{' and '.join(builds)} are installed, but the CUDA provider is missing"
        return Obstacle(seen, INSTALL_GPU, logging.WARNING)
    return Obstacle("the installed onnxruntime is the CPU build", INSTALL_GPU, logging.INFO)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
