"""Refit runs: each run of a fold once more on its training and validation speakers, and what is tested then."""

import json
import shutil
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

from sejax import build, resolve
from sejax.engine.feed import Feed
from sejax.errors import InputError
from sejax.main import _last_words
from sejax.study import train_and_evaluate
from sejax.workdir.trained import read_trained

WRITTEN = ("predictions.csv", "metrics.json", "history.jsonl", "runs.csv", "report.html", "trained/model.safetensors")


@pytest.fixture(scope="module")
def config(cache_dir: str) -> Any:
    config = study_config(cache_dir)
    config.refit = True
    return config


@pytest.fixture(scope="module")
def refit(study: Path, config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished study, started again with the option."""
    workdir = tmp_path_factory.mktemp("refit") / "workdir"
    shutil.copytree(study, workdir)
    train_and_evaluate(config, str(workdir))
    return workdir


def test_what_was_chosen_stays_and_what_is_tested_is_of_the_refit_runs(study: Path, refit: Path):
    for name in ("history.jsonl", "runs.csv", "plan.json", "config.json"):
        assert (refit / name).read_bytes() == (study / name).read_bytes(), name
    before, after = (read_csv(folder / "predictions.csv") for folder in (study, refit))
    assert [row["id"] for row in before] == [row["id"] for row in after]
    for one, other in zip(before, after, strict=True):
        assert (one == other) == (one["split"] == "val")
    tree = json.loads((refit / "metrics.json").read_text())
    words = "epoch chosen on validation; then trained again on training and validation speakers, and tested once"
    assert words in tree["protocol"]["description"] and tree["protocol"]["refit"]
    assert words in (refit / "report.html").read_text()
    scores = [
        [s["selection_score"] for s in json.loads((w / "metrics.json").read_text())["settings"]] for w in (study, refit)
    ]
    assert scores[0] == scores[1]


def test_the_option_may_be_taken_back(study: Path, refit: Path, cache_dir: str, tmp_path: Path):
    workdir = tmp_path / "workdir"
    shutil.copytree(refit, workdir)
    train_and_evaluate(study_config(cache_dir), str(workdir), train=False)
    for name in WRITTEN:
        assert (workdir / name).read_bytes() == (study / name).read_bytes(), name


def test_an_evaluation_without_refit_runs_is_refused(study: Path, config: Any, tmp_path: Path):
    workdir = tmp_path / "workdir"
    shutil.copytree(study, workdir)
    with pytest.raises(
        InputError, match=r"has no refit runs: --mode train trains them, expected those that are tested"
    ):
        train_and_evaluate(config, str(workdir), train=False)
    assert (workdir / "predictions.csv").read_bytes() == (study / "predictions.csv").read_bytes()


def test_they_continue_where_they_were_interrupted(
    study: Path, refit: Path, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workdir = tmp_path / "workdir"
    shutil.copytree(study, workdir)
    keep_best = Feed.keep_best

    def ended(self: Feed, *arguments: Any) -> Any:
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return keep_best(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Feed, "keep_best", ended)
        train_and_evaluate(config, str(workdir))
    assert _last_words(str(workdir)).startswith("stopped: epoch 10 (of the refit runs ")
    train_and_evaluate(config, str(workdir))
    for name in WRITTEN:
        assert (workdir / name).read_bytes() == (refit / name).read_bytes(), name


def test_the_workdir_keeps_the_refit_runs_with_their_own_normalisation(refit: Path, config: Any):
    kept, _ = read_trained(refit / "trained")
    feed = open_program(config)
    again = feed.of(feed.program.refit)
    epochs = np.array([run.epoch for run in kept.runs])
    assert epochs.tolist() == [int(row["best_epoch"]) for row in read_csv(refit / "runs.csv")]
    assert_equal_trees(kept.params, train_runs(again, epochs))
    for name, scale in again.program.per_run.statistic_scale.items():
        assert_equal_trees(kept.statistic_scale[name], scale)
        assert (scale.mean != feed.program.per_run.statistic_scale[name].mean).any()
    assert again.plan.compiled is feed.plan.compiled and again.shared is feed.shared


@pytest.mark.parametrize("frames_on", ["device", "host"])
def test_one_is_the_run_of_a_fold_that_validates_on_nobody(
    cache_dir: str, monkeypatch: pytest.MonkeyPatch, frames_on: str
):
    config = tiny_config(cache_dir)
    config.loss.class_weight = "balanced"
    config.batch_size = 30  # 2 steps, with the validation speaker and without
    config.frames_on = frames_on
    config.refit = True
    feed = open_program(config)
    epochs = np.full(10, 2)
    refit = train_runs(feed.of(feed.program.refit), epochs)

    config.refit = False
    folds = tuple(replace(fold, train=fold.train | fold.val) for fold in build.build(config).folds)
    monkeypatch.setattr(resolve.corpus, "make_folds", lambda *_, **__: folds)
    monkeypatch.setattr(build, "audit", lambda *_, **__: {"notes": {}, "speakers_shared": []})
    assert_equal_trees(refit, train_runs(open_program(config), epochs))


def test_garbage_in_the_held_out_speaker_changes_no_bit(cache_dir: str, monkeypatch: pytest.MonkeyPatch):
    """Refit runs hear the validation speakers, but of the speaker whom they are tested on neither label nor sound."""
    config = tiny_config(cache_dir)
    config.refit = True
    epochs = np.full(10, 2)
    clean = open_program(config)
    speaker = clean.program.runs[3].fold
    held_out = build.build(config).folds[speaker].test
    assemble = build.assemble_data

    def spoil(*arguments: Any) -> Any:
        data, n_cut = assemble(*arguments)
        statistics = {
            name: np.where(held_out[:, None, None], np.float32(1e30), x) for name, x in data.statistics.items()
        }
        target = np.where(held_out[:, None], data.target[:, ::-1], data.target)
        return data._replace(
            statistics=statistics, target=target, vad=np.where(held_out[:, None], 9.0, data.vad)
        ), n_cut

    monkeypatch.setattr(build, "assemble_data", spoil)
    spoilt = open_program(config)
    ours, theirs = (train_runs(feed.of(feed.program.refit), epochs) for feed in (clean, spoilt))
    assert_equal_trees(jax.tree.map(lambda x: x[speaker], ours), jax.tree.map(lambda x: x[speaker], theirs))
    with pytest.raises(AssertionError):  # another fold trains on them
        assert_equal_trees(jax.tree.map(lambda x: x[0], ours), jax.tree.map(lambda x: x[0], theirs))


def test_a_stacked_refit_run_is_the_run_alone(cache_dir: str, tmp_path: Path):
    config = tiny_config(cache_dir)
    config.refit = True
    rows = []
    for runs_per_chunk in (10, 1):
        config.runs_per_chunk = runs_per_chunk
        train_and_evaluate(config, str(tmp_path / str(runs_per_chunk)))
        written = read_csv(tmp_path / str(runs_per_chunk) / "predictions.csv")
        rows.append(np.array([[float(row[name]) for name in row if name[:5] in ("prob_", "pred_")] for row in written]))
    np.testing.assert_allclose(*rows, rtol=0, atol=1e-4)


def test_a_fold_whose_run_diverged_has_no_refit_run(cache_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = table_config(cache_dir, labelled_table(tmp_path))
    config.batch_size, config.loss.vad = 1, "mse"
    config.learning_rate, config.warmup = 10.0, 0.0
    config.grid.weight_decay = (0.0, 1000.0)  # each of 8 steps multiplies the weights by -10,000
    config.refit, config.choose = True, "setting"
    metrics = train_and_evaluate(config, str(tmp_path / "workdir"))
    chosen, kept, diverged = metrics["settings"]
    assert set(chosen["choice"]["folds"].values()) == {kept["name"]} and chosen["metrics"] == kept["metrics"]
    assert len(diverged["diverged"]) == 4 and not diverged["metrics"]
    rows = read_csv(tmp_path / "workdir" / "predictions.csv")
    assert all((row["prob_sad"] == "") == (row["setting"] == diverged["name"]) for row in rows)


def test_a_fold_within_a_corpus_is_what_the_corpus_alone_gives(cache_dir: str, tmp_path: Path):
    """Of two corpora, of which the smaller has fewer steps: its refit runs have as many as its runs."""
    sources = []
    for name, first, speakers in (("one", 0, 3), ("two", 100, 4)):
        (tmp_path / name).mkdir()
        rows = read_csv(labelled_table(tmp_path / name, first))
        sources.append(
            write_table(tmp_path / name / f"{name}.csv", [r for r in rows if int(r["speaker"][1:]) < speakers])
        )
    config = table_config(cache_dir, sources[0])
    config.refit, config.learning_rate, config.epochs, config.labels = True, 1e-2, 3, "four"
    train_and_evaluate(config, str(tmp_path / "alone"))
    config.corpus, config.data_dir, config.protocol = "synthetic", "", "cross"
    config.corpora = tuple(f"table:{path}" for path in sources)
    train_and_evaluate(config, str(tmp_path / "matrix"))
    alone = {(r["split"], r["id"]): r for r in read_csv(tmp_path / "alone" / "predictions.csv")}
    within = [r for r in read_csv(tmp_path / "matrix" / "predictions.csv") if r["fold"].startswith("one:")]
    assert len(within) == len(alone)
    for row in within:
        there = alone[row["split"], row["id"].removeprefix("one:")]
        assert abs(float(row["prob_sad"]) - float(there["prob_sad"])) < 2e-4
