"""How a study is cut into jobs and put together again, on a cluster that is this process."""

import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny_config

from sejax.engine.program import Program
from sejax.errors import InputError
from sejax.host import progress
from sejax.jobs import on_ray
from sejax.study import train_and_evaluate

TABLES = ("predictions.csv", "runs.csv", "history.jsonl", "metrics.json")


class Here:
    """A cluster of this process alone, which notes the names of the calls."""

    platform = "cpu"
    names: list[str]

    def __init__(self, option: str) -> None:
        assert option == "config.jobs"

    def share(self, value: Any) -> Any:
        return pickle.loads(pickle.dumps(value))

    def run(
        self, function: Callable[..., Any], calls: Mapping[str, tuple[Any, ...]], *, devices: int
    ) -> Iterator[tuple[str, Any]]:
        for name, arguments in reversed(calls.items()):  # a cluster ends them in any order
            self.names.append(name)
            yield name, pickle.loads(pickle.dumps(function(*arguments)))

    def close(self) -> None:
        pass


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls to a cluster, which does them in this process."""
    names: list[str] = []
    monkeypatch.setattr(Here, "names", names, raising=False)
    monkeypatch.setattr(on_ray, "Cluster", Here)
    monkeypatch.setattr(progress, "_file", None)  # restored behind the test, as is
    monkeypatch.setenv("PJRT_NPROC", "2")
    return names


def test_folds_that_train_apart_are_the_study_of_all_together(
    tmp_path: Path,
    cache_dir: str,
    calls: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    # As those of full fine-tuning do, which takes minutes to compile.
    monkeypatch.setattr(Program, "tunes_whole_models", True)
    config = tiny_config(cache_dir)
    config.folds, config.devices = 3, 1
    config.grid.learning_rate = (1e-3, 1e-2)
    config.refit, config.final, config.importance = True, True, 1
    train_and_evaluate(config, str(tmp_path / "together"))
    assert not calls
    config.jobs = "ray"
    train_and_evaluate(config, str(tmp_path / "apart"))
    folds = [f"program 1 of 1, fold {n}" for n in (1, 2, 3)]
    assert calls == [folds[0], *reversed(folds), "program 1 of 1"]  # plan, train, final runs
    assert "1 side by side in 6 chunks, fold by fold" in capsys.readouterr().out
    for name in (*TABLES, "importance.csv", "trained/model.safetensors"):
        assert (tmp_path / "apart" / name).read_bytes() == (tmp_path / "together" / name).read_bytes(), name
    checkpoints = tmp_path / "apart" / "checkpoints"
    assert sorted(x.name for x in checkpoints.iterdir()) == ["final", "fold-1", "fold-2", "fold-3", "refit"]

    # One process has the checkpoints of all folds together.
    config.jobs = "serial"
    with pytest.raises(InputError, match=r"begun with a job for each fold.*expected config\.jobs=ray to continue it"):
        train_and_evaluate(config, str(tmp_path / "apart"))


def test_a_workdir_goes_from_one_engine_to_the_other(tmp_path: Path, cache_dir: str, calls: list[str]):
    config = tiny_config(cache_dir)
    config.folds, config.seeds, config.devices = 3, 2, 2  # the last chunk of each seed is not full
    train_and_evaluate(config, str(tmp_path))
    wanted = {name: (tmp_path / name).read_bytes() for name in TABLES}
    for config.jobs in ("ray", "serial"):
        shutil.rmtree(tmp_path / "checkpoints" / str(config.epochs))
        train_and_evaluate(config, str(tmp_path))
        assert {name: (tmp_path / name).read_bytes() for name in wanted} == wanted
    assert calls == ["program 1 of 1"] * 2  # plan, train


def test_rows_of_a_killed_study_come_back(tmp_path: Path, cache_dir: str, calls: list[str]):
    """Jobs that train side by side have each a history of its own; a killed study leaves them there."""
    config = tiny_config(cache_dir)
    config.folds = 3
    train_and_evaluate(config, str(tmp_path))
    history = tmp_path / "history.jsonl"
    wanted = history.read_text()
    rows = wanted.splitlines(keepends=True)
    own = tmp_path / "jobs" / "program-1" / "history.jsonl"
    own.parent.mkdir(parents=True)
    own.write_text("".join(rows[2:]))
    history.write_text("".join(rows[:3]))
    train_and_evaluate(config, str(tmp_path), train=False)
    assert history.read_text() == wanted
    assert not own.exists()
