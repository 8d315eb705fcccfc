"""Check of npz archives before their arrays are read: the memory that they require, and their content."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

_ALWAYS, _RATIO, _MOST = 1 << 28, 100, 1 << 32


def check_archive(path: Path) -> None:
    """Check the headers of all arrays in an npz archive.

    The arrays may together take 256 MiB, or 100 times the size of the file up to 4 GiB; more only if they are not
    compressed. Each must have exactly the bytes that its shape and dtype require.

    Raises:
        ValueError: The arrays are too large, contain objects, or are malformed. Damaged archives raise others, too.
    """
    size = path.stat().st_size
    allowed = max(_ALWAYS, min(_RATIO * size, _MOST), size)
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        total = sum(record.file_size for record in records)
        if total > allowed:
            raise ValueError(f"arrays of {total} B in a file of {size} B, at most {allowed} B allowed")
        if len({record.filename for record in records}) != len(records):
            raise ValueError("two arrays have one name")
        for record in records:
            with archive.open(record) as file:
                _check_header(file, record)


def _check_header(file: IO[bytes], record: zipfile.ZipInfo) -> None:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"{record.filename[:100]} has version {version} of the npy format")
    if dtype.hasobject:
        raise ValueError(f"{record.filename[:100]} contains objects")
    rest = record.file_size - file.tell()
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != rest:
        raise ValueError(f"{record.filename[:100]} has {rest} B for {dtype} {shape}"[:200])
