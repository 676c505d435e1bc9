"""The loop: a corpus on disk becomes evaluated models of all folds, settings and seeds."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from sejax import devices, program, resolve, results
from sejax.checkpoint import Checkpoints
from sejax.config import STACKED, STRUCTURAL, at, check_config, differences, grid_of, with_structure
from sejax.corpora.schema import DIMENSIONS, Corpus
from sejax.data.load import (
    Stream,
    assemble,
    epoch_order,
    fold_scales,
    label_targets,
    normalise_by_speaker,
    prediction_rows,
)
from sejax.errors import InputError
from sejax.feed import open_feed
from sejax.folds import Fold, audit, make_folds
from sejax.logs import Logs
from sejax.metrics import write_predictions
from sejax.models.joint import JointModel
from sejax.plan import Planned, Program, describe, format_plan, plan_program
from sejax.report import write_report
from sejax.runs import (
    RunKey,
    balanced_class_weight,
    batch_orders,
    enumerate_runs,
    expand_grid,
    group_by_structure,
    hparams_of,
    schemes_of,
    selection_rows,
)
from sejax.ssl.convert import Pretrained, find_pretrained, load_checkpoint
from sejax.ssl.finetune import divide
from sejax.step import Frozen, Recipe, Run

PREDICT_BATCH = 64


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
            resolve.stream_spec(own, pretrained, name)  # says what does not fit before features are computed

    # ------------------------------------------------------------------ corpus, features, folds, audit
    prepared = devices.leader_first(lambda: resolve.prepare_corpus(config, streams), "features")
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
        results.write_runs(os.path.join(workdir, "runs.csv"), runs, folds, corpus, None)
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
            runs_per_chunk=config.runs_per_chunk or int(resolve.trains_whole_model(config)),
            memory_fraction=config.memory_fraction,
        )
        planned.append(plan)
        n_cut = max(n_cut, cut)
    if n_cut:
        audited["notes"][f"only the first {config.max_seconds:g} s encoded"] = n_cut
    if devices.leads():
        if not begun:
            results.write_json(str(plan_file), describe(planned))
        _write_parameters(workdir, planned)
        took = time.perf_counter() - began
        print(f"{format_plan(planned)}\ncompiled in {took:.0f} s on {_describe(used)}", flush=True)
    del features

    # ------------------------------------------------------------------ train and test, program by program
    tested: dict[int, results.Tested] = {}
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
    predictions = results.gather_predictions(corpus, runs, folds, tested)
    write_predictions(os.path.join(workdir, "predictions.csv"), predictions)
    results.write_runs(os.path.join(workdir, "runs.csv"), runs, folds, corpus, best_epoch)
    if any(mixed.values()):
        results.write_layer_weights(os.path.join(workdir, "layer_weights.csv"), runs, folds, mixed)
    metrics_tree = results.compute_metrics(
        predictions,
        runs,
        folds,
        corpus,
        protocol=resolve.protocol(config, len(folds)),
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
    results.write_json(os.path.join(workdir, "metrics.json"), metrics_tree)
    print(results.format_table(metrics_tree))
    print(f"report: {write_report(workdir)}")
    return metrics_tree


def _program(
    config: ConfigDict,
    structure: Mapping[str, Any],
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    corpus: Corpus,
    features: Mapping[str, Stream],
    pretrained: Mapping[str, Pretrained],
) -> tuple[Program, int]:
    """The arrays and the model of all runs of one structure; and how many utterances were cut."""
    target, vad = _targets(config, corpus)
    specs = tuple(resolve.stream_spec(config, pretrained, name) for name in config.streams)
    data, n_cut = assemble(
        {name: features[name] for name in config.streams},
        encoded=[name for name in config.streams if config.model.encoder[name] != "none"],
        target=target,
        vad=vad,
        n_buckets=config.buckets,
        min_rows=config.batch_size,
        max_seconds=config.max_seconds,
        hop_seconds={name: resolve.hop_length(config, pretrained, name) / 16_000 for name in config.streams},
        frames_dtype=jnp.dtype(config.frames_dtype),
    )
    tuned = {spec.name: spec.tuning for spec in specs if spec.tuning is not None}
    parts = {name: divide(load_checkpoint(str(pretrained[name].folder)).params, tuned[name]) for name in tuned}

    # What each run trains on, and what it is normalised by: its fold's training speakers.
    schemes = schemes_of(runs)
    frame_scale, statistic_scale = fold_scales(data, [fold.train for fold in folds])
    balanced = config.loss.class_weight == "balanced"
    weigh = balanced_class_weight if balanced else lambda own: np.ones(own.shape[1], np.float32)
    per_fold = {
        "trained": np.stack([fold.train for fold in folds]),
        "class_weight": np.stack([weigh(target[fold.train]) for fold in folds]),
        "frame_scale": frame_scale,
        "statistic_scale": statistic_scale,
    }
    fold_of_run = np.array([run.fold for run in runs])
    per_run = Run(hparams_of(runs, schemes), **jax.tree.map(lambda x: x[fold_of_run], per_fold))

    orders, order_of_run = batch_orders(folds, runs, shared=bool(tuned))
    shuffle = partial(
        epoch_order,
        utterances=[bucket.utterance for bucket in data.buckets],
        orders=orders,
        batch_size=config.batch_size,
        views=len(config.speeds),
    )
    steps = sum(rows.shape[1] * rows.shape[2] for rows in shuffle(epoch=1).rows)
    wanted = {split: prediction_rows(data, selection_rows(folds, split), PREDICT_BATCH) for split in ("val", "test")}
    own = Program(
        structure=structure,
        runs=runs,
        model=JointModel(
            streams=specs,
            classes=target.shape[1],
            dimensions=vad.shape[1],
            dtype=jnp.dtype(config.compute_dtype),
            **{k: v for k, v in config.model.items() if k not in ("encoder", "layers", "stride")},
        ),
        recipe=Recipe(
            total_steps=steps * config.epochs,
            warmup_steps=int(config.warmup * steps * config.epochs),
            clip_norm=config.clip_norm,
            vad_loss=config.loss.vad,
            averaging=config.averaging,
            **config.augment,
            tasks=config.tasks,
            schemes=schemes,
            gradients_at=config.gradients_at,
            epoch_steps=steps,
        ),
        data=data,
        frozen=Frozen(
            {name: part.lower for name, part in parts.items()}, {name: part.upper for name, part in parts.items()}
        ),
        start={name: part.start for name, part in parts.items()},
        per_run=per_run,
        rows={split: tuple(rows) for split, (rows, _) in wanted.items()},
        columns={split: columns for split, (_, columns) in wanted.items()},
        order_of_run=order_of_run,
        shuffle=lambda epoch: shuffle(epoch=epoch),
    )
    return own, n_cut


def _targets(config: ConfigDict, corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    target, vad = label_targets(corpus, soft=config.loss.soft_labels)
    if not corpus.classes:  # a layer cannot have no outputs: the class head has one that nothing trains or reads
        target = np.zeros((len(target), 1), target.dtype)
    return target, vad


class _Trained(NamedTuple):
    """What comes of a program, in the order of its runs."""

    tested: list[results.Tested]
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
    best = program.Best(
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
            validation = results.validate_runs(
                runs, own.columns[select_on], prob, pred_vad, target, vad, vad_loss=own.recipe.vad_loss
            )
            scores = np.array([found["score"] for found in validation], np.float32)
            # Of equal scores the later: its average is over more steps.
            improved = (scores >= best_score) & (epoch - 1 - best_epoch < patience)
            best_score, best_epoch = np.where(improved, scores, best_score), np.where(improved, epoch, best_epoch)
            chosen = devices.put((layout.scatter(scores), layout.scatter(improved)), by_run)
            best = program.keep_best(best, states.averaged, *chosen, devices.put(np.int32(epoch), shared))
            stop = bool(np.all(epoch - best_epoch >= patience))

            # Log and save.
            if logs:
                logs.write(epoch, results.history_rows(epoch, runs, folds, metrics._asdict(), validation, tasks))
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
    tested = [results.Tested(columns[run.fold], prob[place], pred_vad[place]) for place, run in enumerate(runs)]
    return _Trained(tested, mixed, best_epoch)


def _write_parameters(workdir: str, planned: Sequence[Planned]) -> None:
    """parameters.txt: the arrays of a run of each program."""
    overviews = [parameter_overview.get_parameter_overview(p.parameters, include_stats=False) for p in planned]
    Path(workdir, "parameters.txt").write_text("\n\n".join(overviews) + "\n")


def _check_workdir(config: ConfigDict, workdir: str, *, must_exist: bool) -> None:
    """Checks that the folder can be written and is no other config's, before anything is computed."""
    path = Path(workdir) / "config.json"
    resolved = json.loads(config.to_json_best_effort())
    if path.exists():
        found = differences(resolved, json.loads(path.read_text())["config"])
        if found:
            raise InputError(
                f"{workdir} belongs to another config: here {'; '.join(found)}; use another --workdir, or remove it"
            )
    elif must_exist:
        raise InputError(f"{workdir} has no config.json, expected the workdir of a training run")
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{workdir} cannot be made ({error.strerror}), expected a folder to write to") from error
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise InputError(f"{workdir} cannot be written to, expected a folder to write to")


def _claim_workdir(config: ConfigDict, workdir: str, pretrained: Mapping[str, Pretrained]) -> None:
    """Writes config.json, once config and corpus are known to be right: a mended config may use the folder."""
    path = Path(workdir) / "config.json"
    digests = {name: own.digest for name, own in pretrained.items()}
    if path.exists():
        found = json.loads(path.read_text()).get("pretrained", {})
        if changed := sorted(name for name in digests if digests[name] != found.get(name)):
            raise InputError(
                f"{workdir} was begun with another checkpoint than {config.features.ssl[changed[0]].model} holds now "
                f"(stream {changed[0]}), expected the same files; use another --workdir"
            )
        return
    packages = (
        "sejax",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "numpy",
        "transformers",
        "librosa",
        "tensorflow-datasets",
    )
    facts = {
        "config": json.loads(config.to_json_best_effort()),
        "command": shlex.join(["python", "-m", "sejax.main", *sys.argv[1:]]),
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in packages}},
        "git": _git_revision(),
        "device": _describe(jax.local_devices()),
        **({"pretrained": digests} if digests else {}),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    results.write_json(str(path), facts)


def _describe(devices: Sequence[jax.Device]) -> str:
    return f"{len(devices)} x {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind


def _git_revision() -> str | None:
    """The commit of the source, with a + if it was changed; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
