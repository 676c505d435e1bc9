"""The study, act by act: a corpus on disk becomes evaluated models of all folds, settings and seeds."""

import os
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from sejax import build
from sejax.engine import devices
from sejax.engine.checkpoint import Checkpoints, saved_epochs
from sejax.engine.feed import Feed, Outcome, Tested, open_feed
from sejax.engine.plan import format_plan, plan_programs
from sejax.evaluation.selection import validate_runs
from sejax.evaluation.tables import describe_final, format_table
from sejax.report.page import write_data_page, write_report
from sejax.workdir import files
from sejax.workdir.logs import Logs, check_history, final_bar, history_of


def train_and_evaluate(config: ConfigDict, workdir: str, *, train: bool = True) -> dict[str, Any]:
    """Trains every run of the study, chooses each run's epoch on its validation speakers, and tests it.

    It continues from the workdir's newest checkpoint, and then ends with the same predictions as an uninterrupted
    run. With `train=False` it only evaluates that checkpoint.

    Returns:
      The tree of metrics.json in the leading process, nothing in the others. README's section "What a workdir holds"
      describes the files that it writes.

    Raises:
      InputError: config, corpus or workdir cannot be used.
    """
    options = build.options(config)
    cache_dir = os.path.expanduser(config.cache_dir)
    jax.config.update("jax_compilation_cache_dir", os.path.join(cache_dir, "xla"))
    files.check_workdir(workdir, options, must_exist=not train)
    with files.only_here(workdir) if devices.leads() else nullcontext():
        return _train_and_evaluate(config, options, workdir, train)


def show_data(config: ConfigDict, workdir: str | None) -> None:
    """Prints what a study would be trained on, and writes it as data.html into the workdir, if there is one.

    No feature is computed. The workdir is not begun: a study of another config may still take it.

    Raises:
      InputError: config or corpus cannot be used, or the workdir belongs to a study of another config or other data.
    """
    options = build.options(config)
    check = None
    if workdir is not None:
        files.check_workdir(workdir, options, must_exist=False)
        check = partial(files.check_table, workdir, options)
    preview = build.preview(config, check_corpus=check)
    print(preview.words, flush=True)
    if workdir is not None:
        print(f"data: {write_data_page(workdir, preview)}", flush=True)
    # A study refuses them; what they are is shown first.
    preview.corpus.require_usable(config.max_bad_fraction)


def _train_and_evaluate(config: ConfigDict, options: dict[str, Any], workdir: str, train: bool) -> dict[str, Any]:
    # ------------------------------------------------------------------ corpus, features, folds, audit, programs
    study = build.build(config, check_corpus=partial(files.check_table, workdir, options))
    if devices.leads():
        files.claim_workdir(workdir, options, study)
    begun = files.read_plan(workdir, study.programs)
    devices.wait_for_all("workdir read")
    if devices.leads():
        files.begin_runs(workdir, study)
        print(*filter(None, (study.corpus.describe_losses(), study.size)), sep="\n", flush=True)
        for words in study.licences:
            _note(words)

    # ------------------------------------------------------------------ plan: stacks, memory, compiled programs
    began = time.perf_counter()
    used = jax.devices()[: study.n_devices or None]
    planned = plan_programs(study.programs, used, study.placement, begun)
    if devices.leads():
        files.write_plan(workdir, planned, begun)
        seconds = time.perf_counter() - began
        print(f"{format_plan(planned)}\ncompiled in {seconds:.0f} s on {devices.describe(used)}", flush=True)

    # ------------------------------------------------------------------ train and test, program by program
    tested: dict[int, Tested] = {}
    outcomes: dict[int, Outcome] = {}
    final_runs = []  # with their epochs
    for number, plan in enumerate(planned, 1):
        program = plan.placed.program
        feed = open_feed(plan)  # data, once for all runs
        checkpoints = Checkpoints(
            files.checkpoint_folder(workdir, number, of=len(planned)), study=files.program_identity(workdir, program)
        )
        trained = _train(study, feed, workdir, checkpoints, train)
        for place, run in enumerate(program.runs):
            tested[run.number] = trained.tested[place]
            outcomes[run.number] = Outcome(*(of_runs[place] for of_runs in trained.outcome))
        learned = [trained.learned]

        # The same settings and seeds on every speaker. No number below is of them.
        if program.final:
            folder = files.checkpoint_folder(workdir, number, of=len(planned), final=True)
            final = _train_final(study, feed, workdir, folder, program.final_epochs(trained.outcome.best_epoch), train)
            final_runs += [(run, n) for run, n in zip(program.final.runs, final.epochs.tolist(), strict=True) if n]
            if final.params is not None:
                learned.append(files.Part(program.final, final.epochs, final.params))
        if devices.leads():
            files.write_trained(workdir, study, number, learned)
        del feed  # the next program's data take its place

    # ------------------------------------------------------------------ baselines, predictions, metrics, report
    if not devices.leads():
        return {}
    outcome = Outcome(*map(np.array, zip(*(outcomes[run.number] for run in study.runs), strict=True)))
    metrics = files.write_results(workdir, study, tested, outcome, history_of(workdir, study, outcome), final_runs)
    report = write_report(workdir)
    final_words = [describe_final([epochs for _, epochs in final_runs])] if final_runs else []
    print(format_table(metrics), *final_words, f"report: {report}", sep="\n")
    return metrics


class _Trained(NamedTuple):
    """The results of a program, in the order of its runs."""

    tested: list[Tested]
    outcome: Outcome
    learned: files.Part


def _train(study: build.Study, feed: Feed, workdir: str, checkpoints: Checkpoints, train: bool) -> _Trained:
    """Trains the runs of one program from its newest checkpoint on, and tests each at its best epoch."""
    program, layout, schedule = feed.program, feed.layout, study.schedule
    runs, target, vad = program.runs, np.asarray(program.data.target), np.asarray(program.data.vad)
    patience = schedule.stops_after

    states = feed.init_states()
    best = feed.init_best(states)
    done = checkpoints.latest(evaluate=not train)
    if done:
        states, best = checkpoints.restore(done, (states, best))
        if devices.leads():
            print(f"continuing after epoch {done}", flush=True)
    best_score, best_epoch = layout.collect((best.score, best.epoch))

    outcome = _outcome(schedule, done, best_epoch, best_score)
    if devices.leads():
        check_history(workdir, study, program, outcome)

    if train and not outcome.finished.all():
        logs = Logs(workdir, study, program, done) if devices.leads() else None
        with checkpoints.before_sigterm():
            for epoch in range(done + 1, schedule.epochs + 1):
                # The guard forbids every transfer that is not explicit.
                with jax.transfer_guard("disallow"):
                    states, metrics = feed.train_epoch(states, epoch)
                    outputs = feed.predict(states.averaged, schedule.select_on)
                # The host waits once per epoch, here.
                metrics, (prob, pred_vad) = layout.collect((metrics, outputs))

                # Choose each run's best epoch, on its own validation speakers.
                validation = validate_runs(
                    runs,
                    program.learnable,
                    program.columns[schedule.select_on],
                    prob,
                    pred_vad,
                    target,
                    vad,
                    vad_loss=program.network.recipe.vad_loss,
                )
                scores = np.array([scores["score"] for scores in validation], np.float32)
                # Of equal scores the later wins: its average is over more steps.
                improved = (scores >= best_score) & (epoch - 1 - best_epoch < patience)
                best_score, best_epoch = np.where(improved, scores, best_score), np.where(improved, epoch, best_epoch)
                best = feed.keep_best(best, states, scores, improved, epoch)
                outcome = _outcome(schedule, epoch, best_epoch, best_score)
                stop = bool(outcome.finished.all()) or checkpoints.asked_to_end()

                # Log and save.
                if logs:
                    logs.write(epoch, metrics, validation)
                if epoch % schedule.checkpoint_every == 0 or stop:
                    checkpoints.save(epoch, (states, best))
                if stop:
                    break
            if logs:
                logs.close()
    checkpoints.close()
    learned = files.Part(program, best_epoch, layout.collect(best.params))
    return _Trained(feed.test(best), outcome, learned)


def _outcome(
    schedule: build.Schedule, epoch: int, best_epoch: Int[np.ndarray, " run"], best_score: Float[np.ndarray, " run"]
) -> Outcome:
    """Returns what the runs of a program have come to after an epoch; they end together."""
    finished = epoch >= schedule.epochs or bool(np.all(epoch - best_epoch >= schedule.stops_after))
    return Outcome(best_epoch, best_score, np.full_like(best_epoch, epoch), np.full(best_epoch.shape, finished))


class _Final(NamedTuple):
    """The runs of a program that have trained on every speaker, in the order of `Program.final.runs`."""

    epochs: Int[np.ndarray, " run"]  # that each has trained; 0 if there is no such run
    params: Any  # [run, ...], averaged, on the host; None if there are no such runs


def _train_final(
    study: build.Study, feed: Feed, workdir: str, folder: Path, epochs: Int[np.ndarray, " run"], train: bool
) -> _Final:
    """Trains the final runs of one program from their newest checkpoint on.

    Args:
      feed: of the folds, which are trained.
      folder: of the checkpoints.
      epochs: how long each final run trains; 0 if all its folds diverged.
    """
    none, last = _Final(np.zeros_like(epochs), None), int(epochs.max())
    if not last or (not train and last not in saved_epochs(folder)):
        _note(f"{workdir} has no final runs: {'--mode train trains them' if last else 'all folds diverged'}")
        return none
    feed = feed.of_final_runs()
    runs, checkpoint_every = feed.program.runs, study.schedule.checkpoint_every
    checkpoints = Checkpoints(folder, study=files.program_identity(workdir, feed.program, epochs))
    states = feed.init_states()
    best = feed.init_best(states)
    done = checkpoints.latest(evaluate=not train)
    if done:
        restored = checkpoints.restore(done, feed.filled((states, best)))
        states, best = feed.with_filled((states, best), restored)
    if done < last:
        bar = final_bar(last, len(runs), done) if devices.leads() else None
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
                if epoch % checkpoint_every == 0 or stop:
                    checkpoints.save(epoch, feed.filled((states, best)))
                if stop:
                    break
            if bar:
                bar.close()
    checkpoints.close()

    params = feed.layout.collect(best.params)
    whole = np.all([np.isfinite(x).reshape(len(runs), -1).all(axis=1) for x in jax.tree.leaves(params)], axis=0)
    for run, epoch, is_whole in zip(runs, epochs, whole, strict=True):
        if not epoch or not is_whole:
            why = "diverged" if epoch else "has no epochs, because all its folds diverged"
            _note(f"the final run of setting {run.setting.name!r}, seed {run.seed}, {why}: it is left out")
    return _Final(np.where(whole, epochs, 0), params)


def _note(words: str) -> None:
    if devices.leads():
        print(f"note: {words}", file=sys.stderr)
