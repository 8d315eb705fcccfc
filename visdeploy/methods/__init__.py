"""Decoders of the methods: raw outputs of a graph to instances with track ids."""

from visdeploy.methods.base import Decoder, OnlineDecoder, Parameters, TrackSummary, take_output
from visdeploy.methods.clip import ClipDecoder, ClipInstance
from visdeploy.methods.registry import DECODERS, create_decoder, decoder_class

__all__ = [
    "DECODERS",
    "ClipDecoder",
    "ClipInstance",
    "Decoder",
    "OnlineDecoder",
    "Parameters",
    "TrackSummary",
    "create_decoder",
    "decoder_class",
    "take_output",
]
