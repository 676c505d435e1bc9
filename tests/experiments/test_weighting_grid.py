"""The weighting study: its two programs, its paired test, its table."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from tiny_study import shrink

from experiments import paired
from experiments.paired import paired_test, speaker_scores
from experiments.weighting import grid
from sejax.evaluation.intervals import summarise
from sejax.evaluation.predictions import Predictions
from sejax.weighting import SCHEMES


def test_the_two_studies_hold_every_scheme_and_the_single_tasks():
    alphas, schemes = grid.study_configs("synthetic", "").values()
    assert set(alphas.grid.alpha) == {n / 10 for n in range(11)}
    assert {"static", *schemes.grid.weighting} == set(SCHEMES)
    assert schemes.alpha == 0.5
    assert alphas.weighting == "static"


def test_paired_test_is_that_of_all_signs():
    rng = np.random.default_rng(0)
    single = rng.uniform(0.5, 0.8, 6)
    scores = single + rng.normal(0.05, 0.05, 6)
    difference, p = paired_test(np.append(scores, np.nan), np.append(single, 0.7))
    d = scores - single
    means = [np.mean(np.array(signs) * d) for signs in itertools.product((1, -1), repeat=6)]
    assert difference == pytest.approx(d.mean())
    assert p == pytest.approx(np.mean(np.abs(means) >= abs(d.mean()) - 1e-12))
    assert paired_test(single, single) == (0.0, 1.0)
    assert paired_test(np.array([0.7, np.nan]), np.array([0.5, 0.5])) == (pytest.approx(0.2), 1.0)


def test_table_of_a_study(study: Path):
    predictions = Predictions.read(str(study / "predictions.csv"))
    lines = grid.table([predictions], n_bootstrap=20).splitlines()
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in (line.split("|") for line in lines)}
    assert list(rows)[2:] == ["alpha=0.5", "alpha=1.0", "alpha=0.0"]
    both = next(entry for entry in summarise(predictions) if entry["name"] == "alpha=0.5")["metrics"]
    assert rows["alpha=0.5"][1].startswith(f"{100 * both['ua']['pooled']:.1f} [")
    assert rows["alpha=0.5"][2].startswith(f"{both['ccc_mean']['pooled']:.3f} [")
    assert rows["alpha=1.0"][2:] == ["", "", "", "", ""]  # has no dimensions, and is what classes compare with
    assert rows["alpha=0.0"][:2] == ["", ""]
    # The mean over speakers of each speaker's difference.
    scores = speaker_scores(predictions, ["ua"])
    both, alone = scores["alpha=0.5", "ua"], scores["alpha=1.0", "ua"]
    assert len(both) == len(np.unique(predictions.speaker))
    assert rows["alpha=0.5"][3] == f"{100 * np.mean(both - alone):+.1f}"


def test_the_command_trains_prints_and_does_not_train_again(
    tmp_path: Path, cache_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole = grid.study_configs

    def small(corpus: str, data_dir: str):
        configs = {name: shrink(config, cache_dir) for name, config in whole(corpus, data_dir).items()}
        configs["alphas"].grid.alpha = (1.0, 0.5, 0.0)
        configs["schemes"].grid.weighting = ("uncertainty", "imtl_g")
        return configs

    monkeypatch.setattr(grid, "study_configs", small)
    grid.main(["--workdir", str(tmp_path), "--epochs", "1", "--fraction", "0.01"])
    printed = capsys.readouterr().out
    table = (tmp_path / "table.md").read_text()
    assert printed.endswith(table)
    for name in ("alpha=1.0", "alpha=0.5", "alpha=0.0", "weighting=uncertainty", "weighting=imtl_g"):
        assert f"\n| {name} |" in table
    monkeypatch.setattr(paired, "train_and_evaluate", None)
    grid.main(["--workdir", str(tmp_path), "--epochs", "1", "--fraction", "0.01"])
    assert capsys.readouterr().out == table
    for options, problem in (
        (["--epochs", "3", "--fraction", "0.01"], "epochs is 3 here, 1 in the workdir"),
        (["--epochs", "1", "--fraction", "0.01", "--seeds", "0"], "config.seeds is 0, expected a whole number from 1"),
    ):
        with pytest.raises(SystemExit) as ended:
            grid.main(["--workdir", str(tmp_path), *options])
        assert str(ended.value).startswith("error: ")
        assert problem in str(ended.value)
