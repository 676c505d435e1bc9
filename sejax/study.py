"""The loop: a corpus on disk becomes evaluated models of all folds, settings and seeds."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from sejax.build import _program, prepare_corpus, stream_spec, trains_whole_model
from sejax.config import STACKED, STRUCTURAL, at, check_config, grid_of, with_structure
from sejax.corpora.schema import DIMENSIONS
from sejax.data.scales import normalise_by_speaker
from sejax.engine import devices
from sejax.engine import epoch as epoch_module
from sejax.engine.checkpoint import Checkpoints
from sejax.engine.feed import open_feed
from sejax.engine.plan import Planned, describe, format_plan, plan_program
from sejax.engine.runs import (
    enumerate_runs,
    expand_grid,
    group_by_structure,
)
from sejax.errors import InputError
from sejax.evaluation.predictions import write_predictions
from sejax.evaluation.results import Tested, compute_metrics, gather_predictions
from sejax.evaluation.selection import validate_runs
from sejax.evaluation.tables import format_table
from sejax.pretrained.convert import find_pretrained
from sejax.protocols.audit import audit
from sejax.protocols.folds import Fold, describe_protocol, make_folds
from sejax.report.page import write_report
from sejax.workdir.files import (
    _check_workdir,
    _claim_workdir,
    _describe,
    _write_parameters,
    write_json,
    write_layer_weights,
    write_runs,
)
from sejax.workdir.logs import Logs, history_rows


def train_and_evaluate(config: ConfigDict, workdir: str, *, train: bool = True) -> dict[str, Any]:
    """Trains every run of the study, chooses each run's epoch on its validation speakers, tests it.

    Continues where the workdir's newest checkpoint stands, and then ends with the same predictions as an
    uninterrupted run. With `train=False` it only evaluates that checkpoint.

    Returns:
      The tree of metrics.json (of several processes the leading one; the others nothing). The workdir holds the
      files of the README's section "What a workdir holds".

    Raises:
      InputError: whatever is wrong with config, corpus or workdir, in one sentence.
    """
    check_config(config)
    cache_dir = os.path.expanduser(config.cache_dir)
    jax.config.update("jax_compilation_cache_dir", os.path.join(cache_dir, "xla"))
    _check_workdir(config, workdir, must_exist=not train)

    # ------------------------------------------------------------------ settings, grouped into programs
    grid = grid_of(config)
    base = {name: at(config, name) for name in (*STACKED, *STRUCTURAL) if name in STACKED or name in grid}
    settings = expand_grid(base, grid)
    structures = [
        with_structure(config, {name: value for name, value in setting.values.items() if name in STRUCTURAL})
        for setting in settings
    ]
    streams = tuple(dict.fromkeys(name for own in structures for name in own.streams))
    pretrained = {
        name: find_pretrained(config.features.ssl[name].model, revision=config.features.ssl[name].revision)
        for name in streams
        if name in config.features.ssl
    }
    for own in structures:
        for name in own.streams:
            stream_spec(own, pretrained, name)  # says what does not fit before features are computed

    # ------------------------------------------------------------------ corpus, features, folds, audit
    prepared = devices.leader_first(lambda: prepare_corpus(config, streams), "features")
    corpus, seconds = prepared.corpus, prepared.seconds
    folds = make_folds(corpus.utterances, config.protocol)
    audited = audit(
        corpus.utterances,
        folds,
        corpus.classes,
        digests=prepared.digests,
        dropped=corpus.dropped,
        notes=prepared.notes,
        corpus_notes=corpus.notes,
        allow_duplicates=config.allow_duplicates,
    )
    features = prepared.streams
    if config.normalisation == "speaker":
        speakers = [u.speaker for u in corpus.utterances]
        features = {name: normalise_by_speaker(stream, speakers) for name, stream in features.items()}
    runs = enumerate_runs(len(folds), settings, range(config.seed, config.seed + config.seeds))
    plan_file = Path(workdir, "plan.json")
    begun = json.loads(plan_file.read_text()) if plan_file.exists() else None
    devices.wait_for_all("workdir read")
    if devices.leads():
        _claim_workdir(config, workdir, pretrained)
        write_runs(os.path.join(workdir, "runs.csv"), runs, folds, corpus, None)
        counts = {"fold": len(folds), "setting": len(settings), "seed": config.seeds}
        factors = " x ".join(f"{n} {name}{'s' * (n != 1)}" for name, n in counts.items())
        print(f"{len(runs)} runs = {factors}", flush=True)
    del prepared

    # ------------------------------------------------------------------ the plan: programs, stacks, memory
    used = jax.devices()[: config.devices or None]
    planned, n_cut, began = [], 0, time.perf_counter()
    for number, (structure, own_runs) in enumerate(group_by_structure(runs, STRUCTURAL)):
        own, cut = _program(with_structure(config, structure), structure, own_runs, folds, corpus, features, pretrained)
        plan = plan_program(
            own,
            used,
            # As it was begun, where that is not asked for.
            frames_on=begun[number]["frames_on"] if begun and config.frames_on == "auto" else config.frames_on,
            slots=begun[number]["slots"] if begun else 0,
            # Where each run has a pretrained model of its own the folds train in turn.
            runs_per_chunk=config.runs_per_chunk or int(trains_whole_model(config)),
            memory_fraction=config.memory_fraction,
        )
        planned.append(plan)
        n_cut = max(n_cut, cut)
    if n_cut:
        audited["notes"][f"only the first {config.max_seconds:g} s encoded"] = n_cut
    if devices.leads():
        if not begun:
            write_json(str(plan_file), describe(planned))
        _write_parameters(workdir, planned)
        took = time.perf_counter() - began
        print(f"{format_plan(planned)}\ncompiled in {took:.0f} s on {_describe(used)}", flush=True)
    del features

    # ------------------------------------------------------------------ train and test, program by program
    tested: dict[int, Tested] = {}
    mixed: dict[int, dict[str, np.ndarray]] = {}
    best_epoch = np.zeros(len(runs), np.int32)
    for number, plan in enumerate(planned, 1):
        folder = Path(workdir, "checkpoints", *([f"program-{number}"] if len(planned) > 1 else []))
        found = _train(config, plan, folds, workdir, Checkpoints(folder), train)
        for place, run in enumerate(plan.placed.program.runs):
            tested[run.number], mixed[run.number], best_epoch[run.number] = (
                found.tested[place],
                {name: scores[place] for name, scores in found.mixed.items()},
                found.best_epoch[place],
            )

    # ------------------------------------------------------------------ predictions, metrics, report
    if not devices.leads():
        return {}
    predictions = gather_predictions(corpus, runs, folds, tested)
    write_predictions(os.path.join(workdir, "predictions.csv"), predictions)
    write_runs(os.path.join(workdir, "runs.csv"), runs, folds, corpus, best_epoch)
    if any(mixed.values()):
        write_layer_weights(os.path.join(workdir, "layer_weights.csv"), runs, folds, mixed)
    metrics_tree = compute_metrics(
        predictions,
        runs,
        folds,
        corpus,
        protocol=describe_protocol(
            config.protocol,
            normalisation=config.normalisation,
            select_on_test=config.select_on_test,
            seeds=config.seeds,
            folds=len(folds),
        ),
        corpus_facts={
            "name": corpus.name,
            "labels": config.labels,
            "classes": list(corpus.classes),
            "utterances": len(corpus.utterances),
            "speakers": len({u.speaker for u in corpus.utterances}),
            "seconds": round(seconds, 1),
        },
        audit=audited,
        n_bootstrap=config.bootstrap,
    )
    write_json(os.path.join(workdir, "metrics.json"), metrics_tree)
    print(format_table(metrics_tree))
    print(f"report: {write_report(workdir)}")
    return metrics_tree


class _Trained(NamedTuple):
    """What comes of a program, in the order of its runs."""

    tested: list[Tested]
    mixed: dict[str, Float[np.ndarray, "run _layer"]]  # scores of the layers of pretrained models, by stream
    best_epoch: Int[np.ndarray, " run"]


def _train(
    config: ConfigDict,
    plan: Planned,
    folds: Sequence[Fold],
    workdir: str,
    checkpoints: Checkpoints,
    train: bool,
) -> _Trained:
    """Trains the runs of one program from its newest checkpoint on, and tests each at its best epoch."""
    placed, own = plan.placed, plan.placed.program
    runs, layout, model, by_run, shared = own.runs, placed.layout, own.model, placed.by_run, placed.shared
    select_on = "test" if config.select_on_test else "val"
    target, vad = np.asarray(own.data.target), np.asarray(own.data.vad)
    labelled = {"class": target.any(), "vad": np.isfinite(vad).any()}
    labelled |= {name: np.isfinite(vad[:, i]).any() for i, name in enumerate(DIMENSIONS)}
    tasks = {task: place for place, task in enumerate(own.recipe.tasks) if labelled[task]}

    # ------------------------------------------------------------------ data, once for all runs; states
    feed = open_feed(plan)
    states = feed.init_states()
    best_score = np.full(len(runs), -np.inf, np.float32)
    best_epoch = np.zeros(len(runs), np.int32)
    best = epoch_module.Best(
        params=jax.tree.map(jnp.copy, states.averaged),
        score=devices.put(layout.scatter(best_score), by_run),
        epoch=devices.put(layout.scatter(best_epoch), by_run),
    )
    done = checkpoints.latest() or 0
    if done:
        states, best = checkpoints.restore(done, (states, best))
        best_score, best_epoch = layout.collect((best.score, best.epoch))
        if devices.leads():
            print(f"continuing after epoch {done}", flush=True)
    elif not train:
        raise InputError(f"{checkpoints.folder} has no checkpoint to evaluate, expected one: train first")

    # ------------------------------------------------------------------ epochs
    patience = config.patience or config.epochs + 1
    if train and done < config.epochs and not np.all(done - best_epoch >= patience):
        numbers = {run.number for run in runs}
        logs = devices.leads() and Logs(
            workdir, runs=numbers, epochs=config.epochs, done=done, tensorboard=config.tensorboard
        )
        for epoch in range(done + 1, config.epochs + 1):
            # Nothing goes to or from the devices unasked for.
            with jax.transfer_guard("disallow"):
                states, metrics = feed.train_epoch(states, epoch)
                outputs = feed.predict(states.averaged, select_on)
            # The one answer that the host waits for in an epoch.
            metrics, (prob, pred_vad) = layout.collect((metrics, outputs))

            # Choose each run's best epoch, on its own validation speakers.
            validation = validate_runs(
                runs, own.columns[select_on], prob, pred_vad, target, vad, vad_loss=own.recipe.vad_loss
            )
            scores = np.array([found["score"] for found in validation], np.float32)
            # Of equal scores the later: its average is over more steps.
            improved = (scores >= best_score) & (epoch - 1 - best_epoch < patience)
            best_score, best_epoch = np.where(improved, scores, best_score), np.where(improved, epoch, best_epoch)
            chosen = devices.put((layout.scatter(scores), layout.scatter(improved)), by_run)
            best = epoch_module.keep_best(best, states.averaged, *chosen, devices.put(np.int32(epoch), shared))
            stop = bool(np.all(epoch - best_epoch >= patience))

            # Log and save.
            if logs:
                logs.write(epoch, history_rows(epoch, runs, folds, metrics._asdict(), validation, tasks))
            if epoch % config.checkpoint_every == 0 or epoch == config.epochs or stop:
                checkpoints.save(epoch, (states, best))
            if stop:
                break
        if logs:
            logs.close()
    checkpoints.close()

    # ------------------------------------------------------------------ test, once, at each run's best epoch
    outputs = feed.predict(best.params, "test")
    mixed = {s.name: best.params["trunk"][f"{s.name}_mix"]["layer_weights"] for s in model.streams if s.mixed > 1}
    (prob, pred_vad), mixed = layout.collect((outputs, mixed))
    columns = own.columns["test"]
    tested = [Tested(columns[run.fold], prob[place], pred_vad[place]) for place, run in enumerate(runs)]
    return _Trained(tested, mixed, best_epoch)
