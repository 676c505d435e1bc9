"""The metrics of each setting with bootstrap intervals over speakers, and the metrics of each fold and speaker.

Every number is a function of the predictions as predictions.csv holds them, with six significant digits.

A bootstrap draw resamples speakers: the utterances of one speaker are not independent, and intervals from resampled
utterances would be too narrow. All metrics are functions of sums over utterances, so a draw is a weighted sum of the
speakers' sums, and all draws are one matrix product.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from sejax.evaluation.metrics import divide
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.sums import class_sums, defined, dimension_sums, grouped

CONFIDENCE = (2.5, 97.5)
"""The ends of an interval, as percentiles of the draws."""


def summarise(predictions: Predictions, *, n_bootstrap: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """Returns the metrics of each setting, in the order in which the settings first occur.

    `{"name": setting, "metrics": {"wa" | "ua" | "macro_f1" | "ccc_<dimension>" | "ccc_mean" |
    "rmse_<dimension>" | "pcc_<dimension>": {"pooled", "fold_mean", "fold_sd", "ci95": [low, high]}}}`, where

    - `pooled` is over all test utterances of all folds: the mean over seeds of each seed's value;
    - `fold_mean` and `fold_sd` are the mean and the sample standard deviation over folds of each fold's mean
      over seeds. A fold in which a metric is undefined (a CCC of one utterance) is left out, and one fold has no
      deviation;
    - `ci95` is from the 2.5th to the 97.5th percentile of `pooled` over `n_bootstrap` draws of as many
      speakers, with replacement, the same for all settings of the same speakers. One speaker has no interval;
    - `ccc_mean` is over the dimensions that have a CCC, which is absent where all ratings are equal.

    A number without data is absent, never NaN. A metric is absent too if the prediction of a row that has the
    truth is not finite: the entry then has `unpredicted`, the number of such rows of the class or the dimension.
    """
    settings = predictions.rounded().by("setting")
    return [_summary(name, rows, n_bootstrap, seed) for name, rows in settings.items()]


def summarise_means(
    predictions: Predictions, values: Mapping[str, Float[np.ndarray, " row"]], *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Returns the means of values of the rows of one setting, each with the numbers of a metric of `summarise`.

    Args:
      predictions: the rows.
      values: by the name of the metric, finite.
      n_bootstrap: draws of speakers for the intervals.
      seed: of the draws.
    """
    per_row = np.stack([np.ones(len(predictions.run)), *values.values()], axis=1)
    means = {name: _mean_of(place) for place, name in enumerate(values, start=1)}
    return _estimates(predictions, per_row, means, n_bootstrap, seed)


def _mean_of(place: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: divide(sums[..., place], sums[..., 0])


def score_groups(
    predictions: Predictions, column: str, values: Shaped[np.ndarray, " row"] | None = None
) -> list[dict[str, Any]]:
    """Returns the metrics of each group of rows of one setting, in the order in which the groups first occur.

    `{column: value, "utterances": number, "metrics": {name: number}}`, with the metrics of `summarise`. A number is
    the mean over seeds of each seed's value and is absent where a seed has none, or where a row of the group has the
    truth and no prediction. The mean of a metric over folds is the `fold_mean` of `summarise`.

    Args:
      predictions: rows of one setting, with the digits of predictions.csv.
      column: "fold" or "speaker", or what `values` are.
      values: the group of each row, where no column says it.
    """
    of_rows = getattr(predictions, column) if values is None else values
    groups, group = np.unique(of_rows, return_inverse=True)
    _, run_seed = np.unique(predictions.seed, return_inverse=True)
    scores: dict[str, Float[np.ndarray, " group"]] = {}
    for sums in (class_sums(predictions), dimension_sums(predictions)):
        by_group = grouped(sums.per_row, run_seed, group)  # [seed, group, ...]
        for metric, of_sums in sums.metrics.items():
            incomplete = np.bincount(group, sums.unpredicted_by(metric), minlength=len(groups)) > 0
            scores[metric] = np.where(incomplete, np.nan, of_sums(by_group).mean(axis=0))
    place = {name: number for number, name in enumerate(groups.tolist())}
    return [
        {
            column: name,
            "utterances": len(set(predictions.id[of_rows == name].tolist())),
            "metrics": {m: float(v[place[name]]) for m, v in scores.items() if np.isfinite(v[place[name]])},
        }
        for name in dict.fromkeys(of_rows.tolist())
    ]


def draw_speakers(rng: np.random.Generator, n_speakers: int, draws: int) -> Float[np.ndarray, "draw speaker"]:
    """Returns how many times each draw of as many speakers, with replacement, has each of them."""
    return rng.multinomial(n_speakers, np.full(n_speakers, 1 / n_speakers), size=draws).astype(np.float64)


def _summary(name: str, predictions: Predictions, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """Returns the entry of one setting."""
    entry: dict[str, Any] = {"name": name, "metrics": {}}
    unpredicted: dict[str, int] = {}
    for sums in (class_sums(predictions), dimension_sums(predictions)):
        whole = {metric: f for metric, f in sums.metrics.items() if not sums.unpredicted_by(metric).any()}
        entry["metrics"] |= _estimates(predictions, sums.per_row, whole, n_bootstrap, seed)
        unpredicted |= {truth: int(rows.sum()) for truth, rows in sums.unpredicted.items() if rows.any()}
    return entry | ({"unpredicted": unpredicted} if unpredicted else {})


def _estimates(
    predictions: Predictions,
    per_row: Float[np.ndarray, "row *sum"],
    metrics: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Returns the numbers of metrics that are functions of sums over the rows of one setting."""
    speakers, speaker = np.unique(predictions.speaker, return_inverse=True)
    _, fold = np.unique(predictions.fold, return_inverse=True)
    _, run_seed = np.unique(predictions.seed, return_inverse=True)
    draws = draw_speakers(np.random.default_rng(seed), len(speakers), n_bootstrap)
    by_fold = grouped(per_row, run_seed, fold)  # [seed, fold, ...]
    by_speaker = grouped(per_row, run_seed, speaker)  # [seed, speaker, ...]
    drawn = np.moveaxis(np.tensordot(draws, by_speaker, axes=(1, 1)), 1, 0)
    estimates = {}
    for metric, of_sums in metrics.items():
        numbers = {
            "pooled": defined(of_sums(by_speaker.sum(axis=1)).mean(axis=0)[None]),
            "folds": defined(of_sums(by_fold).mean(axis=0)),
            "draws": defined(of_sums(drawn).mean(axis=0)),
        }
        if numbers["pooled"].size:
            estimates[metric] = _numbers(**numbers, interval=len(speakers) > 1)
    return estimates


def _numbers(
    pooled: np.ndarray, folds: np.ndarray, draws: np.ndarray, *, interval: bool
) -> dict[str, float | list[float]]:
    """Returns the entry of one metric: each number for which there are values."""
    numbers: dict[str, float | list[float]] = {"pooled": float(pooled[0])}
    if folds.size:
        numbers["fold_mean"] = float(folds.mean())
    if folds.size > 1:
        numbers["fold_sd"] = float(folds.std(ddof=1))
    if interval and draws.size:
        numbers["ci95"] = [float(bound) for bound in np.percentile(draws, CONFIDENCE)]
    return numbers
