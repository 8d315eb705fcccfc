"""The methods' decoders: raw outputs of a graph → instances with an identity. One line per method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from visdeploy.errors import BundleError
from visdeploy.methods.base import Decoder, TrackSummary
from visdeploy.profiling import OFF, Profiler

__all__ = ["DECODERS", "Decoder", "TrackSummary", "create_decoder"]

DECODERS = {
    "defvis": "visdeploy.methods.defvis:DefVISDecoder",
    "tevit": "visdeploy.methods.tevit:TeViTDecoder",
    "visolo": "visdeploy.methods.visolo:VisoloDecoder",
}


def create_decoder(
    method: str,
    *,
    classes: Sequence[str],
    decode: Mapping[str, Any],
    tracking: Mapping[str, Any],
    keep_tracks: bool = False,
    profiler: Profiler = OFF,
) -> Decoder:
    """The decoder of one stream.

    Args:
        method: Method name of the manifest.
        classes: Class names of the manifest.
        decode: The manifest's `decode` field.
        tracking: The manifest's `tracking` field.
        keep_tracks: See `Decoder`.
        profiler: See `Decoder`.

    Raises:
        BundleError: The method is unknown, or a parameter is unknown or wrong.
    """
    if method not in DECODERS:
        raise BundleError(
            "manifest.json: field 'method': this version does not know the method",
            seen=repr(method),
            expected=f"one of {sorted(DECODERS)}",
            hint="Install a newer visdeploy.",
        )
    module, name = DECODERS[method].split(":")
    decoder: Decoder = getattr(import_module(module), name)(
        classes, decode=decode, tracking=tracking, keep_tracks=keep_tracks, profiler=profiler
    )
    return decoder
