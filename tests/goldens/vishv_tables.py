"""VIShv's tables in `aux.json`: sizes, windows, coordinates, Lovász hinge, targets, learning rates, mixtures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from visdeploy_training.datasets import mixture_indices
from visdeploy_training.engine.optim import OptimRecipe, learning_rate_factor
from visdeploy_training.engine.schedule import Exponential
from visdeploy_training.losses import lovasz_hinge
from visdeploy_training.methods.vishv.embedding import coordinate_grid
from visdeploy_training.methods.vishv.targets import QuarterTargets, quarter_masks

from .core import Golden, Row
from .vishv_clusters import check_tables
from .vishv_stages import scaled_size

FILE = "aux.json"


def check_aux(golden: Golden) -> None:
    """Compare every table."""
    if golden.only and FILE not in golden.only:
        return
    path = golden.folder / FILE
    if not path.is_file():
        golden.report.absent.append(FILE)
        return
    tables = json.loads(path.read_text(encoding="utf-8"))
    wrong = check_tables(golden.folder)
    golden.report.rows.append(Row(FILE, "windows and palette", "; ".join(wrong), len(wrong), np.inf if wrong else 0.0))
    for case in tables["resize"]:
        height, width = scaled_size(case["height"], case["width"], case)
        _close(golden, "resize", [width, height], case["resized"], 0.0)
    for key in ("grid", "grid_portrait"):
        _grid(golden, key, tables[key])
    _lovasz(golden, tables["lovasz_hinge"])
    found = quarter_masks(torch.tensor(tables["mask_downscale"]["mask"]).bool())
    _close(golden, "mask_downscale", found.long(), tables["mask_downscale"]["quarter"], 0.0)
    case = tables["semantic_target"]
    masks = torch.tensor(case["masks"]).bool()
    target = QuarterTargets(masks, torch.tensor(case["categories"]), torch.zeros(masks.shape[1:], dtype=torch.bool))
    _close(golden, "semantic_target", target.semantic, case["target"], 0.0)
    for case in tables["mixture"]:
        indices = mixture_indices(case["lengths"], case["weights"], case["total"])
        _close(golden, "mixture", indices, case["mapping"], 0.0)
    for case in tables["exponential_lr"]:
        _schedule(golden, case)


def _close(golden: Golden, stage: str, found: Any, stored: Any, limit: float) -> None:
    a, b = np.asarray(found, np.float64), np.asarray(stored, np.float64)
    error = float(np.abs(a - b).max(initial=0)) if a.shape == b.shape else np.inf
    excess = error / limit if limit else (0.0 if error == 0 else np.inf)
    golden.report.rows.append(Row(FILE, stage, stage, error, excess))


def _grid(golden: Golden, key: str, case: dict[str, Any]) -> None:
    shape = [len(case[name]) for name in "tyx"]
    grid = coordinate_grid(torch.zeros(1, 1, *shape), "tyx", torch.tensor(case.get("time_scale", 1.0)))[0]
    for channel, name in enumerate("tyx"):
        others = tuple(axis for axis in range(3) if axis != channel)
        _close(golden, key, grid[channel].amax(dim=others), case[name], 1e-6)
        _close(golden, key, grid[channel].amin(dim=others), case[name], 1e-6)


def _lovasz(golden: Golden, case: dict[str, Any]) -> None:
    logits = torch.tensor(case["logits"], requires_grad=True)
    loss = lovasz_hinge(logits, torch.tensor(case["labels"]).bool())
    loss.backward()
    _close(golden, "lovasz_hinge", loss.detach(), case["loss"], 1e-5)
    assert logits.grad is not None
    _close(golden, "lovasz_hinge gradient", logits.grad, case["grad"], 1e-5)


def _schedule(golden: Golden, case: dict[str, Any]) -> None:
    # the first reduction is in the iteration called start
    schedule = Exponential(gamma=case["factor"], every=case["steps"], start=case["start"] - 1)
    optim = OptimRecipe(kind="sgd", lr=case["base"], schedule=schedule)
    factor = learning_rate_factor(optim, iterations=10 * case["steps"])
    for step, rate in case["lr_after_n_scheduler_steps"].items():
        _close(golden, "exponential_lr", case["base"] * factor(int(step)), rate, 1e-6 * rate)
