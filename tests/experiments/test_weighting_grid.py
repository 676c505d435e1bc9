"""The weighting study: its two programs and its table."""

from pathlib import Path

import pytest
from tiny_study import shrink

from experiments import train
from experiments.weighting import grid
from sejax.evaluation.intervals import summarise
from sejax.evaluation.paired import Pair, compare
from sejax.evaluation.predictions import Predictions
from sejax.weighting import SCHEMES


def test_the_two_studies_hold_every_scheme_and_the_single_tasks():
    alphas, schemes = grid.study_configs("synthetic", "").values()
    assert set(alphas.grid.alpha) == {n / 10 for n in range(11)}
    assert {"static", *schemes.grid.weighting} == set(SCHEMES)
    assert schemes.alpha == 0.5
    assert alphas.weighting == "static"


def test_table_of_a_study(study: Path):
    predictions = Predictions.read(str(study / "predictions.csv"))
    lines = grid.table([predictions], n_bootstrap=20).splitlines()
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in (line.split("|") for line in lines)}
    assert list(rows)[2:] == ["alpha=0.5", "alpha=1.0", "alpha=0.0"]
    both = next(entry for entry in summarise(predictions) if entry["name"] == "alpha=0.5")["metrics"]
    assert rows["alpha=0.5"][1].startswith(f"{100 * both['ua']['pooled']:.1f} [")
    assert rows["alpha=0.5"][2].startswith(f"{both['ccc_mean']['pooled']:.3f} [")
    assert rows["alpha=1.0"][2:] == [""] * 7  # has no dimensions, and is what classes compare with
    assert rows["alpha=0.0"][:2] == ["", ""]
    # The difference of the pooled metrics, corrected for the comparisons of both tasks.
    pairs = [Pair("alpha=0.5", "alpha=1.0", "ua"), Pair("alpha=0.5", "alpha=0.0", "ccc_mean")]
    ua, vad = compare(predictions.by("setting"), pairs)
    assert rows["alpha=0.5"][3].startswith(f"{100 * ua.value:+.1f} [")
    assert rows["alpha=0.5"][6].startswith(f"{vad.value:+.3f} [")
    assert [float(rows["alpha=0.5"][place].strip("*")) for place in (4, 5, 7, 8)] == [
        round(p, 3) for p in (ua.p, ua.p_holm, vad.p, vad.p_holm)
    ]


def test_the_command_trains_prints_and_does_not_train_again(
    tmp_path: Path, cache_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole = grid.study_configs

    def small(*rows):
        return {name: shrink(config, cache_dir) for name, config in whole(*rows).items()}

    monkeypatch.setattr(grid, "study_configs", small)
    rows = ["--workdir", str(tmp_path), "--alphas", "1.0", "0.5", "0.0", "--schemes", "uncertainty", "imtl_g"]
    grid.main([*rows, "--epochs", "1", "--fraction", "0.01"])
    printed = capsys.readouterr().out
    table = (tmp_path / "table.md").read_text()
    assert printed.endswith(table)
    for name in ("alpha=1.0", "alpha=0.5", "alpha=0.0", "weighting=uncertainty", "weighting=imtl_g"):
        assert f"\n| {name} |" in table
    monkeypatch.setattr(train, "train_and_evaluate", None)
    grid.main([*rows, "--epochs", "1", "--fraction", "0.01"])
    assert capsys.readouterr().out == table
    for options, problem in (
        (["--epochs", "3", "--fraction", "0.01"], "epochs is 3 here, 1 in the workdir"),
        (
            ["--epochs", "1", "--fraction", "0.01", "--tasks", "4"],
            "tasks is ['class', 'valence', 'arousal', 'dominance'] here, ['class', 'vad'] in the workdir",
        ),
        (["--epochs", "1", "--fraction", "0.01", "--seeds", "0"], "config.seeds is 0, expected a whole number from 1"),
        (["--alphas", "1", "0.5"], "--alphas are 1.0, 0.5; expected 0.0 among them"),
    ):
        with pytest.raises(SystemExit) as ended:
            grid.main([*rows, *options])
        assert str(ended.value).startswith("error: ")
        assert problem in str(ended.value)
