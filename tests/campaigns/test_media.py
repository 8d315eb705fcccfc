"""A tenth of the campaign of media files; `python -m tests.campaigns.media` runs all."""

from pathlib import Path

import pytest

from tests.campaigns.media import compare
from tests.campaigns.media_cases import CASES
from tests.campaigns.media_files import Case


@pytest.mark.parametrize("case", CASES[::10], ids=lambda case: case.name)
def test_a_tenth_of_the_campaign(tmp_path: Path, case: Case) -> None:
    row = compare(case, tmp_path)
    assert row.good, row.line()


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
