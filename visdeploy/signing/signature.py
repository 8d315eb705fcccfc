"""The signature of a bundle, `model.sig`: written and checked with the package `model-signing`.

The package hashes whole folders. A bundle knows the checksums of its files, and which of them an engine may read, so
that only the list of names and checksums is handed to the package.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from visdeploy.backends.engine_files import LOCK
from visdeploy.bundle_files import ENGINES, SIGNATURE, regular_size
from visdeploy.errors import BundleError
from visdeploy.optional import require
from visdeploy.signing.keys import KeyFile

_MAX_SIZE = 1 << 24
_SIGN_AGAIN = "visdeploy sign BUNDLE --key KEY --overwrite"
_SOURCE = "Get the bundle anew from a source that you trust"


class _Listing:
    """Stands in for the hashing of `model-signing`: returns a list of checksums that are known already.

    Attributes:
        asked: Whether the list was requested. When a signature is checked, this happens after it was found authentic.
    """

    def __init__(self, name: str, covered: Mapping[str, str]) -> None:
        manifests = _package("manifest")
        digests = _package("_hashing.hashing")
        items = [
            manifests.FileManifestItem(path=PurePosixPath(name), digest=digests.Digest("sha256", bytes.fromhex(sha256)))
            for name, sha256 in covered.items()
        ]
        ignored = [SIGNATURE, f"{ENGINES}/{LOCK}"]  # for the program of the package, which hashes the folder
        about = {"method": "files", "hash_type": "sha256", "allow_symlinks": True, "ignore_paths": ignored}
        self._manifest = manifests.Manifest(name, items, manifests.SerializationType.from_args(about))
        self.asked = False

    def hash(self, model_path: object, *, files_to_hash: object = None) -> Any:
        """Return the list, whatever the folder contains."""
        self.asked = True
        return self._manifest

    def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
        """Do nothing: a signature does not decide what it covers."""


def write_signature(path: Path, name: str, covered: Mapping[str, str], key: KeyFile) -> None:
    """Sign a list of files.

    Args:
        path: File to write.
        name: Name of the bundle, for information.
        covered: Name of each file → its SHA-256.
        key: Private key.

    Raises:
        DependencyError: The extra `signing` is not installed.
    """
    name = name.encode(errors="replace").decode()  # a file system may allow names that are not Unicode
    config = _package("signing").Config().use_elliptic_key_signer(private_key=key.path, password=key.password)
    config.set_hashing_config(_Listing(name, covered)).sign(path.parent, path)


def check_signature(folder: Path, covered: Mapping[str, str], key: KeyFile) -> None:
    """Raise an error unless a bundle has a valid signature of exactly these files.

    Args:
        folder: The bundle.
        covered: Name of each file → its SHA-256.
        key: Public key.

    Raises:
        BundleError: There is no signature, it is damaged or from another key, or it covers other files.
        DependencyError: The extra `signing` is not installed.
    """
    path = folder / SIGNATURE
    data = _read(folder, path)
    listing, checker = _Listing(folder.name, covered), _package("verifying").Config()
    signer = data["verificationMaterial"]["publicKey"]["hint"]
    if signer != key.fingerprint:
        raise BundleError(
            f"{path} was made with another key",
            seen=f"key {signer[:12]}…",
            expected=f"key {key.fingerprint[:12]}… of {key.path}",
            hint=f"{_SOURCE}, or use the public key of its signer.",
        )
    try:
        checker.use_elliptic_key_verifier(public_key=key.path).set_hashing_config(listing).verify(folder, path)
    except Exception as error:  # the package lets the exceptions of several parsers through
        if listing.asked:
            raise _other_content(folder, covered, data) from error
        raise _invalid(path, str(error)[:200] or type(error).__name__) from error


def _package(module: str) -> Any:
    return require(f"model_signing.{module}", extra="signing", purpose="a signature")


def _read(folder: Path, path: Path) -> dict[str, Any]:
    """Return the content of a signature file, after checking its size and that it names a key."""
    if not os.path.lexists(path):
        raise BundleError(
            f"{folder} is not signed",
            seen=f"no {SIGNATURE}",
            hint=f"{_SOURCE}, or sign it: visdeploy sign BUNDLE --key KEY",
        )
    if (size := regular_size(path)) > _MAX_SIZE:
        raise _invalid(path, f"{size} B")
    try:
        data = json.loads(path.read_bytes())
        hint = data["verificationMaterial"]["publicKey"]["hint"]
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(path, str(error)[:200]) from error
    except (KeyError, TypeError, IndexError) as error:
        raise _invalid(path, "JSON without the fingerprint of a key") from error
    if not isinstance(hint, str) or not isinstance(data, dict):
        raise _invalid(path, "JSON without the fingerprint of a key")
    return data


def _invalid(path: Path, seen: str) -> BundleError:
    expected = "a signature made by visdeploy sign"
    return BundleError(
        f"{path} is not a valid signature", seen=seen, expected=expected, hint=f"{_SOURCE}, or: {_SIGN_AGAIN}"
    )


def _other_content(folder: Path, covered: Mapping[str, str], data: Mapping[str, Any]) -> BundleError:
    """Return the error for an authentic signature of other files, naming the differences."""
    try:
        payload = json.loads(base64.b64decode(data["dsseEnvelope"]["payload"]))
        signed = {each["name"]: each["digest"] for each in payload["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError):  # an older layout of signatures
        signed = {}
    groups = {
        "changed": [name for name in covered if signed.get(name, covered[name]) != covered[name]],
        "not signed": [name for name in covered if name not in signed],
        "signed, but missing": [name for name in signed if name not in covered],
    }
    seen = "; ".join(f"{what}: {', '.join(sorted(names)[:5])}" for what, names in groups.items() if names)
    engines = any(name.startswith(f"{ENGINES}/") for names in groups.values() for name in names)
    advice = f"If you added or removed engines yourself, sign it again: {_SIGN_AGAIN}. Otherwise: " if engines else ""
    return BundleError(
        f"{folder} is not what was signed", seen=seen, expected="the signed files", hint=f"{advice}{_SOURCE}."
    )
