"""The loop: a corpus on disk becomes evaluated models of all folds, settings and seeds, in one program."""

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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sejax import program, results
from sejax.checkpoint import Checkpoints
from sejax.config import STACKED, check_config, differences
from sejax.corpora import read_corpus, write_synthetic
from sejax.corpora.schema import DIMENSIONS
from sejax.data.load import (
    assemble,
    epoch_order,
    fold_scales,
    label_targets,
    normalise_by_speaker,
    prediction_rows,
)
from sejax.data.prepare import Prepared, prepare
from sejax.errors import InputError
from sejax.folds import audit, make_folds
from sejax.logs import History, Progress, TensorBoard
from sejax.metrics import write_predictions
from sejax.models.joint import JointModel, StreamSpec
from sejax.report import write_report
from sejax.runs import (
    balanced_class_weight,
    batch_orders,
    enumerate_runs,
    expand_grid,
    lay_out,
    run_sharding,
    schemes_of,
    selection_rows,
    stack_hparams,
)
from sejax.ssl.convert import Pretrained, find_pretrained, load_checkpoint
from sejax.ssl.finetune import Tuning, divide
from sejax.ssl.modules import Lora
from sejax.step import Frozen, Recipe, Run

PREDICT_BATCH = 64


def train_and_evaluate(config: ConfigDict, workdir: str, *, train: bool = True) -> dict[str, Any]:
    """Trains every run of the study, chooses each run's epoch on its validation speakers, tests it.

    Continues where the workdir's newest checkpoint stands, and then ends with the same predictions as an
    uninterrupted run. With `train=False` it only evaluates that checkpoint.

    Returns:
      The tree of metrics.json. The workdir holds the files of the README's section "What a workdir holds".

    Raises:
      InputError: whatever is wrong with config, corpus or workdir, in one sentence.
    """
    check_config(config)
    cache_dir = os.path.expanduser(config.cache_dir)
    jax.config.update("jax_compilation_cache_dir", os.path.join(cache_dir, "xla"))
    _check_workdir(config, workdir, must_exist=not train)
    settings = expand_grid({name: config[name] for name in STACKED}, dict(config.grid))
    pretrained = {
        name: find_pretrained(config.features.ssl[name].model, revision=config.features.ssl[name].revision)
        for name in config.streams
        if name in config.features.ssl
    }
    specs = tuple(_stream_spec(config, pretrained, name) for name in config.streams)

    # ------------------------------------------------------------------ corpus, features, folds, audit
    prepared = _prepare(config)
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

    # ------------------------------------------------------------------ runs: folds x settings x seeds
    schemes = schemes_of(settings)
    runs = enumerate_runs(len(folds), settings, range(config.seed, config.seed + config.seeds))
    devices = jax.local_devices()[: config.devices or None]
    layout = lay_out(runs, runs_per_chunk=_runs_per_chunk(config), devices=len(devices))
    fold_of_run = layout.scatter(np.array([run.fold for run in runs]))
    _claim_workdir(config, workdir, pretrained)
    results.write_runs(os.path.join(workdir, "runs.csv"), runs, folds, corpus, None)

    # ------------------------------------------------------------------ data: once, for all runs
    streams = prepared.streams
    if config.normalisation == "speaker":
        speakers = [u.speaker for u in corpus.utterances]
        streams = {name: normalise_by_speaker(stream, speakers) for name, stream in streams.items()}
    target, vad = label_targets(corpus, soft=config.loss.soft_labels)
    if not corpus.classes:  # a layer cannot have no outputs: the class head has one that nothing trains or reads
        target = np.zeros((len(target), 1), target.dtype)
    labelled = {"class": target.any(), "vad": np.isfinite(vad).any()}
    labelled |= {name: np.isfinite(vad[:, i]).any() for i, name in enumerate(DIMENSIONS)}
    tasks = {task: place for place, task in enumerate(config.tasks) if labelled[task]}
    data, n_cut = assemble(
        streams,
        encoded=[name for name in config.streams if config.model.encoder[name] != "none"],
        target=target,
        vad=vad,
        n_buckets=config.buckets,
        min_rows=config.batch_size,
        max_seconds=config.max_seconds,
        hop_seconds={name: _hop_length(config, pretrained, name) / 16_000 for name in streams},
    )
    if n_cut:
        audited["notes"][f"only the first {config.max_seconds:g} s encoded"] = n_cut
    frame_scale, statistic_scale = fold_scales(data, [fold.train for fold in folds])
    balanced = config.loss.class_weight == "balanced"
    class_weight = np.stack([balanced_class_weight(target[f.train]) for f in folds])
    if not balanced:
        class_weight = np.ones_like(class_weight)

    by_run, shared = run_sharding(devices), NamedSharding(run_sharding(devices).mesh, PartitionSpec())
    stacked = Run(
        hparams=stack_hparams(runs, layout, schemes),
        trained=np.stack([fold.train for fold in folds])[fold_of_run],
        class_weight=class_weight[fold_of_run],
        frame_scale=jax.tree.map(lambda x: x[fold_of_run], frame_scale),
        statistic_scale=jax.tree.map(lambda x: x[fold_of_run], statistic_scale),
    )
    stacked = jax.device_put(stacked, by_run)
    rows = {}
    for split in ("val", "test"):
        by_bucket, columns = prediction_rows(data, selection_rows(folds, split), PREDICT_BATCH)
        rows[split] = jax.device_put(tuple(r[fold_of_run] for r in by_bucket), by_run), columns
    chosen_on = "test" if config.select_on_test else "val"
    orders, order_row = batch_orders(folds, runs, layout, shared=any(spec.tuning is not None for spec in specs))
    shuffle = partial(
        epoch_order,
        utterances=[bucket.utterance for bucket in data.buckets],
        orders=orders,
        batch_size=config.batch_size,
        views=len(config.speeds),
    )
    steps = sum(rows.shape[1] * rows.shape[2] for rows in shuffle(epoch=1).rows)
    data = jax.device_put(data, shared)
    chunk_seed = jnp.asarray(layout.seed, jnp.int32)
    order_row = jax.device_put(order_row, by_run if order_row.ndim == 2 else shared)
    del prepared, streams, frame_scale, statistic_scale

    # ------------------------------------------------------------------ model and state
    model = JointModel(
        streams=specs,
        classes=target.shape[1],
        dimensions=vad.shape[1],
        **{k: v for k, v in config.model.items() if k not in ("encoder", "layers", "stride")},
    )
    tuned = {spec.name: spec.tuning for spec in specs if spec.tuning is not None}
    parts = {name: divide(load_checkpoint(str(pretrained[name].folder)).params, tuned[name]) for name in tuned}
    frozen = Frozen(
        {name: part.lower for name, part in parts.items()}, {name: part.upper for name, part in parts.items()}
    )
    frozen = jax.device_put(frozen, shared)
    start = {name: part.start for name, part in parts.items()}
    recipe = Recipe(
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
    )
    states = program.init_runs(stacked, data, frozen, start, chunk_seed, model=model, recipe=recipe)
    states = jax.device_put(states, by_run)  # placed as train_epoch returns them: else it compiles twice
    del parts, start
    best = program.Best(
        params=jax.tree.map(jnp.copy, states.averaged),
        score=jax.device_put(np.full(layout.run.shape, -np.inf, np.float32), by_run),
        epoch=jax.device_put(np.zeros(layout.run.shape, np.int32), by_run),
    )
    checkpoints = Checkpoints(workdir)
    done = checkpoints.latest() or 0
    if done:
        states, best = checkpoints.restore(done, (states, best))
    elif not train:
        raise InputError(f"{workdir} has no checkpoint to evaluate, expected one under checkpoints/: train first")
    one_run = jax.eval_shape(lambda p: jax.tree.map(lambda x: x[0, 0], p), states.params)
    overview = parameter_overview.get_parameter_overview(one_run, include_stats=False)
    Path(workdir, "parameters.txt").write_text(overview + "\n")
    print(
        f"{parameter_overview.count_parameters(one_run):,} parameters per run (parameters.txt), "
        f"{len(data.buckets)} length buckets\n"
        f"{len(runs)} runs = {len(folds)} folds x {len(settings)} settings x {config.seeds} seeds; "
        f"{steps} steps of {config.batch_size} utterances per epoch; "
        f"{'continuing after epoch ' + str(done) if done else 'starting'} on {_describe(devices)}"
    )

    # ------------------------------------------------------------------ epochs
    best_score, best_epoch = layout.collect((best.score, best.epoch))
    patience = config.patience or config.epochs + 1
    if train and done < config.epochs and not np.all(done - best_epoch >= patience):
        history = History(workdir, epoch=done)
        board = TensorBoard(workdir) if config.tensorboard else None
        progress = Progress(epochs=config.epochs, done=done, runs=len(runs))
        for epoch in range(done + 1, config.epochs + 1):
            states, metrics = program.train_epoch(
                states,
                stacked,
                data,
                frozen,
                jax.device_put(shuffle(epoch=epoch), shared),
                order_row,
                chunk_seed,
                jnp.asarray(epoch, jnp.int32),
                model=model,
                recipe=recipe,
            )
            states = jax.device_put(states, by_run)

            # Choose each run's best epoch, on its own validation speakers.
            chosen_rows, chosen_columns = rows[chosen_on]
            outputs = program.predict(states.averaged, stacked, data, frozen, chosen_rows, model=model)
            prob, pred_vad = layout.collect(outputs)
            validation = results.validate_runs(
                runs, chosen_columns, prob, pred_vad, target, vad, vad_loss=config.loss.vad
            )
            scores = np.array([own["score"] for own in validation], np.float32)
            # Of equal scores the later: its average is over more steps.
            improved = (scores >= best_score) & (epoch - 1 - best_epoch < patience)
            best = program.keep_best(
                best,
                states.averaged,
                jax.device_put(layout.scatter(scores), by_run),
                jax.device_put(layout.scatter(improved), by_run),
                jnp.asarray(epoch, jnp.int32),
            )
            best_score, best_epoch = layout.collect((best.score, best.epoch))
            stop = bool(np.all(epoch - best_epoch >= patience))

            # Log and save.
            logged = results.history_rows(epoch, runs, folds, layout.collect(metrics)._asdict(), validation, tasks)
            history.write(logged)
            progress.update(logged)
            if board:
                board.write(epoch, logged)
            if epoch % config.checkpoint_every == 0 or epoch == config.epochs or stop:
                checkpoints.save(epoch, (states, best))
            if stop:
                break
        progress.close()
        if board:
            board.close()
    checkpoints.close()

    # ------------------------------------------------------------------ test, once, at each run's best epoch
    test_rows, test_columns = rows["test"]
    prob, pred_vad = layout.collect(program.predict(best.params, stacked, data, frozen, test_rows, model=model))
    predictions = results.gather_predictions(corpus, runs, folds, test_columns, prob, pred_vad)
    write_predictions(os.path.join(workdir, "predictions.csv"), predictions)
    results.write_runs(os.path.join(workdir, "runs.csv"), runs, folds, corpus, best_epoch)
    mixed = {
        s.name: layout.collect(best.params["trunk"][f"{s.name}_mix"]["layer_weights"]) for s in specs if s.mixed > 1
    }
    if mixed:
        results.write_layer_weights(os.path.join(workdir, "layer_weights.csv"), runs, folds, mixed)
    metrics_tree = results.compute_metrics(
        predictions,
        runs,
        folds,
        corpus,
        protocol=_protocol(config, len(folds)),
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


def _stream_spec(config: ConfigDict, pretrained: Mapping[str, Pretrained], name: str) -> StreamSpec:
    """How the model reads a stream."""
    encoder, layers, stride = config.model.encoder[name], config.model.layers, config.model.stride
    if name not in pretrained:
        return StreamSpec(name, encoder, layers, stride)
    own = pretrained[name]
    layer = own.architecture.state(config.features.ssl[name].layers)
    mixed = own.architecture.layers + 1 if layer is None else 1
    stride = max(1, stride // 2)
    if encoder != "finetune":
        return StreamSpec(name, encoder, layers, stride, mixed)
    options = dict(config.finetune)
    lora = Lora(options.pop("lora_rank"), options.pop("lora_alpha"), tuple(options.pop("lora_targets")))
    return StreamSpec(
        name,
        "linear",
        layers,
        stride,
        mixed,
        Tuning(own.architecture, own.normalise, layer=layer, lora=lora, **options),
    )


def _feature(config: ConfigDict, name: str) -> str:
    """What is stored of a stream: an acoustic feature, hidden states of a pretrained model, or the audio itself."""
    if name not in config.features.ssl:
        return name
    return "raw" if config.model.encoder[name] == "finetune" else "ssl"


def _settings(config: ConfigDict, name: str) -> dict[str, Any]:
    """The settings of a stream's feature."""
    feature = _feature(config, name)
    if feature == "raw":
        return {}
    if feature == "ssl":
        return {**config.features.ssl[name], "pooled": config.model.encoder[name] == "none"}
    return dict(config.features[name])


def _hop_length(config: ConfigDict, pretrained: Mapping[str, Pretrained], name: str) -> int:
    """Samples from frame to frame of a stream, as it is stored."""
    if name not in pretrained:
        return config.features[name].hop_length
    return 1 if _feature(config, name) == "raw" else pretrained[name].architecture.hop_length


def _runs_per_chunk(config: ConfigDict) -> int:
    """As configured; where each run has a pretrained model of its own the folds train in turn."""
    whole = config.finetune.mode == "full" and any(_feature(config, name) == "raw" for name in config.streams)
    return config.runs_per_chunk or int(whole)


def _prepare(config: ConfigDict) -> Prepared:
    """Corpus and features, built where they are missing."""
    cache_dir = os.path.expanduser(config.cache_dir)
    data_dir = os.path.expanduser(config.data_dir)
    if config.corpus == "synthetic":
        fraction, seed = config.synthetic.fraction, config.synthetic.seed
        data_dir = data_dir or os.path.join(cache_dir, f"synthetic-{fraction:g}-{seed}")
        write_synthetic(data_dir, fraction=fraction, seed=seed, workers=config.workers or None)
    return prepare(
        read_corpus(config.corpus, data_dir, labels=config.labels),
        streams=config.streams,
        features={name: _feature(config, name) for name in config.streams},
        settings={name: _settings(config, name) for name in config.streams},
        speeds=config.speeds,
        cache_dir=cache_dir,
        workers=config.workers or None,
        max_bad_fraction=config.max_bad_fraction,
    )


def _protocol(config: ConfigDict, folds: int) -> dict[str, Any]:
    """What every number of this study has to be quoted with."""
    left_out = {
        "loso": "leave one speaker out",
        "loso_session": "leave one session out",
        "official": "the corpus's own splits",
        "table": "the folds of the table",
    }[config.protocol]
    transductive = config.normalisation == "speaker"
    chosen = "epoch chosen on the TEST speakers: optimistic" if config.select_on_test else "epoch chosen on validation"
    normalised = "features normalised per speaker, the test speaker too: transductive"
    return {
        "name": config.protocol,
        "description": "; ".join([left_out, chosen, *([normalised] if transductive else [])]),
        "normalisation": config.normalisation,
        "transductive": transductive,
        "select_on_test": config.select_on_test,
        "optimistic": config.select_on_test,
        "seeds": config.seeds,
        "folds": folds,
    }


def _describe(devices: Sequence[jax.Device]) -> str:
    return f"{len(devices)} x {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind


def _git_revision() -> str | None:
    """The commit of the source, with a + if it was changed; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
