"""The extras of the package: every one that a message or a page names is there, and none brings two engines' builds."""

import re

import pytest

from tests.conftest import REPOSITORY

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "Makefile", *REPOSITORY.glob("docs/**/*.md")]
PACKAGES = ("visdeploy", "export", "training", "plugins")
PAGES += [path for folder in PACKAGES for path in (REPOSITORY / folder).rglob("*.py")]
NAMED = {
    (path.relative_to(REPOSITORY).as_posix(), extra)
    for path in PAGES
    for extras in re.findall(r"""(?:['"]\.|visdeploy)\[([a-z, -]+)\]""", path.read_text())
    for extra in extras.split(",")
}
NAMED |= {
    (path.relative_to(REPOSITORY).as_posix(), extra)
    for path in PAGES
    for extra in re.findall(r"""\bextra=['"]([^'"]+)['"],\s*purpose""", path.read_text())
}
HINTED = {
    (path.relative_to(REPOSITORY).as_posix(), package)
    for path in [*PAGES, *REPOSITORY.glob("examples/*.py"), *REPOSITORY.glob("benchmarks/*.py")]
    for package in re.findall(r"pip install (?!-|')([\w.-]+)", path.read_text())
}
"""Packages that a message or a page says to install."""


def needs(extra, seen=()):
    """Return the names of the distributions that an extra installs, including those of other extras."""
    found = set()
    for requirement in EXTRAS[extra]:
        name, _, others = re.match(r"([\w.-]+)(\[([\w,-]+)\])?", requirement).groups()
        if name != "visdeploy":
            found.add(name)
            continue
        for other in others.split(","):
            assert other not in seen, f"{extra} brings itself"
            found |= needs(other, (*seen, extra))
    return found


@pytest.mark.parametrize(("page", "extra"), sorted(NAMED))
def test_every_extra_that_is_named_exists(page, extra):
    assert extra in EXTRAS


@pytest.mark.parametrize(("page", "package"), sorted(HINTED))
def test_every_package_that_is_named_is_one_of_an_extra(page, package):
    """Package indexes do not distinguish `_` from `-`; the builds for one version of CUDA have an ending."""
    known = {name.replace("_", "-").lower() for extra in EXTRAS for name in needs(extra)}
    name = package.replace("_", "-").lower()
    assert any(each == name or re.match(rf"{name}-cu\d+", each) for each in known)


def test_the_messages_name_some():
    assert {"cpu", "gpu", "export", "train", "formats", "signing", "tensorrt", "tensorrt-rtx"} <= {
        extra for _, extra in NAMED
    }


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_no_extra_brings_both_builds_of_onnxruntime(extra):
    assert len(needs(extra) & {"onnxruntime", "onnxruntime-gpu"}) <= 1


def test_who_brings_an_engine():
    bare = [re.match(r"[\w.-]+", each)[0] for each in PROJECT["dependencies"]]
    assert not any(name.startswith(("onnxruntime", "tensorrt")) for name in bare)
    assert needs("gpu") == {"onnxruntime-gpu"}
    assert all("onnxruntime" in needs(extra) for extra in ("cpu", "export", "demo", "dev"))
    assert needs("tensorrt") == {"tensorrt"}
    assert needs("tensorrt-rtx") == {"tensorrt-rtx-cu13"}
    assert "tensorrt" not in needs("dev"), "a source package that downloads while it is installed"


def test_who_brings_signatures():
    """Their tests run in the development environment and do not skip."""
    assert needs("signing") == {"model-signing", "pyopenssl"}
    assert "model-signing" in needs("dev")
    assert not any("signing" in each for each in PROJECT["dependencies"])
