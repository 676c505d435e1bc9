"""The numbers of metrics.json against a count by hand."""

import dataclasses
import json
import time

import audmetric
import numpy as np
import pytest
from fabricated import DIMENSIONS, study
from sklearn.metrics import accuracy_score, f1_score, recall_score, root_mean_squared_error

from sejax.evaluation.intervals import score_groups, summarise
from sejax.evaluation.predictions import Predictions


def by_hand(predictions, setting):
    """Every number of one setting, from the rows, with scikit-learn and audmetric, one loop at a time."""
    part = predictions.select(predictions.setting == setting)

    def metrics(rows):
        found = {}
        labelled = rows.select(rows.label >= 0)
        if len(labelled.label):
            guess = labelled.prob.argmax(axis=1)
            found["wa"] = accuracy_score(labelled.label, guess)
            occurring = sorted(set(labelled.label.tolist()))
            found["ua"] = recall_score(labelled.label, guess, labels=occurring, average="macro")
            found["macro_f1"] = f1_score(labelled.label, guess, average="macro", zero_division=0.0)
        for dim, name in enumerate(DIMENSIONS):
            rated = np.isfinite(rows.vad[:, dim])
            if rated.any():
                truth, guess = rows.vad[rated, dim], rows.pred_vad[rated, dim]
                found[f"ccc_{name}"] = audmetric.concordance_cc(truth, guess)
                found[f"pcc_{name}"] = audmetric.pearson_cc(truth, guess)
                found[f"rmse_{name}"] = root_mean_squared_error(truth, guess)
        found["ccc_mean"] = np.mean([found[f"ccc_{name}"] for name in DIMENSIONS if f"ccc_{name}" in found])
        return found

    seeds, folds = sorted(set(part.seed.tolist())), sorted(set(part.fold.tolist()))
    pooled = [metrics(part.select(part.seed == seed)) for seed in seeds]
    cells = [[metrics(part.select((part.seed == s) & (part.fold == f))) for s in seeds] for f in folds]
    result = {}
    for name in pooled[0]:
        of_folds = [np.mean([cell[name] for cell in cells_of_fold]) for cells_of_fold in cells]
        result[name] = {
            "pooled": np.mean([values[name] for values in pooled]),
            "fold_mean": np.mean(of_folds),
            "fold_sd": np.std(of_folds, ddof=1),
        }
    return result


def test_summary_equals_a_count_by_hand_and_needs_the_file_alone(tmp_path):
    predictions = study()
    predictions.label[3] = -1
    predictions.vad[5:9, 2] = np.nan
    summary = summarise(predictions)
    path = str(tmp_path / "predictions.csv")
    predictions.write(path)
    read = Predictions.read(path)
    assert summarise(read) == summary  # to the last bit
    assert json.loads(json.dumps(summary)) == summary
    assert [entry["name"] for entry in summary] == ["static", "joint"]
    for entry in summary:
        assert set(entry) == {"name", "metrics"}
        expected = by_hand(read, entry["name"])
        assert set(entry["metrics"]) == set(expected)
        for name, numbers in expected.items():
            ours = entry["metrics"][name]
            assert set(ours) == {"pooled", "fold_mean", "fold_sd", "ci95"}
            for what, value in numbers.items():
                assert ours[what] == pytest.approx(value, abs=1e-9), (name, what)
            assert ours["ci95"][0] < ours["pooled"] < ours["ci95"][1]


def test_interval_equals_a_bootstrap_of_rows():
    """The sums per speaker give what resampling the rows of whole speakers gives, draw by draw."""
    predictions = study(n_speakers=4, seeds=(0, 1), settings=("joint",))
    n_bootstrap = 60
    entry = summarise(predictions, n_bootstrap=n_bootstrap, seed=3)[0]["metrics"]
    speakers = sorted(set(predictions.speaker.tolist()))
    draws = np.random.default_rng(3).multinomial(len(speakers), [1 / 4] * 4, size=n_bootstrap)
    values = {"ua": [], "wa": [], "ccc_mean": [], "rmse_arousal": []}
    for draw in draws:
        chosen = np.concatenate(
            [
                np.repeat(np.flatnonzero(predictions.speaker == name), times)
                for name, times in zip(speakers, draw, strict=True)
            ]
        )
        found = by_hand(predictions.select(chosen), "joint")
        for name, column in values.items():
            column.append(found[name]["pooled"])
    for name, column in values.items():
        np.testing.assert_allclose(entry[name]["ci95"], np.percentile(column, [2.5, 97.5]), rtol=1e-4)


def test_a_speaker_who_differs_widens_the_interval():
    """Two hundred utterances, half of them by speakers whom the model always gets wrong."""
    n, speakers = 200, np.repeat([f"s{number}" for number in range(10)], 20)
    shared = {
        "classes": ("a", "b"),
        "run": np.zeros(n, int),
        "fold": speakers,
        "seed": np.zeros(n, int),
        "setting": np.full(n, "x"),
        "split": np.full(n, "test"),
        "id": np.arange(n).astype(str),
        "label": np.zeros(n, int),
        "prob": np.eye(2)[np.repeat([0, 1], 100)],
        "vad": np.full((n, 3), np.nan),
        "pred_vad": np.full((n, 3), np.nan),
    }
    clustered = summarise(Predictions(speaker=speakers, **shared))[0]["metrics"]["wa"]
    spread = summarise(Predictions(speaker=np.tile(np.unique(speakers), 20), **shared))[0]["metrics"]["wa"]
    assert clustered["pooled"] == spread["pooled"] == 0.5
    assert clustered["ci95"] == [pytest.approx(0.2, abs=0.01), pytest.approx(0.8, abs=0.01)]
    assert spread["ci95"] == [pytest.approx(0.5), pytest.approx(0.5)]


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """60 studies of 12 speakers whose own accuracies scatter around 0.7."""
    covered = 0
    for number in range(60):
        rng = np.random.default_rng(number)
        accuracy = np.clip(0.7 + 0.1 * rng.normal(size=12), 0, 1)
        speaker = np.repeat(np.arange(12), 30)
        right = rng.random(360) < accuracy[speaker]
        predictions = Predictions(
            classes=("a", "b"),
            run=np.zeros(360, int),
            fold=speaker.astype(str),
            seed=np.zeros(360, int),
            setting=np.full(360, "x"),
            split=np.full(360, "test"),
            id=np.arange(360).astype(str),
            speaker=speaker.astype(str),
            label=np.zeros(360, int),
            prob=np.eye(2)[1 - right.astype(int)],
            vad=np.full((360, 3), np.nan),
            pred_vad=np.full((360, 3), np.nan),
        )
        low, high = summarise(predictions, n_bootstrap=300)[0]["metrics"]["wa"]["ci95"]
        covered += low <= 0.7 <= high
    assert 48 <= covered <= 60  # 80 % to 100 %: percentile intervals of 12 clusters are a little narrow


def test_a_draw_without_a_class_is_handled():
    """Only one speaker says the third class: 7 % of the draws leave it out."""
    predictions = study(n_speakers=5, settings=("joint",))
    predictions.label[predictions.speaker != "s0"] %= 2
    metrics = summarise(predictions)[0]["metrics"]
    assert all(np.isfinite(metrics["ua"]["ci95"]))


def test_what_has_no_data_is_absent():
    predictions = study(settings=("static",), seeds=(0,))
    nothing = np.full(predictions.vad.shape, np.nan)
    emodb = summarise(dataclasses.replace(predictions, vad=nothing, pred_vad=nothing))[0]
    assert set(emodb["metrics"]) == {"wa", "ua", "macro_f1"} and "unpredicted" not in emodb
    unlabelled = summarise(dataclasses.replace(predictions, label=np.full_like(predictions.label, -1)))[0]
    assert not set(unlabelled["metrics"]) & {"wa", "ua", "macro_f1"}
    no_dominance = predictions.vad.copy()
    no_dominance[:, 2] = np.nan
    kemdy = summarise(dataclasses.replace(predictions, vad=no_dominance))[0]["metrics"]
    assert "ccc_dominance" not in kemdy and "rmse_dominance" not in kemdy
    assert kemdy["ccc_mean"]["pooled"] == pytest.approx(
        (kemdy["ccc_valence"]["pooled"] + kemdy["ccc_arousal"]["pooled"]) / 2
    )
    nobody = summarise(dataclasses.replace(predictions, vad=nothing, label=np.full_like(predictions.label, -1)))
    assert nobody == [{"name": "static", "metrics": {}}]
    assert summarise(predictions.select(np.zeros(len(predictions.id), bool))) == []


def test_one_fold_and_one_speaker():
    predictions = study(n_speakers=3, settings=("static",))
    one_fold = summarise(dataclasses.replace(predictions, fold=np.full_like(predictions.fold, "official")))[0]
    assert set(one_fold["metrics"]["ua"]) == {"pooled", "fold_mean", "ci95"}
    assert one_fold["metrics"]["ua"]["fold_mean"] == one_fold["metrics"]["ua"]["pooled"]
    alone = summarise(predictions.select(predictions.speaker == "s0"))[0]
    assert set(alone["metrics"]["ua"]) == {"pooled", "fold_mean"}


def test_a_fold_of_one_utterance_has_no_ccc_and_does_not_count():
    predictions = study(n_speakers=4, settings=("static",), seeds=(0,))
    keep = (predictions.speaker != "s3") | (predictions.id == predictions.id[-1])
    metrics = summarise(predictions.select(keep))[0]["metrics"]
    others = summarise(predictions.select(predictions.speaker != "s3"))[0]["metrics"]
    assert metrics["ccc_mean"]["fold_mean"] == pytest.approx(others["ccc_mean"]["fold_mean"], abs=1e-9)
    assert metrics["wa"]["fold_mean"] != pytest.approx(others["wa"]["fold_mean"], abs=1e-3)


def test_a_fold_of_equal_constants_has_no_ccc_and_does_not_count():
    """What is left of their variance is rounding error, which must not pass for a correlation."""
    predictions = study(n_speakers=4, per_speaker=7, settings=("static",), seeds=(0,))
    constant = predictions.speaker == "s3"
    predictions.vad[constant] = predictions.pred_vad[constant] = 4.3
    metrics = summarise(predictions)[0]["metrics"]
    others = summarise(predictions.select(~constant))[0]["metrics"]
    for name in DIMENSIONS:
        ours, theirs = metrics[f"ccc_{name}"], others[f"ccc_{name}"]
        assert ours["fold_mean"] == pytest.approx(theirs["fold_mean"], abs=1e-9)
        assert ours["pooled"] != pytest.approx(theirs["pooled"], abs=1e-3)


def test_predictions_that_are_not_finite_are_counted_and_not_hidden():
    predictions = study(settings=("static", "joint"), seeds=(0,))
    broken = np.flatnonzero(predictions.setting == "joint")[:7]
    predictions.prob[broken] = np.nan
    predictions.pred_vad[broken[:2], 1] = np.inf
    static, joint = summarise(predictions)
    assert joint["unpredicted"] == {"class": 7, "arousal": 2}
    assert set(joint["metrics"]) == {
        "ccc_valence",
        "ccc_dominance",
        "ccc_mean",
        "pcc_valence",
        "pcc_dominance",
        "rmse_valence",
        "rmse_dominance",
    }
    assert "unpredicted" not in static and len(static["metrics"]) == 13


def test_a_whole_study_takes_a_second():
    """IEMOCAP with eleven settings: 60,841 rows."""
    predictions = study(10, 553, seeds=(0,), settings=tuple(f"alpha={number}" for number in range(11)))
    start = time.perf_counter()
    summarise(predictions)
    assert time.perf_counter() - start < 10  # measured 1.0


@pytest.mark.parametrize("ratings", ["one", "equal"])
def test_a_dimension_without_different_ratings_leaves_the_mean_to_the_others(ratings):
    predictions = study()
    alone = summarise(predictions, n_bootstrap=30)[0]["metrics"]
    if ratings == "one":
        predictions.vad[predictions.id != "u000", 0] = np.nan
    else:
        predictions.vad[:, 0] = 3.0
    (entry, _) = summarise(predictions, n_bootstrap=30)
    metrics = entry["metrics"]
    assert "ccc_valence" not in metrics and "rmse_valence" in metrics and "unpredicted" not in entry
    assert metrics["ccc_arousal"] == alone["ccc_arousal"]
    two = [metrics[f"ccc_{name}"]["pooled"] for name in ("arousal", "dominance")]
    assert metrics["ccc_mean"]["pooled"] == pytest.approx(np.mean(two))
    assert len(metrics["ccc_mean"]["ci95"]) == 2
    fold = score_groups(predictions.select(predictions.setting == "static").rounded(), "fold")[1]["metrics"]
    assert fold["ccc_mean"] == pytest.approx((fold["ccc_arousal"] + fold["ccc_dominance"]) / 2)


def test_folds_whose_rows_are_all_predicted_keep_their_numbers():
    predictions = study(settings=("a",))
    whole = score_groups(predictions.rounded(), "fold")
    untrained = predictions.fold == "s1"
    predictions.prob[untrained], predictions.pred_vad[untrained, 0] = np.nan, np.nan
    (entry,) = summarise(predictions, n_bootstrap=30)
    rows = 2 * 8
    assert entry["unpredicted"] == {"class": rows, "valence": rows}
    assert set(entry["metrics"]) == {f"{m}_{d}" for m in ("ccc", "rmse", "pcc") for d in ("arousal", "dominance")} | {
        "ccc_mean"
    }
    folds = score_groups(predictions.rounded(), "fold")
    assert set(folds[1]["metrics"]) == set(entry["metrics"])
    for before, after in zip(whole, folds, strict=True):
        for name, value in after["metrics"].items():
            if name.startswith("pcc"):  # its sums of squares are of the shift, which is by the mean of other rows now
                assert value == pytest.approx(before["metrics"][name], rel=1e-12)
            else:
                assert name == "ccc_mean" or value == before["metrics"][name]
    assert {"wa", "ccc_valence"} <= set(folds[0]["metrics"])


def test_without_draws_there_are_no_intervals():
    drawn, without = summarise(study(), n_bootstrap=20)[0], summarise(study(), n_bootstrap=0)[0]
    assert all("ci95" in metric for metric in drawn["metrics"].values())
    for metric in drawn["metrics"].values():
        del metric["ci95"]
    assert without == drawn
