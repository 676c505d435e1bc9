"""Baselines without a model of their own: the majority class and the class-mean look-up."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sejax.evaluation.intervals import summarise
from sejax.evaluation.metrics import divide
from sejax.evaluation.predictions import Predictions
from sejax.protocols.folds import Fold


def majority_class(
    predictions: Predictions,
    label: Int[np.ndarray, " utterance"],
    folds: Sequence[Fold],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns the class metrics of always predicting the most frequent class of the fold's training set.

    Args:
      predictions: only the truths of the first setting are used.
      label: of every utterance of the corpus, -1 where there is none.
      folds: whose training sets give the classes.
      n_bootstrap: draws of speakers for the intervals.
      seed: of the draws.
    """
    first = predictions.select(predictions.setting == predictions.setting[:1])
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
    """Returns CCC and RMSE of each setting when VAD is looked up: the mean VAD of the predicted class in training.

    The table of a fold is made from its training set, and the class is the one that the model predicts. A class
    without VAD ratings in training has the mean of the training set. A joint model that does not beat this table has
    learned nothing about the dimensions beyond the class.

    Args:
      predictions: whose predicted classes are looked up.
      label: of every utterance of the corpus, -1 where there is none.
      vad: of every utterance of the corpus, NaN where a dimension is missing.
      folds: whose training sets give the tables.
      n_bootstrap: draws of speakers for the intervals.
      seed: of the draws.
    """
    predictions = predictions.rounded()
    predicted = predictions.predicted_class()
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
    """Returns the mean VAD of each class, that of all utterances for a class without ratings."""

    def means(rows: np.ndarray) -> np.ndarray:
        rated = np.isfinite(vad[rows])
        return divide(np.where(rated, vad[rows], 0.0).sum(axis=0), rated.sum(axis=0))

    table = np.stack([means(label == number) for number in range(n_classes)])
    return np.where(np.isnan(table), means(np.ones(label.shape, bool)), table)
