"""Metrics as functions of sums over utterances, and the sums of groups of rows.

A confusion matrix and a few moments hold all that a metric needs of a group of utterances, so that the metrics of any
fold, speaker, draw of speakers or exchange of speakers follow from the sums of its parts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sejax.corpora.schema import DIMENSIONS
from sejax.evaluation.metrics import CLASS_METRICS, DIMENSION_METRICS, ccc_of_moments, moments
from sejax.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Sums:
    """Metrics as functions of sums over utterances; `per_row` holds each row's terms."""

    per_row: Float[np.ndarray, "row *sum"]
    metrics: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    truths: Mapping[str, tuple[str, ...]]  # that each metric needs: "class", dimensions
    unpredicted: Mapping[str, Bool[np.ndarray, " row"]]  # by truth: rows that have it and no prediction

    def unpredicted_by(self, metric: str) -> Bool[np.ndarray, " row"]:
        """Returns the rows that have a truth of the metric and no prediction of it."""
        return np.any([self.unpredicted[truth] for truth in self.truths[metric]], axis=0)


def class_sums(predictions: Predictions) -> Sums:
    """Returns the metrics of the class: each row's term is a confusion matrix `[true, predicted]` of one utterance."""
    n_classes = len(predictions.classes)
    predicted = predictions.predicted_class()
    labelled = predictions.label >= 0
    missing = labelled & (predicted < 0)
    per_row = np.zeros((len(predicted), n_classes, n_classes))
    counted = np.flatnonzero(labelled & ~missing)
    per_row[counted, predictions.label[counted], predicted[counted]] = 1
    functions = {name: metric.function for name, metric in CLASS_METRICS.items() if labelled.any()}
    return Sums(per_row, functions, dict.fromkeys(functions, ("class",)), {"class": missing})


def dimension_sums(predictions: Predictions) -> Sums:
    """Returns the metrics of the dimensions: each row's terms are `moments` `[dimension, 6]`.

    The mean CCC is over the dimensions whose ratings vary and that every row predicts (over all that vary, if none is).
    """
    per_row = np.zeros((len(predictions.run), len(DIMENSIONS), 6))
    unpredicted: dict[str, Bool[np.ndarray, " row"]] = {}
    rated_dims, varied = [], []
    for dim, name in enumerate(DIMENSIONS):
        pred, target = predictions.pred_vad[:, dim], predictions.vad[:, dim]
        rated, known = np.isfinite(target), np.isfinite(pred)
        unpredicted[name] = rated & ~known
        if rated.any():
            per_row[rated & known, dim] = moments(pred[rated & known], target[rated & known])
            rated_dims.append(dim)
        if len(np.unique(target[rated])) > 1:  # ratings that are all equal agree with nothing
            varied.append(dim)
    mean_dims = [dim for dim in varied if not unpredicted[DIMENSIONS[dim]].any()] or varied
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    truths: dict[str, tuple[str, ...]] = {}
    for metric, of_moments in DIMENSION_METRICS.items():
        for dim in rated_dims if metric == "rmse" else varied:
            functions[f"{metric}_{DIMENSIONS[dim]}"] = _at(dim, of_moments)
            truths[f"{metric}_{DIMENSIONS[dim]}"] = (DIMENSIONS[dim],)
        if metric == "ccc" and mean_dims:
            functions["ccc_mean"] = lambda sums: ccc_of_moments(sums[..., mean_dims, :]).mean(axis=-1)
            truths["ccc_mean"] = tuple(DIMENSIONS[dim] for dim in mean_dims)
    return Sums(per_row, functions, truths, unpredicted)


def _at(dim: int, of_moments: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: of_moments(sums[..., dim, :])


def grouped(
    per_row: Float[np.ndarray, "row *sum"], first: Int[np.ndarray, " row"], second: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "first second *sum"]:
    """Returns the sums over the rows of each pair of groups."""
    sums = np.zeros((first.max() + 1, second.max() + 1, *per_row.shape[1:]))
    np.add.at(sums, (first, second), per_row)
    return sums


def defined(values: Float[np.ndarray, " value"]) -> Float[np.ndarray, " defined"]:
    """Returns the values that are not NaN."""
    return values[~np.isnan(values)]
