"""The evaluator reproduces every number of its goldens."""

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


TRACKEVAL = {"HOTA": "hota", "CLEAR": "clear", "Identity": "identity", "TrackMAP": "trackmap"}


def test_hota_clear_identity_trackmap(golden):
    path, truth, expected = golden
    report = evaluate(path, truth, metrics=list(TRACKEVAL.values()))
    compared = 0
    for column, by_family in expected["trackeval"].items():
        for family, numbers in by_family.items():
            found = report[TRACKEVAL[family]]
            if column == "cls_comb_det_av":
                found = found.get("detection_average", found)  # TrackMAP has one average for both
            elif column != "cls_comb_cls_av":
                found = found["per_class"][column]
            for name, value in numbers.items():
                assert found[name] == pytest.approx(value, abs=1e-9), (column, family, name)
                compared += 1
    assert compared >= 30 * len(expected["trackeval"])


def test_j_and_f(golden):
    path, truth, expected = golden
    found = evaluate(path, truth, metrics=["jf"])["jf"]
    expected = dict(expected["davis_unsupervised"])
    per_object, per_frame = expected.pop("per_object"), expected.pop("per_frame", {})
    assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-9)
    assert set(found["per_object"]) == set(per_object)
    for name, numbers in per_object.items():
        assert found["per_object"][name] == pytest.approx(numbers, abs=1e-9), name
    for name, numbers in per_frame.items():  # stored with eight decimals
        assert found["per_frame"][name]["J"] == pytest.approx(numbers["J"], abs=1e-8), name
        assert found["per_frame"][name]["F"] == pytest.approx(numbers["F"], abs=1e-8), name


def test_objects_own_numbers_are_those_listed(golden):
    path, truth, _ = golden
    found = evaluate(path, truth, metrics=["jf"])["jf"]
    own = sorted(tuple(numbers["J_frames"]) for numbers in found["by_object"].values())
    assert own == sorted(tuple(numbers["J"]) for numbers in found["per_frame"].values())
