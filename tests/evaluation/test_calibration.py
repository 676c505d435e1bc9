"""The key `calibration` of a setting: its shape, whose rows it reads, and what is absent."""

import dataclasses
import json

import numpy as np
import pytest
from fabricated import DIMENSIONS, study
from scipy.stats import pearsonr, spearmanr

from sejax.evaluation.calibration import calibrate, temper_folds
from sejax.evaluation.confidence import expected_calibration_error
from sejax.evaluation.conformal import half_width
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.temperature import fit_temperature

SPEAKERS = [f"s{number}" for number in range(5)]


def _study(**options):
    return study(settings=("a",), per_speaker=40, validated=True, sharpness=4.0, **options).rounded()


def _votes(predictions, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.dirichlet(np.ones(3)) for name in dict.fromkeys(predictions.id.tolist())}


def test_the_shape():
    predictions = _study()
    tree = calibrate(predictions, _votes(predictions))
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert list(tree) == ["temperature", "ece", "brier", "nll", "aurc", "intervals", "votes", "spread"]
    assert sorted(tree["temperature"]["folds"]) == SPEAKERS
    assert all(list(tree[name]) == ["before", "after"] for name in ("ece", "brier", "nll"))
    intervals = tree["intervals"]
    assert list(intervals) == ["level", "half_width", "coverage", "mean_width"] and intervals["level"] == 0.9
    assert sorted(intervals["half_width"]["folds"]) == SPEAKERS
    of_dimensions = [intervals["half_width"]["all"], *intervals["half_width"]["folds"].values()]
    assert all(list(part) == list(DIMENSIONS) for part in [*of_dimensions, intervals["coverage"]])
    assert list(tree["votes"]) == ["spearman", "pearson", "utterances"]
    assert list(tree["spread"]) == ["class", *DIMENSIONS]


def test_every_number_by_hand():
    predictions = _study()
    votes = _votes(predictions)
    tree = calibrate(predictions, votes)
    val, test = predictions.of("val"), predictions.of("test")

    own = val.select(val.fold == "s2")
    assert set(own.speaker.tolist()) == {"s3"}
    assert tree["temperature"]["folds"]["s2"] == fit_temperature(own.prob, own.label, own.id)
    assert tree["temperature"]["all"] == fit_temperature(val.prob, val.label, val.id)
    assert all(t > 1.5 for t in tree["temperature"]["folds"].values())  # the fabricated models are too sure

    temperature = np.array([tree["temperature"]["folds"][fold] for fold in test.fold.tolist()])[:, None]
    tempered = test.prob ** (1 / temperature)
    tempered /= tempered.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(temper_folds(test, tree["temperature"]["folds"]), tempered, rtol=1e-6)
    correct = test.prob.argmax(axis=1) == test.label
    for when, prob in (("before", test.prob), ("after", tempered)):
        assert tree["ece"][when] == pytest.approx(expected_calibration_error(prob.max(axis=1), correct))
    assert tree["ece"]["after"] < tree["ece"]["before"] - 0.05
    assert tree["nll"]["after"] < tree["nll"]["before"] and tree["brier"]["after"] < tree["brier"]["before"]
    order = np.argsort(-tempered.max(axis=1), kind="stable")
    risk = np.cumsum(~correct[order]) / np.arange(1, len(order) + 1)
    assert tree["aurc"] == pytest.approx(risk.mean(), abs=1e-4)

    residual = np.abs(own.pred_vad - own.vad)[:, 1]
    width = tree["intervals"]["half_width"]["folds"]["s2"]["arousal"]
    assert width == half_width(residual) == np.sort(residual)[int(np.ceil(81 * 0.9)) - 1]
    widths = np.array([tree["intervals"]["half_width"]["folds"][fold]["arousal"] for fold in test.fold.tolist()])
    assert tree["intervals"]["coverage"]["arousal"] == np.mean(np.abs(test.pred_vad - test.vad)[:, 1] <= widths)
    assert tree["intervals"]["mean_width"]["arousal"] == pytest.approx(2 * widths.mean())
    assert tree["intervals"]["coverage"]["arousal"] == pytest.approx(0.9, abs=0.05)

    def entropies(rows):
        return -(rows * np.log(rows)).sum(axis=1)

    both = entropies(np.stack([votes[name] for name in test.id.tolist()])), entropies(tempered)
    assert tree["votes"]["spearman"] == pytest.approx(spearmanr(*both).statistic)
    assert tree["votes"]["pearson"] == pytest.approx(pearsonr(*both).statistic)
    assert tree["votes"]["utterances"] == 200

    one, other = (tempered[test.seed == seed] for seed in (0, 1))
    chosen = (one + other).argmax(axis=1)[:, None]
    gap = np.abs(np.take_along_axis(one, chosen, 1) - np.take_along_axis(other, chosen, 1))
    assert tree["spread"]["class"] == pytest.approx(gap.mean() / np.sqrt(2))
    gap = np.abs(test.pred_vad[test.seed == 0] - test.pred_vad[test.seed == 1]).mean(axis=0)
    np.testing.assert_allclose([tree["spread"][name] for name in DIMENSIONS], gap / np.sqrt(2))


def test_a_test_speaker_has_no_say_in_the_fold():
    """Garbage as the test speaker's labels, ratings and predictions, also where another fold validates on them."""
    predictions = _study()
    before = calibrate(predictions, {})
    garbage = predictions.speaker == "s2"
    changed = dataclasses.replace(
        predictions,
        label=np.where(garbage, (predictions.label + 1) % 3, predictions.label),
        prob=np.where(garbage[:, None], predictions.prob[:, ::-1], predictions.prob),
        vad=np.where(garbage[:, None], 1.0, predictions.vad),
        pred_vad=np.where(garbage[:, None], 9.0, predictions.pred_vad),
    )
    after = calibrate(changed, {})
    assert after["ece"] != before["ece"]
    folds = [fold for fold in SPEAKERS if fold != "s1"]  # s2 validates s1
    for fold in folds:
        assert after["temperature"]["folds"][fold] == before["temperature"]["folds"][fold]
        assert after["intervals"]["half_width"]["folds"][fold] == before["intervals"]["half_width"]["folds"][fold]
    assert after["temperature"]["folds"]["s1"] != before["temperature"]["folds"]["s1"]


def test_the_digits_of_predictions_csv_give_the_same(tmp_path):
    predictions = study(settings=("a",), validated=True)
    path = str(tmp_path / "predictions.csv")
    predictions.write(path)
    assert calibrate(Predictions.read(path, split=None), {}) == calibrate(predictions.rounded(), {})


def test_what_there_is_nothing_for_is_absent():
    predictions = _study(seeds=(0,))
    without_vad = dataclasses.replace(predictions, vad=np.full_like(predictions.vad, np.nan))
    assert list(calibrate(without_vad, {})) == ["temperature", "ece", "brier", "nll", "aurc"]
    without_classes = dataclasses.replace(
        predictions, classes=(), prob=predictions.prob[:, :0], label=np.full_like(predictions.label, -1)
    )
    assert list(calibrate(without_classes, {})) == ["intervals"]
    both = _study()
    both = dataclasses.replace(both, classes=(), prob=both.prob[:, :0], label=np.full_like(both.label, -1))
    assert list(calibrate(both, {})["spread"]) == list(DIMENSIONS)
    untrained = dataclasses.replace(predictions, prob=np.full_like(predictions.prob, np.nan))
    assert list(calibrate(untrained, {})) == ["intervals"]
    nothing = dataclasses.replace(untrained, pred_vad=np.full_like(predictions.vad, np.nan))
    assert calibrate(nothing, _votes(predictions)) == {}
    unanimous = {name: np.array([1.0, 0, 0]) for name in predictions.id.tolist()}
    assert "votes" not in calibrate(predictions, unanimous)


def test_a_fold_that_cannot_be_calibrated():
    predictions = _study()
    lone = (predictions.split == "val") & (predictions.fold == "s1")
    unlabelled = dataclasses.replace(
        predictions,
        label=np.where(lone, -1, predictions.label),
        vad=np.where(lone[:, None] & (np.cumsum(lone) > 8)[:, None], np.nan, predictions.vad),
    )
    tree = calibrate(unlabelled, {})
    assert tree["temperature"]["folds"]["s1"] == 1.0
    assert tree["intervals"]["half_width"]["folds"]["s1"] == {}  # eight residuals have no 90 %
    of_others = unlabelled.select(unlabelled.fold != "s1")
    assert tree["intervals"]["coverage"] == calibrate(of_others, {})["intervals"]["coverage"]


def test_a_run_that_diverged_has_no_say_and_its_rows_leave_no_scores_over_all():
    predictions = _study()
    diverged = (predictions.run == 3)[:, None]
    broken = dataclasses.replace(
        predictions,
        prob=np.where(diverged, np.nan, predictions.prob),
        pred_vad=np.where(diverged, np.nan, predictions.pred_vad),
    )
    tree = calibrate(broken, _votes(predictions))
    json.dumps(tree, allow_nan=False)
    assert not {"ece", "brier", "nll", "aurc"} & set(tree)
    assert list(tree["intervals"]) == ["level", "half_width"] and tree["intervals"]["half_width"]["all"]
    kept = broken.select(broken.run != 3)
    assert tree["temperature"]["all"] == calibrate(kept, {})["temperature"]["all"]
    assert tree["votes"]["utterances"] == 200  # another seed predicts them
    whole = predictions.select(predictions.fold != "s3")
    assert tree["spread"] == pytest.approx(calibrate(whole, {})["spread"])
