"""Starting an ONNX Runtime session: device, options, and what is said about each choice."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from visdeploy.backends.base import parse_device
from visdeploy.backends.onnxruntime.installation import CPU, CUDA, load_onnxruntime, why_no_cuda
from visdeploy.backends.onnxruntime.operators import operator_library
from visdeploy.backends.onnxruntime.placement import report_placement
from visdeploy.errors import BundleError, ConfigError, DependencyError, EngineError
from visdeploy.manifest import Manifest

logger = logging.getLogger(__name__)

_CHECK_DRIVER = "Check the NVIDIA driver, and that CUDA and cuDNN are there: pip install 'visdeploy[gpu]'."


def start_session(
    model: Path, manifest: Manifest, *, device: str, threads: int | None, spinning: bool, tf32: bool = False
) -> tuple[Any, str]:
    """Load a graph.

    Args:
        model: The ONNX file.
        manifest: Of its bundle.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: Threads for the CPU's part of the graph; None leaves the choice to the engine.
        spinning: Let idle threads spin instead of sleep.
        tf32: Let CUDA round the inputs of float32 products and convolutions to 10 bits of mantissa on GPUs from compute
            capability 8.0 on. Off, a convolution for which cuDNN has no other plan is still computed so.

    Returns:
        The `onnxruntime.InferenceSession`, and the device it runs on: `cpu` or `cuda:N`.

    Raises:
        BundleError: The file is no graph that the engine can load.
        ConfigError: `device` or `threads` has no possible value, or TF32 was asked of the CPU.
        DependencyError: ONNX Runtime is not installed, or CUDA was asked for and this installation has none.
        EngineError: CUDA was asked for, and does not start, or not with the precision asked for.
    """
    kind, number = parse_device(device)
    if threads is not None and (isinstance(threads, bool) or threads < 1):
        raise ConfigError("wrong number of threads", seen=str(threads), expected="1 or more, or None")
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


def running_precision(session: Any, precision: str) -> str:
    """The precision that a session computes in, read back from it.

    Args:
        session: The `onnxruntime.InferenceSession`.
        precision: That of the bundle's manifest.

    Returns:
        `tf32` where a float32 graph runs on CUDA with TF32, otherwise `precision`.
    """
    return "tf32" if precision == "fp32" and _uses_tf32(session) else precision


def cuda_options(manifest: Manifest, number: int, tf32: bool) -> dict[str, str]:
    """Options of the CUDA provider for a graph.

    `cudnn_conv_use_max_workspace` stays as it is, at 1: with cuDNN 9 a convolution takes the workspace that its plan
    names, and with older ones a limit of 32 MB would leave out the fastest algorithms.
    """
    sizes = [size for tensor in (*manifest.inputs, *manifest.outputs) for size in tensor.shape]
    sizes += [size for state in manifest.state for size in state.shape]
    free = not all(isinstance(size, int) for size in sizes)
    return {
        "device_id": str(number),
        "arena_extend_strategy": "kSameAsRequested",
        # 1 by default, which on GPUs from compute capability 8.0 on breaks the tolerance of float32
        "use_tf32": str(int(tf32)),
        # the thorough search is made anew for every new size, and where sizes are free new ones keep coming
        "cudnn_conv_algo_search": "HEURISTIC" if free else "EXHAUSTIVE",
    }


def _offers_cuda(engine: ModuleType, device: str) -> bool:
    """Whether there is a CUDA provider to start.

    Raises:
        DependencyError: There is none, and the device was asked for by name.
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
    options.log_severity_level = 3  # errors only; what matters of the rest is reported in our own words
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # plans and pooled buffers are kept per shape; with sizes that depend on the data they would pile up
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if (library := operator_library(manifest, cuda_device=cuda_device)) is not None:
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:  # pybind's exception classes differ from version to version
            seen, hint = f"{library}: {error}", "Build the plugins anew."
            raise EngineError("the library of custom operators does not load", seen=seen, hint=hint) from error
    return options


def _load_on_cuda(engine: ModuleType, model: Path, options: Any, device: str, cuda: dict[str, str]) -> Any | None:
    """A session on CUDA, or None where it does not start and the device is `auto`.

    Raises:
        EngineError: It does not start, and the device was asked for by name.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints what it misses
        engine.preload_dlls()
        session = _load(engine, model, options, [(CUDA, cuda), CPU])
    session.disable_fallback()  # which would go on with the CPU after an error
    lines = [line.strip() for line in said.getvalue().splitlines() if line.strip(" *")]
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
    """Raise unless a session has the TF32 that was asked for; say what its absence costs a graph of halves."""
    if precision != "fp32" and not tf32:
        logger.warning(
            "ONNX Runtime from 1.20 on runs convolutions of %s without tensor cores while TF32 is off; tf32=True lets "
            "them use these, and float32 parts of the graph round to 10 bits of mantissa",
            precision,
        )
    if (seen := _uses_tf32(session)) != tf32:
        raise EngineError(
            "the CUDA provider did not take the precision asked for",
            seen=f"TF32 {'on' if seen else 'off'}",
            expected=f"TF32 {'on' if tf32 else 'off'}",
            hint="Install a newer onnxruntime-gpu.",
        )


def _uses_tf32(session: Any) -> bool:
    """Whether TF32 is on, as it is where ONNX Runtime has a CUDA session and does not say."""
    options = session.get_provider_options().get(CUDA)
    return options is not None and options.get("use_tf32", "1").lower() in ("1", "true")
