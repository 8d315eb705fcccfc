"""Bundles on disk: opened with all checks, read without pickle, written atomically (see docs/bundle.md)."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from visdeploy.atomic import staging, swap_folder, writing
from visdeploy.backends.engine_files import check_engines
from visdeploy.bundle_files import (
    check_file,
    file_sha256,
    find_strays,
    is_clutter,
    is_engine_file,
    is_hidden,
    regular_size,
)
from visdeploy.errors import BundleError
from visdeploy.external_data import external_files
from visdeploy.manifest import SCHEMA_VERSION, FileEntry, Manifest, describe_errors

logger = logging.getLogger(__name__)

MANIFEST, MODEL, SELFTEST, CERTIFICATE = "manifest.json", "model.onnx", "selftest.npz", "certificate.json"
MODEL_DATA = "model.onnx.data"
REQUIRED = (MODEL, SELFTEST, CERTIFICATE)


@dataclass(frozen=True)
class SelfTest:
    """Clip of a bundle with the outputs of PyTorch for it, recorded at export.

    Attributes:
        frames: Raw RGB frames, uint8 `[frames, height, width, 3]`, before any preprocessing.
        outputs: For each step of the graph (one frame or one clip), output name → array as the graph returns it.
    """

    frames: NDArray[np.uint8]
    outputs: tuple[dict[str, NDArray[Any]], ...]

    def to_bytes(self) -> bytes:
        """Return the content of `selftest.npz`."""
        arrays: dict[str, NDArray[Any]] = {"frames": self.frames}
        for index, outputs in enumerate(self.outputs):
            arrays |= {f"f{index}/{name}": np.asarray(value) for name, value in outputs.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def load(cls, path: Path, names: Sequence[str]) -> SelfTest:
        """Read `selftest.npz`.

        Args:
            path: The file.
            names: Outputs that every step must have.

        Raises:
            BundleError: The file is not an npz archive, contains objects, or lacks a step or an output.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                frames = archive["frames"]
                count = len({name.partition("/")[0] for name in archive.files} - {"frames"})
                outputs = tuple({name: archive[f"f{i}/{name}"] for name in names} for i in range(count))
        except Exception as error:  # zipfile, zlib and numpy raise different exceptions for damaged archives
            raise BundleError(f"{path} cannot be read", seen=str(error), hint="Export the bundle again.") from error
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
            raise BundleError(
                f"{path}: frames are malformed", seen=f"{frames.dtype} {frames.shape}", expected="uint8 [f, h, w, 3]"
            )
        return cls(frames, outputs)


@dataclass(frozen=True)
class Bundle:
    """Exported model: a folder and its parsed manifest. Use `Bundle.open`, which checks everything."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle, checking its manifest, its list of files and every checksum.

        Raises:
            BundleError: The folder is missing or not a bundle; the manifest or the engine index is damaged, has another
                schema version or an unknown field; a file is missing, changed or truncated; a file is not listed and
                not harmless; the graph reads a file that is not listed; an engine is not in the index, or its
                limits are looser than those of the manifest.
        """
        folder = Path(path)
        if not folder.is_dir():
            seen = "a file" if folder.exists() else "nothing"
            raise BundleError(f"{folder} is not a bundle", seen=seen, expected="a folder made by visdeploy.export")
        if not os.path.lexists(folder / MANIFEST):
            raise BundleError(f"{folder} is not a bundle", seen=f"no {MANIFEST}", expected="a bundle folder")
        regular_size(folder / MANIFEST)
        manifest = Manifest.from_json((folder / MANIFEST).read_bytes(), where=str(folder / MANIFEST))
        if missing := [name for name in REQUIRED if name not in manifest.files]:
            raise BundleError(f"{folder / MANIFEST}: field 'files' lacks {missing}", hint="Export the bundle again.")
        _check_strays(folder, manifest.files)
        for name, entry in manifest.files.items():
            check_file(folder / name, entry)
        _check_weights(folder, manifest.files)
        check_engines(folder, manifest.tolerance)
        return cls(folder, manifest)

    @property
    def model_path(self) -> Path:
        """Path of the ONNX file."""
        return self.path / MODEL

    @property
    def identity(self) -> str:
        """SHA-256 of the manifest, with the checksums of all files. A saved stream belongs to one identity."""
        text = json.dumps(self.manifest.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def selftest(self) -> SelfTest:
        """Read the self-test clip.

        Raises:
            BundleError: The file is damaged or lacks an output of the manifest.
        """
        return SelfTest.load(self.path / SELFTEST, [t.name for t in self.manifest.outputs])

    def certificate(self) -> dict[str, Any]:
        """Read the parity certificate made at export.

        Raises:
            BundleError: The file is not a JSON object.
        """
        path = self.path / CERTIFICATE
        try:
            data = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"{path} cannot be read", seen=str(error), hint="Export the bundle again.") from error
        if not isinstance(data, dict):
            raise BundleError(f"{path} is malformed", seen=type(data).__name__, expected="a JSON object")
        return data


def write_bundle(
    path: str | os.PathLike[str],
    fields: Mapping[str, Any],
    files: Mapping[str, bytes | Path],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle atomically: either all of it appears at `path`, or nothing.

    Args:
        path: Folder to create.
        fields: Fields of the manifest, without `schema_version` and `files`.
        files: Name in the bundle → content, or a file to copy; `model.onnx`, `selftest.npz` and
            `certificate.json` are required.
        overwrite: Replace an existing bundle.

    Raises:
        BundleError: The target exists and must not be replaced, a field of the manifest is wrong, a file is missing,
            or a file has a name that bundles ignore.
    """
    if ignored := sorted(name for name in files if is_hidden(name) or is_clutter(name)):
        raise BundleError(f"{path} cannot hold files of these names", seen=", ".join(ignored), hint="Rename them.")
    with stage_bundle(path, overwrite=overwrite) as folder:
        for name, content in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_bytes(content)
        seal_bundle(folder, fields)
    return Bundle.open(path)


@contextmanager
def stage_bundle(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder, which is renamed to `path` at the end of the block, or removed after an error.

    Raises:
        BundleError: `path` exists and must not be replaced, its parent cannot be written, or the temporary folder is
            not a complete bundle.
    """
    target = Path(os.path.abspath(path))
    _check_target(target, overwrite=overwrite)
    with writing(target), ExitStack() as stack:
        try:
            work = stack.enter_context(staging(target, folder=True))
        except OSError as error:
            raise BundleError(f"{target} cannot be created", seen=str(error), hint="Choose another path.") from error
        staged = work / "new"
        staged.mkdir()
        yield staged
        Bundle.open(staged)
        _check_target(target, overwrite=overwrite)
        swap_folder(staged, target)


def seal_bundle(folder: Path, fields: Mapping[str, Any]) -> Bundle:
    """Write the manifest of a staged folder, with the checksums of all files except hidden ones and engines.

    Raises:
        BundleError: A field is unknown, missing or wrong.
    """
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names = [n for n in names if n != MANIFEST and not (is_hidden(n) or is_clutter(n) or is_engine_file(n))]
    entries = {n: FileEntry(sha256=file_sha256(folder / n), size=(folder / n).stat().st_size) for n in names}
    try:
        manifest = Manifest.model_validate({**fields, "schema_version": SCHEMA_VERSION, "files": entries})
    except ValidationError as error:
        raise BundleError(f"the manifest cannot be written: {describe_errors(error)}") from error
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return Bundle(folder, manifest)


def _check_target(target: Path, *, overwrite: bool) -> None:
    """Raise an error if `target` exists, unless it is a bundle that may be replaced."""
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise BundleError(f"{target} exists already", hint="Pass overwrite=True to replace it, or choose another path.")
    try:
        data = json.loads((target / MANIFEST).read_bytes()) if target.is_dir() and not target.is_symlink() else None
        listed = (
            data["files"] if isinstance(data, dict) and {"schema_version", "method", "files"} <= set(data) else None
        )
    except (OSError, ValueError, RecursionError):
        listed = None
    if not isinstance(listed, dict):
        raise BundleError(f"{target} is not replaced", seen="something that is not a bundle", hint="Remove it.")
    if others := find_strays(target, {MANIFEST, *listed}).valuable:
        seen = f"other files: {', '.join(others[:5])}"
        raise BundleError(f"{target} is not replaced", seen=seen, hint="Move them elsewhere, or remove the bundle.")


def _check_strays(folder: Path, listed: Mapping[str, FileEntry]) -> None:
    """Raise an error if the folder contains something that is neither listed nor harmless."""
    strays = find_strays(folder, {MANIFEST, *listed})
    if strays.refused:
        raise BundleError(
            f"{folder} holds files that its manifest does not list",
            seen=", ".join(strays.refused[:5]),
            hint="Remove them, or export the bundle again.",
        )
    if strays.ignored:
        logger.info("%s: not part of the bundle, ignored: %s", folder, ", ".join(strays.ignored))


def _check_weights(folder: Path, listed: Mapping[str, FileEntry]) -> None:
    """Raise an error if the graph reads weights from a file that was not checked, whatever its name."""
    for name in external_files(folder / MODEL):
        if PurePosixPath(name).as_posix() not in listed:
            raise BundleError(
                f"{folder / MODEL} reads weights from a file that the manifest does not list",
                seen=repr(name),
                expected=", ".join(sorted(listed)),
                hint="Export the bundle again, or get it from a source that you trust.",
            )
