"""Machines of one fold: scikit-learn's own numbers, choices on validation, and nothing of who is held out."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from sejax.classical.svm import COSTS, EPSILONS, REGRESSION_COSTS, Fitted, fit_fold
from sejax.evaluation.metrics import ccc
from sejax.protocols.folds import Fold

SPEAKER = np.repeat(np.arange(6), 20)
FOLD = Fold("5", train=SPEAKER < 4, val=SPEAKER == 4, test=SPEAKER == 5)
random = np.random.default_rng(0)
LABEL = random.integers(0, 3, len(SPEAKER))
VAD = np.clip(0.4 * LABEL[:, None] - 0.4 + random.normal(0, 0.3, (len(SPEAKER), 3)), -1, 1).astype(np.float32)
FEATURES = (random.normal(size=(len(SPEAKER), 30)) + np.eye(3, 30)[LABEL] * 1.5).astype(np.float32)
FEATURES *= np.logspace(-3, 3, 30, dtype=np.float32)
FEATURES[:, 7] = 5.0  # does not vary


def fitted(**changes) -> Fitted:
    arguments = {"features": FEATURES, "label": LABEL, "vad": VAD, "fold": FOLD} | changes
    options = {name: arguments.pop(name) for name in ("balanced", "refit") if name in arguments}
    return fit_fold(**arguments, n_classes=3, **({"balanced": False} | options))


def same(one: Fitted, other: Fitted, rows: np.ndarray) -> None:
    assert one.chosen == other.chosen
    np.testing.assert_array_equal(one.prob[rows], other.prob[rows])
    np.testing.assert_array_equal(one.vad[rows], other.vad[rows])


@pytest.mark.parametrize("balanced", [False, True])
def test_classes_are_those_of_scikit_learns_pipeline(balanced: bool) -> None:
    found, weight = fitted(balanced=balanced), "balanced" if balanced else None

    def pipeline(cost: float, trained: np.ndarray):
        machine = SVC(kernel="linear", C=cost, class_weight=weight, break_ties=True)
        return make_pipeline(StandardScaler(), machine).fit(FEATURES[trained].astype(np.float64), LABEL[trained])

    def recall(cost: float) -> float:
        predicted = pipeline(cost, FOLD.train).predict(FEATURES[FOLD.val])
        return float(np.mean([(predicted[LABEL[FOLD.val] == c] == c).mean() for c in range(3)]))

    best = max(COSTS, key=recall)
    assert found.chosen["class"] == {"C": best}
    expected = pipeline(best, FOLD.train).predict(FEATURES[FOLD.test])
    assert len(set(expected.tolist())) > 1
    np.testing.assert_array_equal(found.prob[FOLD.test].argmax(axis=1), expected)
    np.testing.assert_allclose(found.prob.sum(axis=1), 1.0)
    again = fitted(balanced=balanced, refit=True)
    expected = pipeline(best, FOLD.train | FOLD.val).predict(FEATURES[FOLD.test])
    np.testing.assert_array_equal(again.prob[FOLD.test].argmax(axis=1), expected)
    same(again, found, FOLD.val)
    assert (again.prob[FOLD.test] != found.prob[FOLD.test]).any()


def test_dimensions_are_those_of_scikit_learns_pipeline() -> None:
    found, truth = fitted(), VAD[:, 1]

    def predict(cost: float, epsilon: float) -> np.ndarray:
        machine = make_pipeline(StandardScaler(), SVR(kernel="linear", C=cost, epsilon=epsilon))
        return machine.fit(FEATURES[FOLD.train].astype(np.float64), truth[FOLD.train]).predict(FEATURES)

    best = max(
        [(cost, epsilon) for cost in REGRESSION_COSTS for epsilon in EPSILONS],
        key=lambda options: ccc(predict(*options)[FOLD.val], truth[FOLD.val]),
    )
    assert found.chosen["arousal"] == dict(zip(("C", "epsilon"), best, strict=True))
    np.testing.assert_allclose(found.vad[:, 1], predict(*best), atol=1e-3)  # libsvm stops at 1e-3
    assert ccc(found.vad[FOLD.test, 1], truth[FOLD.test]) > 0.2


@pytest.mark.parametrize("refit", [False, True])
def test_who_is_held_out_changes_nothing_of_the_others(refit: bool) -> None:
    garbage, labels, ratings = FEATURES.copy(), LABEL.copy(), VAD.copy()
    garbage[FOLD.test] = 1e6 * random.normal(size=garbage[FOLD.test].shape)
    labels[FOLD.test], ratings[FOLD.test] = 0, -1
    spoilt = fitted(features=garbage, label=labels, vad=ratings, refit=refit)
    same(spoilt, fitted(refit=refit), ~FOLD.test)


def test_validation_speakers_choose_and_do_not_train() -> None:
    labels, ratings = LABEL.copy(), VAD.copy()
    labels[FOLD.val], ratings[FOLD.val] = -1, np.nan
    blind = fitted(label=labels, vad=ratings)
    assert blind.chosen["class"] == {"C": COSTS[len(COSTS) // 2]}  # nothing to choose by
    exchanged = np.where(FOLD.val, (LABEL + 1) % 3, LABEL)
    assert fitted(label=exchanged).chosen != fitted().chosen


def test_two_classes_and_classes_that_are_not_trained() -> None:
    two = np.where(LABEL == 2, -1, LABEL)
    found = fitted(label=two)
    assert (found.prob[:, 2] == 0).all() and (found.prob[:, :2] > 0).all()
    correct = found.prob[FOLD.test & (two >= 0)].argmax(axis=1) == two[FOLD.test & (two >= 0)]
    assert correct.mean() > 0.7
    one = fitted(label=np.zeros_like(LABEL), vad=np.full_like(VAD, 0.5))
    assert np.isnan(one.prob).all() and np.isnan(one.vad).all() and one.chosen == {}


def test_probabilities_follow_the_temperature_of_validation_speakers() -> None:
    shuffled = np.where(FOLD.val, random.integers(0, 3, len(LABEL)), LABEL)
    right, wrong = (fitted(label=labels).prob[FOLD.test].max(axis=1).mean() for labels in (LABEL, shuffled))
    assert wrong < right


def test_a_fold_without_validation_utterances_has_machines_too() -> None:
    found = fitted(fold=replace(FOLD, val=np.zeros_like(FOLD.val)))
    assert np.isfinite(found.prob).all() and np.isfinite(found.vad).all()
