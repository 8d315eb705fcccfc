"""Colours of tracks, determined by the track id alone."""

from __future__ import annotations

import math
from functools import lru_cache

from visdeploy.arguments import check_integer

Color = tuple[int, int, int]

_GOLDEN = (math.sqrt(5) - 1) / 2
# Consecutive ids, and ids that differ by a Fibonacci number and therefore have similar hues, differ in lightness as
# well, so that they can be distinguished on screen and with colour vision deficiency.
_LIGHTNESS = (0.78, 0.60, 0.72, 0.84, 0.90, 0.66)
_CHROMA = 0.17


def track_color(track_id: int) -> Color:
    """Return the RGB colour of a track: an Oklch hue that advances by the golden ratio, with one of six lightnesses."""
    return _color(check_integer(track_id, "track id", minimum=-(2**53)))


@lru_cache(maxsize=4096)
def _color(track_id: int) -> Color:
    hue = 2 * math.pi * ((0.7 + track_id * _GOLDEN) % 1.0)
    lightness, chroma = _LIGHTNESS[track_id % len(_LIGHTNESS)], _CHROMA
    while chroma > 0.01:  # the highest chroma inside the sRGB gamut
        linear = _oklab_to_linear(lightness, chroma * math.cos(hue), chroma * math.sin(hue))
        if all(-1e-4 <= value <= 1.0001 for value in linear):
            break
        chroma *= 0.95
    red, green, blue = (_encode(value) for value in linear)
    return red, green, blue


def text_color(background: Color) -> Color:
    """Return black or white, whichever has the higher contrast to the background (WCAG relative luminance)."""
    linear = [_decode(value) for value in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def _oklab_to_linear(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    """Convert Oklab to linear sRGB (Ottosson 2020)."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def _encode(linear: float) -> int:
    linear = min(1.0, max(0.0, linear))
    return round(255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055))


def _decode(value: int) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
