"""Start of an ONNX Runtime session: device, options, and log messages about each choice."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from visdeploy.arguments import check_integer
from visdeploy.backends.base import parse_device
from visdeploy.backends.onnxruntime.installation import CPU, CUDA, load_onnxruntime, why_no_cuda
from visdeploy.backends.onnxruntime.operators import operator_library
from visdeploy.backends.onnxruntime.placement import report_placement
from visdeploy.errors import BundleError, ConfigError, DependencyError, EngineError
from visdeploy.manifest import Manifest, Precision

logger = logging.getLogger(__name__)

_MOST_THREADS = 1024

_CHECK_DRIVER = "Check the NVIDIA driver, and that CUDA and cuDNN are installed: pip install 'visdeploy[gpu]'."


def start_session(
    model: Path, manifest: Manifest, *, device: str, threads: int | None, spinning: bool, tf32: bool = False
) -> tuple[Any, str]:
    """Load a graph.

    Args:
        model: The ONNX file.
        manifest: Manifest of its bundle.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: Number of threads for the part of the graph that runs on the CPU; None leaves it to the engine.
        spinning: Let idle threads spin instead of sleeping.
        tf32: Allow TF32 on GPUs of compute capability 8.0 and higher: CUDA rounds the inputs of float32 matrix products
            and convolutions to a mantissa of 10 bits. If False, ONNX Runtime still uses TF32 for a convolution that has
            no other plan in cuDNN.

    Returns:
        The `onnxruntime.InferenceSession`, and the device that it runs on: `cpu` or `cuda:N`.

    Raises:
        BundleError: The engine cannot load the file.
        ConfigError: `device` or `threads` has an invalid value, or TF32 was requested on the CPU.
        DependencyError: ONNX Runtime is not installed, or CUDA was requested and this installation has no CUDA support.
        EngineError: CUDA was requested and does not start, or does not accept the requested precision.
    """
    kind, number = parse_device(device)
    if threads is not None:
        threads = check_integer(threads, "wrong number of threads", minimum=1, maximum=_MOST_THREADS)
    if tf32 and kind == "cpu":
        raise ConfigError("TF32 is a precision of CUDA", seen="device 'cpu'", expected="cuda, cuda:N or auto")
    engine = load_onnxruntime()
    if kind != "cpu" and _offers_cuda(engine, device):
        options = _options(engine, manifest, threads, spinning, cuda_device=number)
        if (session := _load_on_cuda(engine, model, options, device, cuda_options(manifest, number, tf32))) is not None:
            _check_precision(session, manifest.precision, tf32)
            report_placement(session, model)
            logger.info("running on cuda:%d, TF32 %s", number, "on" if tf32 else "off")
            return session, f"cuda:{number}"
    if tf32:
        logger.warning("TF32 is a precision of CUDA: the CPU computes in float32")
    return _load(engine, model, _options(engine, manifest, threads, spinning), [CPU]), "cpu"


def running_precision(session: Any, precision: Precision) -> Precision:
    """Return the precision in which a session computes, read back from the session.

    Args:
        session: The `onnxruntime.InferenceSession`.
        precision: Precision of the graph, from the manifest.

    Returns:
        `tf32` if a float32 graph runs on CUDA with TF32, otherwise `precision`.
    """
    return "tf32" if precision == "fp32" and _uses_tf32(session) else precision


def cuda_options(manifest: Manifest, number: int, tf32: bool) -> dict[str, str]:
    """Return the options of the CUDA provider for a graph.

    `cudnn_conv_use_max_workspace` keeps its default, 1: with cuDNN 9 a convolution uses the workspace of its plan in
    any case, and with older versions a limit of 32 MB would exclude the fastest algorithms.
    """
    free = any(dim.minimum < dim.maximum for dim in manifest.dims.values())
    return {
        "device_id": str(number),
        "arena_extend_strategy": "kSameAsRequested",
        # the default is 1, with which GPUs of compute capability 8.0 and higher exceed the tolerance of float32
        "use_tf32": str(int(tf32)),
        # the exhaustive search is repeated for every new size of an input
        "cudnn_conv_algo_search": "HEURISTIC" if free else "EXHAUSTIVE",
    }


def _offers_cuda(engine: ModuleType, device: str) -> bool:
    """Return whether this installation has a CUDA provider.

    Raises:
        DependencyError: It has none, and CUDA was requested by name.
    """
    if (obstacle := why_no_cuda(engine)) is None:
        return True
    if device != "auto":
        raise DependencyError(f"device {device!r} is not available", seen=obstacle.reason, hint=obstacle.hint)
    logger.log(obstacle.level, "device 'auto': running on the CPU: %s. %s", obstacle.reason, obstacle.hint)
    return False


def _options(
    engine: ModuleType, manifest: Manifest, threads: int | None, spinning: bool, *, cuda_device: int | None = None
) -> Any:
    options = engine.SessionOptions()
    options.log_severity_level = 3  # errors only; this module reports what else is relevant
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # memory plans are kept for every shape; with sizes that depend on the data their number would grow without a limit
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if (library := operator_library(manifest, cuda_device=cuda_device)) is not None:
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:  # pybind's exception classes differ from version to version
            seen, hint = f"{library}: {error}", "Build the plugins again."
            raise EngineError("the library of custom operators cannot be loaded", seen=seen, hint=hint) from error
    return options


def _load_on_cuda(engine: ModuleType, model: Path, options: Any, device: str, cuda: dict[str, str]) -> Any | None:
    """Return a session on CUDA, or None if CUDA does not start and the device is `auto`.

    Raises:
        EngineError: CUDA does not start, and was requested by name.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):  # ONNX Runtime prints the names of missing libraries
        engine.preload_dlls()
        session = _load(engine, model, options, [(CUDA, cuda), CPU])
    session.disable_fallback()  # otherwise ONNX Runtime continues on the CPU after an error
    lines = [line.strip() for line in printed.getvalue().splitlines() if line.strip(" *")]
    for line in lines:
        logger.info("onnxruntime: %s", line)
    if CUDA in session.get_providers():
        return session
    seen = "; ".join(["the CUDA provider did not start", *(line.split(": ")[0].rstrip(".") for line in lines)])
    if device != "auto":
        raise EngineError(f"device {device!r} cannot be used", seen=seen, hint=_CHECK_DRIVER)
    logger.warning("device 'auto': running on the CPU: %s. %s", seen, _CHECK_DRIVER)
    return None


def _load(engine: ModuleType, model: Path, options: Any, providers: Sequence[Any]) -> Any:
    try:
        return engine.InferenceSession(str(model), options, providers=list(providers))
    except Exception as error:  # pybind's exception classes differ from version to version
        raise BundleError(
            f"{model} cannot be loaded by ONNX Runtime {engine.__version__}",
            seen=str(error)[:300],
            hint="Export the bundle again, or install a newer onnxruntime.",
        ) from error


def _check_precision(session: Any, precision: str, tf32: bool) -> None:
    """Raise an error if a session does not use the requested precision; warn of slow half-precision convolutions."""
    if precision in ("fp16", "bf16") and not tf32:
        logger.warning(
            "ONNX Runtime 1.20 and later runs %s convolutions without tensor cores while TF32 is off; tf32=True allows "
            "tensor cores, and reduces the precision of the float32 parts of the graph",
            precision,
        )
    if (seen := _uses_tf32(session)) != tf32:
        raise EngineError(
            "the CUDA provider does not use the requested precision",
            seen=f"TF32 {'on' if seen else 'off'}",
            expected=f"TF32 {'on' if tf32 else 'off'}",
            hint="Install a newer onnxruntime-gpu.",
        )


def _uses_tf32(session: Any) -> bool:
    """Return whether a session uses TF32, which is the default of a CUDA session."""
    options = session.get_provider_options().get(CUDA)
    return options is not None and options.get("use_tf32", "1").lower() in ("1", "true")
