"""Registration of our plugins in TensorRT 10, TensorRT 11 and TensorRT for RTX.

    load(tensorrt.get_plugin_registry())
    parser = tensorrt.OnnxParser(network, logger)
    parser.set_flag(tensorrt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)

Without the flag, the parser expands the function bodies of our nodes. Importing this module does not import TensorRT.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

from visdeploy_plugins import native
from visdeploy_plugins.errors import OpError

PLUGINS = ("DeformConv", "MaskedConv", "MSDeformAttn", "MSDeformAttnFused", "MultiLevelRoiAlign")
"""Names of the plugins, which are those of the ONNX operators that the parser replaces by them."""

PLUGIN_VERSION = "1"
RTX_LIBRARY = "libtensorrt_rtx.so"
RTX_ALIAS = "libvisdeploy_tensorrt_rtx_alias.so"


def load(registry: Any) -> None:
    """Register our plugins in a plugin registry; a second call with the same registry has no effect.

    Messages of the plugins are sent to TensorRT's logger, or to the standard error stream if it has no logger yet.

    Args:
        registry: `get_plugin_registry()` of `tensorrt`, `tensorrt_rtx`, `tensorrt_lean` or a dispatch runtime, or the
            registry of a runtime or builder.

    Raises:
        OpError: The library was not built or cannot be loaded, or this TensorRT does not accept its plugins.
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
            f"TensorRT plugins: {path} did not register its plugins; the log of TensorRT contains the reason",
            seen=f"no {', '.join(missing)} of version {PLUGIN_VERSION}",
            expected=", ".join(PLUGINS),
        )


def ensure_tensorrt_rtx_loadable() -> None:
    """Make sure that the ONNX parser of TensorRT for RTX finds its own library under the name that it opens.

    For the first plugin the parser opens `libtensorrt_rtx.so`, and ends the process if there is no such file; the
    Python package contains only `libtensorrt_rtx.so.1`. This function loads an alias, a small library with the name
    that is opened, which depends on the real one. It may be called before or after `import tensorrt_rtx`, any number of
    times; `load` calls it.

    Raises:
        OpError: TensorRT for RTX is not installed, or the alias was not built.
    """
    if _opens(RTX_LIBRARY):
        return
    # the real library is loaded first, so that the alias finds it in the process, wherever its file is
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    real = Path(spec.origin).with_name(f"{RTX_LIBRARY}.1") if spec and spec.origin else None
    if not _opens(str(real or f"{RTX_LIBRARY}.1")):
        raise OpError(
            "TensorRT for RTX: its library cannot be loaded",
            seen=str(real or "no package tensorrt_rtx_libs"),
            expected="an installed tensorrt-rtx-cu13",
        )
    alias = native.library_path(RTX_ALIAS)
    if alias is None or not _opens(str(alias)) or not _opens(RTX_LIBRARY):
        raise OpError(
            f"TensorRT for RTX: {RTX_LIBRARY} cannot be opened, so that its ONNX parser would end the process",
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
