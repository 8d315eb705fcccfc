"""Digest of the content of our own checkpoints, because safetensors files have no checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from visdeploy.errors import CheckpointError

DIGEST = "sha256"


def content_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and values of the tensors, and of the metadata without its digest."""
    fields = {k: v for k, v in metadata.items() if k != DIGEST}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], where: str) -> None:
    """Compare the content with the digest in its metadata; files of earlier versions have none.

    Raises:
        CheckpointError: They differ.
    """
    recorded = metadata.get(DIGEST)
    if recorded is not None and recorded != (found := content_digest(tensors, metadata)):
        raise CheckpointError(
            f"{where} is damaged, or was edited after it was written",
            seen=f"content with SHA-256 {found[:12]}…",
            expected=f"{str(recorded)[:12]}…, as its metadata states",
            hint=f"Copy the file again. Remove {DIGEST!r} from its metadata if you changed it on purpose.",
        )
