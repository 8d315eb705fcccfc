"""Digest of a manifest, by which the files of a bundle recognise the manifest that they were made with."""

from __future__ import annotations

import hashlib
import json

from visdeploy.errors import BundleError

SEALS = ("certificate.json", "selftest.npz")
"""Files that contain the digest. It cannot depend on their own checksums."""


def manifest_digest(text: bytes) -> str:
    """Compute the SHA-256 of the content of a manifest, whatever its layout and the order of its fields.

    The fields are taken as written, not as parsed: the digest is the same in versions with other default values.

    Args:
        text: JSON of a manifest.

    Raises:
        BundleError: It is not the JSON of a manifest.
    """
    try:
        data = json.loads(text)
        data["files"] = {name: entry for name, entry in data["files"].items() if name not in SEALS}
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise BundleError("a manifest is not valid JSON, or has no list of files", seen=str(error)[:100]) from error
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
