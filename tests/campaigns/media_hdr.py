"""HDR videos, with the SDR images that BT.2100, BT.2390 and BT.2087 give."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.campaigns.media_files import Case, video

PATCHES = np.array([[0, 0, 0], [5, 5, 5], [50, 50, 50], [100, 100, 100], [203, 203, 203], [400, 400, 400],
                    [1000, 1000, 1000], [150, 60, 60], [60, 150, 60], [60, 60, 150], [80, 40, 20], [500, 300, 300]],
                   float)  # fmt: skip
"""Light of the patches in cd/m2, BT.2020."""


def pq(light: np.ndarray) -> np.ndarray:
    """Encode light as PQ."""
    y = (light / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def light_of(code: np.ndarray) -> np.ndarray:
    """Decode PQ by a search, independent of the formula of the inverse."""
    grid = np.concatenate(([0.0], np.geomspace(1e-4, 10000, 200_000)))
    return np.interp(code, pq(grid), grid)


def hlg(light: np.ndarray) -> np.ndarray:
    """Encode light of a display of 1000 cd/m2 as HLG."""
    luminance = light @ [0.2627, 0.6780, 0.0593] / 1000
    scene = light / 1000 * np.maximum(luminance, 1e-9)[..., None] ** (1 / 1.2 - 1)
    low = np.sqrt(3 * scene)
    return np.where(scene <= 1 / 12, low, 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073)


def sdr(light: np.ndarray) -> np.ndarray:
    """Return 8-bit SDR of light in cd/m2."""
    source = pq(np.array(1000.0))
    top, strongest = pq(np.array(203.0)) / source, light.max(axis=-1)
    e = pq(strongest) / source
    knee = 1.5 * top - 0.5
    t = np.clip((e - knee) / (1 - knee), 0, 1)
    curve = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * top
    mapped = light_of(np.where(e < knee, e, curve) * source)
    scaled = light * (mapped / np.maximum(strongest, 1e-9))[..., None] / 203
    linear = scaled @ np.array([[1.6605, -0.1246, -0.0182], [-0.5876, 1.1329, -0.1006], [-0.0728, -0.0083, 1.1187]])
    return np.round(255 * np.clip(linear, 0, 1) ** (1 / 2.4))


def _patches(values: np.ndarray) -> np.ndarray:
    return np.kron(values.reshape(3, 4, 3), np.ones((16, 16, 1), values.dtype))


def hdr(name: str, transfer: int, encode) -> Case:
    """Return the case of an HDR video of patches."""
    coded = _patches(np.round(encode(PATCHES) * 65535).astype(np.uint16))
    make = partial(video, pixels="yuv444p10le", transfer=transfer, images=[coded] * 4,
                   options={"crf": "1"})  # fmt: skip
    return Case(name, "HDR, tone-mapped", make, images=[_patches(sdr(PATCHES))] * 4, loose=2.0)


HDR_CASES = [hdr("pq.mp4", 16, pq), hdr("hlg.mp4", 18, hlg), hdr("pq.mkv", 16, pq)]
