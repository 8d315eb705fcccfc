"""`sign`: sign a bundle with a private key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from visdeploy.atomic import replacing_file
from visdeploy.bundle import open_bundle
from visdeploy.bundle_files import SIGNATURE
from visdeploy.errors import ConfigError, OutputError
from visdeploy.signing.keys import private_key
from visdeploy.signing.signature import write_signature


def sign(
    path: str | os.PathLike[str],
    key: str | os.PathLike[str],
    *,
    password: str | bytes | None = None,
    overwrite: bool = False,
) -> Path:
    """Sign a bundle: its manifest, all files that the manifest lists, and the engines that it has now.

    The signature is the file `model.sig` in the bundle. It is checked where a public key is given: `Bundle.open`,
    `VISPredictor` and `verify` with `key=...`.

    Args:
        path: The bundle folder.
        key: PEM file of the private key, on the curve P-256, P-384 or P-521.
        password: Password of the key, if it is protected.
        overwrite: Replace an existing signature.

    Returns:
        Path of the signature.

    Raises:
        BundleError: The bundle is damaged, or an engine does not match the index.
        ConfigError: The key cannot be used, lies in the bundle, or its password is wrong.
        DependencyError: The extra `signing` is not installed.
        OutputError: There is a signature already, or it cannot be written.
    """
    private = private_key(key, password)
    covered: dict[str, str] = {}

    def remember(_: Path, files: Mapping[str, str]) -> None:
        covered.update(files)

    bundle = open_bundle(path, approve=remember)
    if Path(os.path.realpath(private.path)).is_relative_to(os.path.realpath(bundle.path)):
        raise ConfigError(
            f"the private key {private.path} lies in the bundle", hint="Move it elsewhere; keep it secret."
        )
    target = bundle.path / SIGNATURE
    if os.path.lexists(target) and not overwrite:
        raise OutputError(f"{target} exists already", hint="Pass overwrite=True to replace it.")
    with replacing_file(target) as temporary:
        write_signature(temporary, Path(os.path.abspath(bundle.path)).name or "bundle", covered, private)
    return target
