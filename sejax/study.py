"""The study, act by act: a corpus on disk becomes evaluated models of all folds, settings and seeds."""

import os
import sys
import time
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sejax import build
from sejax.engine import devices
from sejax.engine.feed import Outcome, Tested, open_feed
from sejax.engine.plan import format_plan, plan_programs
from sejax.evaluation.tables import describe_final, format_table
from sejax.report.page import write_data_page, write_report
from sejax.workdir import files
from sejax.workdir.insights import Insights
from sejax.workdir.logs import history_of
from sejax.workdir.train import train_again, train_runs


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
            print(f"note: {words}", file=sys.stderr)

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
    insights = Insights(study)
    for number, plan in enumerate(planned, 1):
        program = plan.placed.program
        feed = open_feed(plan)  # data, once for all runs
        trained = train_runs(study, feed, workdir, number, train)
        of_runs, best_epoch, learned = trained.tested, trained.outcome.best_epoch, [trained.learned]
        insights.measure(number, feed, trained.learned)

        # Each run again, on its validation speakers too. Only these runs are tested then.
        if program.refit:
            again = feed.of(program.refit).arranged(best_epoch > 0)
            refit = train_again(study, again, workdir, number, "refit", best_epoch, train)
            of_runs = [run.tested_by(other) for run, other in zip(of_runs, refit.tested, strict=True)]
            learned = [refit.learned]
        insights.explain(number, of_runs, learned[0])

        # The same settings and seeds on every speaker. No number below is of them.
        if program.final:
            epochs = program.final_epochs(best_epoch)
            final = train_again(study, feed.of(program.final), workdir, number, "final", epochs, train)
            final_runs += final.trained
            learned += [final.learned] * (final.learned.params is not None)

        numbers = [run.number for run in program.runs]
        tested |= dict(zip(numbers, of_runs, strict=True))
        outcomes |= dict(zip(numbers, map(Outcome._make, zip(*trained.outcome, strict=True)), strict=True))
        if devices.leads():
            files.write_trained(workdir, study, number, learned)
        del feed  # the next program's data take its place

    # ------------------------------------------------------------------ baselines, predictions, metrics, report
    if not devices.leads():
        return {}
    outcome = Outcome(*map(np.array, zip(*(outcomes[run.number] for run in study.runs), strict=True)))
    metrics = files.write_results(workdir, study, tested, outcome, history_of(workdir, study, outcome), final_runs)
    importance = insights.write(workdir)
    report = write_report(workdir)
    final_words = [describe_final([epochs for _, epochs in final_runs])] if final_runs else []
    print(format_table(metrics), *final_words, *importance, f"report: {report}", sep="\n")
    return metrics
