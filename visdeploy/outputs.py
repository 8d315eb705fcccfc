"""Checks of outputs before anything is computed: not an input, not in a bundle, and possible to write."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, count
from pathlib import Path

from visdeploy.atomic import try_writing
from visdeploy.errors import OutputError
from visdeploy.video.images import SUFFIXES

_BUNDLE = ("manifest.json", "model.onnx")


@dataclass(frozen=True, slots=True)
class Output:
    """File or folder to write. An existing one is replaced as a whole.

    Attributes:
        path: Its path.
        folder: Whether it is a folder.
        least: Number of bytes that it will have at least.
    """

    path: Path
    folder: bool = False
    least: int = 0


def check_inputs_kept(outputs: Sequence[Output], inputs: Iterable[Path]) -> None:
    """Check that no output would replace an input, or change a bundle.

    Paths are compared after links are resolved, without regard to case, and by the identity of existing files, so that
    hard links and file systems that ignore case are covered.

    Raises:
        OutputError: An output is an input, contains one, lies in a bundle, or is a folder among the images of an input.
    """
    inputs = list(inputs)
    by_name, by_identity = _index(inputs)
    image_folders = {_folded(Path(os.path.realpath(f))) for f in {i.parent for i in inputs if _is_image(i)}}
    for output in outputs:
        real = Path(os.path.realpath(output.path))
        identity = _identity(real)
        source = by_name.get(_folded(real)) or (None if identity is None else by_identity.get(identity))
        if source is not None:
            raise OutputError(
                f"the output {output.path} would replace the input {source}",
                hint="Choose another path for the output.",
            )
        _check_outside_bundles(output.path, real)
        if output.folder and _folded(real.parent) in image_folders:
            raise OutputError(
                f"the folder of results {output.path} would lie among the images of the input",
                hint="Choose another path for the output.",
            )


def check_distinct(outputs: Sequence[Output]) -> None:
    """Check that no output would replace another one.

    Raises:
        OutputError: Two outputs have one path, or one is in the other.
    """
    for one, other in combinations(outputs, 2):
        first, second = (_folded(Path(os.path.realpath(each.path))) + os.sep for each in (one, other))
        if first.startswith(second) or second.startswith(first):
            raise OutputError(
                f"the outputs {one.path} and {other.path} would replace each other",
                hint="Choose different paths for the outputs.",
            )


def check_writable(outputs: Iterable[Output]) -> None:
    """Check that the outputs can be written; missing parent folders are created and removed again.

    Raises:
        OutputError: There is something of another kind at the path, or its folder cannot be written.
    """
    for output in outputs:
        path = output.path
        if os.path.lexists(path) and not (path.is_dir() if output.folder else path.is_file()):
            seen = "a folder" if path.is_dir() else "a file" if path.is_file() else "neither a file nor a folder"
            raise OutputError(
                f"cannot write {path}",
                seen=seen,
                expected=f"no such path, or a {'folder' if output.folder else 'file'}",
                hint="Choose another path, or remove it.",
            )
        try_writing(path, folder=output.folder)


def check_new(outputs: Iterable[Output], *, hint: str) -> None:
    """Check that no output exists.

    Args:
        outputs: Files and folders.
        hint: Advice on how to replace them.

    Raises:
        OutputError: An output exists.
    """
    for output in outputs:
        if os.path.lexists(output.path):
            raise OutputError(f"{output.path} exists already", hint=hint)


def free_path(path: Path) -> Path:
    """Return `path` or, if it exists, the first path with a number added to its stem that does not."""
    names = chain([path.name], (f"{path.stem}-{number}{path.suffix}" for number in count(2)))
    return next(each for each in map(path.with_name, names) if not os.path.lexists(each))


def _index(inputs: Iterable[Path]) -> tuple[dict[str, Path], dict[tuple[int, int], Path]]:
    """Return maps from names and identities to inputs.

    The folders above an input are included, because an output folder would replace them with their contents.
    """
    by_name: dict[str, Path] = {}
    by_identity: dict[tuple[int, int], Path] = {}

    def add(place: Path, source: Path) -> bool:
        if by_name.setdefault(_folded(place), source) is not source:
            return False
        if (identity := _identity(place)) is not None:
            by_identity.setdefault(identity, source)
        return True

    real_folders: dict[Path, Path] = {}
    for each in inputs:
        if each.parent not in real_folders:
            real_folders[each.parent] = Path(os.path.realpath(each.parent))
        link = real_folders[each.parent] / each.name
        for path in (link, Path(os.path.realpath(link))) if link.is_symlink() else (link,):
            add(path, each)
            for folder in path.parents:
                if not add(folder, each):  # the folders above it are known as well
                    break
    return by_name, by_identity


def _check_outside_bundles(path: Path, real: Path) -> None:
    for folder in real.parents:
        if all((folder / name).is_file() for name in _BUNDLE):
            raise OutputError(
                f"the output {path} lies in the bundle {folder}",
                expected="a path outside, because a bundle with other files cannot be opened",
                hint="Choose another path for the output.",
            )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _folded(path: Path) -> str:
    """Return the path as file systems that ignore case and Unicode composition compare it."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
