"""Structure of the packages: allowed imports, no circular imports, one loop over frames."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shared_folder import REPOSITORY

PACKAGES = {
    "visdeploy": REPOSITORY / "visdeploy",
    "visdeploy_training": REPOSITORY / "training/visdeploy_training",
    "visdeploy_export": REPOSITORY / "export/visdeploy_export",
    "visdeploy_plugins": REPOSITORY / "plugins/visdeploy_plugins",
}
MAY_IMPORT = {
    "visdeploy": {"visdeploy"},
    "visdeploy_training": {"visdeploy_training", "visdeploy_plugins", "visdeploy"},
    "visdeploy_export": set(PACKAGES),
    "visdeploy_plugins": {"visdeploy_plugins"},
}


def modules() -> dict[str, Path]:
    """Map the import names of all modules of the four packages to their files."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(tree: ast.AST, *, late: bool) -> Iterator[str]:
    """Yield the names that a module imports when it is imported; with `late`, also those imported in functions.

    Imports under `if TYPE_CHECKING` never run.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not late:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node, late=late)


def dependencies(name: str, *, late: bool = False) -> set[str]:
    """Return the modules of the four packages that a module imports."""
    found = set()
    for target in imported(ast.parse(MODULES[name].read_text(encoding="utf-8")), late=late):
        while target and target not in MODULES:
            target = target.rpartition(".")[0]
        if target and target != name:
            found.add(target)
    return found


def test_no_import_circle():
    graph = {name: dependencies(name) for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for each in sorted(graph[name]):
                visit(each, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_imports_only_what_the_design_allows(package):
    for name in MODULES:
        if name.partition(".")[0] == package:
            used = {each.partition(".")[0] for each in dependencies(name, late=False)}
            assert used <= MAY_IMPORT[package], name


def test_training_knows_the_interface_of_engines_but_no_engine():
    for name in MODULES:
        if name.startswith("visdeploy_training"):
            engines = {d for d in dependencies(name, late=True) if d.startswith("visdeploy.backends")}
            assert engines <= {"visdeploy.backends.base"}, name


def test_the_runtime_never_imports_torch():
    for name, path in MODULES.items():
        if name.partition(".")[0] == "visdeploy":
            used = {each.partition(".")[0] for each in imported(ast.parse(path.read_text()), late=True)}
            assert not used & {"torch", "torchvision", "timm", "lightning"}, name


def test_one_loop_runs_the_graph():
    """`backend.run` is called by the pipeline alone; engines are tested directly, everything else goes through it."""
    callers = set()
    for folder in ("visdeploy", "training", "export", "benchmarks", "examples"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("backend.run"):
                    callers.add(path.relative_to(REPOSITORY).as_posix())
    assert callers == {"visdeploy/streaming/pipeline.py"}


def test_no_module_hides_a_public_function():
    import visdeploy

    functions = {name for name in visdeploy.__all__ if name.islower() and not name.startswith("_")}
    assert functions >= {"export", "verify", "evaluate", "doctor"}
    assert not functions & {path.stem for path in (REPOSITORY / "visdeploy").iterdir()}


def test_modules_are_of_a_readable_size():
    long = {name: lines for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 500}
    assert not long
