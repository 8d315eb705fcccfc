import copy
import pickle

import numpy as np
import pytest

from visdeploy.errors import ConfigError
from visdeploy.evaluation import METRICS, Report, evaluate
from visdeploy.masks import Mask

REPORT = Report({"ytvis": {"AP": 0.5, "AR10": 0.25, "per_category": {"cat": {"AP": 0.5}}}, "jf": {"J&F": 0.75}})


def test_a_report_is_a_mapping_of_metrics():
    assert (list(REPORT), len(REPORT)) == (["ytvis", "jf"], 2)
    assert dict(REPORT.items()) == REPORT.metrics
    assert [*REPORT.keys()] == ["ytvis", "jf"]
    assert REPORT.metrics == {**REPORT}


@pytest.mark.parametrize(
    ("name", "value"), [("ytvis", REPORT.metrics["ytvis"]), ("AP", 0.5), ("J&F", 0.75), ("hota", None), (5, None)]
)
def test_names_of_metrics_and_scores(name, value):
    assert (name in REPORT) is (value is not None)
    assert REPORT.get(name) == value
    assert REPORT.get(name, -1) == (-1 if value is None else value)
    if value is not None:
        assert REPORT[name] == value
        return
    for error in (ConfigError, KeyError):
        with pytest.raises(error, match="the report has no score"):
            REPORT[name]


def test_reports_are_compared_by_their_scores():
    assert Report({"jf": {"J&F": 0.75}}) == Report({"jf": {"J&F": 0.75}})
    assert Report({"jf": {"J&F": 0.75}}) != Report({"jf": {"J&F": 0.5}})
    assert repr(REPORT) == "Report(metrics=ytvis, jf, ytvis.AP=0.5000, ytvis.AR10=0.2500, jf.J&F=0.7500)"


def test_whole_reports_are_compared_and_copied():
    rle = Mask.encode(np.eye(6, 8)).to_coco()
    truth = {
        "categories": [{"id": 1, "name": "cat"}],
        "videos": [{"id": 1, "height": 6, "width": 8, "file_names": ["v/0.jpg"]}],
        "annotations": [{"id": 1, "video_id": 1, "category_id": 1, "segmentations": [rle]}],
    }
    found = [{"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [rle]}]
    one, other = (evaluate(found, truth, metrics=METRICS) for _ in range(2))
    assert list(one) == list(METRICS)
    assert one == other == copy.deepcopy(one) == pickle.loads(pickle.dumps(one))
    assert len(repr(one)) <= 200
