"""Bundles on disk: opened with all checks, read without pickle, written atomically (see docs/bundle.md)."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from visdeploy.arguments import check_path, check_type
from visdeploy.atomic import staging, swap_folder, writing
from visdeploy.backends.engine_files import check_engines, engine_checksums
from visdeploy.brief import brief, counted
from visdeploy.bundle_files import (
    check_file,
    file_sha256,
    find_strays,
    is_clutter,
    is_engine_file,
    is_hidden,
    is_signature,
    regular_size,
)
from visdeploy.errors import BundleError
from visdeploy.external_data import external_files
from visdeploy.manifest import SCHEMA_VERSION, FileEntry, Manifest, describe_errors, manifest_digest
from visdeploy.selftest import SelfTest
from visdeploy.signing.keys import public_key
from visdeploy.signing.signature import check_signature

logger = logging.getLogger(__name__)

MANIFEST, MODEL, SELFTEST, CERTIFICATE = "manifest.json", "model.onnx", "selftest.npz", "certificate.json"
MODEL_DATA = "model.onnx.data"
REQUIRED = (MODEL, SELFTEST, CERTIFICATE)
_MAX_JSON = 1 << 26

Approve: TypeAlias = Callable[[Path, Mapping[str, str]], None]
"""Function that raises an error unless a bundle folder may contain these files, by name with their SHA-256."""


@dataclass(frozen=True)
class Bundle:
    """Exported model: a folder and its parsed manifest. Use `Bundle.open`, which checks everything.

    Attributes:
        path: The folder.
        manifest: Its parsed manifest.
        signed: Files that the signature covers, by name with their SHA-256; None if no key was given.
    """

    path: Path
    manifest: Manifest
    signed: Mapping[str, str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", check_path(self.path, "path of a bundle", error=BundleError))
        check_type(self.manifest, Manifest, "manifest of a bundle", error=BundleError)

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        made = f"{self.manifest.method} {self.manifest.variant}"
        return brief(self, path=str(self.path), model=made, classes=counted(self.manifest.classes))

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, key: str | os.PathLike[str] | None = None) -> Bundle:
        """Open a bundle, checking its manifest, its list of files and every checksum.

        Args:
            path: The bundle folder.
            key: PEM file of a public key. The bundle must then have a valid signature of it, which covers the manifest,
                the files that it lists, and every engine. By default, a signature is not checked.

        Raises:
            BundleError: The folder is missing or not a bundle; the manifest or the engine index is damaged, has another
                schema version or an unknown field; the manifest was changed after its certificate was made; a file is
                missing, changed or truncated; a file is not listed and not harmless; the graph reads a file that is not
                listed; an engine is not in the index, or its limits are looser than those of the manifest; a key is
                given, and the bundle is not signed with it, was changed, or has an engine that is not signed.
            ConfigError: The key cannot be used.
            DependencyError: A key is given, and the extra `signing` is not installed.
        """
        if key is None:
            return open_bundle(path)
        public = public_key(key)
        return open_bundle(path, approve=lambda folder, files: check_signature(folder, files, public))

    @property
    def model_path(self) -> Path:
        """Path of the ONNX file."""
        return self.path / MODEL

    @property
    def identity(self) -> str:
        """SHA-256 of the manifest, with the checksums of all files. A saved stream belongs to one identity."""
        text = json.dumps(self.manifest.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest without the entries of the certificate and the self-test, which both contain it.

        Raises:
            BundleError: The manifest cannot be read.
        """
        return manifest_digest(_read_text(self.path / MANIFEST))

    def selftest(self) -> SelfTest:
        """Read the self-test clip.

        Raises:
            BundleError: The file is damaged, or an output of the manifest is missing or has another dtype or shape.
        """
        selftest = SelfTest.load(self.path / SELFTEST, [t.name for t in self.manifest.outputs])
        selftest.check(self.manifest, where=str(self.path / SELFTEST))
        return selftest

    def certificate(self) -> dict[str, Any]:
        """Read the parity certificate made at export.

        Raises:
            BundleError: The file is not a JSON object.
        """
        path = self.path / CERTIFICATE
        try:
            data = json.loads(_read_text(path))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{path} cannot be read", seen=str(error), hint="Export the bundle again.") from error
        if not isinstance(data, dict):
            raise BundleError(f"{path} is malformed", seen=type(data).__name__, expected="a JSON object")
        return data


def open_bundle(path: str | os.PathLike[str], *, approve: Approve | None = None) -> Bundle:
    """Open a bundle as `Bundle.open` does, with a condition on its content.

    Args:
        path: The bundle folder.
        approve: Called with the files that a signature covers, before any of them but the manifest and the engine index
            is read. They are compared with these checksums afterwards, engines included.

    Raises:
        BundleError: See `Bundle.open`.
    """
    folder = check_path(path, "path of a bundle", error=BundleError)
    if not folder.is_dir():
        seen = "a file" if folder.exists() else "nothing"
        raise BundleError(f"{folder} is not a bundle", seen=seen, expected="a folder made by visdeploy.export")
    if not os.path.lexists(folder / MANIFEST):
        raise BundleError(f"{folder} is not a bundle", seen=f"no {MANIFEST}", expected="a bundle folder")
    text = _read_text(folder / MANIFEST)
    manifest = Manifest.from_json(text, where=str(folder / MANIFEST))
    if missing := [name for name in REQUIRED if name not in manifest.files]:
        raise BundleError(f"{folder / MANIFEST}: field 'files' lacks {missing}", hint="Export the bundle again.")
    if listed := [name for name in manifest.files if is_signature(name)]:
        hint = "A signature is never listed. Export the bundle again."
        raise BundleError(f"{folder / MANIFEST}: field 'files' lists the signature {listed[0]}", hint=hint)
    _check_strays(folder, manifest.files)
    signed = None
    if approve is not None:
        signed = {name: entry.sha256 for name, entry in manifest.files.items()}
        signed |= {MANIFEST: hashlib.sha256(text).hexdigest()} | engine_checksums(folder)
        approve(folder, signed)
    for name, entry in manifest.files.items():
        check_file(folder / name, entry)
    _check_weights(folder, manifest.files)
    check_engines(folder, manifest.tolerance, signed)
    bundle = Bundle(folder, manifest, signed)
    _check_digest(bundle, manifest_digest(text))
    return bundle


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
    if ignored := sorted(name for name in files if is_hidden(name) or is_clutter(name) or is_signature(name)):
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

    A signature is not listed either; it is made for a complete bundle.

    Raises:
        BundleError: A field is unknown, missing or wrong.
    """
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    rules = (is_hidden, is_clutter, is_engine_file, is_signature)
    names = [n for n in names if n != MANIFEST and not any(rule(n) for rule in rules)]
    entries = {n: FileEntry(sha256=file_sha256(folder / n), size=(folder / n).stat().st_size) for n in names}
    try:
        manifest = Manifest.model_validate({**fields, "schema_version": SCHEMA_VERSION, "files": entries})
        text = manifest.model_dump_json(indent=2)
    except ValidationError as error:
        raise BundleError(f"the manifest cannot be written: {describe_errors(error)}") from error
    except PydanticSerializationError as error:  # half of a surrogate pair
        raise BundleError("the manifest cannot be written: a text is not Unicode", seen=str(error)) from error
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return Bundle(folder, manifest)


def _read_text(path: Path) -> bytes:
    """Return the content of a JSON file of limited size."""
    if (size := regular_size(path)) > _MAX_JSON:
        raise BundleError(f"{path} is too large", seen=f"{size} B", expected=f"at most {_MAX_JSON} B")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read", seen=error.strerror or str(error)) from error


def _check_digest(bundle: Bundle, digest: str) -> None:
    """Raise an error if the certificate was made with another manifest. Earlier versions did not record it."""
    try:
        recorded = bundle.certificate().get("manifest")
    except BundleError:  # reported when the certificate is needed
        return
    if recorded and recorded != digest:
        raise BundleError(
            f"{bundle.path / MANIFEST} was changed after its certificate was made",
            seen=f"digest {digest[:12]}…",
            expected=f"{str(recorded)[:12]}…",
            hint="Copy the bundle anew, or export it again; manifests are not edited by hand.",
        )


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
