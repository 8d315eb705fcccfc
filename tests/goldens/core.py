"""Common parts of the golden folders of all methods: weights, arrays with statistics, packed masks, the report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .seeded import seeded_array

StateDict = dict[str, torch.Tensor]
Resize = Callable[[str, tuple[int, ...]], tuple[int, ...]]


@dataclass(frozen=True)
class Row:
    """One comparison: the worst error in units of `limit`'s quantity; `excess` is error / limit, NaN counts as bad."""

    file: str
    stage: str
    key: str
    error: float
    excess: float

    @property
    def ok(self) -> bool:
        return self.excess <= 1.0


@dataclass
class Report:
    rows: list[Row] = field(default_factory=list)
    checked: int = 0
    unchecked: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.rows) and not self.unchecked and all(r.ok for r in self.rows)


class Store:
    """One npz file; every stored key must be used once, everything compared goes to the report.

    Args:
        golden: The folder it is in.
        file: Its name.
        cases: The first part of every key names an independent case; the report's table puts cases together.
    """

    def __init__(self, golden: Golden, file: str, *, cases: bool = False) -> None:
        self.golden, self.file, self.cases = golden, file, cases
        with np.load(golden.folder / file, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.unused = set(self.arrays)
        self.subsample: Mapping[str, Mapping[str, int]] = golden.manifest.get("subsample", {}).get(file, {})

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def keys(self, pattern: str) -> list[str]:
        """Return the keys that match the whole pattern, without `/shape` and `/stats` companions of other keys."""
        return [k for k in self.arrays if re.fullmatch(pattern, k) and not self._companion(k)]

    def _companion(self, key: str) -> bool:
        base, _, leaf = key.rpartition("/")
        return leaf in ("shape", "stats") and base in self.arrays

    def take(self, key: str) -> np.ndarray:
        """Return a stored array that is an input of the comparison."""
        self.unused.discard(key)
        return self.arrays[key]

    def row(self, key: str, error: float, limit: float, *, note: str = "") -> None:
        excess = error / limit if limit > 0 else (0.0 if error == 0 else np.inf)
        shown = key.split("/", 1)[1] if self.cases else key
        stage = re.sub(r"(?:^|/)f\d+(?=/)|#\d+", "", shown).lstrip("/") + (f" ({note})" if note else "")
        self.golden.report.rows.append(Row(self.file, stage, key, float(error), float(excess)))

    def close(self, key: str, value: Any, *, atol: float, rtol: float = 0.0, note: str = "") -> None:
        """Compare a full float array with a stored one that may be sub-sampled and have a shape and statistics."""
        full = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
        stored = self.take(key).astype(np.float64)
        if f"{key}/shape" in self.arrays and tuple(self.take(f"{key}/shape")) != full.shape:
            return self.row(key, np.inf, 1.0, note=f"shape {full.shape}")
        errors = []
        if f"{key}/stats" in self.arrays:
            wide = full.astype(np.float64)
            seen = np.array([wide.mean(), wide.std(), np.abs(wide).max()]) if wide.size else np.zeros(3)
            errors.append((seen, self.take(f"{key}/stats").astype(np.float64)))
        part = full[self._slices(key, full.ndim)].astype(np.float64)
        if part.shape != stored.shape:
            return self.row(key, np.inf, 1.0, note=f"shape {part.shape} for {stored.shape}")
        errors.append((part, stored))
        worst = excess = 0.0
        for a, b in errors:
            if a.size:
                difference = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b))
                worst = max(worst, float(np.nan_to_num(difference, nan=np.inf).max()))
                allowed = atol + rtol * np.nan_to_num(np.abs(b))
                excess = max(excess, float(np.nan_to_num(difference / allowed, nan=np.inf).max()))
        # the row's limit is what the worst element was allowed, so that error / limit is the worst excess
        return self.row(key, worst, worst / excess if excess and np.isfinite(worst) else 1.0, note=note)

    def _slices(self, key: str, ndim: int) -> tuple[slice, ...]:
        steps = self.subsample.get(key, {})
        return tuple(slice(None, None, int(steps.get(str(axis), 1))) for axis in range(ndim))

    def exact(self, key: str, value: Any, *, note: str = "") -> None:
        """Compare discrete values, sub-sampled as stored; the error is the number of differences."""
        full = np.asarray(value)
        if f"{key}/shape" in self.arrays and tuple(self.take(f"{key}/shape")) != full.shape:
            return self.row(key, np.inf, 0.0, note=f"shape {full.shape}")
        stored, value = self.take(key), full[self._slices(key, full.ndim)]
        if stored.shape != value.shape:
            return self.row(key, np.inf, 0.0, note=f"shape {value.shape} for {stored.shape}")
        return self.row(key, float(np.sum(stored != value)), 0.0, note=note)

    def masks(self, prefix: str, value: Any, *, fraction: float = 0.0, per_mask: int = 0) -> float:
        """Compare `<prefix>_packed`, `_shape`, `_area` with dense masks `[..., H, W]`.

        Allowed: a fraction of all pixels, or a number of pixels per mask.

        Returns:
            The largest part of a stored mask that differs; 0 where they cannot be compared.
        """
        masks = np.asarray(value).astype(bool)
        if f"{prefix}_shape" in self.arrays:
            self.exact(f"{prefix}_shape", np.array(masks.shape))
        pixels = masks.shape[-2] * masks.shape[-1]
        rows = np.unpackbits(self.take(f"{prefix}_packed"), axis=1, count=pixels).reshape(-1, pixels).astype(bool)
        flat = masks.reshape(-1, pixels)
        if rows.shape != flat.shape:
            for key in {f"{prefix}_packed", f"{prefix}_area"} & set(self.arrays):
                self.take(key)
                self.row(key, np.inf, 0.0, note=f"{flat.shape} for {rows.shape}")
            return 0.0
        wrong = (rows != flat).sum(axis=1)
        worst, limit = (wrong.max(initial=0), per_mask) if per_mask else (wrong.sum(), fraction * rows.size)
        self.row(f"{prefix}_packed", float(worst), max(limit, 0.0))
        if f"{prefix}_area" in self.arrays:
            area = masks.sum(axis=(-2, -1))
            self.row(f"{prefix}_area", float(np.abs(area - self.take(f"{prefix}_area")).sum()), max(limit, 0.0))
        return float((wrong / np.maximum(rows.sum(axis=1), 1)).max(initial=0))


class Golden:
    """A golden folder.

    Args:
        folder: Holds `manifest.json`, or several `manifest_*.json`, and the npz files.
        edit: Changes the weights before they are used; for tests of the harness itself.
        only: Use these files alone.
    """

    def __init__(
        self, folder: Path, *, edit: Callable[[StateDict], None] | None = None, only: tuple[str, ...] = ()
    ) -> None:
        self.folder, self.edit, self.only = folder, edit, only
        path = folder / "manifest.json"
        if not path.is_file():  # a folder of several manifests, each with its own name
            path = min(folder.glob("manifest_*.json"), default=path)
        self.manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.tolerance: dict[str, Any] = self.manifest.get("tolerance", {})
        self.report = Report()
        self._opened: set[str] = set()

    def weights(
        self,
        resize: Callable[[str, tuple[int, ...]], tuple[int, ...]] = lambda name, shape: shape,
        *,
        details: Mapping[str, Any] | None = None,
    ) -> StateDict:
        """Return the seeded weights, with overrides.

        `resize` may change the shape of a tensor by its name; a case with `details` has its own `params` and
        `overrides` there, else they are the manifest's.
        """
        source = self.manifest if details is None else details
        state: StateDict = {}
        for entry in source["params"]:
            name = entry["name"]
            value = seeded_array(name, resize(name, tuple(entry["shape"])), entry.get("dtype", "float32"))
            for pattern, change in source.get("overrides", {}).items():
                if re.search(pattern, name):
                    value = (value * change.get("scale", 1.0) + change.get("shift", 0.0)).astype(value.dtype)
            state[name] = torch.from_numpy(np.array(value))
        if self.edit is not None:
            self.edit(state)
        return state

    def open(self, file: str, *, cases: bool = False) -> Store | None:
        """Return a file of the folder; None where it is absent or not asked for."""
        self._opened.add(file)
        if self.only and file not in self.only:
            return None
        if not (self.folder / file).is_file():
            self.report.absent.append(file)
            return None
        return Store(self, file, cases=cases)

    def close(self, store: Store) -> None:
        """Report stored arrays that were never compared."""
        self.report.checked += len(store.arrays) - len(store.unused)
        self.report.unchecked += [f"{store.file}: {key}" for key in sorted(store.unused)]

    def finish(self) -> Report:
        """Report files that the adapter does not read as failures."""
        for path in sorted(self.folder.glob("*.npz")):
            if path.name not in self._opened and (not self.only or path.name in self.only):
                self.report.unchecked.append(f"{path.name}: the whole file")
        return self.report
