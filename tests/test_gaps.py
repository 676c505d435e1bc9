"""Runs that diverge and folds without labels: what is told, and which numbers there are."""

import json
from pathlib import Path

import pytest
from tiny_study import labelled_table, read_csv, read_history, table_config, write_table

from sejax.report.page import write_report
from sejax.study import train_and_evaluate

DIMENSIONS = ("valence", "arousal", "dominance")


def _strict(path: Path) -> object:
    """Reads JSON, which has no NaN."""
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{path.name} has {name}"))


def test_runs_that_diverge(tmp_path: Path, cache_dir: str, capsys: pytest.CaptureFixture[str]):
    config = table_config(cache_dir, labelled_table(tmp_path))
    config.epochs = 8
    config.learning_rate, config.warmup = 10.0, 0.0
    config.grid.weight_decay = (0.0, 1000.0)  # each step multiplies the weights by -10,000
    workdir = tmp_path / "workdir"
    found = train_and_evaluate(config, str(workdir))
    fine, diverged = found["settings"]
    assert "diverged" not in fine and "unpredicted" not in fine and "ua" in fine["metrics"]
    runs = diverged["diverged"]
    assert [run["fold"] for run in runs] == ["s0", "s1", "s2", "s3"]
    best = {
        row["run"]: int(row["best_epoch"]) for row in read_csv(workdir / "runs.csv") if row["weight_decay"] == "1000.0"
    }
    assert list(best.values()) == [run["best_epoch"] for run in runs]

    for line in (workdir / "history.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
    for run, row in zip(runs, sorted(best), strict=True):
        scores = {r["epoch"]: r["score"] for r in read_history(workdir) if r["run"] == int(row)}
        assert run["epoch"] == min(epoch for epoch, score in scores.items() if score is None)
        assert run["best_epoch"] < run["epoch"]
        assert run["best_epoch"] == 0 or scores[run["best_epoch"]] is not None
    # Numbers are those of an epoch before, or there are none.
    predicted = [row for row in read_csv(workdir / "predictions.csv") if row["setting"] == "weight_decay=1000.0"]
    for row in predicted:
        assert (row["prob_sad"] == "") == (best[row["run"]] == 0)
    assert ("ua" in diverged["metrics"]) == (0 not in best.values())
    _strict(workdir / "metrics.json")

    remark = "weight_decay=1000.0: 4 of 4 runs diverged (fold s0, seed 0, in epoch"
    printed, page = capsys.readouterr().out, (workdir / "report.html").read_text()
    assert remark in printed and remark in page
    assert "every run" not in printed
    assert write_report(str(workdir))
    # The checkpoint alone leads to the same results.
    before = (workdir / "metrics.json").read_bytes()
    train_and_evaluate(config, str(workdir), train=False)
    assert (workdir / "metrics.json").read_bytes() == before


def test_a_study_of_which_every_run_diverges(tmp_path: Path, cache_dir: str, capsys: pytest.CaptureFixture[str]):
    config = table_config(cache_dir, labelled_table(tmp_path))
    config.epochs = 8
    config.learning_rate, config.warmup = 10.0, 0.0
    config.grid.weight_decay = (999.0, 1000.0)
    config.tensorboard = True
    train_and_evaluate(config, str(tmp_path / "workdir"))
    remark = "every run of this study diverged: a smaller config.learning_rate may help"
    assert remark in capsys.readouterr().out
    assert remark in (tmp_path / "workdir" / "report.html").read_text()
    _strict(tmp_path / "workdir" / "metrics.json")


def test_folds_without_ratings_do_not_predict_them(tmp_path: Path, cache_dir: str, capsys: pytest.CaptureFixture[str]):
    """One speaker alone has ratings: where that speaker is tested or validated on, nothing is learned of them."""
    rows = read_csv(labelled_table(tmp_path))
    for number, row in enumerate(rows):
        rated = row["speaker"] == "s0"
        row |= {name: str(1 + (number * (k + 3) % 9) / 2) if rated else "" for k, name in enumerate(DIMENSIONS)}
    config = table_config(cache_dir, write_table(tmp_path / "rated.csv", rows))
    config.tasks = ("class", *DIMENSIONS)
    workdir = tmp_path / "workdir"
    (setting,) = train_and_evaluate(config, str(workdir))["settings"]
    assert setting["untrained"] == {name: ["s0", "s3"] for name in DIMENSIONS}
    assert setting["unpredicted"] == dict.fromkeys(DIMENSIONS, 4)
    assert set(setting["metrics"]) == {"wa", "ua", "macro_f1"}
    for row in read_csv(workdir / "predictions.csv"):
        blank = row["fold"] in ("s0", "s3")
        assert {row[f"pred_{name}"] == "" for name in DIMENSIONS} == {blank}
        assert row["prob_sad"]
    for row in read_history(workdir):
        blank = row["fold"] in ("s0", "s3")
        assert all((f"loss_{name}" not in row) == blank for name in DIMENSIONS)
        assert "loss_class" in row and not any(name.startswith("val_ccc") for name in row)
    remark = "static: too few labels of valence to learn from in 2 folds (s0, s3)"
    assert remark in capsys.readouterr().out
    assert remark in (workdir / "report.html").read_text()


def test_folds_without_labels_of_validation_say_that_the_last_epoch_is_tested(
    tmp_path: Path, cache_dir: str, capsys: pytest.CaptureFixture[str]
):
    rows = read_csv(labelled_table(tmp_path))
    for number, row in enumerate(rows):
        row |= {"valence": number % 7, "label": "" if row["speaker"] == "s2" else row["label"]}
    config = table_config(cache_dir, write_table(tmp_path / "partly.csv", rows))
    config.alpha = 1.0
    config.labels = "0..7"
    (setting,) = train_and_evaluate(config, str(tmp_path / "workdir"))["settings"]
    assert setting["unselected"] == ["s1"]  # s2 validates it
    remark = "static: no labels to choose the epoch by in 1 fold (s1), so the last one is tested there"
    assert remark in capsys.readouterr().out
    assert {row["fold"]: row["best_epoch"] for row in read_csv(tmp_path / "workdir" / "runs.csv")}["s1"] == "2"
