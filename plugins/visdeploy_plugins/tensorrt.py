"""Our plugins in TensorRT 10, TensorRT 11 and TensorRT for RTX.

    load(tensorrt.get_plugin_registry())
    parser = tensorrt.OnnxParser(network, logger)
    parser.set_flag(tensorrt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)

Without the flag the parser expands the function bodies of our nodes. Importing this module imports no TensorRT.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

from visdeploy_plugins import native
from visdeploy_plugins.errors import OpError

PLUGINS = ("DeformConv", "MaskedConv", "MSDeformAttn", "MSDeformAttnFused", "MultiLevelRoiAlign")
"""The plugins' names: those of the ONNX ops that the parser replaces with them."""

PLUGIN_VERSION = "1"
RTX_LIBRARY = "libtensorrt_rtx.so"
RTX_ALIAS = "libvisdeploy_tensorrt_rtx_alias.so"


def load(registry: Any) -> None:
    """Adds our plugins to a plugin registry; calling it again with the same registry does nothing.

    Messages of the plugins go to the logger of the registry's TensorRT, or to the standard error stream where it has
    none yet.

    Args:
        registry: `get_plugin_registry()` of `tensorrt`, `tensorrt_rtx`, `tensorrt_lean` or a dispatch runtime, or the
            registry of a runtime or builder.

    Raises:
        OpError: The library was not built, does not load, or this TensorRT does not take its plugins.
    """
    if type(registry).__module__.startswith("tensorrt_rtx"):
        ensure_tensorrt_rtx_loadable()
    if not _missing(registry):
        return
    path = native.library_path(native.TENSORRT)
    if path is None:
        raise OpError(f"TensorRT plugins: {native.TENSORRT} was not built: install from source where nvcc is found")
    registry.load_library(str(path))
    if missing := _missing(registry):
        raise OpError(
            f"TensorRT plugins: {path} did not register its plugins; TensorRT's log says why",
            seen=f"no {', '.join(missing)} of version {PLUGIN_VERSION}",
            expected=", ".join(PLUGINS),
        )


def ensure_tensorrt_rtx_loadable() -> None:
    """Lets the ONNX parser of TensorRT for RTX find its own library by the name it asks for.

    At the first plugin it opens `libtensorrt_rtx.so`, and ends the process when there is none; its Python package
    holds `libtensorrt_rtx.so.1` alone. This loads a small library of that name which depends on the real one. It may
    be called before or after `import tensorrt_rtx`, any number of times; `load` calls it.

    Raises:
        OpError: TensorRT for RTX is not installed, or the small library was not built.
    """
    if _opens(RTX_LIBRARY):
        return
    # The real library first: the small one then finds it in the process, wherever its file is.
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    real = Path(spec.origin).with_name(f"{RTX_LIBRARY}.1") if spec and spec.origin else None
    if not _opens(str(real or f"{RTX_LIBRARY}.1")):
        raise OpError(
            "TensorRT for RTX: its library does not load",
            seen=str(real or "no package tensorrt_rtx_libs"),
            expected="an installed tensorrt-rtx-cu13",
        )
    alias = native.library_path(RTX_ALIAS)
    if alias is None or not _opens(str(alias)) or not _opens(RTX_LIBRARY):
        raise OpError(
            f"TensorRT for RTX: {RTX_LIBRARY} cannot be opened, and its ONNX parser would end the process",
            seen=f"{RTX_ALIAS} {'does not load' if alias else 'was not built'}",
            expected=f"a reinstalled visdeploy, or a link {RTX_LIBRARY} beside {real}",
        )


def _missing(registry: Any) -> list[str]:
    known = {(each.name, each.plugin_version, each.plugin_namespace) for each in registry.all_creators}
    return [name for name in PLUGINS if (name, PLUGIN_VERSION, "") not in known]


def _opens(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
