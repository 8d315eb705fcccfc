"""Atomic writing of files and folders: they are written under a temporary name, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` after the block, remove it after an error.

    Missing parent folders are created. The temporary name keeps the suffix, because some writers depend on it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem[:40]}-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; after the block, replace an existing folder `path` by it as a whole."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        swap_folder(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def swap_folder(staged: Path, target: Path) -> None:
    """Rename the folder `staged` to `target`. Replace an existing folder, and restore it if the renaming fails."""
    if not target.exists():
        os.replace(staged, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-old-", dir=target.parent))
    old = aside / target.name
    try:
        os.replace(target, old)
        os.replace(staged, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    """Return the file mode mask of the process; POSIX can read it only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
