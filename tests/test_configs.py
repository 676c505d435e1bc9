"""The files under configs/: their documented commands, their checks, and a small study of each."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from tiny_study import ROOT, labelled_table, shrink

from sejax.config import check_config
from sejax.protocols.registry import PROTOCOLS
from sejax.study import train_and_evaluate

CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def _commands(path: Path) -> list[str]:
    """Returns the arguments (or "") of the commands in a config file's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return re.findall(rf"--config {re.escape(path.relative_to(ROOT).as_posix())}:?(\S*)", docstring)


def _get_config(path: Path, argument: str) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*([argument] if argument else []))
    if PROTOCOLS[config.protocol].across:  # which the documented command names
        config.corpora = ("emodb:emodb.zip", "table:korean/korean.csv")
    return config


VARIANTS = [(path, argument) for path in CONFIGS for argument in _commands(path)]
IDS = [f"{path.stem}:{argument}".rstrip(":") for path, argument in VARIANTS]
FIRST = dict(reversed(VARIANTS))  # the first command of each file


def test_every_config_documents_its_command():
    assert {path for path, _ in VARIANTS} == set(CONFIGS)


@pytest.mark.parametrize(("path", "argument"), VARIANTS, ids=IDS)
def test_configs_are_locked_and_pass_the_check(path: Path, argument: str):
    config = _get_config(path, argument)
    assert config.is_locked
    check_config(config)
    assert config.to_json() == _get_config(path, argument).to_json()


def test_variants_of_a_config_differ():
    texts = [_get_config(*variant).to_json() for variant in VARIANTS]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(("path", "argument"), FIRST.items(), ids=[path.stem for path in FIRST])
def test_configs_run_when_shrunk(path: Path, argument: str, tmp_path: Path, cache_dir: str):
    config = _get_config(path, argument)
    streams, grid = config.streams, config.grid.alpha
    if config.corpora:
        config.corpora = tuple(
            f"{name}=table:{labelled_table(tmp_path, first)}" for name, first in (("a", 0), ("b", 50))
        )
    metrics = train_and_evaluate(shrink(config, cache_dir), str(tmp_path))
    assert config.streams == streams
    assert len(metrics["settings"]) == max(1, len(grid))
