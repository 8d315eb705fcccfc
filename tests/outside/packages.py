"""Packages laid out as installed ones, without pip: modules and a `.dist-info` folder on the import path."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings its backport
    import tomli as tomllib

SIXTH = Path(__file__).parent / "sixth_method"
EntryPoints = Mapping[str, Mapping[str, str]]


def lay_out(site: Path, name: str, entry_points: EntryPoints, *, modules: Path | Mapping[str, str]) -> Path:
    """Put a package where `importlib.metadata` finds it.

    Args:
        site: Folder for the import path.
        name: Name of the package, as pip would show it.
        entry_points: Group → name → object.
        modules: Folder of the import package, which is copied, or name of a module → its source.
    """
    site.mkdir(parents=True, exist_ok=True)
    if isinstance(modules, Path):
        shutil.copytree(modules, site / modules.name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        for module, source in modules.items():
            (site / f"{module}.py").write_text(source)
    info = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    groups = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in entry_points.items())
    (info / "entry_points.txt").write_text("\n".join(groups))
    return site


def lay_out_sixth(site: Path) -> Path:
    """Return the package of the sixth method, as its pyproject.toml says."""
    project = tomllib.loads((SIXTH / "pyproject.toml").read_text())["project"]
    return lay_out(site, project["name"], project["entry-points"], modules=SIXTH / project["name"].replace("-", "_"))


@contextmanager
def on_path(site: Path) -> Iterator[Path]:
    """Add a folder to the import path of this process; afterwards, remove it and its modules."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        try:
            yield site
        finally:
            for name in set(sys.modules) - before:
                file = getattr(sys.modules[name], "__file__", None)
                if file is not None and Path(file).is_relative_to(site):
                    del sys.modules[name]
