"""A tenth of the campaigns of media files; `python -m tests.campaigns.media` and `media_program` run all."""

from pathlib import Path

import pytest

from tests.campaigns import media_program
from tests.campaigns.media import compare
from tests.campaigns.media_cases import CASES
from tests.campaigns.media_files import Case


@pytest.mark.parametrize("case", CASES[::10], ids=lambda case: case.name)
def test_a_tenth_of_the_campaign(tmp_path: Path, case: Case) -> None:
    row = compare(case, tmp_path)
    assert row.good, row.line()


@pytest.mark.parametrize("case", media_program.chosen()[::8], ids=lambda case: case.name)
def test_a_tenth_with_the_program_ffmpeg(tmp_path: Path, case: Case) -> None:
    line, good = media_program.compare(media_program.program(), case, tmp_path)
    assert good, line


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
