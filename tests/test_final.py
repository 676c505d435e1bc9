"""Final runs: every setting and seed once more on every speaker, beside numbers that they do not change."""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_study import (
    assert_equal_trees,
    labelled_table,
    open_program,
    read_csv,
    study_config,
    table_config,
    tiny_config,
    train_runs,
    write_table,
)

import sejax.jobs.job
from sejax import build, resolve
from sejax.engine import epoch as compiled
from sejax.engine.feed import Feed
from sejax.host import stopping
from sejax.main import _last_words
from sejax.study import train_and_evaluate

RESULTS = ("predictions.csv", "metrics.json", "history.jsonl", "plan.json", "config.json")
SENTENCE = re.compile(
    r"(\d+) final runs? trained on every speaker for ([\d to]+) epochs?, [^.]*\. No number is of a f.*"
)


@contextmanager
def trained_runs() -> Iterator[list[Any]]:
    """Yields a list to which each program's final runs are added: their epochs and parameters."""
    found: list[Any] = []
    train = sejax.jobs.job.train_again

    def kept(*arguments: Any) -> Any:
        again = train(*arguments)
        found.append(again.learned)
        return again

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sejax.jobs.job, "train_again", kept)
        yield found


def final_rows(workdir: Path) -> list[dict[str, str]]:
    return [row for row in read_csv(workdir / "runs.csv") if row["test_speakers"] == ""]


@pytest.fixture(scope="module")
def config(cache_dir: str) -> Any:
    config = study_config(cache_dir)
    config.final = True
    return config


@pytest.fixture(scope="module")
def finished(study: Path, config: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Any]:
    """The finished study, started again with the option: the workdir, what was printed, the final runs."""
    folder = tmp_path_factory.mktemp("final")
    shutil.copytree(study, folder / "workdir")
    with trained_runs() as found, pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append("\n".join(map(str, words))))
        train_and_evaluate(config, str(folder / "workdir"))
    return folder / "workdir", "\n".join(lines), found[0]


def test_each_trains_on_everyone_for_the_median_of_its_folds(finished: tuple[Path, str, Any], config: Any):
    workdir, printed, final = finished
    rows = read_csv(workdir / "runs.csv")
    own = final_rows(workdir)
    assert rows[-6:] == own and len(rows) == 66
    assert [int(row["run"]) for row in rows] == list(range(66))
    everyone = {speaker for row in rows for speaker in row["test_speakers"].split()}
    for row in own:
        assert (row["fold"], row["val_speakers"]) == ("all", "")
        assert set(row["train_speakers"].split()) == everyone
        key = row["seed"], row["setting"], row["alpha"]
        of_folds = [r for r in rows[:60] if (r["seed"], r["setting"], r["alpha"]) == key]
        assert len(of_folds) == 10
        assert int(row["best_epoch"]) == np.floor(np.median([int(r["best_epoch"]) for r in of_folds]) + 0.5)
    epochs = [int(row["best_epoch"]) for row in own]
    assert final.epochs.tolist() == epochs and len(set(epochs)) > 1
    found = SENTENCE.search(printed)
    assert found and found[1] == "6"
    assert found[2] == f"{min(epochs)} to {max(epochs)}"
    feed = open_program(config)
    assert_equal_trees(final.params, train_runs(feed.of(feed.program.final), final.epochs))


def test_they_change_no_number(study: Path, finished: tuple[Path, str, Any], config: Any):
    """With the option set later; set from the start: below."""
    workdir, _, _ = finished
    for name in RESULTS:
        assert (workdir / name).read_bytes() == (study / name).read_bytes(), name
    without = re.sub(f"\n<p>{SENTENCE.pattern}</p>", "", (workdir / "report.html").read_text())
    assert SENTENCE.search((workdir / "report.html").read_text())
    assert without == (study / "report.html").read_text()
    assert {path.name for path in (study / "checkpoints").iterdir()} | {"final"} == set(
        os.listdir(workdir / "checkpoints")
    )


def test_they_are_kept_where_the_option_is_taken_back(
    study: Path, finished: tuple[Path, str, Any], config: Any, cache_dir: str, tmp_path: Path
):
    workdir = tmp_path / "workdir"
    shutil.copytree(finished[0], workdir)
    train_and_evaluate(study_config(cache_dir), str(workdir))
    for name in (*RESULTS, "runs.csv", "report.html"):
        assert (workdir / name).read_bytes() == (study / name).read_bytes(), name
    with trained_runs() as found, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Feed, "keep_best", lambda *_: pytest.fail("trains"))
        train_and_evaluate(config, str(workdir), train=False)
    assert (workdir / "runs.csv").read_bytes() == (finished[0] / "runs.csv").read_bytes()
    assert (workdir / "report.html").read_bytes() == (finished[0] / "report.html").read_bytes()
    assert_equal_trees(found[0].params, finished[2].params)


def test_an_evaluation_says_that_they_are_not_trained(
    study: Path, config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    workdir = tmp_path / "workdir"
    shutil.copytree(study, workdir)
    train_and_evaluate(config, str(workdir), train=False)
    assert f"note: {workdir} has no final runs: --mode train trains them\n" in capsys.readouterr().err
    assert final_rows(workdir) == []
    assert not (workdir / "checkpoints" / "final").exists()


@pytest.mark.parametrize("how", [KeyboardInterrupt, stopping.Terminated])
def test_they_continue_where_a_signal_has_ended_them(
    study: Path,
    finished: tuple[Path, str, Any],
    config: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: type[BaseException],
):
    workdir = tmp_path / "workdir"
    shutil.copytree(study, workdir)
    keep_best = Feed.keep_best

    def ended(self: Feed, *arguments: Any) -> Any:
        if arguments[-1] == 3 and how is KeyboardInterrupt:
            raise KeyboardInterrupt
        if arguments[-1] == 3:
            stopping._terminate(signal.SIGTERM, None)
        return keep_best(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(how):
        patch.setattr(Feed, "keep_best", ended)
        train_and_evaluate(config, str(workdir))
    stopping._requested.clear()
    assert re.match("stopped: epoch 10 .of the final runs [123]. is saved in ", _last_words(str(workdir)))
    saved = {int(path.name) for path in (workdir / "checkpoints" / "final").iterdir() if path.name.isdecimal()}
    assert saved and max(saved) < 3 if how is KeyboardInterrupt else max(saved) == 3
    with trained_runs() as found:
        train_and_evaluate(config, str(workdir))
    assert_equal_trees(found[0].params, finished[2].params)
    assert (workdir / "runs.csv").read_bytes() == (finished[0] / "runs.csv").read_bytes()


def test_nothing_is_compiled_for_them(config: Any):
    feed = open_program(config)

    def once(feed: Feed) -> list[int]:
        states = feed.init_states()
        best = feed.init_best(states)
        states, _ = feed.train_epoch(states, 1)
        runs = len(feed.program.runs)
        feed.keep_best(best, states, np.zeros(runs, np.float32), np.ones(runs, bool), 1)
        return [f._cache_size() for f in (compiled.init_runs, compiled.keep_best, compiled.train_part)]

    final = feed.of(feed.program.final)
    assert final.shared is feed.shared and final.plan.compiled is feed.plan.compiled
    assert once(feed) == once(final)
    # The chunks behind those that hold the final runs are not trained.
    states, _ = final.train_epoch(final.init_states(), 1)
    chunks = final.layout.run.shape[0]
    assert final.layout.filled == 4 < chunks  # three settings on two devices, and two seeds
    steps = np.asarray(states.step)
    assert (steps[:4] == feed.program.epoch_steps).all() and not steps[4:].any()


@pytest.mark.parametrize("frames_on", ["device", "host"])
def test_one_is_the_run_of_a_fold_that_trains_on_everyone(
    cache_dir: str, monkeypatch: pytest.MonkeyPatch, frames_on: str
):
    config = tiny_config(cache_dir)
    config.loss.class_weight = "balanced"
    config.batch_size = 30  # 2 steps, whether one speaker is held out or nobody
    config.frames_on = frames_on
    config.final = True
    held_out = open_program(config)
    final = train_runs(held_out.of(held_out.program.final), np.array([2]))

    config.final = False
    folds = tuple(replace(fold, train=np.ones_like(fold.train)) for fold in build.build(config).folds)
    monkeypatch.setattr(resolve.corpus, "make_folds", lambda *_, **__: folds)
    monkeypatch.setattr(build, "audit", lambda *_, **__: {"notes": {}, "speakers_shared": []})
    feed = open_program(config)
    assert held_out.network == feed.network  # of equal steps
    runs = train_runs(feed, np.full(len(folds), 2))
    assert_equal_trees(final, jax.tree.map(lambda x: x[:1], runs))
    # The folds differ in whom they test, not in what they learn.
    assert_equal_trees(jax.tree.map(lambda x: x[:1], runs), jax.tree.map(lambda x: x[-1:], runs))


def official_table(folder: Path) -> Path:
    rows = read_csv(labelled_table(folder))
    for row in rows:
        row["split"] = {"s0": "test", "s1": "val"}.get(row["speaker"], "train")
    return write_table(folder / "official.csv", rows)


def test_one_official_fold_streamed_or_not(tmp_path: Path, cache_dir: str):
    """Blocks of streamed frames have room for everyone's; the option is set from the start here."""
    config = table_config(cache_dir, official_table(tmp_path))
    config.protocol = "official"
    config.seeds = 3
    config.select_on_test = True
    plain, trained = tmp_path / "plain", {}
    train_and_evaluate(config, str(plain))
    config.final = True
    for frames_on in ("device", "host"):
        config.frames_on = frames_on
        with trained_runs() as trained[frames_on]:
            train_and_evaluate(config, str(tmp_path / frames_on))
    for name in ("predictions.csv", "metrics.json", "history.jsonl"):
        assert (tmp_path / "device" / name).read_bytes() == (plain / name).read_bytes(), name
    assert [(row["run"], row["seed"]) for row in final_rows(tmp_path / "host")] == [("3", "0"), ("4", "1"), ("5", "2")]
    for ours, theirs in zip(trained["host"], trained["device"], strict=True):
        assert_equal_trees(ours.params, theirs.params)


def test_a_setting_of_which_all_runs_diverge_has_none(
    tmp_path: Path, cache_dir: str, capsys: pytest.CaptureFixture[str]
):
    config = table_config(cache_dir, labelled_table(tmp_path))
    config.batch_size, config.loss.vad = 1, "mse"
    config.learning_rate, config.warmup = 10.0, 0.0
    config.grid.weight_decay = (0.0, 1000.0)  # each of 8 steps multiplies the weights by -10,000
    config.final = True
    train_and_evaluate(config, str(tmp_path / "partly"))
    assert [row["setting"] for row in final_rows(tmp_path / "partly")] == ["weight_decay=0.0"]
    left_out = "final run of setting 'weight_decay=1000.0', seed 0, has no epochs, because all its folds diverged"
    assert left_out in capsys.readouterr().err
    config.grid.weight_decay = (999.0, 1000.0)
    train_and_evaluate(config, str(tmp_path / "all"))
    assert final_rows(tmp_path / "all") == []
    assert f"note: {tmp_path / 'all'} has no final runs: all folds diverged\n" in capsys.readouterr().err


def test_a_final_run_that_diverges_is_left_out(
    study: Path, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    workdir = tmp_path / "workdir"
    shutil.copytree(study, workdir)
    init_states = Feed.init_states

    def broken(self: Feed) -> Any:
        states = init_states(self)
        if self.program.final:
            return states
        return states._replace(averaged=states.averaged.at[0, 1].set(np.nan))

    monkeypatch.setattr(Feed, "init_states", broken)
    train_and_evaluate(config, str(workdir))
    assert [int(row["run"]) for row in final_rows(workdir)] == [60, 62, 63, 64, 65]
    assert "the final run of setting 'alpha=1.0', seed 0, diverged: it is left out" in capsys.readouterr().err
