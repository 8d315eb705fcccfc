"""Pages of the repository: line widths, merge conflict markers, links, images, recipes."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY
from visdeploy_training.engine.recipe import Recipe

WIDEST = 120
PICTURE_BYTES = 150_000


def _pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    names = listed.stdout.split() or [str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("*.md")]
    return [REPOSITORY / name for name in names]


PAGES = _pages()


@pytest.fixture(params=PAGES, ids=[str(page.relative_to(REPOSITORY)) for page in PAGES])
def page(request) -> Path:
    return request.param


def test_no_line_is_too_wide(page):
    wide = {number: len(line) for number, line in enumerate(page.read_text().splitlines(), 1) if len(line) > WIDEST}
    assert not wide


def test_no_merge_was_left_unfinished(page):
    assert not re.findall(r"^(?:<{7}|>{7}) .*$", page.read_text(), re.MULTILINE)


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name) if name else page
        assert found.exists(), target
        if anchor:
            assert anchor in {_anchor(title) for title in re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)}


def test_pictures_are_small():
    pictures = [path for path in (REPOSITORY / "docs").iterdir() if path.suffix in {".jpg", ".png"}]
    assert pictures
    assert all(path.stat().st_size < PICTURE_BYTES for path in pictures)


def test_the_recipe_of_the_readme_is_valid():
    (text,) = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    recipe = Recipe.model_validate(yaml.safe_load(text))
    assert [step.name for step in recipe.augment] == ["rescale", "flip"]
