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
from sejax.engine.feed import Outcome, Tested
from sejax.engine.plan import format_plan
from sejax.evaluation.tables import describe_final, format_table
from sejax.jobs.engines import Engine, open_engine
from sejax.report.page import write_data_page, write_report
from sejax.workdir import files
from sejax.workdir.insights import Insights
from sejax.workdir.logs import history_of


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
    with open_engine(config.jobs) as engine, files.only_here(workdir) if devices.leads() else nullcontext():
        return _train_and_evaluate(config, options, workdir, train, engine)


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


def _train_and_evaluate(
    config: ConfigDict, options: dict[str, Any], workdir: str, train: bool, engine: Engine
) -> dict[str, Any]:
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
    plans = engine.plan(study, workdir, begun)
    if devices.leads():
        files.write_plan(workdir, plans, begun)
        seconds = time.perf_counter() - began
        print(f"{format_plan(study.programs, plans)}\ncompiled in {seconds:.0f} s on {engine}", flush=True)

    # ------------------------------------------------------------------ train and test, program by program
    tested: dict[int, Tested] = {}
    outcomes: dict[int, Outcome] = {}
    final_runs = []  # with their epochs
    insights = Insights(study)
    for number, done, final in engine.train(train):
        learned = [done.learned]
        insights.add_importance(done.importance)
        insights.explain(number, done.tested, done.learned)
        if final:
            final_runs += final.trained
            learned += [final.learned] * (final.learned.params is not None)
        numbers = [run.number for run in done.learned.program.runs]
        tested |= dict(zip(numbers, done.tested, strict=True))
        outcomes |= dict(zip(numbers, map(Outcome._make, zip(*done.outcome, strict=True)), strict=True))
        if devices.leads():
            files.write_trained(workdir, study, number, learned)

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
