"""The metrics against scikit-learn, audmetric and closed forms."""

import math

import audmetric
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import accuracy_score, f1_score, recall_score, root_mean_squared_error

from sejax.evaluation.metrics import ccc, confusion_matrix, macro_f1, rmse, unweighted_accuracy, weighted_accuracy

labels = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=40),
    )
)


@settings(max_examples=150)
@given(labels)
def test_class_metrics_equal_scikit_learn_and_audmetric(case):
    n_classes, pairs = case
    truth, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    confusion = confusion_matrix(truth, predicted, n_classes)
    assert confusion.tolist() == audmetric.confusion_matrix(truth, predicted, labels=list(range(n_classes)))
    np.testing.assert_allclose(weighted_accuracy(confusion), accuracy_score(truth, predicted))
    np.testing.assert_allclose(weighted_accuracy(confusion), audmetric.accuracy(truth, predicted))
    occurring = sorted(set(truth.tolist()))
    recall = recall_score(truth, predicted, labels=occurring, average="macro")
    np.testing.assert_allclose(unweighted_accuracy(confusion), recall)
    if len(occurring) == n_classes:  # else audmetric counts a recall of 0 for the class without utterances
        theirs = audmetric.unweighted_average_recall(truth, predicted, labels=occurring)
        np.testing.assert_allclose(unweighted_accuracy(confusion), theirs)
    np.testing.assert_allclose(macro_f1(confusion), f1_score(truth, predicted, average="macro", zero_division=0.0))


def test_a_class_that_does_not_occur_does_not_count_in_ua():
    confusion = np.array([[3, 1, 0], [0, 0, 0], [0, 1, 1]])
    assert unweighted_accuracy(confusion) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert weighted_accuracy(confusion) == pytest.approx(4 / 6)
    assert macro_f1(confusion) == pytest.approx((6 / 7 + 0 + 2 / 3) / 3)


def test_matrices_stack_and_empty_ones_are_undefined():
    stack = np.stack([np.eye(2, dtype=int), np.zeros((2, 2), int), np.ones((2, 2), int)])
    for metric in (weighted_accuracy, unweighted_accuracy, macro_f1):
        np.testing.assert_array_equal(metric(stack), [1, np.nan, 0.5])


vectors = st.integers(2, 30).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.float64, n, elements=st.integers(-500, 500).map(lambda x: x / 100))] * 2)
)


@settings(max_examples=150)
@given(vectors, st.floats(-1e3, 1e3))
def test_ccc_and_rmse_equal_audmetric_and_scikit_learn(pair, offset):
    pred, target = pair[0] + offset, pair[1] + offset
    np.testing.assert_allclose(rmse(pred, target), root_mean_squared_error(target, pred), atol=1e-9)
    if np.ptp(pair[0]) == np.ptp(pair[1]) == 0:
        assert math.isnan(ccc(pred, target)) or pair[0][0] != pair[1][0]
    else:
        np.testing.assert_allclose(ccc(pred, target), audmetric.concordance_cc(target, pred), atol=1e-7)


def test_ccc_closed_forms():
    target = np.array([1.0, 2.0, 3.0, 4.0])
    assert ccc(target, target) == pytest.approx(1)
    assert ccc(5 - target, target) == pytest.approx(-1)
    assert ccc(target + 1, target) == pytest.approx(2.5 / 3.5)
    assert ccc(np.full(4, 2.0), target) == pytest.approx(0)
    assert ccc(np.full(4, 0.1), np.full(4, 0.3)) == pytest.approx(0)
    for pred, truth in (([], []), ([1.0], [1.0]), ([0.1] * 3, [0.1] * 3), ([1e9 / 3] * 7, [1e9 / 3] * 7)):
        assert math.isnan(ccc(np.array(pred), np.array(truth)))
    assert math.isnan(rmse(np.array([]), np.array([])))


def test_ccc_keeps_its_digits_far_from_zero():
    rng = np.random.default_rng(0)
    target = 1e6 + rng.normal(size=1000)
    pred = target + rng.normal(size=1000)
    np.testing.assert_allclose(ccc(pred, target), ccc(pred - 1e6, target - 1e6), rtol=1e-8)
