"""Engines that run the graph of a bundle, behind a common interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visdeploy.backends.base import Backend, State

if TYPE_CHECKING:
    from visdeploy.bundle import Bundle

__all__ = ["Backend", "State", "open_backend"]


def open_backend(
    bundle: Bundle, device: str = "auto", threads: int | None = None, *, spinning: bool = False, tf32: bool = False
) -> Backend:
    """Load the graph of a bundle into an engine.

    Args:
        bundle: The opened bundle.
        device: `auto` selects CUDA if it can be started and otherwise the CPU, and logs the choice; `cpu`, `cuda` and
            `cuda:N` select exactly that device.
        threads: Number of threads for the part of the graph that runs on the CPU; None leaves it to the engine.
        spinning: Let idle threads spin instead of sleeping. This is slightly faster, but occupies the cores, so use it
            only on a machine that runs nothing else.
        tf32: Allow TF32 on CUDA: faster float32 products and convolutions, with inputs rounded to 10 bits. The
            tolerance of the precision `tf32` then applies to `verify`.

    Raises:
        BundleError: The graph does not load, or contradicts the manifest.
        ConfigError: `device` or `threads` has an invalid value.
        DependencyError: The device requires a package or a driver that is not installed.
        EngineError: The engine cannot start on the device.
    """
    from visdeploy.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, device=device, threads=threads, spinning=spinning, tf32=tf32)
