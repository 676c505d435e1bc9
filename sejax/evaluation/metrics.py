"""Metrics of both label kinds, predictions.csv, and what metrics.json says of it.

WA is the accuracy over utterances, UA the mean recall over classes, CCC has population moments. Every number
of `summarise` is a function of the predictions as predictions.csv holds them, with six significant digits.

A bootstrap draw resamples speakers: the utterances of one speaker are not independent, and intervals from
resampled utterances would be too narrow. All metrics are functions of sums over utterances (a confusion
matrix; a few moments), so a draw is a weighted sum of the speakers' own sums, and all draws are one matrix
product.
"""

import numpy as np
from jaxtyping import Float, Int, Shaped

# ----------------------------------------------------------------------------------------------- metrics


def confusion_matrix(
    label: Int[np.ndarray, " row"], predicted: Int[np.ndarray, " row"], n_classes: int
) -> Int[np.ndarray, "class class"]:
    """Counts `[true class, predicted class]`."""
    return np.bincount(label * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def weighted_accuracy(
    confusion: Shaped[np.ndarray, "*batch class class"],
) -> Float[np.ndarray, "*batch"]:
    """WA, the share of correct predictions, of matrices `[..., true, predicted]`; NaN of empty ones."""
    correct = np.trace(confusion, axis1=-2, axis2=-1)
    return _divide(correct, confusion.sum(axis=(-2, -1)))


def unweighted_accuracy(
    confusion: Shaped[np.ndarray, "*batch class class"],
) -> Float[np.ndarray, "*batch"]:
    """UA, the mean recall over the classes that occur in the truth, of matrices `[..., true, predicted]`.

    A class that nobody says in a test fold (or in a draw of the bootstrap) has no recall there and does not
    count there. NaN of empty matrices.
    """
    occurrences = confusion.sum(axis=-1)
    recall = _divide(np.diagonal(confusion, axis1=-2, axis2=-1), occurrences)
    return _divide(np.nansum(recall, axis=-1), (occurrences > 0).sum(axis=-1))


def macro_f1(confusion: Shaped[np.ndarray, "*batch class class"]) -> Float[np.ndarray, "*batch"]:
    """The mean F1 over the classes that occur in the truth or the predictions; NaN of empty matrices."""
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    occurrences = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    f1 = _divide(2 * correct, occurrences)
    return _divide(np.nansum(f1, axis=-1), (occurrences > 0).sum(axis=-1))


def ccc(pred: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"]) -> float:
    """The concordance correlation coefficient with population moments (Lin 1989).

    NaN for fewer than two rows, and for predictions and targets that are constant and equal.
    """
    return float(_ccc_of_moments(_moments(pred, target).sum(axis=0)))


def rmse(pred: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"]) -> float:
    """The root of the mean squared error, in the unit of its arguments; NaN for no rows."""
    return float(_rmse_of_moments(_moments(pred, target).sum(axis=0)))


def _moments(pred: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"]) -> Float[np.ndarray, "row 5"]:
    """What each row adds to the sums of 1, x, y, x^2 + y^2 and (x - y)^2, in float64.

    x and y are shifted by the mean of the targets: that changes no moment below and keeps the variances'
    digits.
    """
    centre = target.mean(dtype=np.float64) if target.size else 0.0
    x, y = pred.astype(np.float64) - centre, target.astype(np.float64) - centre
    return np.stack([np.ones_like(x), x, y, x * x + y * y, (x - y) ** 2], axis=-1)


def _ccc_of_moments(sums: Float[np.ndarray, "*batch 5"]) -> Float[np.ndarray, "*batch"]:
    """CCC = 1 - E (x - y)^2 / (s_x^2 + s_y^2 + (m_x - m_y)^2)."""
    n, x, y, squares, distance = np.moveaxis(sums, -1, 0)
    denominator = squares - _divide(x * x + y * y, n) + _divide((x - y) ** 2, n)
    # What is left of equal constants is rounding error.
    spread = denominator > 1e-12 * squares
    return np.where((n > 1) & spread, 1 - _divide(distance, denominator), np.nan)


def _rmse_of_moments(sums: Float[np.ndarray, "*batch 5"]) -> Float[np.ndarray, "*batch"]:
    return np.asarray(np.sqrt(_divide(sums[..., 4], sums[..., 0])))


def _divide(numerator: np.ndarray | np.number, denominator: np.ndarray | np.number) -> np.ndarray:
    """The quotient, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=quotient, where=denominator != 0)


# --------------------------------------------------------------------------------------- predictions.csv


# ------------------------------------------------------------------------------------------ metrics.json
