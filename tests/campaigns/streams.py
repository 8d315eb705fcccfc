"""Saved streams: damaged, edited, and of other bundles."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaigns.damage import Rng, change_json, damage_file
from tests.campaigns.trials import Trial
from tests.visdeploy.step_graph import clip, make_bundle
from visdeploy import VISPredictor

HEADER = "header"


class Streams:
    """Kind `streams`: loaded and continued, compared with the stream that was not interrupted."""

    name, count = "streams", 720

    def prepare(self, folder: Path) -> None:
        bundle = folder / "steps.vis"
        if not bundle.exists():
            make_bundle(bundle)
        self.predictor = VISPredictor(bundle, device="cpu", threads=1)
        self.frames = clip(8)
        with self.predictor.open_stream(collect=True, name="clip") as stream:
            for image in self.frames[:5]:
                stream.push(image)
            self.saved = stream.save(folder / "whole.npz").read_bytes()
            self.expected = self._continue(stream)
        with np.load(io.BytesIO(self.saved)) as archive:
            self.arrays = dict(archive)

    def _continue(self, stream: Any) -> list[Any]:
        return [stream.push(image).instances for image in self.frames[5:]] + [stream.result().tracks]

    def trial(self, number: int, rng: Rng, folder: Path) -> Trial:
        path = folder / "a.npz"
        damaged, edited = number % 3 == 0, number % 3 == 1
        if damaged:
            path.write_bytes(self.saved)
            label = damage_file(path, number // 3, rng)
        elif edited:
            label = self._edit_header(path, rng)
        else:
            label = self._edit_array(path, rng)

        def load() -> list[Any]:
            with self.predictor.load_stream(path) as stream:
                return self._continue(stream)

        # values that somebody wrote into a whole file cannot be told from those of the stream
        return Trial(label, load, lambda found: "" if found == self.expected or not damaged else "others", (path,))

    def _edit_header(self, path: Path, rng: Rng) -> str:
        header = json.loads(self.arrays[HEADER].tobytes())
        changed, label = change_json(header, rng)
        text = json.dumps(changed).encode(errors="surrogatepass")
        np.savez(path, **{**self.arrays, HEADER: np.frombuffer(text, np.uint8)})
        return f"header: {label}"

    def _edit_array(self, path: Path, rng: Rng) -> str:
        names = [name for name in self.arrays if name != HEADER]
        name, choice = names[int(rng.integers(len(names)))], int(rng.integers(11))
        arrays: dict[str, Any] = dict(self.arrays)
        value = arrays[name]
        if choice == 0:
            del arrays[name]
        elif choice == 1:
            arrays[name] = value.astype(("float64", "int8", "complex64", "U8", "bool", "S3")[int(rng.integers(6))])
        elif choice == 2:
            arrays[name] = value[None]
        elif choice == 3:
            arrays[name] = value.reshape(-1)[: value.size // 2]
        elif choice == 4:
            arrays[name] = np.full_like(value, rng.integers(0, 255) if value.dtype.kind == "u" else -(2**31))
        elif choice == 5 and value.dtype.kind == "f":
            arrays[name] = np.full_like(value, (np.nan, np.inf, 1e38)[int(rng.integers(3))])
        elif choice == 6:
            arrays[name] = np.concatenate([value.reshape(-1)] * 2)
        elif choice == 7:
            arrays[name] = np.zeros((0, *value.shape[1:]), value.dtype)
        elif choice == 8:
            arrays[f"{name}x"] = arrays.pop(name)
        elif choice == 9:
            return self._write_bomb(path, name, rng)
        else:
            flat = value.copy().reshape(-1)
            if flat.size:
                flat[int(rng.integers(flat.size))] = rng.integers(0, 120)
            arrays[name] = flat.reshape(value.shape)
        np.savez(path, **arrays)
        return f"{name}: edit {choice}"

    def _write_bomb(self, path: Path, name: str, rng: Rng) -> str:
        """Write an archive whose array is huge, says that it is, or is doubled."""
        choice = int(rng.integers(3))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, value in self.arrays.items():
                buffer = io.BytesIO()
                np.save(buffer, value)
                content = buffer.getvalue()
                if key == name and choice == 0:
                    content = content[:128].ljust(1 << 29, b"\0")
                if key == name and choice == 1:
                    content = content.replace(b"'shape': (", b"'shape': (9999999999, ", 1)
                archive.writestr(f"{key}.npy", content)
                if key == name and choice == 2:
                    archive.writestr(f"{key}.npy", content)
        return f"{name}: archive ({choice})"


KIND = Streams()
