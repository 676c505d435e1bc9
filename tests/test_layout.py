"""The layout of the package: sizes of files and functions, number of rooms. Imports are checked by import-linter."""

import ast
import tomllib
from pathlib import Path

import pytest
from tiny_study import ROOT

PACKAGE = ROOT / "sejax"
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENGINE_NEEDS = {"jax", "flax", "optax", "numpy", "jaxtyping"}
IMPORT_NAMES = {
    "absl-py": "absl",
    "orbax-checkpoint": "orbax",
    "scikit-learn": "sklearn",
}  # where they are not the package's name


def _functions(file: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(TREES[file]) if isinstance(node, ast.FunctionDef)]


def _imports(file: str) -> set[str]:
    """Returns what a file imports anywhere: `a` of `import a`, `a.b` of `from a import b`."""
    names = set()
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_files_are_short():
    lines = {file: len((PACKAGE / file).read_text().splitlines()) for file in TREES}
    assert {file: n for file, n in lines.items() if n > 600} == {}


def test_functions_are_short():
    lines = {
        f"{file}: {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for file in TREES
        for function in _functions(file)
    }
    assert {name: n for name, n in lines.items() if n > 120} == {}


def test_functions_of_the_engine_take_few_arguments():
    counts = {}
    for file in TREES:
        if file.startswith("engine/"):
            for function in _functions(file):
                arguments = function.args
                names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
                counts[f"{file}: {function.name}"] = len([name for name in names if name not in ("self", "cls")])
    assert counts
    assert {name: n for name, n in counts.items() if n > 9} == {}


def test_most_modules_are_in_packages():
    """A command that only hands over to a package is not counted: it has to be here for `python -m sejax.NAME`."""
    modules = sorted(path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py")
    ideas = [name for name in modules if len((PACKAGE / name).read_text().splitlines()) > 12]
    assert len(ideas) <= 8, ideas


def test_the_study_knows_few_modules():
    modules = set()
    for name in _imports("study.py"):
        path = Path(*name.split("."))
        if name.startswith("sejax."):
            is_module = (ROOT / path).is_dir() or (ROOT / path).with_suffix(".py").exists()
            modules.add(name if is_module else name.rpartition(".")[0])
    assert 0 < len(modules) <= 10, sorted(modules)


@pytest.mark.parametrize("file", TREES)
def test_imports_are_absolute_and_names_say_what_is_inside(file: str):
    _imports(file)
    stem = Path(file).stem
    assert stem not in ("utils", "util", "helpers", "misc", "common") and not stem.endswith("_old")


def test_the_engines_contract_names_every_other_dependency():
    """So that a new dependency is forbidden to the compiled engine too."""
    (contract,) = (c for c in PROJECT["tool"]["importlinter"]["contracts"] if "compiled engine" in c["name"])
    packages = {_package(requirement) for requirement in PROJECT["project"]["dependencies"]}
    names = {IMPORT_NAMES.get(package, package.replace("-", "_")) for package in packages}
    assert set(contract["forbidden_modules"]) == names - ENGINE_NEEDS


def _package(requirement: str) -> str:
    return requirement.partition(">")[0].partition("=")[0].partition("<")[0]


def test_package_data_exists():
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            assert list((ROOT / package).glob(pattern)), pattern
