"""Runs that train again, once the folds have chosen their epochs.

A refit run is a run of a fold once more, on the fold's training and validation speakers. It is tested, once, on the
test speakers of the fold. A final run is a setting and seed once more on every speaker, as the model that people use.
Nobody is left to test it: no number of a study is of one.

Both are further runs of a program that is compiled for the folds: arrays of the same shapes, so that nothing is
compiled again. An epoch of theirs has as many steps as one of a fold, and the same schedule, so that the epochs that
the folds chose mean the same number of updates. With the speakers whom a fold holds out there are more utterances than
places in an epoch: each epoch visits another random part of them.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from sejax.engine.runs import RunKey, Setting, enumerate_runs


def final_runs(n_folds: int, settings: Sequence[Setting], seeds: Sequence[int]) -> list[RunKey]:
    """Returns a run per seed and setting, numbered after those of the folds; its fold is the one after the last."""
    first = n_folds * len(settings) * len(seeds)
    return [
        replace(run, number=first + run.number, fold=n_folds + run.fold) for run in enumerate_runs(1, settings, seeds)
    ]


def median_epochs(
    final: Sequence[RunKey], runs: Sequence[RunKey], best_epoch: Int[np.ndarray, " run"]
) -> Int[np.ndarray, " final"]:
    """Returns the epochs that each final run trains: the median, rounded half up, of those that its folds chose.

    Args:
      final: the final runs.
      runs: those of the folds, of the same settings and seeds.
      best_epoch: the epoch that each of `runs` chose; one that diverged has 0, and does not count.

    Returns:
      The epochs; 0 where all folds diverged.
    """
    chosen: dict[tuple[int, str], list[int]] = {(run.seed, run.setting.name): [] for run in final}
    for run, epoch in zip(runs, best_epoch.tolist(), strict=True):
        if epoch:
            chosen[run.seed, run.setting.name].append(epoch)
    return np.array([int(np.median(epochs) + 0.5) if epochs else 0 for epochs in chosen.values()])
