"""Starting an ONNX Runtime session: device, options, custom operators, and what is said about each choice."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from visdeploy.backends.base import parse_device
from visdeploy.errors import BundleError, ConfigError, DependencyError, EngineError
from visdeploy.manifest import Manifest

logger = logging.getLogger(__name__)

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_INSTALL_GPU = (
    "Install the GPU build alone: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'visdeploy[gpu]'. "
    "Both builds write the same files, so the one installed last wins."
)


def start_session(
    model: Path, manifest: Manifest, *, device: str, threads: int | None, spinning: bool
) -> tuple[Any, str]:
    """Load a graph.

    Returns:
        The `onnxruntime.InferenceSession`, and the device it runs on: `cpu` or `cuda:N`.

    Raises:
        BundleError: The file is no graph that the engine can load.
        ConfigError: `device` or `threads` has no possible value.
        DependencyError: CUDA was asked for, and this installation has none.
        EngineError: CUDA was asked for, and does not start.
    """
    kind, number = parse_device(device)
    if threads is not None and (isinstance(threads, bool) or threads < 1):
        raise ConfigError("wrong number of threads", seen=str(threads), expected="1 or more, or None")
    if kind != "cpu" and (reason := _why_no_cuda()):
        if kind == "cuda":
            raise DependencyError(f"device {device!r} is not available", seen=reason[0], hint=reason[1])
        # without a GPU build nobody expects a GPU; with one, the fall to the CPU is worth a warning
        logger.log(reason[2], "device 'auto': running on the CPU: %s. %s", *reason[:2])
        kind = "cpu"
    options = _options(manifest, threads, spinning)
    if kind == "cpu":
        return _load(model, options, [CPU]), "cpu"
    session, said = _load_on_cuda(model, options, number)
    if CUDA not in session.get_providers():
        seen = "; ".join(["the CUDA provider did not start", *(line.split(": ")[0].rstrip(".") for line in said)])
        hint = "Check the NVIDIA driver, and that CUDA and cuDNN are there: pip install 'visdeploy[gpu]'."
        if kind == "cuda":
            raise EngineError(f"device {device!r} cannot be used", seen=seen, hint=hint)
        logger.warning("device 'auto': running on the CPU: %s. %s", seen, hint)
        return session, "cpu"
    _report_placement(session)
    logger.info("running on cuda:%d", number)
    return session, f"cuda:{number}"


def _why_no_cuda() -> tuple[str, str, int] | None:
    """Why this installation has no CUDA provider (reason, hint, log level), or None when it has one."""
    import onnxruntime

    if CUDA in onnxruntime.get_available_providers():
        return None
    installed = {name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)}
    if "onnxruntime-gpu" in installed:
        seen = f"{' and '.join(sorted(installed))} are installed, but the CUDA provider is missing"
        return seen, _INSTALL_GPU, logging.WARNING
    return "the installed onnxruntime is the CPU build", _INSTALL_GPU, logging.INFO


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _options(manifest: Manifest, threads: int | None, spinning: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; what matters of the rest is reported in our own words
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # plans and pooled buffers are kept per shape; with sizes that depend on the data they would pile up
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    _register_custom_ops(options, manifest)
    return options


def _register_custom_ops(options: Any, manifest: Manifest) -> None:
    """Register the kernels of the plugins package if the graph has custom operators; their bodies run otherwise."""
    if not manifest.custom_ops:
        return
    names = ", ".join(sorted(op.name for op in manifest.custom_ops))
    try:
        offer = importlib.import_module("visdeploy_plugins").onnxruntime_library
    except (ImportError, AttributeError):
        logger.info("custom operators %s run as standard operators: the plugins are not installed", names)
        return
    library = offer()
    if library is None:
        logger.info("custom operators %s run as standard operators: the plugins are not built here", names)
        return
    try:
        options.register_custom_ops_library(str(library))
    except Exception as error:  # pybind's exception classes differ from version to version
        raise EngineError(
            "the library of custom operators does not load", seen=f"{library}: {error}", hint="Build the plugins anew."
        ) from error


def _load_on_cuda(model: Path, options: Any, number: int) -> tuple[Any, list[str]]:
    """A session that may have fallen back to the CPU, and the lines in which ONNX Runtime said why."""
    import onnxruntime

    cuda = {"device_id": str(number), "arena_extend_strategy": "kSameAsRequested"}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints what it misses
        onnxruntime.preload_dlls()
        session = _load(model, options, [(CUDA, cuda), CPU])
    lines = [line.strip() for line in said.getvalue().splitlines() if line.strip(" *")]
    for line in lines:
        logger.info("onnxruntime: %s", line)
    return session, lines


def _load(model: Path, options: Any, providers: Sequence[Any]) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(model), options, providers=list(providers))
    except Exception as error:  # pybind's exception classes differ from version to version
        raise BundleError(
            f"{model} cannot be loaded by ONNX Runtime {onnxruntime.__version__}",
            seen=str(error)[:300],
            hint="Export the bundle again, or install a newer onnxruntime.",
        ) from error


def _report_placement(session: Any) -> None:
    """Say which nodes of a CUDA session run on the CPU. Older versions of ONNX Runtime cannot tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        logger.warning("this version of ONNX Runtime does not say which nodes fall to the CPU")
        return
    fallen: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        if part.ep_name != CUDA:
            fallen.update(node.op_type for node in part.get_nodes())
    if fallen:
        listed = ", ".join(f"{count}x {name}" for name, count in fallen.most_common())
        logger.warning("%d nodes run on the CPU instead of the GPU: %s", sum(fallen.values()), listed)
