"""The metrics of each setting, with bootstrap intervals over speakers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sejax.corpora.schema import DIMENSIONS
from sejax.evaluation.metrics import (
    _ccc_of_moments,
    _moments,
    _rmse_of_moments,
    macro_f1,
    unweighted_accuracy,
    weighted_accuracy,
)
from sejax.evaluation.predictions import Predictions, _as_written, _predicted_class, _rows

_CONFIDENCE = (2.5, 97.5)  # percent


def summarise(predictions: Predictions, *, n_bootstrap: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """The metrics of each setting, in the order in which the settings first occur.

    `{"name": setting, "metrics": {"wa" | "ua" | "macro_f1" | "ccc_<dimension>" | "ccc_mean" |
    "rmse_<dimension>": {"pooled", "fold_mean", "fold_sd", "ci95": [low, high]}}}`, where

    - `pooled` is over all test utterances of all folds: the mean over seeds of each seed's own value;
    - `fold_mean` and `fold_sd` are the mean and the sample standard deviation over folds of each fold's mean
      over seeds. A fold in which a metric is undefined (a CCC of one utterance) does not count, and one fold
      has no deviation;
    - `ci95` is from the 2.5th to the 97.5th percentile of `pooled` over `n_bootstrap` draws of as many
      speakers, with replacement, the same for all settings of the same speakers. One speaker has no interval;
    - `ccc_mean` is over the dimensions that the corpus has.

    A number without data is absent, never NaN. A metric is absent too if the prediction of a row that has the
    truth is not finite: the entry then has `unpredicted`, the number of such rows of the class or the
    dimension.
    """
    predictions = _as_written(predictions)
    names = dict.fromkeys(predictions.setting.tolist())
    return [_summary(name, _rows(predictions, predictions.setting == name), n_bootstrap, seed) for name in names]


@dataclass(frozen=True)
class _Sums:
    """Metrics as functions of sums over utterances; `per_row` is what each row adds."""

    per_row: Float[np.ndarray, "row *sum"]
    metrics: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    unpredicted: Mapping[str, int]  # rows with the truth and without a prediction


def _class_sums(predictions: Predictions) -> _Sums:
    n_classes = len(predictions.classes)
    predicted = _predicted_class(predictions)
    labelled = predictions.label >= 0
    missing = int((labelled & (predicted < 0)).sum())
    per_row = np.zeros((len(predicted), n_classes, n_classes))
    if missing or not labelled.any():
        return _Sums(per_row, {}, {"class": missing})
    per_row[np.flatnonzero(labelled), predictions.label[labelled], predicted[labelled]] = 1
    functions = {"wa": weighted_accuracy, "ua": unweighted_accuracy, "macro_f1": macro_f1}
    return _Sums(per_row, functions, {"class": 0})


def _dimension_sums(predictions: Predictions) -> _Sums:
    per_row = np.zeros((len(predictions.run), len(DIMENSIONS), 5))
    ccc_of: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    rmse_of: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    unpredicted: dict[str, int] = {}
    complete = []
    for dim, name in enumerate(DIMENSIONS):
        pred, target = predictions.pred_vad[:, dim], predictions.vad[:, dim]
        rated = np.isfinite(target)
        unpredicted[name] = int((rated & ~np.isfinite(pred)).sum())
        if rated.any() and not unpredicted[name]:
            per_row[rated, dim] = _moments(pred[rated], target[rated])
            ccc_of[f"ccc_{name}"] = _at(dim, _ccc_of_moments)
            rmse_of[f"rmse_{name}"] = _at(dim, _rmse_of_moments)
            complete.append(dim)
    if complete:
        ccc_of["ccc_mean"] = lambda sums: _ccc_of_moments(sums[..., complete, :]).mean(axis=-1)
    return _Sums(per_row, ccc_of | rmse_of, unpredicted)


def _at(dim: int, of_moments: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: of_moments(sums[..., dim, :])


def _summary(name: str, predictions: Predictions, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """The entry of one setting."""
    speakers, speaker = np.unique(predictions.speaker, return_inverse=True)
    _, fold = np.unique(predictions.fold, return_inverse=True)
    _, run_seed = np.unique(predictions.seed, return_inverse=True)
    # How often each speaker is drawn.
    draws = np.random.default_rng(seed).multinomial(
        len(speakers), np.full(len(speakers), 1 / len(speakers)), size=n_bootstrap
    )
    entry: dict[str, Any] = {"name": name, "metrics": {}}
    unpredicted: dict[str, int] = {}
    for sums in (_class_sums(predictions), _dimension_sums(predictions)):
        by_fold = _grouped(sums.per_row, run_seed, fold)  # [seed, fold, ...]
        by_speaker = _grouped(sums.per_row, run_seed, speaker)  # [seed, speaker, ...]
        drawn = np.moveaxis(np.tensordot(draws.astype(np.float64), by_speaker, axes=(1, 1)), 1, 0)
        for metric, of_sums in sums.metrics.items():
            numbers = {
                "pooled": _defined(of_sums(by_speaker.sum(axis=1)).mean(axis=0)[None]),
                "folds": _defined(of_sums(by_fold).mean(axis=0)),
                "draws": _defined(of_sums(drawn).mean(axis=0)),
            }
            if numbers["pooled"].size:
                entry["metrics"][metric] = _numbers(**numbers, interval=len(speakers) > 1)
        unpredicted |= {what: number for what, number in sums.unpredicted.items() if number}
    return entry | ({"unpredicted": unpredicted} if unpredicted else {})


def _numbers(
    pooled: np.ndarray, folds: np.ndarray, draws: np.ndarray, *, interval: bool
) -> dict[str, float | list[float]]:
    """What metrics.json says of one metric: each number that there are values for."""
    numbers: dict[str, float | list[float]] = {"pooled": float(pooled[0])}
    if folds.size:
        numbers["fold_mean"] = float(folds.mean())
    if folds.size > 1:
        numbers["fold_sd"] = float(folds.std(ddof=1))
    if interval and draws.size:
        numbers["ci95"] = [float(bound) for bound in np.percentile(draws, _CONFIDENCE)]
    return numbers


def _grouped(
    per_row: Float[np.ndarray, "row *sum"], first: Int[np.ndarray, " row"], second: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "first second *sum"]:
    """The sums of the rows of each pair of groups."""
    sums = np.zeros((first.max() + 1, second.max() + 1, *per_row.shape[1:]))
    np.add.at(sums, (first, second), per_row)
    return sums


def _defined(values: Float[np.ndarray, " value"]) -> Float[np.ndarray, " defined"]:
    return values[~np.isnan(values)]
