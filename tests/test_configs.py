"""The rules of the house: who imports what, configs that run, tools that answer."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from tiny_study import ROOT, environment, shrink

from sejax.config import check_config
from sejax.study import train_and_evaluate

SOURCES = sorted((ROOT / "sejax").rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(path: Path) -> set[str]:
    """Every module that the file imports anywhere, with what it takes from it: `a.b` of `from a import b`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}, line {node.lineno}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _importers(package: str) -> set[str]:
    """The files of sejax that import the package or a part of it."""
    return {
        _name(path)
        for path in SOURCES
        if any(name == package or name.startswith(f"{package}.") for name in _imports(path))
    }


def _modules(path: Path) -> set[Path]:
    """The files of sejax that a file imports, their packages' __init__ among them."""
    files = set()
    for name in _imports(path):
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            base = ROOT.joinpath(*parts[:end])
            files |= {file for file in (base.with_suffix(".py"), base / "__init__.py") if file in SOURCES}
    return files


# ---------------------------------------------------------------------------------------------- imports


@pytest.mark.parametrize("package", ["configs", "experiments", "tools", "tests", "tiny_study", "tensorflow", "torch"])
def test_nothing_imports(package: str):
    assert _importers(package) == set()


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("orbax", {"sejax/engine/checkpoint.py"}),
        ("ml_collections", {"sejax/main.py", "sejax/study.py", "sejax/config.py", "sejax/build.py"}),
        ("absl", {"sejax/main.py"}),
        ("tensorboardX", {"sejax/workdir/logs.py"}),
    ],
)
def test_only_these_import(package: str, allowed: set[str]):
    assert _importers(package) == allowed


def test_only_data_imports_tensorflow_datasets():
    found = _importers("tensorflow_datasets")
    assert found and all(name.startswith("sejax/data/") for name in found)


@pytest.mark.parametrize("package", ["features", "corpora"])
def test_worker_processes_need_no_jax(package: str):
    """Not even through another file of sejax."""
    reached = {path for path in SOURCES if path.is_relative_to(ROOT / "sejax" / package)}
    assert reached
    while more := set().union(*map(_modules, reached)) - reached:
        reached |= more
    heavy = {"jax", "jaxlib", "flax", "optax", "tensorflow_datasets", "ml_collections"}
    for path in reached:
        assert heavy.isdisjoint(name.partition(".")[0] for name in _imports(path)), _name(path)


def test_the_compiled_engine_needs_little():
    """It runs where only jax, flax, optax, numpy (and jaxtyping, for its signatures) are installed."""
    roots = ("engine/step.py", "engine/epoch.py", "engine/runs.py", "models/", "weighting/", "data/buckets.py")
    reached = {path for path in SOURCES if _name(path).removeprefix("sejax/").startswith(roots)}
    assert len(reached) > len(roots)
    while more := set().union(*map(_modules, reached)) - reached:
        reached |= more
    for path in reached:
        outside = {name.partition(".")[0] for name in _imports(path)} - set(sys.stdlib_module_names)
        assert outside <= {"sejax", "jax", "flax", "optax", "numpy", "jaxtyping"}, _name(path)


def test_main_is_short():
    assert len((ROOT / "sejax" / "main.py").read_text().splitlines()) <= 70


def test_there_is_no_drawer_for_odds_and_ends():
    assert [
        _name(p) for p in SOURCES if p.stem in ("utils", "util", "helpers", "misc") or p.stem.endswith("_old")
    ] == []


# ---------------------------------------------------------------------------------------------- configs


def _commands(path: Path) -> list[str]:
    """The arguments, "" for none, of the commands in a config file's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return re.findall(rf"--config {re.escape(_name(path))}:?(\S*)", docstring)


def _get_config(path: Path, argument: str) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*([argument] if argument else []))


VARIANTS = [(path, argument) for path in CONFIGS for argument in _commands(path)]
IDS = [f"{path.stem}:{argument}".rstrip(":") for path, argument in VARIANTS]


def test_every_config_says_its_command():
    assert {path for path, _ in VARIANTS} == set(CONFIGS)


@pytest.mark.parametrize(("path", "argument"), VARIANTS, ids=IDS)
def test_configs_are_locked_and_make_sense(path: Path, argument: str):
    config = _get_config(path, argument)
    assert config.is_locked
    check_config(config)
    assert config.to_json() == _get_config(path, argument).to_json()


def test_variants_of_a_config_differ():
    texts = [_get_config(*variant).to_json() for variant in VARIANTS]
    assert len(set(texts)) == len(texts)


FIRST = dict(reversed(VARIANTS))


@pytest.mark.parametrize(("path", "argument"), FIRST.items(), ids=[path.stem for path in FIRST])
def test_configs_run_when_shrunk(path: Path, argument: str, tmp_path: Path, cache_dir: str):
    config = _get_config(path, argument)
    streams, grid = config.streams, config.grid.alpha
    found = train_and_evaluate(shrink(config, cache_dir), str(tmp_path))
    assert config.streams == streams
    assert len(found["settings"]) == max(1, len(grid))


# ------------------------------------------------------------------------------------------------ tools


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_tools_answer_to_help_or_have_a_test(path: Path):
    if (ROOT / "tests" / f"test_{path.stem}.py").exists():
        return
    found = subprocess.run(
        [sys.executable, str(path), "--help"], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    assert "usage" in found.stdout
