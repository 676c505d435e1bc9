"""Metrics of both label kinds, as functions of sums over utterances.

WA is the accuracy over utterances, UA the mean recall over classes. CCC has population moments. The class metrics are
functions of a confusion matrix and the dimensional ones of a few moments, so that the metrics of any group of
utterances follow from the sums of its parts.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped


def confusion_matrix(
    label: Int[np.ndarray, " row"], predicted: Int[np.ndarray, " row"], n_classes: int
) -> Int[np.ndarray, "class class"]:
    """Returns counts `[true class, predicted class]`."""
    return np.bincount(label * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def weighted_accuracy(
    confusion: Shaped[np.ndarray, "*batch class class"],
) -> Float[np.ndarray, "*batch"]:
    """Returns WA, the share of correct predictions, of matrices `[..., true, predicted]`; NaN for empty ones."""
    correct = np.trace(confusion, axis1=-2, axis2=-1)
    return divide(correct, confusion.sum(axis=(-2, -1)))


def unweighted_accuracy(
    confusion: Shaped[np.ndarray, "*batch class class"],
) -> Float[np.ndarray, "*batch"]:
    """Returns UA, the mean recall over the classes that occur in the truth, of matrices `[..., true, predicted]`.

    A class without utterances in a test fold (or in a draw of the bootstrap) has no recall there and is left out
    there. NaN for empty matrices.
    """
    occurrences = confusion.sum(axis=-1)
    recall = divide(np.diagonal(confusion, axis1=-2, axis2=-1), occurrences)
    return divide(np.nansum(recall, axis=-1), (occurrences > 0).sum(axis=-1))


def macro_f1(confusion: Shaped[np.ndarray, "*batch class class"]) -> Float[np.ndarray, "*batch"]:
    """Returns the mean F1 over the classes that occur in the truth or the predictions; NaN for empty matrices."""
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    occurrences = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    f1 = divide(2 * correct, occurrences)
    return divide(np.nansum(f1, axis=-1), (occurrences > 0).sum(axis=-1))


def ccc(pred: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"]) -> float:
    """Returns the concordance correlation coefficient with population moments (Lin 1989).

    NaN for fewer than two rows, and for predictions and targets that are constant and equal.
    """
    return float(ccc_of_moments(moments(pred, target).sum(axis=0)))


def rmse(pred: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"]) -> float:
    """Returns the root of the mean squared error, in the unit of its arguments; NaN for no rows."""
    return float(rmse_of_moments(moments(pred, target).sum(axis=0)))


def pcc(pred: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"]) -> float:
    """Returns Pearson's correlation; NaN for fewer than two rows, and where predictions or targets are constant."""
    return float(pcc_of_moments(moments(pred, target).sum(axis=0)))


def moments(pred: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"]) -> Float[np.ndarray, "row 6"]:
    """Returns each row's terms of the sums of 1, x, y, x^2 + y^2, (x - y)^2 and x^2 - y^2, in float64.

    x and y are shifted by the mean of the targets. The shift changes no metric and keeps the digits of the variances.
    """
    centre = target.mean(dtype=np.float64) if target.size else 0.0
    x, y = pred.astype(np.float64) - centre, target.astype(np.float64) - centre
    return np.stack([np.ones_like(x), x, y, x * x + y * y, (x - y) ** 2, x * x - y * y], axis=-1)


def ccc_of_moments(sums: Float[np.ndarray, "*batch 6"]) -> Float[np.ndarray, "*batch"]:
    """Returns CCC = 1 - E (x - y)^2 / (s_x^2 + s_y^2 + (m_x - m_y)^2) from the sums of `moments`."""
    n, x, y, squares, distance, _ = np.moveaxis(sums, -1, 0)
    denominator = squares - divide(x * x + y * y, n) + divide((x - y) ** 2, n)
    # Equal constants leave only rounding error.
    spread = denominator > 1e-12 * squares
    return np.where((n > 1) & spread, 1 - divide(distance, denominator), np.nan)


def pcc_of_moments(sums: Float[np.ndarray, "*batch 6"]) -> Float[np.ndarray, "*batch"]:
    """Returns Pearson's correlation from the sums of `moments`."""
    n, x, y, squares, distance, difference = np.moveaxis(sums, -1, 0)
    of_x = (squares + difference) / 2 - divide(x * x, n)
    of_y = (squares - difference) / 2 - divide(y * y, n)
    covariance = (squares - distance) / 2 - divide(x * y, n)
    # Equal values leave only rounding error.
    spread = np.minimum(of_x, of_y) > 1e-12 * squares
    product = np.where(spread, of_x * of_y, 1.0)
    return np.where((n > 1) & spread, np.clip(covariance / np.sqrt(product), -1, 1), np.nan)


def rmse_of_moments(sums: Float[np.ndarray, "*batch 6"]) -> Float[np.ndarray, "*batch"]:
    """Returns RMSE = sqrt(E (x - y)^2) from the sums of `moments`."""
    return np.asarray(np.sqrt(divide(sums[..., 4], sums[..., 0])))


class ClassMetric(NamedTuple):
    """A metric of the predicted classes; NaN for an empty confusion matrix."""

    function: Callable[[Shaped[np.ndarray, "*batch class class"]], Float[np.ndarray, "*batch"]]  # of confusion matrices
    title: str  # for people


CLASS_METRICS: Mapping[str, ClassMetric] = {
    "wa": ClassMetric(weighted_accuracy, "WA"),
    "ua": ClassMetric(unweighted_accuracy, "UA"),
    "macro_f1": ClassMetric(macro_f1, "macro F1"),
}
"""The class metrics of metrics.json and of the report, as shares from 0 to 1."""

DIMENSION_METRICS: Mapping[str, Callable[[Float[np.ndarray, "*batch 6"]], Float[np.ndarray, "*batch"]]] = {
    "ccc": ccc_of_moments,
    "rmse": rmse_of_moments,
    "pcc": pcc_of_moments,
}
"""The metrics of each dimension in metrics.json, as functions of the sums of `moments`."""


def divide(numerator: np.ndarray | np.number, denominator: np.ndarray | np.number) -> np.ndarray:
    """Returns the quotient, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=quotient, where=denominator != 0)
