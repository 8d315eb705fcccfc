"""Which library of custom operators a session registers, if any: only one whose kernels run where the session does."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from visdeploy.manifest import Manifest

logger = logging.getLogger(__name__)


def operator_library(manifest: Manifest, *, cuda_device: int | None) -> Path | None:
    """The library to register for a graph, or None where its function bodies of standard operators run.

    ONNX Runtime takes a registered kernel before a function body. On CUDA a library without kernels for that device
    would take every node of ours to the CPU and its tensors with it, which is slower than the bodies on the GPU.

    Args:
        manifest: Of the bundle.
        cuda_device: Number of the CUDA device that the session runs on; None for the CPU.
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
            "custom operators %s run as standard operators on cuda:%d: our CUDA kernels do not run there: %s",
            names,
            cuda_device,
            reason,
        )
        return None
    return library
