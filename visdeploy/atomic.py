"""Atomic writing of files and folders: they are written under a temporary name, then renamed.

Temporary names are `.NAME-XXXXXXXX.part` and the suffix of the target. The writer holds a lock on the file or folder,
which the operating system releases when the process ends, so that the next writer of the same target can remove the
temporary files of one that was killed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from visdeploy.errors import OutputError

if sys.platform != "win32":  # without locks, the temporary files of a process that was killed stay
    from fcntl import LOCK_EX, LOCK_NB, flock

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
_TRIES = 100


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` after the block, remove it after an error.

    Missing parent folders are created. The temporary name keeps the suffix, because some writers depend on it.

    Raises:
        OutputError: The block raised an `OSError`, or the file cannot be renamed.
    """
    with replacing_files([path]) as (temporary,):
        yield temporary


@contextmanager
def replacing_files(paths: Sequence[str | Path]) -> Iterator[list[Path]]:
    """Yield a temporary path for each of `paths`; after the block, rename all of them or, after an error, none.

    Raises:
        OutputError: The block raised an `OSError`, or a file cannot be renamed.
    """
    targets = [Path(path) for path in paths]
    with writing(targets[0]), ExitStack() as stack:
        temporaries = [stack.enter_context(staging(target)) for target in targets]
        yield temporaries
        for temporary in temporaries:
            temporary.chmod(0o666 & ~_umask())
        _rename_all(temporaries, targets)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; after the block, replace an existing folder `path` by it as a whole.

    Raises:
        OutputError: The block raised an `OSError`, or the folder cannot be renamed.
    """
    target = Path(path)
    with writing(target), staging(target, folder=True) as temporary:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        swap_folder(temporary, target)


@contextmanager
def staging(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary file or folder next to `target`, and remove it at the end unless it was renamed.

    Missing parent folders are created, and removed if they stay empty.
    """
    created = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix, suffix = f".{(target.name if folder else target.stem)[:40]}-", f".part{'' if folder else target.suffix}"
        _remove_leftovers(target.parent, prefix, suffix)
        with ExitStack() as stack:
            yield _create_locked(stack, target.parent, prefix, suffix, folder=folder)
    finally:
        for parent in created:  # innermost first; folders that are not empty stay
            with suppress(OSError):
                parent.rmdir()


def swap_folder(staged: Path, target: Path) -> None:
    """Rename the folder `staged` to `target`. Replace an existing folder, and restore it if the renaming fails."""
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-old-", dir=target.parent))
    old = aside
    try:
        for attempt in range(_TRIES):
            old = aside / str(attempt)
            with suppress(FileNotFoundError):
                os.replace(target, old)
            try:
                os.replace(staged, target)
                break
            except OSError as error:  # another process may have written the same folder meanwhile
                if error.errno not in _TAKEN or attempt == _TRIES - 1:
                    raise
    except BaseException:
        if old != aside and old.exists() and not target.exists():
            os.replace(old, target)
        with suppress(OSError):
            aside.rmdir()
        raise
    shutil.rmtree(aside)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def try_writing(path: str | Path, *, folder: bool = False) -> None:
    """Create a temporary file or folder next to `path` and remove it, with the parent folders created for it.

    Raises:
        OutputError: `path` could not be written.
    """
    target = Path(path)
    with writing(target):
        with suppress(FileNotFoundError):
            target.lstat()  # fails if the name is too long
        with staging(target, folder=folder):
            pass


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Raise an `OutputError` that names `target` in place of an `OSError` of the block."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        advice = "Choose another path, or check the permissions."
        if error.errno in _FULL:
            advice = "Free some space, or choose another path."
        elif isinstance(error, NotADirectoryError | FileExistsError):
            advice = "A part of the path is a file; choose another path."
        raise OutputError(f"cannot write {target}", seen=error.strerror or str(error), hint=advice) from error


def _create_locked(stack: ExitStack, parent: Path, prefix: str, suffix: str, *, folder: bool) -> Path:
    """Create a temporary file or folder with a lock; the stack removes it."""
    while True:
        if folder:
            path = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))
        else:
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=parent)
            os.close(handle)
            path = Path(name)
        stack.callback(_remove, path)
        if sys.platform == "win32":
            return path
        with suppress(FileNotFoundError):  # removed as a leftover before it was locked
            handle = os.open(path, os.O_RDONLY)
            stack.callback(os.close, handle)
            with suppress(OSError):  # some network file systems have no locks
                flock(handle, LOCK_EX)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return path


def _remove_leftovers(parent: Path, prefix: str, suffix: str) -> None:
    """Remove the temporary files and folders of processes that were killed: those without a lock."""
    if sys.platform == "win32":
        return
    pattern = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}{re.escape(suffix)}")
    for name in os.listdir(parent):
        if pattern.fullmatch(name):
            with suppress(OSError):
                handle = os.open(parent / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    flock(handle, LOCK_EX | LOCK_NB)
                    _remove(parent / name)
                finally:
                    os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _rename_all(temporaries: Sequence[Path], targets: Sequence[Path]) -> None:
    """Rename files. If one cannot be renamed, restore the targets of those before it."""
    if len(targets) == 1:
        os.replace(temporaries[0], targets[0])
        return
    parent, prefix = targets[0].parent, f".{targets[0].stem[:40]}-old-"
    with _folder_lock(parent), tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as aside:
        changed: list[tuple[Path | None, Path]] = []
        try:
            for number, (temporary, target) in enumerate(zip(temporaries, targets, strict=True)):
                old = Path(aside) / str(number) if os.path.lexists(target) else None
                if old is not None:
                    _keep(target, old)
                changed.append((old, target))
                os.replace(temporary, target)
        except BaseException:
            for old, target in reversed(changed):
                if old is not None:
                    os.replace(old, target)
                else:
                    target.unlink(missing_ok=True)
            raise


def _keep(target: Path, old: Path) -> None:
    """Give a file a second name or, where the file system has no hard links, another name."""
    try:
        os.link(target, old, follow_symlinks=False)
    except OSError:
        os.replace(target, old)


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Exclude other processes that rename several files in a folder."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            flock(handle, LOCK_EX)
        yield
    finally:
        os.close(handle)


def _umask() -> int:
    """Return the file mode mask of the process; POSIX can read it only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
