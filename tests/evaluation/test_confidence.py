"""Confidence against accuracy: bins and curves by hand, scikit-learn, properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import brier_score_loss, log_loss

from sejax.evaluation.confidence import (
    brier_score,
    entropy,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
    risk_coverage,
)


def test_calibration_error_of_bins_by_hand():
    # In bins of a fifth: (0.2, 0.4] has 0.3 and 0.4, one right; (0.8, 1] has 0.9, 0.9 and 1.0, two right.
    confidence = np.array([0.3, 0.4, 0.9, 0.9, 1.0])
    correct = np.array([True, False, True, True, False])
    found = reliability(confidence, correct, bins=5)
    assert found.rows.tolist() == [0, 2, 0, 0, 3]
    np.testing.assert_allclose(found.confidence, [np.nan, 0.35, np.nan, np.nan, 2.8 / 3])
    np.testing.assert_allclose(found.accuracy, [np.nan, 0.5, np.nan, np.nan, 2 / 3])
    by_hand = 2 / 5 * abs(0.5 - 0.35) + 3 / 5 * abs(2 / 3 - 2.8 / 3)
    assert expected_calibration_error(confidence, correct, bins=5) == pytest.approx(by_hand)
    assert reliability(np.array([0.0, 0.2, 1.0]), np.ones(3, bool), bins=5).rows.tolist() == [2, 0, 0, 0, 1]


def test_calibration_error_at_its_ends():
    sure, right = np.ones(7), np.ones(7, bool)
    assert expected_calibration_error(sure, right) == 0
    assert expected_calibration_error(sure, ~right) == 1
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))
    # Confidences that come true have an error that only chance makes.
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 100_000)
    assert expected_calibration_error(confidence, rng.random(100_000) < confidence) < 0.01


@pytest.mark.parametrize("n_classes", [2, 5])
def test_scores_equal_scikit_learn(n_classes: int):
    rng = np.random.default_rng(n_classes)
    prob = rng.dirichlet(np.ones(n_classes), size=50)
    label = rng.integers(0, n_classes, 50)
    classes = range(n_classes)
    assert negative_log_likelihood(prob, label) == pytest.approx(log_loss(label, prob, labels=classes))
    expected = brier_score_loss(label, prob, labels=classes, scale_by_half=False)
    assert brier_score(prob, label) == pytest.approx(expected)
    np.testing.assert_allclose(entropy(prob), scipy_entropy(prob, axis=1))


def test_scores_of_sure_predictions():
    prob = np.eye(3)
    assert brier_score(prob, np.arange(3)) == 0 and brier_score(prob, np.array([1, 2, 0])) == 2
    assert negative_log_likelihood(prob, np.arange(3)) == 0
    assert 80 < negative_log_likelihood(prob, np.array([1, 2, 0])) < 90  # not infinite
    assert entropy(prob).tolist() == [0, 0, 0]


def test_risk_and_coverage_by_hand():
    found = risk_coverage(np.array([0.5, 0.9, 0.7, 0.6]), np.array([False, True, False, True]))
    np.testing.assert_allclose(found.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(found.risk, [0, 1 / 2, 1 / 3, 2 / 4])
    # Equal confidences count as their mean.
    ties = risk_coverage(np.full(4, 0.5), np.array([True, False, False, False]))
    np.testing.assert_allclose(ties.risk, 0.75)


@given(data=st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.6, 0.9]), st.booleans()), min_size=1, max_size=30))
def test_properties(data: list[tuple[float, bool]]):
    confidence, correct = (np.array(column) for column in zip(*data, strict=True))
    found = risk_coverage(confidence, correct)
    assert found.risk[-1] == pytest.approx(1 - correct.mean())
    assert 0 <= expected_calibration_error(confidence, correct) <= 1
    assert abs(confidence.mean() - correct.mean()) <= expected_calibration_error(confidence, correct) + 1e-9
    # The order of the rows changes nothing.
    order = np.random.default_rng(len(data)).permutation(len(data))
    np.testing.assert_allclose(risk_coverage(confidence[order], correct[order]).risk, found.risk)
    # An oracle that leaves out the errors first has the least area.
    assert risk_coverage(correct.astype(float), correct).risk.mean() <= found.risk.mean() + 1e-9
