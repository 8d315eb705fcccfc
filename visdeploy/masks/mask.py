"""Run-length encoded binary masks, the only representation of masks in results.

The encoding is that of COCO (column-major runs, compressed ASCII counts), computed by pycocotools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.arguments import as_tuple, check_integer
from visdeploy.brief import brief, shorten
from visdeploy.errors import DataError

BoolArray = npt.NDArray[np.bool_]
_MAX_BITS = 40
"""Largest number in compressed counts, far above any number of pixels."""


@dataclass(frozen=True)
class Mask:
    """Run-length encoded binary mask. `numpy.asarray(mask)` gives the dense one.

    Attributes:
        height: Rows of the mask, in pixels.
        width: Columns of the mask, in pixels.
        counts: COCO compressed run lengths (column-major), ASCII. `from_coco` checks them, the constructor does not.
    """

    height: int
    width: int
    counts: bytes

    def __post_init__(self) -> None:
        for side in ("height", "width"):
            if type(getattr(self, side)) is not int:
                value = check_integer(getattr(self, side), f"{side} of a mask", error=DataError)
                object.__setattr__(self, side, value)
        if not isinstance(self.counts, bytes) or not self.counts.isascii() or min(self.height, self.width) < 0:
            raise DataError(
                "malformed run-length mask",
                seen=f"{self.height}x{self.width}, counts {shorten(self.counts)}",
                expected="a size in pixels, and counts as ASCII bytes",
                hint="Mask.encode reads arrays, Mask.from_coco COCO encodings.",
            )

    def __repr__(self) -> str:
        return brief(self, height=self.height, width=self.width, bytes=len(self.counts))

    @classmethod
    def encode(cls, array: npt.ArrayLike) -> Mask:
        """Encode a `(height, width)` array of numbers or truth values; non-zero elements are inside the mask.

        Raises:
            DataError: It is no such array.
        """
        from pycocotools import mask as coco

        dense = _numeric(array)
        if dense is None or dense.ndim != 2 or 0 in dense.shape:
            raise DataError("cannot encode a mask", seen=shorten(array), expected="numbers, (height, width)")
        rle = coco.encode(np.asfortranarray(dense != 0, dtype=np.uint8))
        return cls(int(rle["size"][0]), int(rle["size"][1]), bytes(rle["counts"]))

    @classmethod
    def encode_region(cls, region: BoolArray, *, top: int, left: int, height: int, width: int) -> Mask:
        """Encode a mask that is empty outside a region. The result equals that of `encode`, in a fraction of the time.

        Args:
            region: bool `[h, w]`; column-major order is fastest.
            top: First row of the region.
            left: First column of the region.
            height: Rows of the mask.
            width: Columns of the mask.

        Raises:
            DataError: The region extends beyond the mask.
        """
        from pycocotools import mask as coco

        if not isinstance(region, np.ndarray) or region.ndim != 2 or region.dtype != np.bool_:
            raise DataError("cannot encode a mask", seen=shorten(region), expected="bool, (height, width)")
        sides = {"top": top, "left": left, "height": height, "width": width}
        top, left, height, width = (
            check_integer(value, f"{name} of a region", minimum=-(2**31), error=DataError)
            for name, value in sides.items()
        )
        rows, columns = region.shape
        if min(top, left) < 0 or top + rows > height or left + columns > width:
            raise DataError(
                "cannot encode a mask",
                seen=f"{rows}x{columns} pixels from row {top} and column {left} on",
                expected=f"a region of {height}x{width} pixels",
            )
        strip = np.zeros((columns, height), dtype=bool)
        strip[:, top : top + rows] = region.T
        edges = np.flatnonzero(np.diff(strip.ravel(), prepend=False))
        if len(edges) % 2:  # the last run reaches the end of the strip
            edges = np.append(edges, strip.size)
        runs = np.diff(edges + left * height, prepend=0, append=height * width).tolist()
        if not runs[-1]:
            del runs[-1]
        rle = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
        return cls(height, width, bytes(rle["counts"]))

    @classmethod
    def from_coco(cls, rle: Mapping[str, Any]) -> Mask:
        """Read a COCO encoding `{"size": [h, w], "counts": str | bytes | list[int]}` and check it.

        NumPy arrays and numbers are accepted in place of lists and integers, and so are whole floats.

        Raises:
            DataError: The entry is malformed, or its runs do not cover exactly `h * w` pixels.
        """
        from pycocotools import mask as coco

        try:
            rle = dict(rle)
            height, width = (int(v) for v in rle["size"])
            counts = rle["counts"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                "malformed run-length mask", seen=shorten(rle), expected='{"size": [h, w], "counts": ...}'
            ) from error
        if height < 1 or width < 1:
            raise DataError("malformed run-length mask", seen=f"size {height}x{width}", expected="at least 1x1")
        if isinstance(counts, bytes | bytearray):  # also NumPy's
            counts = bytes(counts)
        elif isinstance(counts, Sequence | np.ndarray) and not isinstance(counts, str):
            counts = [c.item() if isinstance(c, np.generic) else c for c in as_tuple(counts) or (None,)]
            counts = [int(c) if isinstance(c, float) and c.is_integer() else c for c in counts]
            counts = cls._compress(counts, height, width, coco)
        elif isinstance(counts, str):
            counts = counts.encode("ascii", errors="replace")
        if not isinstance(counts, bytes):
            raise DataError("malformed run-length mask", seen=type(counts).__name__, expected="str, bytes or list[int]")
        total = sum(_runs(counts, height * width))
        if total != height * width:
            raise DataError(
                "malformed run-length mask", seen=f"runs over {total} pixels", expected=f"{height}x{width} pixels"
            )
        return cls(height, width, counts)

    @staticmethod
    def _compress(counts: list[Any], height: int, width: int, coco: Any) -> bytes:
        if any(not isinstance(c, int) or isinstance(c, bool) or c < 0 for c in counts) or sum(counts) != height * width:
            raise DataError(
                "malformed run-length mask",
                seen=f"{len(counts)} counts",
                expected=f"non-negative integers with the sum {height * width}",
            )
        return bytes(coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"])

    def decode(self) -> BoolArray:
        """Return the dense mask, bool, `(height, width)`.

        Raises:
            DataError: The counts given to the constructor are damaged.
        """
        from pycocotools import mask as coco

        try:
            return np.ascontiguousarray(coco.decode(self._rle)).astype(bool)
        except ValueError as error:
            raise DataError(
                "malformed run-length mask", seen=str(error).strip(), hint="Mask.from_coco checks encodings."
            ) from error

    def to_array(self) -> BoolArray:
        """Return the dense mask, bool, `(height, width)`; the same as `decode`."""
        return self.decode()

    def polygons(self, tolerance: float = 0.0) -> list[npt.NDArray[np.int32]]:
        """Return the outline of each part of the mask, see `visdeploy.masks.polygons.outlines`."""
        from visdeploy.masks.polygons import outlines

        return outlines(self, tolerance)

    @cached_property
    def area(self) -> int:
        """Number of pixels inside the mask."""
        from pycocotools import mask as coco

        return int(coco.area(self._rle))

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """Tight box `(x1, y1, x2, y2)` in pixels, right and bottom edge exclusive; zeros for an empty mask."""
        from pycocotools import mask as coco

        if not self.area:  # pycocotools returns nonsense for a run of length 0
            return 0.0, 0.0, 0.0, 0.0
        x, y, w, h = (float(v) for v in coco.toBbox(self._rle))
        return x, y, x + w, y + h

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the dense mask, so that `numpy.asarray(mask)` is `mask.decode()`."""
        if copy is False:
            raise ValueError("a run-length mask has no array to share: pass copy=None or copy=True")
        return self.decode().astype(dtype or bool, copy=False)

    def to_coco(self) -> dict[str, Any]:
        """Return the COCO encoding with `counts` as a string, which JSON can represent."""
        return {"size": [self.height, self.width], "counts": self.counts.decode("ascii")}

    @property
    def _rle(self) -> dict[str, Any]:
        return {"size": [self.height, self.width], "counts": self.counts}


def _numeric(array: npt.ArrayLike) -> npt.NDArray[Any] | None:
    """Return anything that NumPy reads as real numbers or truth values as an array; None for everything else."""
    try:
        found = np.asarray(array)
    except (TypeError, ValueError):
        return None
    return found if found.dtype.kind in "biuf" else None


def _runs(counts: bytes, most: int) -> list[int]:
    """Decode COCO's compressed counts to run lengths (LEB-like 5-bit groups, differences from the third run on).

    Unlike pycocotools, which can read past the end of a damaged string, this function checks its input.

    Args:
        counts: The text.
        most: Largest possible run; a longer one is an error, so that the time is linear in the length of any text.
    """
    runs: list[int] = []
    position = 0
    while position < len(counts):
        value = shift = 0
        while True:
            if position >= len(counts):
                raise DataError("malformed run-length mask", seen="counts end inside a number")
            char = counts[position] - 48
            if not 0 <= char < 64:
                raise DataError("malformed run-length mask", seen=f"byte {counts[position]:#x} in counts")
            value |= (char & 0x1F) << shift
            position, shift = position + 1, shift + 5
            if shift > _MAX_BITS:
                raise DataError("malformed run-length mask", seen=f"a number of {shift} bits in counts")
            if not char & 0x20:
                if char & 0x10:
                    value -= 1 << shift
                break
        if len(runs) > 2:
            value += runs[-2]
        if not 0 <= value <= most:
            raise DataError("malformed run-length mask", seen=f"a run of {value} pixels", expected=f"0..{most}")
        runs.append(value)
    return runs
