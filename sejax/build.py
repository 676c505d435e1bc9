"""From options to what they mean: which features, which corpus, which model."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import SAMPLING_RATE, Corpus
from sejax.corpora.synthetic.write import write_synthetic
from sejax.data.buckets import assemble, label_targets
from sejax.data.order import epoch_order, prediction_rows
from sejax.data.prepare import Prepared, prepare
from sejax.data.scales import fold_scales
from sejax.data.types import Stream
from sejax.engine.augment import Augment
from sejax.engine.program import Program
from sejax.engine.runs import (
    RunKey,
    balanced_class_weight,
    batch_orders,
    hparams_of,
    schemes_of,
    selection_rows,
)
from sejax.engine.step import Frozen, Recipe, Run
from sejax.models.joint import JointModel, StreamSpec
from sejax.pretrained.convert import Pretrained, load_checkpoint
from sejax.pretrained.finetune import Tuning, divide
from sejax.pretrained.wav2vec2 import Lora
from sejax.protocols.folds import Fold


def stream_spec(config: ConfigDict, pretrained: Mapping[str, Pretrained], name: str) -> StreamSpec:
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


def hop_length(config: ConfigDict, pretrained: Mapping[str, Pretrained], name: str) -> int:
    """Samples from frame to frame of a stream, as it is stored."""
    if name not in pretrained:
        return config.features[name].hop_length
    return 1 if _feature(config, name) == "raw" else pretrained[name].architecture.hop_length


def trains_whole_model(config: ConfigDict) -> bool:
    """Whether each run trains a pretrained model of its own."""
    return config.finetune.mode == "full" and any(_feature(config, name) == "raw" for name in config.streams)


def prepare_corpus(config: ConfigDict, streams: Sequence[str]) -> Prepared:
    """Corpus and features, built where they are missing."""
    cache_dir = os.path.expanduser(config.cache_dir)
    data_dir = os.path.expanduser(config.data_dir)
    if config.corpus == "synthetic":
        fraction, seed = config.synthetic.fraction, config.synthetic.seed
        data_dir = data_dir or os.path.join(cache_dir, f"synthetic-{fraction:g}-{seed}")
        write_synthetic(data_dir, fraction=fraction, seed=seed, workers=config.workers or None)
    return prepare(
        read_corpus(config.corpus, data_dir, labels=config.labels),
        streams=streams,
        features={name: _feature(config, name) for name in streams},
        settings={name: _settings(config, name) for name in streams},
        speeds=config.speeds,
        cache_dir=cache_dir,
        workers=config.workers or None,
        max_bad_fraction=config.max_bad_fraction,
    )


PREDICT_BATCH = 64


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
    specs = tuple(stream_spec(config, pretrained, name) for name in config.streams)
    data, n_cut = assemble(
        {name: features[name] for name in config.streams},
        encoded=[name for name in config.streams if config.model.encoder[name] != "none"],
        target=target,
        vad=vad,
        n_buckets=config.buckets,
        min_rows=config.batch_size,
        max_seconds=config.max_seconds,
        hop_seconds={name: hop_length(config, pretrained, name) / SAMPLING_RATE for name in config.streams},
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
            augment=Augment(**config.augment),
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
