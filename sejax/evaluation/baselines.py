"""Baselines that need no model of their own: the majority class, and the class-mean look-up."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sejax.evaluation.intervals import summarise
from sejax.evaluation.metrics import _divide
from sejax.evaluation.predictions import Predictions, _as_written, _predicted_class, _rows
from sejax.protocols.folds import Fold


def majority_class(
    predictions: Predictions,
    label: Int[np.ndarray, " utterance"],
    folds: Sequence[Fold],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The metrics of always saying the class that is most frequent in the fold's training set, without CCC.

    `label` is that of every utterance of the corpus, -1 where there is none. Of `predictions`, the truths of
    the first setting count.
    """
    first = _rows(predictions, predictions.setting == predictions.setting[:1])
    prob = np.full(first.prob.shape, np.nan)
    for fold in folds:
        counts = np.bincount(label[fold.train & (label >= 0)], minlength=len(first.classes))
        if counts.any():
            prob[first.fold == fold.name] = np.eye(len(first.classes))[np.argmax(counts)]
    unknown = np.full(first.vad.shape, np.nan)
    baseline = replace(first, prob=prob, vad=unknown, pred_vad=unknown)
    return {
        name: metric
        for entry in summarise(baseline, n_bootstrap=n_bootstrap, seed=seed)
        for name, metric in entry["metrics"].items()
    }


def class_mean_lookup(
    predictions: Predictions,
    label: Int[np.ndarray, " utterance"],
    vad: Float[np.ndarray, "utterance 3"],
    folds: Sequence[Fold],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """For each setting, the CCC and RMSE of looking VAD up in a table: the mean of the predicted class in
    training.

    `label` (-1: none) and `vad` (NaN: missing) are those of every utterance of the corpus; the table is made
    from the fold's training set, and the class is the one that the model predicts. A class whose VAD nobody
    has rated there stands at the mean of the training set. What a joint model does not add to this table, it
    has not learned from VAD.
    """
    predictions = _as_written(predictions)
    predicted = _predicted_class(predictions)
    looked_up = np.full(predictions.vad.shape, np.nan)
    for fold in folds:
        rows = (predictions.fold == fold.name) & (predicted >= 0)
        table = _class_means(label[fold.train], vad[fold.train], len(predictions.classes))
        looked_up[rows] = table[predicted[rows]]
    baseline = replace(predictions, label=np.full_like(predictions.label, -1), pred_vad=looked_up)
    return {entry["name"]: entry["metrics"] for entry in summarise(baseline, n_bootstrap=n_bootstrap, seed=seed)}


def _class_means(
    label: Int[np.ndarray, " utterance"], vad: Float[np.ndarray, "utterance 3"], n_classes: int
) -> Float[np.ndarray, "class 3"]:
    def means(rows: np.ndarray) -> np.ndarray:
        rated = np.isfinite(vad[rows])
        return _divide(np.where(rated, vad[rows], 0.0).sum(axis=0), rated.sum(axis=0))

    table = np.stack([means(label == number) for number in range(n_classes)])
    return np.where(np.isnan(table), means(np.ones(label.shape, bool)), table)
