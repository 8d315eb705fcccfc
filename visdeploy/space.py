"""Free space for outputs whose size is known approximately before they are computed.

All sizes are lower bounds far below the usual ones: a refused output would certainly not fit.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visdeploy.errors import OutputError
from visdeploy.outputs import Output

if TYPE_CHECKING:
    from visdeploy.video import Source

_PNG = 825  # signature, header, palette of 256 colours, end
_VIDEO = 1024  # header and index of a file with one frame
_PIXELS_PER_BYTE = 8000  # of H.264 without motion and texture
_OPTIMIZER = 10  # a checkpoint is at most so many times larger than the weights in it
_BYTES_PER_FRAME = 10  # of a video; the number of frames in a header may be wrong


def check_space(outputs: Sequence[Output]) -> None:
    """Check that there is space for the outputs, all those of one disk together.

    Raises:
        OutputError: There is too little.
    """
    needed: dict[int, int] = {}
    for output in outputs:
        folder = _existing(output.path)
        try:
            disk, usage = os.stat(folder).st_dev, shutil.disk_usage(folder)
        except OSError:
            continue
        needed[disk] = needed.get(disk, 0) + output.least
        if output.least and usage.total and usage.free < needed[disk]:
            raise OutputError(
                f"there is not enough space for {output.path}",
                seen=f"{_amount(usage.free)} free",
                expected=f"at least {_amount(needed[disk])} for the outputs of this run",
                hint="Free some space, or choose another path.",
            )


def fewest_frames(source: Source) -> int:
    """Return how many frames an open source will deliver at least, according to its header and its size."""
    expected = source.expected_frames or 0
    if source.kind != "video":
        return expected
    return min(expected, sum(_size(file) for file in source.files) // _BYTES_PER_FRAME)


def least_of_pngs(frames: int) -> int:
    """Return the least number of bytes of the indexed PNGs of a video."""
    return _PNG * frames


def least_of_video(frames: int, height: int, width: int) -> int:
    """Return the least number of bytes of an overlay video."""
    return (_VIDEO + frames * (height * width // _PIXELS_PER_BYTE)) if frames else 0


def least_of_weights(checkpoint: Path) -> int:
    """Return the least number of bytes of the weights in a checkpoint, also beside the state of an optimizer."""
    return _size(checkpoint) // _OPTIMIZER


def _amount(count: int) -> str:
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def _size(file: Path) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return 0


def _existing(path: Path) -> Path:
    """Return the folder of a path or, if it does not exist yet, the nearest one above it."""
    return next(folder for folder in Path(os.path.abspath(path)).parents if folder.exists())
