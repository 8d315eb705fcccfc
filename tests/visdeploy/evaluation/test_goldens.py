"""Every number of the evaluator goldens."""

import json
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import shared_folder
from visdeploy.evaluation import AnnotationSet, evaluate, read_annotations


def golden_cases() -> list[tuple[str, str]]:
    folder = shared_folder()
    files = sorted(folder.glob("goldens/eval/*/predictions/*.json")) if folder else []
    return [(file.parts[-3], file.stem) for file in files]


@cache
def ground_truth(path: Path) -> AnnotationSet:
    return read_annotations(path)


@cache
def reference(path: Path) -> dict:
    return json.loads(path.read_text())["metrics"]


@pytest.fixture(params=golden_cases(), ids="/".join)
def golden(request, shared):
    group, name = request.param
    folder = shared / "goldens" / "eval" / group
    truth = ground_truth(folder / "gt.json")
    return folder / "predictions" / f"{name}.json", truth, reference(folder / "reference.json")[name]


def test_every_set_is_covered(shared):
    listed = {(f.parent.name, n) for f in shared.glob("goldens/eval/*/reference.json") for n in reference(f)}
    assert listed == set(golden_cases())
    assert len(listed) >= 16


def test_ap_and_ar(golden):
    path, truth, expected = golden
    found = evaluate(path, truth)["ytvis"]
    assert {k: found[k] for k in expected["ytvis"]} == pytest.approx(expected["ytvis"], abs=1e-9)
    assert found["AP_by_iou"] == pytest.approx(expected["ytvis_AP_by_iou"], abs=1e-9)
    assert set(found["per_category"]) == set(expected["ytvis_per_category"])
    for name, numbers in expected["ytvis_per_category"].items():
        own = found["per_category"][name]
        assert [own["AR1"], own["AR10"], own["AR100"]] == pytest.approx(numbers["AR"], abs=1e-9)
        assert (own["AP"], own["AP50"]) == pytest.approx((numbers["AP"], numbers["AP50"]), abs=1e-9)
