"""Predicted probabilities against the raters' votes: the keys `distributions` and `mean_votes` of metrics.json.

An utterance counts whose raters do not agree, and which has no label therefore. The numbers follow from predictions.csv
and the votes of utterances.csv.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sejax.evaluation.calibration import temper_folds
from sejax.evaluation.intervals import summarise_means
from sejax.evaluation.predictions import Predictions
from sejax.protocols.folds import Fold

Votes = Mapping[str, Float[np.ndarray, " class"]]
"""The shares of the raters' votes for the classes, by the utterance's id."""


def kullback_leibler(
    votes: Float[np.ndarray, "row class"], prob: Float[np.ndarray, "row class"]
) -> Float[np.ndarray, " row"]:
    """Returns KL(votes || prob) = sum_c v_c log(v_c / p_c) of each row, in nats; p is at least float32's smallest
    number (Kullback and Leibler 1951).
    """
    voted = votes > 0
    ratio = np.where(voted, votes, 1.0) / np.where(voted, np.maximum(prob, np.finfo(np.float32).tiny), 1.0)
    return (votes * np.log(ratio)).sum(axis=1)


def jensen_shannon(
    votes: Float[np.ndarray, "row class"], prob: Float[np.ndarray, "row class"]
) -> Float[np.ndarray, " row"]:
    """Returns the Jensen-Shannon divergence of each row with logarithms to base 2, from 0 to 1 (Lin 1991).

    It is the square of `scipy.spatial.distance.jensenshannon(votes, prob, base=2)`.
    """
    middle = (votes + prob) / 2
    return (kullback_leibler(votes, middle) + kullback_leibler(prob, middle)) / (2 * np.log(2))


def any_rater(votes: Float[np.ndarray, "row class"], predicted: Int[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
    """Returns whether a rater voted for the predicted class of each row."""
    return votes[np.arange(len(votes)), predicted] > 0


def score_distributions(
    predictions: Predictions, votes: Votes, temperature: Mapping[str, float], *, n_bootstrap: int
) -> dict[str, Any]:
    """Returns how one setting's probabilities fit the raters' votes; nothing where there is nothing to compare.

    `{"utterances": number with votes, "without_label": those of them without a class, "metrics": {"js", "kl",
    "any_rater"}, "tempered": {"js", "kl"}}`, each metric a mean over rows with the numbers of `summarise`: the
    Jensen-Shannon divergence in bits, KL(votes || prediction) in nats, and the share of predictions that a rater voted
    for. `tempered` is of the probabilities at their fold's temperature. As with the metrics, there are no numbers if a
    row with votes has no prediction.

    Args:
      predictions: test rows of one setting, with the digits of predictions.csv.
      votes: of the utterances that have some.
      temperature: of each fold, see `calibrate`; empty without.
      n_bootstrap: draws of speakers for the intervals.
    """
    rows = predictions.select(np.array([name in votes for name in predictions.id.tolist()], bool))
    predicted = rows.predicted_class()
    if not len(predicted) or (predicted < 0).any():
        return {}
    of_raters = np.stack([votes[name] for name in rows.id.tolist()])

    def divergences(prob: Float[np.ndarray, "row class"]) -> dict[str, Float[np.ndarray, " row"]]:
        return {"js": jensen_shannon(of_raters, prob), "kl": kullback_leibler(of_raters, prob)}

    values = divergences(rows.prob) | {"any_rater": any_rater(of_raters, predicted).astype(np.float64)}
    found: dict[str, Any] = {
        "utterances": len(set(rows.id.tolist())),
        "without_label": len(set(rows.id[rows.label < 0].tolist())),
        "metrics": summarise_means(rows, values, n_bootstrap=n_bootstrap),
    }
    if temperature:
        tempered = divergences(temper_folds(rows, temperature))
        found["tempered"] = summarise_means(rows, tempered, n_bootstrap=n_bootstrap)
    return found


def mean_votes(
    predictions: Predictions, votes: Votes, ids: Sequence[str], folds: Sequence[Fold], *, n_bootstrap: int
) -> dict[str, Any]:
    """Returns the metrics of `score_distributions` of a model that always predicts the mean votes of its training set.

    Args:
      predictions: the test rows of all runs; only the first setting's are used.
      votes: of the utterances that have some.
      ids: of every utterance of the corpus.
      folds: whose training sets give the means.
      n_bootstrap: draws of speakers for the intervals.
    """
    first = predictions.select(predictions.setting == predictions.setting[:1])
    voted = np.array([name in votes for name in ids], bool)
    prob = np.full(first.prob.shape, np.nan)
    for fold in folds:
        trained = [votes[ids[row]] for row in np.flatnonzero(fold.train & voted).tolist()]
        if trained:
            prob[first.fold == fold.name] = np.mean(trained, axis=0)
    return score_distributions(replace(first, prob=prob), votes, {}, n_bootstrap=n_bootstrap).get("metrics", {})
