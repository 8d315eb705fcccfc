"""The self-test of a bundle: a clip with the outputs of PyTorch for it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visdeploy.archives import check_archive
from visdeploy.brief import brief
from visdeploy.errors import BundleError
from visdeploy.manifest import Manifest
from visdeploy.manifest.sizes import Shaped, SizeError, bind
from visdeploy.manifest.tensors import host_dtype

# below `frames`, where versions that do not know it do not take it for the output of a step
_MANIFEST = "frames/manifest"


@dataclass(frozen=True, eq=False)
class SelfTest:
    """Clip of a bundle with the outputs of PyTorch for it, recorded at export.

    Attributes:
        frames: Raw RGB frames, uint8 `[frames, height, width, 3]`, before any preprocessing.
        outputs: For each step of the graph (one frame or one clip), output name → array as the graph returns it.
        manifest: Digest of the manifest that the outputs were recorded with (`Bundle.digest`); empty in bundles of
            earlier versions.
    """

    frames: NDArray[np.uint8]
    outputs: tuple[dict[str, NDArray[Any]], ...]
    manifest: str = ""

    def __repr__(self) -> str:
        return brief(self, frames=self.frames, steps=len(self.outputs))

    def to_bytes(self) -> bytes:
        """Return the content of `selftest.npz`."""
        arrays: dict[str, NDArray[Any]] = {"frames": self.frames}
        if self.manifest:
            arrays[_MANIFEST] = np.frombuffer(self.manifest.encode(), dtype=np.uint8)
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
            BundleError: The file is not an npz archive, would take too much memory, contains objects, or lacks a step
                or an output.
        """
        try:
            check_archive(path)
            with np.load(path, allow_pickle=False) as archive:
                frames = archive["frames"]
                manifest = archive[_MANIFEST].astype(np.uint8).tobytes() if _MANIFEST in archive.files else b""
                count = len({name.partition("/")[0] for name in archive.files} - {"frames"})
                outputs = tuple({name: archive[f"f{i}/{name}"] for name in names} for i in range(count))
        except Exception as error:  # zipfile, zlib and numpy raise different exceptions for damaged archives
            raise BundleError(
                f"{path} cannot be read", seen=str(error)[:300], hint="Export the bundle again."
            ) from error
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
            raise BundleError(
                f"{path}: frames are malformed", seen=f"{frames.dtype} {frames.shape}", expected="uint8 [f, h, w, 3]"
            )
        return cls(frames, outputs, manifest.decode("ascii", "replace"))

    def check(self, manifest: Manifest, *, where: str) -> None:
        """Compare dtypes and shapes of the outputs with those of the graph.

        Args:
            manifest: Manifest of the bundle.
            where: Path of the file, for errors.

        Raises:
            BundleError: An output has another dtype or shape, or two outputs of a step contradict each other.
        """
        for index, outputs in enumerate(self.outputs):
            try:
                for spec in manifest.outputs:
                    if (seen := outputs[spec.name].dtype) != (wanted := host_dtype(spec.dtype)):
                        raise SizeError(f"{spec.name!r}", seen=str(seen), expected=str(wanted))
                bind((Shaped(s.name, s.shape, outputs[s.name].shape) for s in manifest.outputs), manifest.dims)
            except SizeError as error:
                raise BundleError(
                    f"{where}: step {index}, output {error.what} does not fit the manifest",
                    seen=error.seen,
                    expected=error.expected,
                    hint="Export the bundle again.",
                ) from error
