"""What training a job is, wherever it runs: runs choose their epochs, train again, and are tested."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from sejax.build import Study
from sejax.engine.feed import Feed, Outcome, Tested
from sejax.engine.program import Program
from sejax.evaluation.importance import Importance
from sejax.workdir.gather import Part
from sejax.workdir.insights import measure_importance
from sejax.workdir.job import Job
from sejax.workdir.train import Again, train_again, train_runs


class Done(NamedTuple):
    """What the runs of a job have come to, in their order."""

    tested: list[Tested]
    outcome: Outcome
    learned: Part  # by the runs that are tested
    importance: list[Importance]


def do_job(study: Study, feed: Feed, job: Job, train: bool) -> Done:
    """Trains and tests the runs of a job, from its newest checkpoint on."""
    trained = train_runs(study, feed, job, train)
    tested, best_epoch, learned = trained.tested, trained.outcome.best_epoch, trained.learned
    importance = measure_importance(study, job.number, feed, learned)

    # Each run again, on its validation speakers too. Only these runs are tested then.
    if feed.program.refit:
        again = feed.of(feed.program.refit).arranged(best_epoch > 0)
        refit = train_again(study, again, job, "refit", best_epoch, train)
        tested = [run.tested_by(other) for run, other in zip(tested, refit.tested, strict=True)]
        learned = refit.learned
    return Done(tested, trained.outcome, learned, importance)


def do_final(study: Study, feed: Feed, job: Job, best_epoch: Int[np.ndarray, " run"], train: bool) -> Again | None:
    """Trains a program's settings and seeds on every speaker, if the study asks for it. No number is of these runs.

    Args:
      study: of the program.
      feed: of runs of the program.
      job: all folds of the program.
      best_epoch: the epochs that all runs of its folds have chosen.
      train: see `train_again`.
    """
    program = study.programs[job.number - 1]
    if not program.final:
        return None
    return train_again(study, feed.of(program.final), job, "final", program.final_epochs(best_epoch), train)


def unite(program: Program, parts: Sequence[Done]) -> Done:
    """Returns what the folds of a program have come to as that of the program."""
    numbers = [run.number for part in parts for run in part.learned.program.runs]
    order = np.argsort(numbers)
    outcome, (epochs, params) = (
        jax.tree.map(lambda *x: np.concatenate(x)[order], *of_parts)
        for of_parts in ([part.outcome for part in parts], [part.learned[1:] for part in parts])
    )
    tested = [of_run for part in parts for of_run in part.tested]
    importance = [each for part in parts for each in part.importance]
    place = {name: number for number, name in enumerate(dict.fromkeys((x.stream, x.part) for x in importance))}
    importance.sort(key=lambda each: (place[each.stream, each.part], each.run))
    return Done([tested[n] for n in order], outcome, Part(program.refit or program, epochs, params), importance)
