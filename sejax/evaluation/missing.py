"""What is missing in the numbers of a setting, and why."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from sejax.corpora.schema import DIMENSIONS
from sejax.engine.feed import Outcome
from sejax.engine.runs import Learnable, RunKey
from sejax.evaluation.predictions import Predictions
from sejax.protocols.folds import Fold


def training_gaps(
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    outcome: Outcome,
    epochs: int,
    diverged: Mapping[int, int],
    unselected: Collection[int],
    *,
    among: Sequence[RunKey],
) -> dict[str, Any]:
    """Returns what is missing in the training of the runs of a row of the table; see `results.compute_metrics`.

    Args:
      runs: of the row.
      folds: of the protocol.
      outcome: by the run's number.
      epochs: of the config.
      diverged: the first epoch in which each run had diverged, by the run's number, of those that did.
      unselected: the numbers of the runs whose validation utterances have no labels of what they train.
      among: the runs from which those of the row were chosen, which may yet be others; all runs of a setting.
    """
    going_on = [run.number for run in among if not outcome.finished[run.number]]
    return {
        "unfinished": {"trained": int(outcome.trained[going_on].min()), "epochs": epochs} if going_on else {},
        "diverged": [
            {
                "fold": folds[run.fold].name,
                "seed": run.seed,
                "epoch": diverged[run.number],
                "best_epoch": int(outcome.best_epoch[run.number]),
            }
            for run in runs
            if run.number in diverged
        ],
        "stopped": _stopped(runs, folds, outcome, epochs, diverged),
        "unselected": list(dict.fromkeys(folds[run.fold].name for run in runs if run.number in unselected)),
    }


def _stopped(
    runs: Sequence[RunKey], folds: Sequence[Fold], outcome: Outcome, epochs: int, diverged: Mapping[int, int]
) -> dict[str, list[str]]:
    """Returns the folds in which halving has stopped the runs of a setting, by the epoch after which it did."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        trained = int(outcome.trained[run.number])
        untested = outcome.finished[run.number] and not outcome.best_epoch[run.number]
        if untested and trained < epochs and run.number not in diverged:
            found.setdefault(str(trained), {})[folds[run.fold].name] = None
    return {epoch: list(names) for epoch, names in found.items()}


def prediction_gaps(
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    learnable: Mapping[int, Learnable],
    predictions: Predictions,
    entry: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns what is missing in the predictions of a row of the table; see `results.compute_metrics`.

    Args:
      runs: of the row.
      folds: of the protocol.
      learnable: by the run's number.
      predictions: the test rows of all runs.
      entry: of the row in `intervals.summarise`.
    """
    trains = runs[0].setting.trains
    return {
        "untrained": _untrained(runs, folds, learnable, predictions),
        "unpredicted": {task: n for task, n in entry.get("unpredicted", {}).items() if trains(task)},
        "ccc_mean_over": _mean_over(entry["metrics"], predictions),
    }


def _untrained(
    runs: Sequence[RunKey], folds: Sequence[Fold], learnable: Mapping[int, Learnable], predictions: Predictions
) -> dict[str, list[str]]:
    """Returns, for the class and each dimension that a setting trains, the folds without labels to learn it from."""
    truths = {name: bool(np.isfinite(predictions.vad[:, dim]).any()) for dim, name in enumerate(DIMENSIONS)}
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        possible = dict(zip(DIMENSIONS, learnable[run.number].dimensions, strict=True))
        lacking = [name for name in DIMENSIONS if run.setting.trains("vad") and truths[name] and not possible[name]]
        if predictions.classes and run.setting.trains("class") and not learnable[run.number].label:
            lacking.insert(0, "class")
        for name in lacking:
            found.setdefault(name, {})[folds[run.fold].name] = None
    return {name: list(of_name) for name, of_name in found.items()}


def _mean_over(metrics: Mapping[str, Any], predictions: Predictions) -> list[str]:
    """Returns the dimensions of the mean CCC, if it is not over all that have ratings."""
    rated = [name for dim, name in enumerate(DIMENSIONS) if np.isfinite(predictions.vad[:, dim]).any()]
    over = [name for name in DIMENSIONS if f"ccc_{name}" in metrics]
    return over if "ccc_mean" in metrics and over != rated else []
