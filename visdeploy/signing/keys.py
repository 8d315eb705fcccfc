"""Key files: PEM files of elliptic-curve keys, checked before they sign or verify anything."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visdeploy.arguments import check_path
from visdeploy.errors import ConfigError
from visdeploy.optional import require

CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_MAX_SIZE = 1 << 16
_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_MAKE = "Make a key with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"


@dataclass(frozen=True)
class KeyFile:
    """File of a key that can be used.

    Attributes:
        path: The file.
        fingerprint: SHA-256 of the public key as PEM, which signatures of the key contain.
        password: Password of the file; None if it has none.
    """

    path: Path
    fingerprint: str
    password: bytes | None = field(default=None, repr=False)


def private_key(path: str | os.PathLike[str], password: str | bytes | None = None) -> KeyFile:
    """Check the file of a private key.

    Args:
        path: PEM file.
        password: Its password, if it is protected.

    Raises:
        ConfigError: The file is missing or not a private key on one of `CURVES`, or the password is missing or wrong.
        DependencyError: The extra `signing` is not installed.
    """
    file, text = _read(path, "PRIVATE KEY", "private key")
    secret = password.encode() if isinstance(password, str) else password
    if not isinstance(secret, bytes | None):
        raise ConfigError(f"password of the key {file}", seen=type(password).__name__, expected="str, bytes or None")
    kinds = _serialization()
    try:
        key = kinds.load_pem_private_key(text, secret or None)
    except TypeError as error:  # of the package: a password is missing, or there is one too many
        what = "has no password" if secret else "is protected by a password"
        raise ConfigError(
            f"the private key {file} {what}",
            seen="a password" if secret else "no password",
            hint="Omit it." if secret else "Pass password=..., or set VISDEPLOY_KEY_PASSWORD on the command line.",
        ) from error
    except Exception as error:
        raise _unreadable(file, "private key", error, "Check the password." if secret else "") from error
    return KeyFile(file, _fingerprint(file, key.public_key()), secret or None)


def public_key(path: str | os.PathLike[str]) -> KeyFile:
    """Check the file of a public key.

    Raises:
        ConfigError: The file is missing or not a public key on one of `CURVES`.
        DependencyError: The extra `signing` is not installed.
    """
    file, text = _read(path, "PUBLIC KEY", "public key")
    kinds = _serialization()
    try:
        key = kinds.load_pem_public_key(text)
    except Exception as error:
        raise _unreadable(file, "public key", error) from error
    return KeyFile(file, _fingerprint(file, key))


def is_protected(path: Path) -> bool:
    """Return whether a file contains a private key with a password; False for everything else."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_SIZE)
    except OSError:
        return False
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in text or b"Proc-Type: 4,ENCRYPTED" in text


def _serialization() -> Any:
    require("model_signing", extra="signing", purpose="a signature")  # needed next; before a bundle is hashed
    return require("cryptography.hazmat.primitives.serialization", extra="signing", purpose="a signature")


def _read(path: str | os.PathLike[str], wanted: str, what: str) -> tuple[Path, bytes]:
    """Return the path and content of a PEM file that contains a block of the wanted kind."""
    file = check_path(path, f"path of a {what}")
    if not file.is_file():
        seen = "a folder" if file.is_dir() else "not a plain file" if file.exists() else "nothing"
        raise ConfigError(f"the {what} {file} cannot be read", seen=seen, expected="a PEM file", hint=_MAKE)
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"the {what} {file} cannot be read", seen=error.strerror or str(error)) from error
    labels = [label.decode() for label in _LABEL.findall(text)]
    if len(text) > _MAX_SIZE or not labels:
        seen = f"more than {_MAX_SIZE} B" if len(text) > _MAX_SIZE else "no PEM block"
        raise ConfigError(f"{file} is not a {what}", seen=seen, expected="a PEM file of a key", hint=_MAKE)
    if not any(label.endswith(wanted) for label in labels):
        raise ConfigError(
            f"{file} is not a {what}", seen=", ".join(labels[:3]), expected=wanted, hint=_advice(file, labels, wanted)
        )
    return file, text


def _advice(file: Path, labels: list[str], wanted: str) -> str:
    if wanted == "PRIVATE KEY":
        return "A bundle is signed with the private key; only the public key is given to others."
    if any(label.endswith("PRIVATE KEY") for label in labels):
        return f"Keep it secret. Its public key is printed by: openssl pkey -in {file} -pubout"
    if "CERTIFICATE" in labels:
        return f"Its public key is printed by: openssl x509 -in {file} -pubkey -noout"
    return _MAKE


def _fingerprint(file: Path, key: Any) -> str:
    """Return the fingerprint of a public key, after checking that signatures can be made for it."""
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve not in CURVES:
        seen = type(key).__name__.lstrip("_") if curve is None else curve
        expected = f"an elliptic-curve key on {', '.join(CURVES.values())}"
        raise ConfigError(f"the key {file} is of a kind that cannot be used", seen=seen, expected=expected, hint=_MAKE)
    kinds = _serialization()
    text = key.public_bytes(kinds.Encoding.PEM, kinds.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(text).hexdigest()


def _unreadable(file: Path, what: str, error: Exception, hint: str = "") -> ConfigError:
    """Return the error for a file that the package cannot parse; it raises exceptions of several kinds."""
    seen = str(error)[:200] or type(error).__name__
    return ConfigError(f"the {what} {file} cannot be read", seen=seen, expected="a PEM file", hint=hint or _MAKE)
