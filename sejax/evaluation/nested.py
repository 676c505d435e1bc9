"""Nested choice: each fold takes the setting that is best on its own validation speakers, among all of a grid.

The best row of a grid is chosen on test speakers, by whoever reads the table, and so promises too much. So does the row
with the best mean validation score: the validation speakers of one fold are the test speakers of another. The rows that
the folds choose, each by itself, are what a user of the grid may claim (nested cross-validation: Stone 1974; Varma and
Simon 2006). They cost nothing: every fold has trained every setting.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sejax.engine.runs import RunKey, Setting
from sejax.engine.search import comparable_settings, mean_scores
from sejax.evaluation.metrics import CLASS_METRICS
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.selection import CCC_METRICS

CHOSEN = "chosen"
"""The name of the row, among those of the settings."""

CHOICE = "choice"
"""The entry that tells this row from a setting's in metrics.json."""


def choose_settings(runs: Sequence[RunKey], best_score: Float[np.ndarray, " run"]) -> dict[int, Setting]:
    """Returns the setting that each fold chooses, by the fold's number: the first of the best.

    Args:
      runs: all runs of a study.
      best_score: of each run, by its number: the validation score at the epoch that it chose, -inf if it has none.

    Returns:
      The settings; no fold where fewer than two settings compare.
    """
    settings = comparable_settings(list({run.setting.name: run.setting for run in runs}.values()))
    if len(settings) < 2:
        return {}
    means = mean_scores(runs, best_score[[run.number for run in runs]], settings)
    return {fold: max(settings, key=lambda setting: mean[setting.name]) for fold, mean in means.items()}


def with_chosen(predictions: Predictions, choice: Mapping[str, str]) -> Predictions:
    """Returns the predictions and, in front of them, those of the row `chosen`.

    Args:
      predictions: of all runs.
      choice: the name of the setting that each fold has chosen, by the fold's name; empty: there is no such row.
    """
    if not choice:
        return predictions
    names = np.array([choice.get(fold, "") for fold in predictions.fold.tolist()])
    place = {fold: number for number, fold in enumerate(dict.fromkeys(predictions.fold.tolist()))}
    rows = np.flatnonzero(predictions.setting == names)
    # Folds in their own order, as in a setting, not by what they chose.
    order = np.argsort([place[fold] for fold in predictions.fold[rows].tolist()], kind="stable")
    return Predictions.concatenate([predictions.select(rows[order]).named(CHOSEN), predictions])


def cost_of_choice(
    chosen: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, str | float]]:
    """Returns, by metric, the setting that turned out best on the test speakers, and how much better it is.

    Args:
      chosen: the metrics of the row `chosen`.
      settings: those of the settings that could be chosen.
    """
    found: dict[str, dict[str, str | float]] = {}
    for key, metric in chosen.items():
        values = {name: own[key]["pooled"] for name, own in settings.items() if key in own}
        if values and key in (*CLASS_METRICS, *CCC_METRICS):
            best = max(values, key=values.__getitem__)
            found[key] = {"setting": best, "pooled": values[best], "gap": values[best] - metric["pooled"]}
    return found
