"""How sure a classifier is, against how often it is right."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sejax.evaluation.metrics import divide

BINS = 15
"""Bins of equal width in which confidence is compared with accuracy, as in Guo et al. (2017)."""


class Reliability(NamedTuple):
    """Bins of confidence from 0 to 1, each closed at its upper end; NaN in the means of an empty one."""

    rows: Int[np.ndarray, " bin"]
    confidence: Float[np.ndarray, " bin"]  # mean
    accuracy: Float[np.ndarray, " bin"]


def reliability(
    confidence: Float[np.ndarray, " row"], correct: Bool[np.ndarray, " row"], *, bins: int = BINS
) -> Reliability:
    """Returns number of rows, mean confidence and accuracy of bins of equal width.

    Args:
      confidence: probability of the predicted class.
      correct: whether it is the true one.
      bins: their number.
    """
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")
    rows = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights, minlength=bins) for weights in (confidence, correct))
    return Reliability(rows, *(divide(of_bin, rows) for of_bin in sums))


def expected_calibration_error(
    confidence: Float[np.ndarray, " row"], correct: Bool[np.ndarray, " row"], *, bins: int = BINS
) -> float:
    """Returns ECE = sum_b n_b / n |accuracy_b - confidence_b|; NaN for no rows.

    Naeini et al. (2015), Obtaining Well Calibrated Probabilities Using Bayesian Binning; Guo et al. (2017).
    """
    found = reliability(confidence, correct, bins=bins)
    filled = found.rows > 0
    gaps = np.abs(found.accuracy - found.confidence)[filled]
    return float(divide((found.rows[filled] * gaps).sum(), found.rows.sum()))


def brier_score(prob: Float[np.ndarray, "row class"], label: Int[np.ndarray, " row"]) -> float:
    """Returns the mean over rows of sum_c (p_c - [c is true])^2, from 0 to 2 (Brier 1950)."""
    truth = np.eye(prob.shape[1])[label]
    return float(((prob - truth) ** 2).sum(axis=1).mean())


def negative_log_likelihood(prob: Float[np.ndarray, "row class"], label: Int[np.ndarray, " row"]) -> float:
    """Returns the mean over rows of -log p of the true class, in nats; p is at least float32's smallest number."""
    p = prob[np.arange(len(label)), label]
    return float(-np.log(np.maximum(p, np.finfo(np.float32).tiny)).mean())


class RiskCoverage(NamedTuple):
    """The share of errors among the most confident rows, by the share of rows that they are."""

    coverage: Float[np.ndarray, " row"]
    risk: Float[np.ndarray, " row"]


def risk_coverage(confidence: Float[np.ndarray, " row"], correct: Bool[np.ndarray, " row"]) -> RiskCoverage:
    """Returns the risk-coverage curve of a classifier that may abstain (Geifman & El-Yaniv 2017).

    The k-th point is that of the k most confident rows. Rows of equal confidence count as their mean, which is what a
    random order of them gives: the order of the rows changes nothing.
    """
    _, level = np.unique(-confidence, return_inverse=True)
    rows = np.bincount(level)
    error = np.repeat(np.bincount(level, ~correct) / np.maximum(rows, 1), rows)
    number = np.arange(1, len(error) + 1)
    return RiskCoverage(number / max(len(error), 1), np.cumsum(error) / number)


def entropy(prob: Float[np.ndarray, "row class"]) -> Float[np.ndarray, " row"]:
    """Returns -sum_c p_c log p_c of each row, in nats."""
    return -(prob * np.log(np.where(prob > 0, prob, 1.0))).sum(axis=1)
