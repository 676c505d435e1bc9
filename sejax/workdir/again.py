"""Trains runs again once their epochs are chosen (`sejax.engine.again`), with their checkpoints in the workdir."""

import sys
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from sejax.build import Study
from sejax.engine import devices
from sejax.engine.checkpoint import saved_epochs
from sejax.engine.feed import Feed, Tested
from sejax.engine.runs import RunKey
from sejax.errors import InputError
from sejax.workdir import files
from sejax.workdir.gather import Part
from sejax.workdir.logs import again_bar


class Again(NamedTuple):
    """Runs of a program that have trained again, in the order of its runs."""

    tested: list[Tested]  # empty for final runs
    learned: Part  # epochs 0: there is no such run; params None: there are no such runs

    @property
    def trained(self) -> list[tuple[RunKey, int]]:
        """The runs that there are, and their epochs."""
        runs = zip(self.learned.program.runs, self.learned.epochs.tolist(), strict=True)
        return [(run, epochs) for run, epochs in runs if epochs]


def train_again(
    study: Study,
    feed: Feed,
    workdir: str,
    number: int,
    kind: str,
    epochs: Int[np.ndarray, " run"],
    train: bool,
) -> Again:
    """Trains runs of one program again, from their newest checkpoint on, and tests those that hold out speakers.

    Args:
      feed: of these runs.
      number: of the program.
      kind: "refit" or "final".
      epochs: how long each run trains; 0 if the runs that choose it diverged.
      train: whether to train; else their last checkpoint is taken.

    Raises:
      InputError: there are no refit runs, and none may be trained.
    """
    program, runs, last = feed.program, feed.program.runs, int(epochs.max())
    folder = files.checkpoint_folder(workdir, number, of=len(study.programs), kind=kind)
    if not last or (not train and last not in saved_epochs(folder)):
        why = f"has no {kind} runs: {'--mode train trains them' if last else 'all folds diverged'}"
        if kind == "refit" and last:
            raise InputError(f"{workdir} {why}, expected those that are tested (or --config.refit=False)")
        _note(f"{workdir} {why}")
        if kind == "final":
            return Again([], Part(program, np.zeros_like(epochs), None))
    checkpoints = files.open_checkpoints(
        workdir, program, number, of=len(study.programs), again=(kind, epochs.tolist())
    )
    states = feed.init_states()
    best = feed.init_best(states)
    done = checkpoints.latest(evaluate=not train) if last else 0
    if done:
        restored = checkpoints.restore(done, feed.filled((states, best)))
        states, best = feed.with_filled((states, best), restored)
    if done < last:
        bar = again_bar(kind, last, len(runs), done) if devices.leads() else None
        unscored = np.zeros(len(runs), np.float32)
        with checkpoints.before_sigterm():
            for epoch in range(done + 1, last + 1):
                with jax.transfer_guard("disallow"):
                    states, metrics = feed.train_epoch(states, epoch)
                    best = feed.keep_best(best, states, unscored, epochs == epoch, epoch)
                jax.block_until_ready((metrics, best))
                stop = epoch == last or checkpoints.asked_to_end()
                if bar:
                    bar.update()
                if epoch % study.schedule.checkpoint_every == 0 or stop:
                    checkpoints.save(epoch, feed.filled((states, best)))
                if stop:
                    break
            if bar:
                bar.close()
    checkpoints.close()

    params = feed.layout.collect(best.params)
    whole = np.all([np.isfinite(x).reshape(len(runs), -1).all(axis=1) for x in jax.tree.leaves(params)], axis=0)
    for run, epoch, is_whole in zip(runs, epochs, whole, strict=True):
        if not is_whole or (kind == "final" and not epoch):  # that a fold diverged is told where it is tested
            fold = f"fold {study.fold_of(run).name}, " * (kind == "refit")
            why = "diverged" if epoch else "has no epochs, because all its folds diverged"
            _note(f"the {kind} run of {fold}setting {run.setting.name!r}, seed {run.seed}, {why}: it is left out")
    return Again(feed.test(best) if program.rows else [], Part(program, np.where(whole, epochs, 0), params))


def _note(words: str) -> None:
    if devices.leads():
        print(f"note: {words}", file=sys.stderr)
