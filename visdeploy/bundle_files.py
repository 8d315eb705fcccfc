"""Files of a bundle folder: names that are allowed, and comparison with the checksums of the manifest."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from visdeploy.errors import BundleError
from visdeploy.manifest import FileEntry

ENGINES, INDEX = "engines", "engines/index.json"
SIGNATURE = "model.sig"
_CHUNK = 1 << 20
# files that file managers create in each folder they display, and what a killed writer of a signature left
_CLUTTER = re.compile(
    r"\.ds_store|\._.*|(eh)?thumbs\.db|desktop\.ini|icon\r|.*:zone\.identifier|.*~|\.model-.{8}\.part\.sig",
    re.IGNORECASE,
)
# folders that archivers, network drives and file systems create
_CLUTTER_FOLDER = re.compile(r"__macosx|@eadir|\$recycle\.bin|system volume information|lost\+found", re.IGNORECASE)
# documents that a model hub stores beside a model
_DOCUMENT = re.compile(r".*\.md|(readme|licen[cs]e|notice|copying|citation)(\.(txt|rst|cff))?", re.IGNORECASE)
# plans, their index, and the hidden names that their writer uses
_ENGINE_FILE = re.compile(r"engines/(index\.json|[^.].*\.plan|\.lock|\.index-.{8}(\.part)?\.json|\.[^_].*\.plan)")


@dataclass(frozen=True)
class Strays:
    """Files and folders of a bundle that its manifest does not list, by their names in the folder.

    Attributes:
        refused: Names that do not belong in a bundle.
        ignored: Harmless names, which are never read: hidden files, documents, files of file managers.
    """

    refused: list[str]
    ignored: list[str]

    @property
    def valuable(self) -> list[str]:
        """Names that must not be deleted when the folder is replaced."""
        return self.refused + [name for name in self.ignored if not is_clutter(name)]


def is_hidden(name: str) -> bool:
    """Return whether a name in the bundle, or a folder in its path, begins with a dot."""
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def is_clutter(name: str) -> bool:
    """Return whether a name is that of a file created by file managers, or of a leftover."""
    return _CLUTTER.fullmatch(PurePosixPath(name).name) is not None


def is_signature(name: str) -> bool:
    """Return whether a name is that of the signature, which belongs to a bundle but is not listed in its manifest."""
    return name == SIGNATURE


def is_engine_file(name: str) -> bool:
    """Return whether a name is an engine plan, the index of plans, or a hidden file of the writer of the index."""
    return name.count("/") == 1 and _ENGINE_FILE.fullmatch(name) is not None


def find_strays(folder: Path, known: Collection[str]) -> Strays:
    """Find everything in a bundle folder except known files, the signature and those of engines (`is_engine_file`).

    Links with known names are not reported; `check_file` compares the bytes of their targets. Hidden folders are not
    searched.

    Args:
        folder: The bundle.
        known: Names of the manifest and of the files that it lists.

    Raises:
        BundleError: A folder cannot be read.
    """
    folders = {ENGINES} | {parent.as_posix() for name in known for parent in PurePosixPath(name).parents}
    strays, pending = Strays([], []), [""]
    while pending:
        prefix = pending.pop()
        for entry in _scan(folder / prefix):
            name = prefix + entry.name
            # the files of a linked folder are compared as others are; engines must lie in the bundle itself
            is_folder = entry.is_dir(follow_symlinks=name in folders and name != ENGINES)
            if is_folder and name in folders:
                pending.append(f"{name}/")
            elif not is_folder and (name in known or is_engine_file(name) or is_signature(name)):
                continue
            elif _is_harmless(name, is_folder=is_folder):
                strays.ignored.append(name)
            else:
                strays.refused.append(name + " (a symbolic link)" * entry.is_symlink())
    return strays


def _is_harmless(name: str, *, is_folder: bool) -> bool:
    last = PurePosixPath(name).name
    if is_folder:
        return is_hidden(name) or _CLUTTER_FOLDER.fullmatch(last) is not None
    return is_hidden(name) or is_clutter(name) or _DOCUMENT.fullmatch(last) is not None


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise BundleError(f"{folder} cannot be read", seen=error.strerror or str(error)) from error


def regular_size(path: Path) -> int:
    """Return the size of a file in bytes, following links. Anything but a regular file is refused before it is opened.

    Raises:
        BundleError: The file is missing, a broken link, a folder, a pipe or a device.
    """
    try:
        status = path.stat()
    except OSError as error:
        what = "leads nowhere" if os.path.islink(path) else "is missing"  # pathlib raises for names too long
        raise BundleError(f"{path} {what}", hint="Copy the bundle anew, or export it again.") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} is not a plain file", hint="Copy the bundle anew, or export it again.")
    return status.st_size


def check_file(path: Path, entry: FileEntry) -> None:
    """Compare a file with its entry in the manifest. A link is accepted if its target has the listed bytes.

    Raises:
        BundleError: The file is missing, is not a plain file, or has another size or checksum.
    """
    size, hint = regular_size(path), "The file was changed after export; export it again, or copy it anew."
    if size != entry.size:
        raise BundleError(
            f"{path} does not match its manifest", seen=f"{size} B", expected=f"{entry.size} B", hint=hint
        )
    digest = file_sha256(path)
    if digest != entry.sha256:
        raise BundleError(
            f"{path} does not match its manifest",
            seen=f"sha256 {digest[:12]}…",
            expected=f"{entry.sha256[:12]}…",
            hint=hint,
        )


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
