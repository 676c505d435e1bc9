"""What experiments share: studies that are trained once, and differences that are paired over speakers."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict
from scipy.stats import permutation_test

from sejax import build
from sejax.evaluation.intervals import summarise
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.tables import COLUMNS
from sejax.study import train_and_evaluate
from sejax.workdir import files

DRAWS = 10_000  # of signs; all of them where there are fewer


def train_once(config: ConfigDict, workdir: Path) -> None:
    """Trains a study, unless its workdir holds a finished one of the same options.

    Raises:
      InputError: the workdir belongs to other options, or what a study refuses.
    """
    if (workdir / files.METRICS).exists():
        files.check_workdir(str(workdir), build.options(config), must_exist=True)
    else:
        train_and_evaluate(config, str(workdir))


def speaker_scores(
    predictions: Predictions, metrics: Iterable[str]
) -> dict[tuple[str, str], Float[np.ndarray, " speaker"]]:
    """Returns the scores on each speaker alone by setting and metric: means over seeds, in the order of names."""
    scores: dict[tuple[str, str], list[float]] = {}
    for _, rows in sorted(predictions.by("speaker").items()):
        for entry in summarise(rows, n_bootstrap=1):
            for metric in metrics:
                score = entry["metrics"].get(metric, {"pooled": np.nan})["pooled"]
                scores.setdefault((entry["name"], metric), []).append(score)
    return {key: np.array(values) for key, values in scores.items()}


def paired_test(scores: Float[np.ndarray, " speaker"], single: Float[np.ndarray, " speaker"]) -> tuple[float, float]:
    """Returns the mean difference over speakers and the two-sided p of a paired permutation test (of signs).

    Speakers on whom either score is undefined are left out. With fewer than two speakers left, p is 1.
    """
    difference = scores - single
    difference = difference[np.isfinite(difference)]
    if len(difference) < 2:
        return float(difference.mean()) if len(difference) else np.nan, 1.0
    test = permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=DRAWS, rng=np.random.default_rng(0)
    )
    return float(difference.mean()), float(test.pvalue)


def paired_cells(
    metric: str, scores: Float[np.ndarray, " speaker"], others: Float[np.ndarray, " speaker"]
) -> list[str]:
    """Returns the cells of a table for the difference of two scores on speakers, in the metric's digits, and its p."""
    difference, p = paired_test(scores, others)
    column = COLUMNS[metric]
    return [f"{column.scale * difference:+.{column.digits}f}", f"{p:.3f}"]
