"""Registry of the decoders: those of this package, and those of other packages by entry points."""

from __future__ import annotations

from visdeploy import entry_points
from visdeploy.errors import BundleError
from visdeploy.manifest import ModelSpec
from visdeploy.methods.base import Decoder
from visdeploy.methods.defvis import DefVISDecoder
from visdeploy.methods.tevit import TeViTDecoder
from visdeploy.methods.tpr import TPRDecoder
from visdeploy.methods.vishv import VIShvDecoder
from visdeploy.methods.visolo import VisoloDecoder
from visdeploy.profiling import OFF, Profiler

DECODERS: dict[str, type[Decoder]] = {
    "defvis": DefVISDecoder,
    "tevit": TeViTDecoder,
    "tpr": TPRDecoder,
    "vishv": VIShvDecoder,
    "visolo": VisoloDecoder,
}


def decoder_class(method: str) -> type[Decoder]:
    """Return the decoder class of a method.

    Raises:
        BundleError: No installed package provides the method.
        DependencyError: Another package provides it, but it cannot be loaded or is not a decoder.
    """
    found: type[Decoder] | None = DECODERS.get(method) or entry_points.load(
        entry_points.METHODS,
        method,
        fits=lambda each: isinstance(each, type) and issubclass(each, Decoder),
        expected="a subclass of visdeploy.methods.Decoder",
    )
    if found is None:
        raise BundleError(
            "manifest.json: field 'method': no installed package has the method",
            seen=repr(method),
            expected=f"one of {sorted({*DECODERS, *entry_points.names(entry_points.METHODS)})}",
            hint="Install a newer visdeploy, or the package that brings the method.",
        )
    return found


def create_decoder(spec: ModelSpec, *, keep_tracks: bool = False, profiler: Profiler = OFF) -> Decoder:
    """Return the decoder of one stream.

    Args:
        spec: Method, classes, window, and the parameters of decoder and tracker.
        keep_tracks: See `Decoder`.
        profiler: See `Decoder`.

    Raises:
        BundleError: The method is unknown, or a parameter is unknown or invalid.
        DependencyError: The package of the method cannot be loaded.
    """
    return decoder_class(spec.method).of(spec, keep_tracks=keep_tracks, profiler=profiler)
