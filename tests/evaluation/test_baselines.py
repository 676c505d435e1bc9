"""The majority class and the class-mean look-up against a count by hand."""

import dataclasses

import audmetric
import numpy as np
import pytest
from fabricated import DIMENSIONS, study
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from sejax.evaluation.baselines import class_mean_lookup, majority_class
from sejax.evaluation.metrics import rmse
from sejax.protocols.folds import Fold


def table_of_folds(predictions):
    """The corpus of a study, as arrays, and its leave-one-speaker-out folds."""
    first = predictions.select(
        (predictions.setting == predictions.setting[0]) & (predictions.seed == predictions.seed[0]),
    )
    speakers = sorted(set(first.speaker.tolist()))
    folds = []
    for number, name in enumerate(speakers):
        val = speakers[(number + 1) % len(speakers)]
        test, validation = first.speaker == name, first.speaker == val
        folds.append(Fold(name, train=~test & ~validation, val=validation, test=test))
    return first.label, first.vad, folds


def test_majority_class():
    predictions = study()
    label, _, folds = table_of_folds(predictions)
    metrics = majority_class(predictions, label, folds)
    guess = np.empty_like(label)
    for fold in folds:
        guess[fold.test] = np.bincount(label[fold.train]).argmax()
    assert set(metrics) == {"wa", "ua", "macro_f1"}
    assert metrics["wa"]["pooled"] == pytest.approx(accuracy_score(label, guess))
    assert metrics["ua"]["pooled"] == pytest.approx(balanced_accuracy_score(label, guess))


def test_majority_class_looks_at_training_labels_only():
    predictions = study()
    label, _, folds = table_of_folds(predictions)
    (only,) = [fold for fold in folds if fold.name == "s0"]
    label = np.where(only.train, 2, 0)
    expected = np.mean(predictions.label[predictions.fold == "s0"] == 2)
    one_fold = predictions.select(predictions.fold == "s0")
    assert majority_class(one_fold, label, [only])["wa"]["pooled"] == pytest.approx(expected)
    assert majority_class(one_fold, np.full_like(label, -1), [only]) == {}


def test_class_mean_lookup():
    predictions = study()
    label, vad, folds = table_of_folds(predictions)
    vad = vad.copy()
    vad[4, 1] = np.nan
    lookup = class_mean_lookup(predictions, label, vad, folds)
    assert list(lookup) == ["static", "joint"]
    for setting, metrics in lookup.items():
        assert set(metrics) == {"ccc_mean"} | {
            f"{kind}_{name}" for kind in ("ccc", "rmse", "pcc") for name in DIMENSIONS
        }
        for dim, name in enumerate(DIMENSIONS):
            per_seed = []
            for seed in (0, 1):
                rows = predictions.select((predictions.setting == setting) & (predictions.seed == seed))
                guess = np.empty(len(rows.id))
                for row, (speaker, prob) in enumerate(zip(rows.speaker, rows.prob, strict=True)):
                    (fold,) = [fold for fold in folds if fold.name == speaker]
                    guess[row] = np.nanmean(vad[fold.train & (label == prob.argmax()), dim])
                per_seed.append(audmetric.concordance_cc(rows.vad[:, dim], guess))
            assert metrics[f"ccc_{name}"]["pooled"] == pytest.approx(np.mean(per_seed), abs=1e-5)


def test_class_mean_lookup_of_a_class_without_ratings_is_the_training_mean():
    predictions = study(settings=("static",), seeds=(0,))
    label, vad, folds = table_of_folds(predictions)
    rated = np.where((label == 1)[:, None], np.nan, vad)
    lookup = class_mean_lookup(predictions, label, rated, folds)["static"]
    guess = np.empty_like(vad)
    predicted = predictions.prob.argmax(axis=1)
    for fold in folds:
        for number in range(3):
            rows = fold.train if number == 1 else fold.train & (label == number)
            guess[fold.test & (predicted == number)] = np.nanmean(rated[rows], axis=0)
    assert lookup["rmse_valence"]["pooled"] == pytest.approx(rmse(guess[:, 0], vad[:, 0]), abs=1e-5)


def test_baselines_without_vad():
    """EmoDB."""
    predictions = study(settings=("static",))
    label, vad, folds = table_of_folds(predictions)
    nothing = np.full_like(predictions.vad, np.nan)
    emodb = dataclasses.replace(predictions, vad=nothing, pred_vad=nothing)
    assert class_mean_lookup(emodb, label, np.full_like(vad, np.nan), folds) == {"static": {}}
    assert majority_class(emodb, label, folds) == majority_class(predictions, label, folds)
