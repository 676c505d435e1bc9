"""Settings drawn at random, and successive halving of the folds' settings."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_study import hyperparameters, read_csv, read_history, tiny_config, train_interrupted

from sejax.config import check_config
from sejax.engine.runs import enumerate_runs, lay_out
from sejax.engine.search import draw_settings, expand_grid, rungs, survivors
from sejax.errors import InputError
from sejax.inference.export import export_bundle
from sejax.study import train_and_evaluate

BASE = hyperparameters()
GRID = {"weighting": ("static", "dynamic"), "model.fused": (8, 16, 32)}
BETWEEN = {"learning_rate": (1e-4, 1e-1), "dropout": (0.1, 0.5)}


def drawn(draws: int, seed: int = 0) -> list[Any]:
    return draw_settings(BASE, GRID, BETWEEN, draws=draws, seed=seed)


def test_draws_are_of_the_values_and_between_the_ends():
    settings = drawn(400)
    assert len({setting.name for setting in settings}) == 400
    for setting in settings:
        values = setting.values
        assert values["weighting"] in GRID["weighting"] and values["model.fused"] in GRID["model.fused"]
        assert 1e-4 <= values["learning_rate"] <= 1e-1 and 0.1 <= values["dropout"] <= 0.5
        assert {**BASE, **values, "learning_rate": 0, "dropout": 0} != {**BASE, "learning_rate": 0, "dropout": 0}
        assert f"learning_rate={values['learning_rate']}" in setting.name
    exponents = np.log10([setting.values["learning_rate"] for setting in settings])
    assert np.histogram(exponents, bins=3, range=(-4, -1))[0].min() > 100  # of 133: three decades alike
    assert np.mean([setting.values["dropout"] for setting in settings]) == pytest.approx(0.3, abs=0.02)


def test_more_draws_begin_with_the_same_settings():
    assert drawn(20)[:7] == drawn(7)
    assert drawn(7, seed=1) != drawn(7)


def test_a_search_without_enough_settings_says_how_many_there_are():
    with pytest.raises(InputError, match=r"config\.search\.draws is 7, but only 6 different settings were found among"):
        draw_settings(BASE, GRID, {}, draws=7, seed=0)
    assert len(draw_settings(BASE, GRID, {}, draws=6, seed=0)) == 6


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"search.between.dropout": (0.1, 0.2)}, "config.search.draws is 0, expected 1 or more if config.search.betw"),
        ({"search.draws": 3}, "config.search.draws is 3, expected 0 if neither config.grid nor search.between vary"),
        (
            {"search.draws": 3, "search.between.dropout": (0.2, 0.1)},
            "config.search.between.dropout is (0.2, 0.1), expected the lowest and the highest value, or () for none",
        ),
        (
            {"search.draws": 3, "search.between.dropout": (0.2, 1.5)},
            "a value of config.search.between.dropout is 1.5, expected a number from 0 to 0.99",
        ),
        (
            {"search.draws": 3, "search.between.dropout": (0.1, 0.2), "grid.dropout": (0.3, 0.4)},
            "config.search.between.dropout is (0.1, 0.2), expected () if config.grid.dropout has values",
        ),
        ({"search.draws": 3, "grid.dropout": (0.3, 0.4)}, "config.search.draws is 3, but only 2 different settings"),
        ({"search.halving": 3}, "config.search.halving is 3, expected 0 unless config.choose is setting"),
        ({"search.halving": 1}, "config.search.halving is 1, expected 0 (no halving) or a whole number from 2 to 10"),
    ],
)
def test_odd_searches_are_refused(options: dict[str, Any], sentence: str, cache_dir: str):
    config = tiny_config(cache_dir)
    config.update_from_flattened_dict(options)
    with pytest.raises(InputError) as refused:
        check_config(config)
    assert str(refused.value).startswith(sentence)


def test_rungs_keep_a_third_at_a_third_of_the_epochs():
    def of(n: int, *, epochs: int, factor: int) -> dict[int, int]:
        settings = expand_grid(BASE, {"dropout": tuple(np.linspace(0.0, 0.5, n).tolist())})
        return rungs(enumerate_runs(3, settings, range(2)), epochs=epochs, factor=factor)

    assert of(20, epochs=30, factor=3) == {3: 7, 10: 3}
    assert of(27, epochs=27, factor=3) == {1: 9, 3: 3, 9: 1}
    assert of(2, epochs=30, factor=3) == {} == of(20, epochs=2, factor=3) == of(20, epochs=30, factor=0)


def test_each_fold_keeps_its_own_best_settings_and_those_that_do_not_compare():
    settings = expand_grid(BASE, {"alpha": (0.4, 0.5, 0.6, 1.0)})
    runs = enumerate_runs(2, settings, range(2))
    means = {(0, "alpha=0.4"): 0.9, (0, "alpha=0.5"): 0.1, (0, "alpha=0.6"): 0.5, (1, "alpha=0.6"): 0.7}
    score = np.array([means.get((run.fold, run.setting.name), 0.0) + 0.3 * run.seed for run in runs], np.float32)
    alive = np.ones(len(runs), bool)
    going = survivors(runs, score, alive, 1)
    kept = {(run.fold, run.setting.name) for run, goes in zip(runs, going, strict=True) if goes}
    assert kept == {(0, "alpha=0.4"), (1, "alpha=0.6"), (0, "alpha=1.0"), (1, "alpha=1.0")}
    assert going.sum() == 8  # both seeds
    assert (survivors(runs, score, going, 1) == going).all()


def test_runs_that_train_fill_the_first_chunks():
    runs = enumerate_runs(4, expand_grid(BASE, {"dropout": (0.0, 0.5)}), range(2))
    training = np.array([run.fold == 2 for run in runs])
    layout = lay_out(runs, slots=3, training=training)
    assert layout.trained == 2 and layout.run.shape == lay_out(runs, slots=3).run.shape
    assert {int(run) for run in layout.run[:2].ravel()} >= set(np.flatnonzero(training).tolist())
    assert all(len({runs[place].seed for place in chunk}) == 1 for chunk in layout.run)
    assert sorted(set(layout.run.ravel().tolist())) == list(range(len(runs)))
    numbers = np.arange(len(runs))
    assert (layout.collect(layout.scatter(numbers)) == numbers).all()


def halving_config(cache_dir: str, *, halving: int) -> Any:
    config = tiny_config(cache_dir)
    config.choose, config.epochs, config.runs_per_chunk = "setting", 6, 2
    config.search.halving, config.search.draws = halving, 6
    config.search.between.learning_rate = (1e-6, 3e-2)  # some learn nothing: every fold stops them
    config.search.between.dropout = (0.0, 0.4)
    return config


@pytest.fixture(scope="module")
def halved(cache_dir: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study with halving, and the same without."""
    folder = tmp_path_factory.mktemp("search")
    for halving in (2, 0):
        train_and_evaluate(halving_config(cache_dir, halving=halving), str(folder / str(halving)))
    return folder / "2", folder / "0"


def test_a_run_that_goes_on_is_what_it_is_without_halving(halved: tuple[Path, Path]):
    with_halving, _ = halved
    epochs: dict[int, list[int]] = {}
    for row in read_history(with_halving):
        epochs.setdefault(row["run"], []).append(row["epoch"])
    assert all(of_run == list(range(1, len(of_run) + 1)) for of_run in epochs.values())
    lengths = sorted(map(len, epochs.values()))
    assert lengths == [1] * 30 + [3] * 10 + [6] * 20  # 6 settings in 10 folds: 3 after epoch 1, 2 after epoch 3
    ours, theirs = (read_csv(folder / "predictions.csv") for folder in halved)
    for row, other in zip(ours, theirs, strict=True):
        assert row["id"] == other["id"]
        if len(epochs[int(row["run"])]) == 6:
            for name in row:
                if name.startswith("prob_"):
                    assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-4)
        else:
            assert all(row[name] == "" for name in row if name.startswith(("prob_", "pred_")))


def test_the_row_chosen_is_there_and_the_others_say_why_not(halved: tuple[Path, Path], cache_dir: str):
    chosen, *others = json.loads((halved[0] / "metrics.json").read_text())["settings"]
    assert "ua" in chosen["metrics"] and len(others) == 6
    stopped = [setting for setting in others if setting.get("stopped")]
    assert stopped and all(set(setting["stopped"]) <= {"1", "3"} for setting in stopped)
    by_fold = {fold for setting in stopped for folds in setting["stopped"].values() for fold in folds}
    assert len(by_fold) == 10
    assert (
        f"{len(stopped)} of 6 settings have no row of their own: halving stopped them after epoch 1 or 3"
        in (halved[0] / "report.html").read_text()
    )
    runs = {row["run"]: row for row in read_csv(halved[0] / "runs.csv")}
    best = json.loads((halved[1] / "metrics.json").read_text())["settings"][0]
    assert (
        math.isfinite(best["metrics"]["ua"]["pooled"]) and sum(row["best_epoch"] == "0" for row in runs.values()) == 40
    )


@pytest.mark.parametrize("epochs", [2, 4])
def test_halving_continues_to_the_same_bytes(
    halved: tuple[Path, Path], cache_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
):
    config = halving_config(cache_dir, halving=2)
    train_interrupted(config, str(tmp_path / "workdir"), epochs=epochs, monkeypatch=monkeypatch)
    train_and_evaluate(config, str(tmp_path / "workdir"))
    for name in ("predictions.csv", "metrics.json", "history.jsonl", "runs.csv", "trained/model.safetensors"):
        assert (tmp_path / "workdir" / name).read_bytes() == (halved[0] / name).read_bytes(), name


def check_bundle_is_of_the_most_chosen(workdir: Path, bundle: Path) -> None:
    """Checks which setting a bundle is of by default, where halving has left none to all folds."""
    path = workdir / "metrics.json"
    metrics = json.loads(path.read_text())
    chosen, *others = metrics["settings"]
    often = Counter(chosen["choice"]["folds"].values()).most_common(1)[0][0]
    for setting in others:  # what one fold alone makes of another setting
        setting |= {"metrics": {}, "selection_score": float(setting["name"] != often)}
        setting["stopped"] = setting.get("stopped") or {"3": ["1"]}
    path.write_text(json.dumps(metrics))
    assert export_bundle(str(workdir), str(bundle)).setting == often


def test_refit_trains_only_what_halving_has_left(
    halved: tuple[Path, Path], cache_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = halving_config(cache_dir, halving=2)
    config.refit = config.final = True
    train_and_evaluate(config, str(tmp_path / "workdir"))
    left_out = re.findall(r"the final run of setting '(.*)', seed 0, (.*): it is left out", capsys.readouterr().err)
    tested = {row["setting"] for row in read_csv(halved[0] / "runs.csv") if row["best_epoch"] != "0"}
    stopped = {row["setting"] for row in read_csv(halved[0] / "runs.csv")} - tested
    why = "has no epochs, because all its folds diverged or were stopped by halving"
    assert stopped and dict(left_out) == dict.fromkeys(stopped, why)
    check_bundle_is_of_the_most_chosen(tmp_path / "workdir", tmp_path / "bundle")
    rows, before = (read_csv(folder / "predictions.csv") for folder in (tmp_path / "workdir", halved[0]))
    for row, other in zip(rows, before, strict=True):
        assert (row["prob_neutral"] == "") == (other["prob_neutral"] == "")
        if row["split"] == "test" and row["prob_neutral"]:
            assert row["prob_neutral"] != other["prob_neutral"]
