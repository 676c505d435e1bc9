"""Classical baselines in a study: rows beside its settings, on its folds, the same bytes again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_study import labelled_table, read_csv, study_config, table_config, tiny_config

from sejax import build
from sejax.config import check_config
from sejax.errors import InputError
from sejax.evaluation.predictions import Predictions
from sejax.resolve import baselines
from sejax.study import train_and_evaluate

NAMES = ("mfcc_svm", "egemaps_svm")
FILES = ("predictions.csv", "metrics.json", "report.html", "runs.csv")


@pytest.fixture(scope="module")
def workdir(study: Path, cache_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was finished without baselines, and then took them."""
    folder = tmp_path_factory.mktemp("classical") / "workdir"
    shutil.copytree(study, folder)
    config = study_config(cache_dir)
    config.baselines = NAMES
    train_and_evaluate(config, str(folder), train=False)
    return folder


def test_the_rows_of_the_runs_stay_and_those_of_the_baselines_follow(workdir: Path, study: Path) -> None:
    assert (workdir / "predictions.csv").read_text().startswith((study / "predictions.csv").read_text())
    rows = Predictions.read(str(workdir / "predictions.csv"), split=None)
    runs = read_csv(workdir / "runs.csv")
    folds = len({row["fold"] for row in runs})
    first = (folds + 1) * 3 * 2  # behind the runs, and the numbers of final ones
    for number, name in enumerate(NAMES):
        own = rows.select(rows.setting == name)
        assert set(own.split.tolist()) == {"val", "test"}
        assert own.run.min() == first + folds * number and own.run.max() == first + folds * (number + 1) - 1
        np.testing.assert_allclose(own.prob.sum(axis=1), 1.0, atol=1e-5)
        assert np.isfinite(own.pred_vad).all()
        other = rows.select((rows.setting == "alpha=0.5") & (rows.seed == 0))
        for column in ("fold", "split", "id", "label", "vad"):
            np.testing.assert_array_equal(getattr(own, column), getattr(other, column))
    listed = [row for row in runs if row["setting"] in NAMES]
    assert [int(row["run"]) for row in listed] == list(range(first, first + 2 * folds))
    assert {(row["alpha"], row["best_epoch"]) for row in listed} == {("", "")}


def test_they_stand_among_the_baselines_of_the_results(workdir: Path) -> None:
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert [setting["name"] for setting in metrics["settings"]] == ["alpha=0.5", "alpha=1.0", "alpha=0.0"]
    machines = metrics["baselines"]["classical"]
    assert [machine["name"] for machine in machines] == list(NAMES)
    for machine in machines:
        assert {"ua", "ccc_mean"} <= machine["metrics"].keys()
        assert len(machine["metrics"]["ua"]["ci95"]) == 2
        assert machine["chosen"].keys() == {fold["fold"] for fold in machine["folds"]}
        assert all(
            choice.keys() == {"class", "valence", "arousal", "dominance"} for choice in machine["chosen"].values()
        )
        assert {"confusion", "speakers", "calibration", "genders"} <= machine.keys()
        assert "seeds_averaged" not in machine
    page = (workdir / "report.html").read_text()
    for number, name in enumerate(NAMES, 1):
        assert f'<a href="#classical-{number}">{name} (classical)</a>' in page
        assert f'<div id="classical-{number}">' in page


def test_an_evaluation_gives_the_same_bytes_with_any_number_of_workers(workdir: Path, cache_dir: str, capsys) -> None:
    before = [(workdir / name).read_bytes() for name in FILES]
    config = study_config(cache_dir)
    config.baselines, config.workers = NAMES, 2
    train_and_evaluate(config, str(workdir), train=False)
    assert [(workdir / name).read_bytes() for name in FILES] == before
    printed = capsys.readouterr().out
    assert all(f"{name} (classical)" in printed for name in NAMES)


def test_pretrained_models_are_read_by_the_means_of_their_layers(cache_dir: str, tmp_path: Path) -> None:
    config = table_config(cache_dir, labelled_table(tmp_path))
    config.baselines = ("hubert_svm",)
    every = build.build(config).baselines.features["hubert_svm"]
    config.features.ssl.hubert.layers = "1"
    config.streams, config.model.encoder.hubert = ("hubert",), "none"
    study = build.build(config)
    one = study.baselines.features["hubert_svm"]
    both = study.programs[0].data.statistics["hubert"][:, 0]  # of that layer: means, deviations
    hidden = both.shape[1] // 2
    np.testing.assert_array_equal(one, both[:, :hidden])
    np.testing.assert_array_equal(every[:, hidden : 2 * hidden], one)


def test_a_corpus_with_classes_alone(cache_dir: str, tmp_path: Path) -> None:
    config = table_config(cache_dir, labelled_table(tmp_path))
    config.normalisation = "speaker"
    config.baselines = ("mfcc_svm", "stf_svm")
    metrics = train_and_evaluate(config, str(tmp_path / "workdir"))
    for machine in metrics["baselines"]["classical"]:
        assert "ua" in machine["metrics"] and "ccc_mean" not in machine["metrics"]
        assert all(choice.keys() == {"class"} for choice in machine["chosen"].values())


def test_what_cannot_be_a_baseline_is_refused(cache_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(cache_dir)
    for wrong in (("mfcc",), ("mfc_svm",), ("mfcc_svm", "mfcc_svm"), ("raw_svm",), (3,)):
        config.baselines = wrong
        with pytest.raises(InputError, match=r"config\.baselines is .*, expected a tuple of names out of mfcc_svm, "):
            check_config(config)
    config = table_config(cache_dir, labelled_table(tmp_path))
    config.baselines = ("mfcc_svm",)
    monkeypatch.setattr(baselines, "MOST_TRAINED", 7)
    with pytest.raises(InputError, match=r"more than 7 utterances: one trains on 8, and a support vector machine"):
        train_and_evaluate(config, str(tmp_path / "workdir"))
