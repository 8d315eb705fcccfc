"""Choice of the library of custom operators for a session: only one with kernels for the session's device."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from visdeploy.manifest import Manifest

logger = logging.getLogger(__name__)


def operator_library(manifest: Manifest, *, cuda_device: int | None) -> Path | None:
    """Return the library to register for a graph; None if its function bodies of standard operators are to run.

    ONNX Runtime prefers a registered kernel to a function body. On CUDA, with a library without kernels for that
    device, all custom nodes would run on the CPU, with copies of their tensors. This is slower than the bodies on the
    GPU.

    Args:
        manifest: Manifest of the bundle.
        cuda_device: Number of the CUDA device of the session; None for the CPU.
    """
    if not manifest.custom_ops:
        return None
    names = ", ".join(sorted(op.name for op in manifest.custom_ops))
    try:
        plugins = importlib.import_module("visdeploy_plugins")
        library: Path | None = plugins.onnxruntime_library()
    except (ImportError, AttributeError):
        logger.info("custom operators %s run as standard operators: the plugins are not installed", names)
        return None
    if library is None:
        logger.info("custom operators %s run as standard operators: the plugins are not built here", names)
        return None
    if cuda_device is not None and (reason := plugins.why_no_cuda_kernels(cuda_device)):
        logger.warning(
            "custom operators %s run as standard operators on cuda:%d: our CUDA kernels cannot run on it: %s",
            names,
            cuda_device,
            reason,
        )
        return None
    return library
