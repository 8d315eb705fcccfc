"""Engine plans on disk: written, removed and read so that a reader never finds a plan without an index entry.

Two invariants hold between any two steps of a writer. Therefore a writer can be killed at any point, and readers need
no lock:

* every visible plan has an entry in the index;
* the bytes of every entry are in the file that it names, or in a hidden file of the same folder (`_hidden`).

A new plan is written under its hidden name, then added to the index, then renamed to its visible name. A plan to remove
is renamed to its hidden name, then removed from the index, then deleted. Writers exclude each other with a lock file,
which the operating system releases when its holder ends; the next writer completes or removes the files of one that was
killed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from visdeploy.atomic import replacing_file, write_text
from visdeploy.backends.engine_index import REBUILD, EngineEntry, EngineIndex, read_index
from visdeploy.bundle_files import ENGINES, INDEX, file_sha256, is_engine_file, regular_size
from visdeploy.errors import BundleError
from visdeploy.manifest import LOWER_LIMITS, Tolerance, Tolerances, describe_errors

LOCK = ".lock"
_UNSIGNED = "Sign the bundle again (visdeploy sign BUNDLE --key KEY --overwrite), or remove the engine."


def write_entry(folder: Path, entry: EngineEntry, plan: Path | bytes) -> EngineIndex:
    """Add an engine to a bundle, replacing an engine with the same file name.

    Args:
        folder: The bundle.
        entry: Description of the plan.
        plan: The serialised engine, or a file to copy.

    Returns:
        The index, with the new entry at its end.

    Raises:
        BundleError: Size or checksum of `plan` differs from the entry, the index is damaged, or the bundle cannot be
            written.
    """
    with _writing(folder) as engines:
        index = _index(folder, [each for each in read_index(folder).entries if each.file != entry.file] + [entry])
        hidden = engines / _hidden(entry)
        with replacing_file(hidden) as temporary:
            if isinstance(plan, Path):
                shutil.copyfile(plan, temporary)
            else:
                temporary.write_bytes(plan)
            seen = (temporary.stat().st_size, file_sha256(temporary))
            if seen != (entry.size, entry.sha256):
                raise BundleError(
                    f"the plan of {entry.file} does not match its entry",
                    seen=f"{seen[0]} B, sha256 {seen[1][:12]}…",
                    expected=f"{entry.size} B, sha256 {entry.sha256[:12]}…",
                )
        _write_index(folder, index)
        os.replace(hidden, engines / entry.file)
    return index


def remove_entry(folder: Path, file: str) -> EngineIndex:
    """Remove an engine, given the file name of its plan in `engines/`.

    Returns:
        The index without the engine.

    Raises:
        BundleError: The index has no entry of that name or is damaged, or the bundle cannot be written.
    """
    with _writing(folder) as engines:
        entries = read_index(folder).entries
        entry = next((each for each in entries if each.file == file), None)
        if entry is None:
            known = ", ".join(each.file for each in entries) or "no engine"
            raise BundleError(f"{folder / INDEX} has no entry for this engine", seen=file, expected=known)
        hidden = engines / _hidden(entry)
        with suppress(FileNotFoundError):  # deleted by hand; the entry is removed nevertheless
            os.replace(engines / file, hidden)
        index = _index(folder, [each for each in entries if each is not entry])
        _write_index(folder, index)
        hidden.unlink(missing_ok=True)
    return index


def checked_plan(folder: Path, entry: EngineEntry, *, signed: Mapping[str, str] | None = None) -> bytes:
    """Read a plan and check its size and checksum.

    Args:
        folder: The bundle.
        entry: Description of the plan.
        signed: Files that the signature of the bundle covers (`Bundle.signed`); None if signatures are not checked.

    Returns:
        The bytes that were checked, ready to be deserialised; reading the file again could return other bytes.

    Raises:
        BundleError: The plan is missing, is not a plain file (symbolic links are refused), does not match its entry,
            or is not one of the signed files.
    """
    if signed is not None and signed.get(f"{ENGINES}/{entry.file}") != entry.sha256:
        raise BundleError(
            f"{folder / ENGINES / entry.file} is not signed", seen="an engine added later", hint=_UNSIGNED
        )
    engines = folder / ENGINES
    if engines.is_symlink():
        raise BundleError(f"{engines} is a symbolic link", hint="Links are refused; copy the folder.")
    # a concurrent writer renames from the hidden name to the visible one, or, when it removes an engine, back
    names = (entry.file, _hidden(entry), entry.file)
    faults = []
    for name in names:
        try:
            return _read_checked(engines / name, entry)
        except FileNotFoundError:
            continue
        except BundleError as error:
            faults.append(error)
    if faults:
        raise faults[0]
    raise BundleError(f"{engines / entry.file} is missing", seen="only its entry in the index", hint=REBUILD)


def engine_checksums(folder: Path) -> dict[str, str]:
    """Map the names of the index and of the plans that are there to their SHA-256; of a plan, that of its entry.

    Raises:
        BundleError: The index is damaged.
    """
    entries = read_index(folder).entries
    plans = {f"{ENGINES}/{entry.file}": entry.sha256 for entry in entries}
    found = {name: sha256 for name, sha256 in plans.items() if os.path.lexists(folder / name)}
    return found | ({INDEX: file_sha256(folder / INDEX)} if os.path.lexists(folder / INDEX) else {})


def check_engines(folder: Path, tolerances: Tolerances, signed: Mapping[str, str] | None = None) -> EngineIndex:
    """Check that the index is readable, has an entry for every visible plan, and keeps the limits of the manifest.

    Args:
        folder: The bundle.
        tolerances: Field `tolerance` of its manifest.
        signed: Files that the signature covers. The plans among them are compared with their entries; other plans are
            compared when they are used.

    Returns:
        The index.

    Raises:
        BundleError: The index is damaged, has no entry for a plan, or has a certificate with looser limits than the
            manifest allows for that engine and precision; a signed plan does not match its entry.
    """
    index = _check_plans(folder)
    for number, entry in enumerate(index.entries):
        _check_tolerance(folder / INDEX, number, entry, tolerances.of(entry.engine, entry.precision))
        if signed is not None and f"{ENGINES}/{entry.file}" in signed:
            _compare_plan(folder / ENGINES / entry.file, entry)
    return index


def _compare_plan(path: Path, entry: EngineEntry) -> None:
    """Compare a plan of any size with its entry. It may be a link, which is refused when the engine is used."""
    if (size := regular_size(path)) != entry.size:
        raise _mismatch(path, f"{size} B", f"{entry.size} B")
    if (digest := file_sha256(path)) != entry.sha256:
        raise _mismatch(path, f"sha256 {digest[:12]}…", f"{entry.sha256[:12]}…")


def _check_tolerance(path: Path, number: int, entry: EngineEntry, allowed: Tolerance) -> None:
    """Raise an error if an engine was certified with looser limits than the manifest allows."""
    tolerance = entry.certificate.tolerance
    for name in tolerance.looser_than(allowed):
        raise BundleError(
            f"{path}: field 'entries.{number}.certificate.tolerance.{name}' is looser than the manifest allows for "
            f"{entry.engine} at {entry.precision}",
            seen=f"{getattr(tolerance, name):g}",
            expected=f"{'at least' if name in LOWER_LIMITS else 'at most'} {getattr(allowed, name):g}",
            hint=REBUILD,
        )


def _check_plans(folder: Path) -> EngineIndex:
    """Return the index, after checking that it has an entry for every visible plan."""
    index = read_index(folder)
    while True:
        strays = sorted(_plans(folder) - _named(index))
        before, index = index, read_index(folder)
        if not strays:
            return index
        if _named(index) == _named(before):  # otherwise a writer changed the index meanwhile
            raise BundleError(
                f"{folder / ENGINES} contains engines without an entry in its index",
                seen=", ".join(strays[:5]),
                hint="Remove them, or build them with visdeploy.build_engine.",
            )


def _named(index: EngineIndex) -> set[str]:
    return {entry.file for entry in index.entries}


def _plans(folder: Path) -> set[str]:
    engines = folder / ENGINES
    names = os.listdir(engines) if engines.is_dir() else []
    return {name for name in names if name.endswith(".plan") and not name.startswith(".")}


def _hidden(entry: EngineEntry) -> str:
    """Return the hidden file name of an entry's plan; it depends on the content of the plan."""
    return f".{entry.file}.{entry.sha256[:16]}.plan"


def _read_checked(path: Path, entry: EngineEntry) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        hint = "Links are refused; copy the file." if path.is_symlink() else REBUILD
        raise BundleError(f"{path} cannot be opened", seen=error.strerror or str(error), hint=hint) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is not a plain file", hint=REBUILD)
        if status.st_size != entry.size:
            raise _mismatch(path, f"{status.st_size} B", f"{entry.size} B")
        with open(handle, "rb", closefd=False) as file:
            plan = file.read(entry.size)
    finally:
        os.close(handle)
    digest = hashlib.sha256(plan).hexdigest()
    if digest != entry.sha256:
        raise _mismatch(path, f"sha256 {digest[:12]}…", f"{entry.sha256[:12]}…")
    return plan


def _mismatch(path: Path, seen: str, expected: str) -> BundleError:
    hint = f"If it has just been replaced, open the bundle again. Otherwise it is damaged. {REBUILD}"
    return BundleError(f"{path} does not match the engine index", seen=seen, expected=expected, hint=hint)


def _index(folder: Path, entries: list[EngineEntry]) -> EngineIndex:
    try:
        return EngineIndex(entries=entries)
    except ValidationError as error:
        raise BundleError(f"{folder / INDEX} cannot be written: {describe_errors(error)}") from error


def _write_index(folder: Path, index: EngineIndex) -> None:
    write_text(folder / INDEX, index.model_dump_json(indent=2) + "\n")


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """Yield the folder of engines, locked against other writers and without leftovers of a killed writer."""
    engines = folder / ENGINES
    try:
        if engines.is_symlink():
            raise BundleError(f"{engines} is a symbolic link", hint="Links are refused; copy the folder.")
        engines.mkdir(exist_ok=True)
        with _locked(engines / LOCK):
            _recover(folder, engines)
            yield engines
    except OSError as error:
        hint = "Check the path, its permissions and the free space."
        raise BundleError(f"{engines} cannot be written", seen=str(error), hint=hint) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file. It is never deleted, because two writers could then lock two files of the same name."""
    import fcntl  # not on every system that reads bundles

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(handle), os.stat(path)):  # the bundle was not replaced meanwhile
                yield
                return
        finally:
            os.close(handle)


def _recover(folder: Path, engines: Path) -> None:
    """Rename hidden plans that have an entry to their visible names, and delete all other hidden files."""
    for entry in read_index(folder).entries:
        with suppress(FileNotFoundError):
            os.replace(engines / _hidden(entry), engines / entry.file)
    for name in os.listdir(engines):
        if name.startswith(".") and name != LOCK and is_engine_file(f"{ENGINES}/{name}"):
            (engines / name).unlink()
