"""Temperature scaling: known temperatures, the minimum of the objective, extreme predictions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from sejax.evaluation.temperature import PRIOR_RATE, fit_temperature, temper


def _softmax(logits):
    prob = np.exp(logits - logits.max(axis=1, keepdims=True))
    return prob / prob.sum(axis=1, keepdims=True)


def _calibrated(n, *, classes=4, seed=0):
    """Returns logits and labels that are drawn by their probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, classes))
    draw = rng.random((n, 1))
    return logits, (draw > _softmax(logits).cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_the_temperature_is_the_factor_by_which_calibrated_logits_were_scaled(factor: float):
    logits, label = _calibrated(40_000)
    found = fit_temperature(_softmax(factor * logits), label, np.arange(len(label)))
    assert found == pytest.approx(factor, rel=0.03)
    np.testing.assert_allclose(
        temper(_softmax(factor * logits), np.full(len(label), factor)), _softmax(logits), rtol=1e-9
    )


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 999), sharpness=st.sampled_from([0.1, 1.0, 5.0]))
def test_the_temperature_is_the_minimum_of_its_objective(n: int, seed: int, sharpness: float):
    logits, label = _calibrated(n, seed=seed)
    prob = _softmax(sharpness * logits)

    def objective(t):
        log_p = log_softmax(np.log(prob) / t, axis=1)[np.arange(n), label]
        return PRIOR_RATE * abs(np.log(t)) - log_p.sum()

    found = objective(fit_temperature(prob, label, np.arange(n)))
    assert found <= min(objective(t) for t in np.exp(np.linspace(-2.9, 2.9, 99))) + 1e-7


def test_few_and_perfect_predictions_do_not_move_the_temperature():
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int), np.zeros(0, str)) == 1.0
    assert fit_temperature(np.array([[0.98, 0.02]]), np.array([1]), np.array(["u"])) == 1.0
    assert fit_temperature(np.ones((5, 1)), np.zeros(5, int), np.arange(5)) == 1.0
    # All right, and sure of it: the likelihood alone has its maximum at 0.
    right = np.tile([[0.98, 0.02]], (50, 1))
    assert fit_temperature(right, np.zeros(50, int), np.arange(50)) == 1.0
    # However many: it stays inside its bounds, as it does where all are sure and wrong.
    many = np.tile([[0.9, 0.1]], (5000, 1))
    assert 0.05 < fit_temperature(many, np.zeros(5000, int), np.arange(5000)) < 1
    wrong = np.tile([[1.0, 0.0]], (50, 1))  # a probability that float32 rounds to 0
    assert 1 < fit_temperature(wrong, np.ones(50, int), np.arange(50)) < 21


def test_rows_that_contradict_it_move_the_temperature_nearly_all_the_way():
    logits, label = _calibrated(100)
    assert fit_temperature(_softmax(logits), label, np.arange(100)) == 1.0
    assert fit_temperature(_softmax(0.3 * logits), label, np.arange(100)) == pytest.approx(0.3, abs=0.1)
    assert fit_temperature(_softmax(4 * logits), label, np.arange(100)) == pytest.approx(4, abs=1.5)


def test_an_utterance_counts_once_however_many_seeds_predict_it():
    logits, label = _calibrated(60)
    prob, utterance = _softmax(3 * logits), np.arange(60).astype(str)
    once = fit_temperature(prob, label, utterance)
    thrice = fit_temperature(*(np.concatenate([x] * 3) for x in (prob, label, utterance)))
    assert 1 < once == pytest.approx(thrice, rel=1e-6)


def test_rows_without_predictions_have_none_after_it():
    found = temper(np.array([[np.nan, np.nan], [0.5, 0.5]]), np.array([2.0, 2.0]))
    assert np.isnan(found[0]).all() and found[1].tolist() == [0.5, 0.5]


@given(seed=st.integers(0, 99), factor=st.floats(0.2, 5))
def test_the_order_of_the_classes_stays(seed: int, factor: float):
    prob = _softmax(np.random.default_rng(seed).normal(size=(20, 5)))
    found = temper(prob, np.full(20, factor))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (np.argsort(found, axis=1) == np.argsort(prob, axis=1)).all()
