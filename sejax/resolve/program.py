"""The programs of a config: the arrays, the network and the runs of one structure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sejax.config import encoder_of
from sejax.corpora.schema import SAMPLING_RATE, Corpus
from sejax.data.buckets import assemble, label_targets
from sejax.data.order import Shuffle, prediction_rows
from sejax.data.scales import fold_scales
from sejax.data.types import Data, Scale, Stream
from sejax.engine.augment import Augment
from sejax.engine.imbalance import class_terms
from sejax.engine.program import Program
from sejax.engine.runs import (
    RunKey,
    augmentation_of,
    batch_orders,
    batch_pools,
    corpus_visits,
    count_steps,
    hparams_of,
    schemes_of,
    selection_rows,
)
from sejax.engine.step import Frozen, Network, Recipe, Run, Steps
from sejax.engine.tasks import TASKS
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, StreamSpec, Trunk
from sejax.pretrained.convert import Pretrained, load_checkpoint
from sejax.pretrained.finetune import divide
from sejax.protocols.folds import Fold, everyone, refitted
from sejax.resolve.streams import hop_length, read_layer, stream_spec

PREDICT_BATCH = 64


def assemble_data(
    config: ConfigDict,
    corpus: Corpus,
    features: Mapping[str, Stream],
    folds: Sequence[Fold],
    checkpoints: Mapping[str, Pretrained],
) -> tuple[Data, int]:
    """Returns the arrays of a structure's streams and targets, and how many utterances were cut."""
    target, vad = label_targets(corpus, soft=config.loss.soft_labels)
    if not corpus.classes:  # a layer needs an output: the class head has one that is neither trained nor read
        target = np.zeros((len(target), 1), target.dtype)
    return assemble(
        {name: read_layer(features[name], config, checkpoints, name) for name in config.streams},
        encoded=[name for name in config.streams if encoder_of(config, name) != "none"],
        target=target,
        vad=vad,
        n_buckets=config.buckets,
        batch_size=config.batch_size,
        trained=np.stack([fold.train for fold in folds]),
        max_seconds=config.max_seconds,
        hop_seconds={name: hop_length(config, checkpoints, name) / SAMPLING_RATE for name in config.streams},
        frames_dtype=jnp.dtype(config.frames_dtype),
    )


def make_program(
    config: ConfigDict,
    structure: Mapping[str, Any],
    runs: Sequence[RunKey],
    final: Sequence[RunKey],
    folds: Sequence[Fold],
    corpus: Corpus,
    data: Data,
    checkpoints: Mapping[str, Pretrained],
    scales: Callable[..., tuple[dict[str, Scale], dict[str, Scale]]] = fold_scales,
) -> Program:
    """Returns the program that trains all runs of one structure: those of the folds, and those that train again.

    Args:
      scales: `fold_scales`, or `unit_scales` where the features are not there.
    """
    specs = tuple(stream_spec(config, checkpoints, name) for name in config.streams)
    tuned = {spec.name: spec.tuning for spec in specs if spec.tuning is not None}
    parts = {name: divide(load_checkpoint(str(checkpoints[name].folder)).params, tuned[name]) for name in tuned}
    orders = batch_orders(folds, runs, shared=bool(tuned))
    pools = batch_pools(corpus.utterances, folds, orders)
    shuffle = Shuffle(
        utterances=[bucket.utterance for bucket in data.buckets],
        orders=orders.drawn,
        batch_size=config.batch_size,
        views=len(config.speeds),
        corruptions=len(config.corruptions),
        corrupted=orders.corrupted,
        pools=pools,
        # A fold that trains on one corpus has nothing to balance.
        visits=None if pools else corpus_visits(corpus.utterances, config.corpus_temperature),
        class_temperature=orders.class_temperature,
        label=np.array(corpus.label_numbers()),
    )
    epoch_steps, steps = count_steps(
        shuffle(1),
        orders.of_run,
        runs=len(runs),
        final=len(final),
        epochs=config.epochs,
        warmup=config.warmup,
    )
    predicted = {split: prediction_rows(data, selection_rows(folds, split), PREDICT_BATCH) for split in ("val", "test")}

    def arrays_of(runs: Sequence[RunKey], folds: Sequence[Fold], first: int = 0) -> dict[str, Any]:
        """Returns what tells runs apart, which have the places from `first` on among all."""
        own = slice(first, first + len(runs))
        per_run = _per_run(runs, folds, corpus, data, partial(scales, corruptions=len(config.corruptions)))
        return {"per_run": per_run._replace(steps=Steps(*(x[own] for x in steps)))}

    program = Program(
        structure=structure,
        runs=runs,
        network=_network(config, specs, data, runs),
        epoch_steps=epoch_steps,
        epochs=config.epochs,
        data=data,
        frozen=Frozen(
            {name: part.lower for name, part in parts.items()}, {name: part.upper for name, part in parts.items()}
        ),
        start={name: part.start for name, part in parts.items()},
        rows={split: tuple(rows) for split, (rows, _) in predicted.items()},
        columns={split: columns for split, (_, columns) in predicted.items()},
        order_of_run=orders.of_run,
        shuffle=shuffle,
        **arrays_of(runs, folds),
    )
    # Runs that train again have as many orders, of as many batches, as the program is compiled for.
    again: dict[str, Any] = {}
    if config.refit:
        with_validation = [refitted(fold) for fold in folds]
        own = batch_orders(with_validation, runs, shared=bool(tuned))
        again["refit"] = replace(
            program,
            rows={"test": program.rows["test"]},
            columns={"test": program.columns["test"]},
            shuffle=shuffle.of(own.drawn, own.corrupted, own.class_temperature, pooled=True),
            **arrays_of(runs, with_validation),
        )
    if final:
        with_everyone = (*folds, everyone(folds))
        own = batch_orders(with_everyone, final, shared=bool(tuned))
        again["final"] = replace(
            program,
            runs=final,
            rows={},
            columns={},
            order_of_run=own.of_run,
            shuffle=shuffle.of(own.drawn, own.corrupted, own.class_temperature),
            **arrays_of(final, with_everyone, first=len(runs)),
        )
    return replace(program, **again)


def _network(config: ConfigDict, specs: tuple[StreamSpec, ...], data: Data, runs: Sequence[RunKey]) -> Network:
    """Returns the model of a structure and the recipe that trains these runs."""
    of_streams = ("encoder", "layers", "stride")
    trunk = Trunk(
        streams=specs,
        dtype=jnp.dtype(config.compute_dtype),
        **{name: value for name, value in config.model.items() if name not in of_streams},
    )
    model = JointModel(trunk, Heads(classes=data.target.shape[1], dimensions=data.vad.shape[1]))
    recipe = Recipe(
        clip_norm=config.clip_norm,
        vad_loss=config.loss.vad,
        averaging=config.averaging,
        augment=Augment.of(config.augment.to_dict(), augmentation_of(runs)),
        tasks=TASKS[config.tasks],
        schemes=schemes_of(runs),
        gradients_at=config.gradients_at,
        focal=any(run.setting.values["loss.focal_gamma"] > 0 for run in runs),
    )
    return Network(model, recipe)


def _per_run(
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    corpus: Corpus,
    data: Data,
    scales_of: Callable[..., tuple[dict[str, Scale], dict[str, Scale]]],
) -> Run:
    """Returns each run's hyperparameters, training utterances, normalisation by its fold's training speakers, and what
    their labels make of the class loss.
    """
    kinds = sorted({(run.fold, run.setting.corrupted) for run in runs})  # of runs whose features are scaled alike
    of_run = np.array([kinds.index((run.fold, run.setting.corrupted)) for run in runs])
    trained = [folds[fold].train for fold, _ in kinds]
    frame_scale, statistic_scale = scales_of(data, trained, corrupted=[share for _, share in kinds])
    scales = {"frame_scale": frame_scale, "statistic_scale": statistic_scale}
    return Run(
        hparams_of(runs, schemes_of(runs)),
        trained=np.stack(trained)[of_run],
        **jax.tree.map(lambda x: x[of_run], scales),
        **class_terms(runs, folds, corpus, np.asarray(data.target))._asdict(),
    )
