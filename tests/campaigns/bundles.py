"""Bundles: damaged, edited with and without new checksums, with strays, links and lists that lead elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.bundles import record_digest
from tests.campaigns.damage import ODD_VALUES, Rng, change_json, damage_file
from tests.campaigns.trials import Trial
from tests.visdeploy.step_graph import clip
from visdeploy import VISPredictor
from visdeploy.bundle import CERTIFICATE, MANIFEST, MODEL, SELFTEST, seal_bundle
from visdeploy.errors import VisdeployError
from visdeploy.parity.verification import verify


class Bundles:
    """Kind `bundles`: opened and run, compared with the results of the untouched bundle."""

    name, count = "bundles", 432

    def prepare(self, folder: Path) -> None:
        self.whole = folder / "whole.vis"
        self.frames = clip(2, size=(96, 160))
        if not self.whole.exists():
            _export(folder, self.whole)
        self.manifest = json.loads((self.whole / MANIFEST).read_text())
        self.expected = self._run(self.whole)

    def _run(self, path: Path) -> Any:
        found = VISPredictor(path, device="cpu", threads=1)(self.frames, name="clip")
        return [(t.label, t.score, t.masks) for t in found.tracks]

    def trial(self, number: int, rng: Rng, folder: Path) -> Trial:
        path = folder / "a.vis"
        shutil.copytree(self.whole, path)
        maker = MAKERS[number % len(MAKERS)]
        label, good, comparable = maker(self, path, rng, number // len(MAKERS))
        if maker is edited_proof:
            return Trial(label, lambda: verify(path, "cpu", 1, raise_on_failure=False), lambda _: "", (path,), good)
        same = lambda found: "" if found == self.expected or not comparable else "other results"  # noqa: E731
        return Trial(label, lambda: self._run(path), same, (path,), good)


Made = tuple[str, bool, bool]


def _export(folder: Path, path: Path) -> None:
    import torch

    import visdeploy
    from visdeploy_training import create_model, save_checkpoint

    torch.set_num_threads(1)
    torch.manual_seed(7)
    options = {"class_prior": 0.0, "height": 96, "width": 160, "memory_slots": 4, "score_threshold": 0.75}
    model = create_model("visolo", "tiny", classes=("cat", "dog", "owl"), **options)
    checkpoint = save_checkpoint(model, folder / "tiny.safetensors")
    visdeploy.export(checkpoint, path, certify_frames=2)


def damaged(kind: Bundles, path: Path, rng: Rng, number: int) -> Made:
    """Bytes of one file."""
    files = sorted(f for f in path.rglob("*") if f.is_file())
    file = files[int(rng.integers(len(files)))]
    return f"{file.name}: {damage_file(file, number, rng)}", False, True


def missing(kind: Bundles, path: Path, rng: Rng, number: int) -> Made:
    """A file removed, emptied, or replaced by a folder, a link or a pipe."""
    file = path / (MANIFEST, MODEL, SELFTEST, CERTIFICATE)[int(rng.integers(4))]
    content = file.read_bytes()
    file.unlink()
    choice = number % 5
    if choice == 1:
        file.touch()
    elif choice == 2:
        file.mkdir()
    elif choice == 3:
        os.mkfifo(file)
    elif choice == 4:
        file.symlink_to(Path("/etc/passwd"))
    return f"{file.name} gone ({choice}, {len(content)} B)", False, True


def edited(kind: Bundles, path: Path, rng: Rng, number: int) -> Made:
    """The manifest, by hand."""
    changed, label = change_json(kind.manifest, rng)
    (path / MANIFEST).write_text(json.dumps(changed), errors="surrogatepass")
    return f"manifest: {label}", False, True


def sealed(kind: Bundles, path: Path, rng: Rng, number: int) -> Made:
    """The manifest, with checksums and digests made anew: nothing tells it from an export."""
    fields = {k: v for k, v in kind.manifest.items() if k not in ("files", "schema_version")}
    changed, label = change_json(fields, rng)
    return f"manifest, sealed anew: {label}", False, not _seal(path, changed)


def sizes(kind: Bundles, path: Path, rng: Rng, number: int) -> Made:
    """A size or threshold in the manifest with an odd value, sealed anew."""
    fields = {k: v for k, v in kind.manifest.items() if k not in ("files", "schema_version")}
    numbers = [(a, b) for a, inner in fields.items() if isinstance(inner, dict) for b in inner]
    group, name = numbers[int(rng.integers(len(numbers)))]
    odd = (*ODD_VALUES, 10**9, 65_536, 1_000_000.5)
    value = odd[int(rng.integers(len(odd)))]
    fields[group] = {**fields[group], name: value}
    return f"{group}.{name} = {str(value)[:30]!r}, sealed anew", False, not _seal(path, fields)


def _seal(path: Path, fields: dict[str, Any]) -> bool:
    """Seal a bundle again; leave the edited manifest unsealed if its fields are refused, and return False."""
    try:
        record_digest(seal_bundle(path, fields))
        seal_bundle(path, fields)
    except VisdeployError:
        text = json.dumps({**json.loads((path / MANIFEST).read_text()), **fields})
        (path / MANIFEST).write_text(text, errors="surrogatepass")
        return False
    return True


def listed(kind: Bundles, path: Path, rng: Rng, number: int) -> Made:
    """The list of files, leading elsewhere."""
    outside = path.parent / "outside"
    outside.write_bytes(b"x")
    names = ("../outside", str(outside), "a/../../outside", ".", "", "con\u0000", "model.onnx/", "~/x", "a" * 5000)
    name = names[number % len(names)]
    entry = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": (1, -1, 2**60)[int(rng.integers(3))]}
    changed = {**kind.manifest, "files": {**kind.manifest["files"], name: entry}}
    (path / MANIFEST).write_text(json.dumps(changed))
    return f"lists {name[:20]!r}", False, True


def harmless(kind: Bundles, path: Path, rng: Rng, number: int) -> Made:
    """What file managers, version control and caches of model hubs leave, or do with the files."""
    choice = number % 6
    if choice < 4:
        name = (".DS_Store", ".gitattributes", "Thumbs.db", "._model.onnx")[choice]
        (path / name).write_bytes(rng.bytes(20))
    elif choice == 4:
        blob = path.parent / "blob"
        shutil.move(path / MODEL, blob)
        (path / MODEL).symlink_to(blob)
    else:
        shutil.move(path, path.parent / "größe 12:30")
        path.symlink_to(path.parent / "größe 12:30", target_is_directory=True)
    return f"harmless ({choice})", True, True


def strays(kind: Bundles, path: Path, rng: Rng, number: int) -> Made:
    """A file that does not belong to a bundle."""
    name = ("model2.onnx", "libvisdeploy.so", "weights.data", "a/b.txt", "model.onnx.data", "sitecustomize.py")[
        number % 6
    ]
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_bytes(rng.bytes(50))
    return f"with {name}", False, True


def edited_proof(kind: Bundles, path: Path, rng: Rng, number: int) -> Made:
    """The certificate or the self-test, sealed anew, and then `verify`."""
    fields = {k: v for k, v in kind.manifest.items() if k not in ("files", "schema_version")}
    if number % 2:
        changed, label = change_json(json.loads((path / CERTIFICATE).read_text()), rng)
        (path / CERTIFICATE).write_text(json.dumps(changed), errors="surrogatepass")
    else:
        label = _edit_selftest(path / SELFTEST, rng)
    seal_bundle(path, fields)
    return f"proof, sealed anew: {label}", False, False


def _edit_selftest(file: Path, rng: Rng) -> str:
    with np.load(file) as archive:
        arrays = dict(archive)
    names = sorted(arrays)
    name, choice = names[int(rng.integers(len(names)))], int(rng.integers(6))
    value = arrays[name]
    if choice == 0:
        del arrays[name]
    elif choice == 1:
        arrays[name] = value.astype(("float64", "int8", "U4", "complex64")[int(rng.integers(4))])
    elif choice == 2:
        arrays[name] = value[..., None]
    elif choice == 3:
        arrays[name] = value[:0] if value.ndim else value
    elif choice == 4:
        arrays[name] = np.full_like(value, -1 if value.dtype.kind in "fi" else 200)
    else:
        arrays[name] = np.zeros((1 << 29,), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    file.write_bytes(buffer.getvalue())
    return f"{name} ({choice})"


def certificate_gone(kind: Bundles, path: Path, rng: Rng, number: int) -> Made:
    """JSON that is deep, long, or of another type, in place of a JSON file."""
    texts = ("[" * 100_000, '{"a":' * 50_000, "null", "[]", '"x"', "1e999", "{" + '"a":1,' * 200_000 + '"b":2}')
    name = (MANIFEST, CERTIFICATE)[int(rng.integers(2))]
    (path / name).write_text(texts[number % len(texts)])
    return f"{name} is other JSON ({number % len(texts)})", False, True


MAKERS = (
    damaged,
    missing,
    edited,
    sealed,
    sizes,
    listed,
    harmless,
    strays,
    edited_proof,
    certificate_gone,
    damaged,
    sealed,
)
KIND = Bundles()
