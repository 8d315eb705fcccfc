"""The engines that run a bundle's graph, behind one small interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visdeploy.backends.base import Backend, State

if TYPE_CHECKING:
    from visdeploy.bundle import Bundle

__all__ = ["Backend", "State", "open_backend"]


def open_backend(
    bundle: Bundle, device: str = "auto", threads: int | None = None, *, spinning: bool = False
) -> Backend:
    """Load the graph of a bundle into an engine.

    Args:
        bundle: The opened bundle.
        device: `auto` takes CUDA where it really starts and the CPU otherwise, and logs which; `cpu`, `cuda`, `cuda:N`
            take just that.
        threads: Threads for the CPU's part of the graph; None leaves the choice to the engine.
        spinning: Let idle threads spin instead of sleep: a little faster on a machine of one's own, wasteful on a
            shared one.

    Raises:
        BundleError: The graph does not load, or contradicts the manifest.
        ConfigError: `device` or `threads` has no possible value.
        DependencyError: The device needs a package or a driver that is not there.
        EngineError: The engine cannot start on the device.
    """
    from visdeploy.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, device=device, threads=threads, spinning=spinning)
