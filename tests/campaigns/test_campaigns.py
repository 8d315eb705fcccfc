"""A tenth of every campaign."""

import pytest

from tests.campaigns.__main__ import chosen, describe
from tests.campaigns.runner import KINDS, load_kind, run
from tests.campaigns.trials import Outcome, Trial, judge
from visdeploy.errors import DataError


@pytest.mark.parametrize("kind", KINDS)
def test_no_defect(tmp_path, kind):
    found = list(run(kind, chosen(load_kind(kind).count, 0.1), tmp_path))
    assert [describe(kind, number, finding) for number, finding in found if not finding.outcome.good] == []
    assert {finding.outcome for _, finding in found} == {Outcome.RIGHT, Outcome.REFUSED}


def raising(error):
    def action():
        raise error

    return action


def test_outcomes(tmp_path):
    file = tmp_path / "a"
    file.write_text("x")
    cases = {
        Outcome.RIGHT: Trial("", lambda: 1, lambda _: ""),
        Outcome.WRONG: Trial("", lambda: 1, lambda _: "2 expected"),
        Outcome.REFUSED: Trial("", raising(DataError("a")), lambda _: ""),
        Outcome.GOOD_REFUSED: Trial("", raising(DataError("a")), lambda _: "", good=True),
        Outcome.RAW: Trial("", raising(KeyError("a")), lambda _: ""),
        Outcome.CHANGED: Trial("", lambda: file.write_text("y"), lambda _: "", (file,)),
    }
    assert {expected: judge(trial).outcome for expected, trial in cases.items()} == {o: o for o in cases}
    assert judge(Trial("", raising(DataError("")), lambda _: "")).outcome == Outcome.RAW  # a message that says nothing


@pytest.mark.parametrize(("number", "outcome"), [(0, Outcome.HANG), (1, Outcome.CRASH), (2, Outcome.MEMORY)])
def test_hangs_crashes_and_memory_end_one_trial_only(tmp_path, number, outcome):
    found = [finding.outcome for _, finding in run("self_test", [3, number, 3], tmp_path, limit=15.0)]
    assert found == [Outcome.RIGHT, outcome, Outcome.RIGHT]
