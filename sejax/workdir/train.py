"""Trains the runs of a job and chooses their epochs, and trains runs again (`sejax.engine.again`), with checkpoints and
logs in the workdir.
"""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from sejax.build import Schedule, Study
from sejax.engine import devices
from sejax.engine.checkpoint import saved_epochs
from sejax.engine.epoch import Best
from sejax.engine.feed import Feed, Outcome, Tested
from sejax.engine.runs import RunKey
from sejax.engine.search import rungs, survivors
from sejax.engine.step import State
from sejax.errors import InputError
from sejax.evaluation.selection import validate_runs
from sejax.workdir import files
from sejax.workdir.gather import Part
from sejax.workdir.job import Job
from sejax.workdir.logs import Logs, again_bar, check_history


class Trained(NamedTuple):
    """The results of a job, in the order of its runs."""

    tested: list[Tested]
    outcome: Outcome
    learned: Part


def train_runs(study: Study, feed: Feed, job: Job, train: bool) -> Trained:
    """Trains the runs of a job from its newest checkpoint on, and tests each at its best or its last epoch."""
    program, schedule = feed.program, study.schedule
    runs, target, vad = program.runs, np.asarray(program.data.target), np.asarray(program.data.vad)
    label, patience = np.array(study.corpus.label_numbers()), schedule.stops_after
    kept_after = rungs(runs, epochs=schedule.epochs, factor=schedule.halving)
    stopped = np.zeros(len(runs), np.int32)  # the epoch after which halving has stopped each run; 0: it trains

    checkpoints = files.open_checkpoints(job, program)
    states = feed.init_states()
    best = feed.init_best(states)
    done = checkpoints.latest(evaluate=not train)
    if done:
        states, best, *halved = checkpoints.restore(done, _saved(feed, states, best, stopped, kept_after))
        if halved:
            stopped = np.asarray(halved[0])
            feed = feed.arranged(stopped == 0)
        if devices.leads():
            print(f"continuing after epoch {done}", flush=True)
    best_score, best_epoch = feed.layout.collect((best.score, best.epoch))

    outcome = _outcome(schedule, done, best_epoch, best_score, stopped)
    if devices.leads():
        check_history(job.history, study, program, outcome)

    if train and not outcome.finished.all():
        logs = Logs(job, study, program, done) if devices.leads() else None
        with checkpoints.before_sigterm():
            for epoch in range(done + 1, schedule.epochs + 1):
                # The guard forbids every transfer that is not explicit.
                with jax.transfer_guard("disallow"):
                    states, metrics = feed.train_epoch(states, epoch)
                    outputs = feed.predict(states.averaged, schedule.select_on)
                # The host waits once per epoch, here.
                metrics, (prob, pred_vad) = feed.layout.collect((metrics, outputs))

                # Choose each run's best epoch, on its own validation speakers.
                validation = validate_runs(
                    runs,
                    program.learnable,
                    program.columns[schedule.select_on],
                    prob,
                    pred_vad,
                    target,
                    vad,
                    label=label,
                    vad_loss=program.network.recipe.vad_loss,
                )
                scores = np.array([scores["score"] for scores in validation], np.float32)
                # Of equal scores the later wins: its average is over more steps.
                training = stopped == 0
                better = np.isfinite(scores) if schedule.last_epoch else scores >= best_score
                improved = training & better & (epoch - 1 - best_epoch < patience)
                best_score, best_epoch = np.where(improved, scores, best_score), np.where(improved, epoch, best_epoch)
                best = feed.keep_best(best, states, scores, improved, epoch)

                # Halving: each fold stops settings, on its own validation speakers too.
                if epoch in kept_after:
                    going = survivors(runs, best_score, training, kept_after[epoch])
                    stopped = np.where(training & ~going, np.int32(epoch), stopped)
                    feed, before = feed.arranged(going), feed
                    states, best = feed.moved_from(before, (states, best))
                outcome = _outcome(schedule, epoch, best_epoch, best_score, stopped)
                stop = bool(outcome.finished.all()) or checkpoints.asked_to_end()

                # Log and save.
                if logs:
                    logs.write(epoch, metrics, validation, training)
                if epoch % schedule.checkpoint_every == 0 or stop:
                    checkpoints.save(epoch, _saved(feed, states, best, stopped, kept_after))
                if stop:
                    break
            if logs:
                logs.close()
    checkpoints.close()
    learned = Part(program, outcome.best_epoch, feed.leaves.split(feed.layout.collect(best.params)))
    return Trained(feed.test(best), outcome, learned)


def _saved(
    feed: Feed, states: State, best: Best, stopped: Int[np.ndarray, " run"], kept_after: Mapping[int, int]
) -> Any:
    """Returns what a checkpoint holds: with halving also which runs are stopped, by which the others are arranged."""
    return (states, best, feed.replicate(stopped)) if kept_after else (states, best)


def _outcome(
    schedule: Schedule,
    epoch: int,
    best_epoch: Int[np.ndarray, " run"],
    best_score: Float[np.ndarray, " run"],
    stopped: Int[np.ndarray, " run"],
) -> Outcome:
    """Returns what the runs of a program have come to after an epoch; all that are not stopped end together.

    A run that halving has stopped is not tested: beside runs of all epochs its numbers would mean something else.
    """
    finished = epoch >= schedule.epochs or bool(np.all(epoch - best_epoch >= schedule.stops_after))
    trains = stopped == 0
    return Outcome(
        np.where(trains, best_epoch, 0),
        np.where(trains, best_score, np.float32(-np.inf)),
        np.where(trains, epoch, stopped),
        np.full(best_epoch.shape, finished),
    )


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
    job: Job,
    kind: str,
    epochs: Int[np.ndarray, " run"],
    train: bool,
) -> Again:
    """Trains runs of a job again, from their newest checkpoint on, and tests those that hold out speakers.

    Args:
      feed: of these runs.
      kind: "refit" or "final".
      epochs: how long each run trains; 0 if the runs that choose it diverged, or halving stopped them.
      train: whether to train; else their last checkpoint is taken.

    Raises:
      InputError: there are no refit runs, and none may be trained.
    """
    program, runs, last = feed.program, feed.program.runs, int(epochs.max())
    lost = "diverged or were stopped by halving" if study.schedule.halving else "diverged"
    if not last or (not train and last not in saved_epochs(job.checkpoints(kind))):
        why = f"has no {kind} runs: {'--mode train trains them' if last else f'all folds {lost}'}"
        if kind == "refit" and last:
            raise InputError(f"{job.workdir} {why}, expected those that are tested (or --config.refit=False)")
        _note(f"{job.workdir} {why}")
        if kind == "final":
            return Again([], Part(program, np.zeros_like(epochs), None))
    checkpoints = files.open_checkpoints(job, program, again=(kind, epochs.tolist()))
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

    params = feed.leaves.split(feed.layout.collect(best.params))
    whole = np.all([np.isfinite(x).reshape(len(runs), -1).all(axis=1) for x in jax.tree.leaves(params)], axis=0)
    for run, epoch, is_whole in zip(runs, epochs, whole, strict=True):
        if not is_whole or (kind == "final" and not epoch):  # that a fold diverged is told where it is tested
            fold = f"fold {study.fold_of(run).name}, " * (kind == "refit")
            why = "diverged" if epoch else f"has no epochs, because all its folds {lost}"
            _note(f"the {kind} run of {fold}setting {run.setting.name!r}, seed {run.seed}, {why}: it is left out")
    return Again(feed.test(best) if program.rows else [], Part(program, np.where(whole, epochs, 0), params))


def _note(words: str) -> None:
    if devices.leads():
        print(f"note: {words}", file=sys.stderr)
