"""Tone mapping of HDR video to SDR: BT.2100 (PQ and HLG) to BT.709.

1. PQ is decoded to light on the display (SMPTE ST 2084); HLG likewise, for a display of 1000 cd/m2 (BT.2100, table 5).
2. Graphics white of HDR, 203 cd/m2 (BT.2408), becomes the white of SDR. What is brighter is compressed by the curve of
   BT.2390, section 5.4.1, for content up to 1000 cd/m2, applied to the largest of the three channels so that hues stay.
   Below 87 cd/m2 nothing changes.
3. Colours are converted from BT.2020 to BT.709 (BT.2087); those outside of BT.709 are clipped.
4. The result is encoded for a display of BT.1886 (gamma 2.4).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.video.source import Image

TRANSFERS = {16: "PQ", 18: "HLG"}
"""Names of the HDR transfer functions, by FFmpeg's number (ISO/IEC 23091-2)."""

Floats = npt.NDArray[np.floating[Any]]

_PEAK, _WHITE = 1000.0, 203.0  # cd/m2
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # BT.2020
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
_BITS = 12


def tone_map(pixels: npt.NDArray[np.uint16], transfer: str, *, wide: bool = True) -> Image:
    """Return the SDR image of HDR pixels.

    Args:
        pixels: Encoded RGB of 16 bits, `(height, width, 3)`.
        transfer: `PQ` or `HLG`.
        wide: The primaries are those of BT.2020; otherwise those of BT.709.

    Returns:
        RGB, uint8.
    """
    import cv2

    light = _decoded(transfer)[pixels >> 16 - _BITS]
    if transfer == "HLG":  # the system gamma of a display of 1000 cd/m2 is 1.2
        light *= (light @ _LUMINANCE)[..., None] ** 0.2
    gain = _gain()[np.minimum(light.max(axis=2) * ((1 << _BITS) - 1), (1 << _BITS) - 1).astype(np.uint16)]
    light *= gain[..., None]
    light = cv2.transform(light, _TO_BT709) if wide else light
    light = np.clip(light, 0, 1, out=light)
    encoded: Image = _encoded()[(light * ((1 << 16) - 1) + 0.5).astype(np.uint16)]
    return encoded


@cache
def _decoded(transfer: str) -> npt.NDArray[np.float32]:
    """Return the light of every code: of the display for PQ, of the scene for HLG, each as a part of the peak."""
    codes = np.linspace(0, 1, 1 << _BITS)
    light: Floats = pq_decode(codes) / _PEAK if transfer == "PQ" else hlg_decode(codes)
    return light.clip(0, 1).astype(np.float32)


@cache
def _gain() -> npt.NDArray[np.float32]:
    """Return the factor from light as a part of the peak to SDR light as a part of its white."""
    light = np.linspace(0, 1, 1 << _BITS) * _PEAK
    light[0] = 1e-3
    gain: Floats = compress(light) / _WHITE / (light / _PEAK)
    return gain.astype(np.float32)


@cache
def _encoded() -> Image:
    return (255 * np.linspace(0, 1, 1 << 16) ** (1 / 2.4)).round().astype(np.uint8)


def pq_decode(code: Floats) -> Floats:
    """Return the light in cd/m2 of PQ codes in 0..1 (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = code ** (1 / m2)
    light: Floats = 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    return light


def pq_encode(light: Floats) -> Floats:
    """Return the PQ codes of light in cd/m2."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = (light / 10000) ** m1
    code: Floats = ((c1 + c2 * power) / (1 + c3 * power)) ** m2
    return code


def hlg_decode(code: Floats) -> Floats:
    """Return the light of the scene in 0..1 of HLG codes in 0..1 (ARIB STD-B67)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)


def compress(light: Floats) -> Floats:
    """Return light of up to 1000 cd/m2, compressed to 203 cd/m2 by the spline of BT.2390, section 5.4.1."""
    peak = pq_encode(np.array(_PEAK))
    code, most = pq_encode(light) / peak, pq_encode(np.array(_WHITE)) / peak
    knee = 1.5 * most - 0.5
    t = (code - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return pq_decode(np.where(code < knee, code, spline) * peak)
