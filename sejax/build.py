"""The resolver: a config and a corpus become a study of frozen records. Nothing below reads a config."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sejax.config import STACKED, STRUCTURAL, at, check_config, grid_of, with_structure
from sejax.corpora.describe import describe_data, summarise_data
from sejax.corpora.join import read_corpora
from sejax.corpora.read import CORPORA, read_corpus
from sejax.corpora.schema import SAMPLING_RATE, SPLITS, Corpus
from sejax.data.buckets import assemble, frame_limit, label_targets
from sejax.data.durations import measure
from sejax.data.inputs import Input
from sejax.data.order import Shuffle, prediction_rows
from sejax.data.prepare import Prepared, prepare
from sejax.data.scales import fold_scales, normalise_by_group
from sejax.data.types import Data, Stream
from sejax.engine import devices
from sejax.engine.augment import Augment
from sejax.engine.final import final_runs
from sejax.engine.plan import Placement
from sejax.engine.program import Program
from sejax.engine.runs import (
    Learnable,
    RunKey,
    Setting,
    augmentation_of,
    balanced_class_weight,
    batch_orders,
    batch_pools,
    class_prior,
    corpus_visits,
    count_steps,
    enumerate_runs,
    expand_grid,
    group_by_structure,
    hparams_of,
    schemes_of,
    selection_rows,
)
from sejax.engine.step import Frozen, Network, Recipe, Run, Steps
from sejax.engine.tasks import TASKS
from sejax.errors import InputError
from sejax.features.corrupt import parse_all
from sejax.features.extract import Contents
from sejax.host.wording import count
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, StreamSpec, Trunk
from sejax.pretrained.base import Lora, Noise
from sejax.pretrained.convert import Pretrained, find_pretrained, load_checkpoint
from sejax.pretrained.finetune import Tuning, divide
from sejax.protocols.audit import audit, require_labels
from sejax.protocols.folds import Fold, everyone, shared_speakers
from sejax.protocols.registry import describe_protocol, make_folds

PREDICT_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long the runs train, and which epoch of each is tested."""

    epochs: int
    patience: int  # epochs without a better validation score after which a run stops; 0: never
    select_on: str  # the split that chooses the epoch: "val", or "test" (optimistic)
    checkpoint_every: int  # epochs
    tensorboard: bool

    @property
    def stops_after(self) -> int:
        """Epochs without a better validation score after which a run stops; more than there are if it never does."""
        return self.patience or self.epochs + 1


@dataclass(frozen=True, kw_only=True)
class Study:
    """A resolved study: its data, its runs grouped into programs, and the facts that its numbers are quoted with."""

    corpus: Corpus  # usable utterances
    audio_digests: Mapping[str, str]  # of the decoded samples, by utterance id
    folds: Sequence[Fold]
    settings: Sequence[Setting]
    seeds: Sequence[int]
    runs: Sequence[RunKey]  # folds x settings x seeds
    programs: Sequence[Program]  # the runs of one structure each
    inputs: Sequence[Mapping[str, Input]]  # of each program: how its streams are made from audio
    schedule: Schedule
    placement: Placement
    n_devices: int  # that share the runs; 0: all
    checkpoints: Mapping[str, Pretrained]  # the pretrained models, by stream
    protocol: Mapping[str, Any]  # of metrics.json
    corpus_facts: Mapping[str, Any]  # of metrics.json
    audit: Mapping[str, Any]  # of metrics.json
    data: Mapping[str, Any]  # of data.json
    n_bootstrap: int  # draws of speakers for the intervals
    noise_folders: Mapping[str, str]  # digests of the folders that corruptions draw from

    @property
    def learnable(self) -> dict[int, Learnable]:
        """What each run can learn from its labels, by the run's number."""
        return {
            run.number: of_run
            for program in self.programs
            for run, of_run in zip(program.runs, program.learnable, strict=True)
        }

    def fold_of(self, run: RunKey) -> Fold:
        """Returns the fold of a run; that of a final run holds out nobody."""
        return self.folds[run.fold] if run.fold < len(self.folds) else everyone(self.folds)

    @property
    def size(self) -> str:
        """The number of runs and its factors, in words."""
        factors = (len(self.folds), "fold"), (len(self.settings), "setting"), (len(self.seeds), "seed")
        return f"{count(len(self.runs), 'run')} = {' x '.join(count(n, what) for n, what in factors)}"


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The data that a study would have, before its features are computed."""

    corpus: Corpus  # utterances whose files can be used, by their headers
    labels: str  # the option
    folds: Sequence[Fold]
    protocol: Mapping[str, Any]  # of metrics.json
    audit: Mapping[str, Any]  # of metrics.json; equal audio is not looked for
    data: Mapping[str, Any]  # of data.json

    @property
    def words(self) -> str:
        """The data and the folds in a few lines."""
        lines = [
            summarise_data(self.data),
            f"folds: {len(self.folds):,}, {self.protocol['description'].split('; ')[0]}",
        ]
        for split in SPLITS:
            sizes = [int(getattr(fold, split).sum()) for fold in self.folds]
            least = f"{min(sizes):,} to " if min(sizes) < max(sizes) else ""
            lines.append(f"  {split.ljust(5)}  {least}{count(max(sizes), 'utterance')}")
        return "\n".join([*lines, *self.corpus.notes])


def options(config: ConfigDict) -> dict[str, Any]:
    """Returns all options as plain JSON values.

    Raises:
      InputError: an option has a value that makes no sense.
    """
    check_config(config)
    return json.loads(config.to_json_best_effort())


def build(config: ConfigDict, *, check_corpus: Callable[[Corpus], None] | None = None) -> Study:
    """Resolves a config: reads the corpus, computes or reads its features, and lays out all runs.

    Args:
      config: all options.
      check_corpus: Refuses a corpus before its features are computed.

    Raises:
      InputError: an option makes no sense, or the corpus, its audio or a pretrained checkpoint cannot be used.
    """
    check_config(config)
    grid = grid_of(config)
    base = {name: at(config, name) for name in (*STACKED, *STRUCTURAL) if name in STACKED or name in grid}
    settings = expand_grid(base, grid)
    structures = [
        with_structure(config, {name: value for name, value in setting.values.items() if name in STRUCTURAL})
        for setting in settings
    ]
    checkpoints = _find_checkpoints(config, structures)

    streams = tuple(dict.fromkeys(name for structure in structures for name in structure.streams))
    prepared = devices.leader_first(lambda: _prepare_corpus(config, streams, check_corpus), "features")
    corpus, features = prepared.corpus, prepared.streams
    folds = _folds(config, corpus)
    audited = audit(
        corpus.utterances,
        folds,
        corpus.classes,
        digests=prepared.digests,
        copies=prepared.copies,
        dropped=corpus.dropped,
        notes=prepared.notes,
        corpus_notes=corpus.notes,
        allow_duplicates=config.allow_duplicates,
        allow_shared_speakers=config.allow_shared_speakers,
    )
    if config.normalisation != "train":
        groups = [getattr(u, config.normalisation) for u in corpus.utterances]
        features = {name: normalise_by_group(stream, groups) for name, stream in features.items()}

    seeds = range(config.seed, config.seed + config.seeds)
    runs = enumerate_runs(len(folds), settings, seeds)
    final = final_runs(len(folds), settings, seeds) if config.final else []
    programs, inputs, n_cut = [], [], 0
    for structure, runs_of_program in group_by_structure(runs, STRUCTURAL):
        resolved = with_structure(config, structure)
        data, cut = _assemble(resolved, corpus, features, checkpoints)
        names = {run.setting.name for run in runs_of_program}
        own = [run for run in final if run.setting.name in names]
        programs.append(_program(resolved, structure, runs_of_program, own, folds, corpus, data, checkpoints))
        inputs.append(_inputs(resolved, prepared.contents, checkpoints))
        n_cut = max(n_cut, cut)
    if n_cut:
        audited["notes"][f"only the first {config.max_seconds:g} s encoded"] = n_cut

    # A run that trains a whole pretrained model leaves no room for others beside it: the folds train in turn.
    full_finetuning = config.finetune.mode == "full" and any(_feature(config, name) == "raw" for name in config.streams)
    return Study(
        corpus=corpus,
        audio_digests=prepared.digests,
        folds=folds,
        settings=settings,
        seeds=seeds,
        runs=runs,
        programs=programs,
        inputs=inputs,
        schedule=Schedule(
            epochs=config.epochs,
            patience=config.patience,
            select_on="test" if config.select_on_test else "val",
            checkpoint_every=config.checkpoint_every,
            tensorboard=config.tensorboard,
        ),
        placement=Placement(
            frames_on=config.frames_on,
            runs_per_chunk=config.runs_per_chunk or int(full_finetuning),
            memory_fraction=config.memory_fraction,
        ),
        n_devices=config.devices,
        checkpoints=checkpoints,
        protocol=_describe_protocol(config, corpus, folds),
        corpus_facts={
            "name": corpus.name,
            "labels": config.labels,
            "label_source": corpus.label_source,
            "classes": list(corpus.classes),
            "utterances": len(corpus.utterances),
            "speakers": len({u.speaker for u in corpus.utterances}),
            "seconds": round(sum(prepared.seconds.values()), 1),
        },
        audit=audited,
        data=describe_data(corpus, prepared.seconds),
        n_bootstrap=config.bootstrap,
        noise_folders=prepared.folders,
    )


def preview(config: ConfigDict, *, check_corpus: Callable[[Corpus], None] | None = None) -> Preview:
    """Reads a config's corpus and opens its files, makes the folds and audits them, without computing features.

    More files may be unusable than a study allows, which refuses them.

    Args:
      config: all options.
      check_corpus: refuses a corpus before its files are opened.

    Raises:
      InputError: an option makes no sense, or the corpus cannot be used. Pretrained checkpoints are not looked up.
    """
    check_config(config)
    corpus, seconds = measure(_read_corpus(config, check_corpus), workers=config.workers or os.cpu_count() or 1)
    corpus.require_usable(max_bad_fraction=1.0)
    folds = _folds(config, corpus)
    return Preview(
        corpus=corpus,
        labels=config.labels,
        folds=folds,
        protocol=_describe_protocol(config, corpus, folds),
        audit=audit(
            corpus.utterances,
            folds,
            corpus.classes,
            digests={},
            dropped=corpus.dropped,
            notes={},
            corpus_notes=corpus.notes,
            allow_shared_speakers=config.allow_shared_speakers,
        ),
        data=describe_data(corpus, seconds),
    )


def _describe_protocol(config: ConfigDict, corpus: Corpus, folds: Sequence[Fold]) -> dict[str, Any]:
    return describe_protocol(
        config.protocol,
        normalisation=config.normalisation,
        select_on_test=config.select_on_test,
        shared_speakers=any(shared_speakers(corpus.utterances, fold) for fold in folds),
        seeds=config.seeds,
        folds=folds,
        most=config.folds,
    )


def _find_checkpoints(config: ConfigDict, structures: Sequence[ConfigDict]) -> dict[str, Pretrained]:
    """Looks up the pretrained models of all streams, and checks that they fit before any feature is computed."""
    pretrained = config.features.ssl
    streams = dict.fromkeys(name for structure in structures for name in structure.streams if name in pretrained)
    checkpoints = {name: _find_checkpoint(pretrained[name], name) for name in streams}
    for structure in structures:
        for name in structure.streams:
            _stream_spec(structure, checkpoints, name)
    return checkpoints


def _find_checkpoint(options: ConfigDict, stream: str) -> Pretrained:
    """Looks up the pretrained model of a stream, in the context that its options name."""
    found = find_pretrained(options.model, revision=options.revision)
    try:
        return found._replace(backbone=found.backbone.in_context(options.context))
    except InputError as error:
        raise InputError(f"config.features.ssl.{stream}: {error}") from error


def _prepare_corpus(
    config: ConfigDict, streams: Sequence[str], check_corpus: Callable[[Corpus], None] | None
) -> Prepared:
    """Reads the corpus and its features, which are computed if the cache lacks them."""
    return prepare(
        _read_corpus(config, check_corpus),
        streams=streams,
        features={name: _feature(config, name) for name in streams},
        settings={name: _settings(config, name) for name in streams},
        speeds=config.speeds,
        corruptions=parse_all(config.corruptions),
        cache_dir=os.path.expanduser(config.cache_dir),
        workers=config.workers or None,
        max_bad_fraction=config.max_bad_fraction,
        search_copies=config.find_copies,
    )


def _read_corpus(config: ConfigDict, check_corpus: Callable[[Corpus], None] | None) -> Corpus:
    """Reads the corpus, or the corpora as one, and refuses what nobody can use. A generated one is written first.

    Features may take hours: it is told before.
    """

    def locate(reader: str, path: str) -> str:
        path, write = os.path.expanduser(path), CORPORA[reader].prepare
        section = config[reader].to_dict() if reader in config else {}
        return write(path, os.path.expanduser(config.cache_dir), section, config.workers or None) if write else path

    if config.corpora:
        corpus = read_corpora(config.corpora, config.labels, locate=locate)
    else:
        corpus = read_corpus(config.corpus, locate(config.corpus, config.data_dir), labels=config.labels)
    corpus.require_usable(config.max_bad_fraction)
    require_labels(corpus.utterances, corpus.classes)
    _folds(config, corpus)
    if check_corpus:
        check_corpus(corpus)
    return corpus


def _folds(config: ConfigDict, corpus: Corpus) -> tuple[Fold, ...]:
    """Returns the folds of a config's protocol."""
    return make_folds(
        corpus.utterances,
        config.protocol,
        most=config.folds,
        allow_shared_speakers=config.allow_shared_speakers,
    )


def _feature(config: ConfigDict, stream: str) -> str:
    """Returns the stored feature of a stream: an acoustic one, hidden states ("ssl") or the audio itself ("raw")."""
    if stream not in config.features.ssl:
        return stream
    return "raw" if config.model.encoder[stream] == "finetune" else "ssl"


def _settings(config: ConfigDict, stream: str) -> dict[str, Any]:
    """Returns the settings of a stream's feature."""
    feature = _feature(config, stream)
    if feature == "raw":
        return {}
    if feature == "ssl" and config.model.encoder[stream] == "none":
        # Statistics are small: one dataset has those of all layers, whichever of them a study reads.
        return {**config.features.ssl[stream], "layers": "all", "pooled": True}
    if feature == "ssl":
        return {**config.features.ssl[stream], "pooled": False}
    return dict(config.features[stream])


def _hop_length(config: ConfigDict, checkpoints: Mapping[str, Pretrained], stream: str) -> int:
    """Returns the samples from one stored frame of a stream to the next."""
    if stream not in checkpoints:
        return config.features[stream].hop_length
    return 1 if _feature(config, stream) == "raw" else checkpoints[stream].backbone.hop_length


def _stream_spec(config: ConfigDict, checkpoints: Mapping[str, Pretrained], stream: str) -> StreamSpec:
    """Returns how the model reads a stream.

    Raises:
      InputError: the pretrained model does not have the layers that the config names.
    """
    encoder, layers, stride = config.model.encoder[stream], config.model.layers, config.model.stride
    if stream not in checkpoints:
        return StreamSpec(stream, encoder, layers, stride)
    checkpoint = checkpoints[stream]
    try:
        layer = checkpoint.backbone.state(config.features.ssl[stream].layers)
    except InputError as error:
        raise InputError(f"config.features.ssl.{stream}: {error}") from error
    mixed = checkpoint.backbone.layers + 1 if layer is None else 1
    stride = max(1, stride // 2)
    if encoder != "finetune":
        return StreamSpec(stream, encoder, layers, stride, mixed)
    longest = checkpoint.backbone.longest
    if longest is not None and not 0 < config.max_seconds <= longest / SAMPLING_RATE:
        raise InputError(
            f"config.max_seconds is {config.max_seconds:g}, expected a number up to {longest / SAMPLING_RATE:g}: the "
            f"{checkpoint.backbone.family} model of {stream}, which is fine-tuned, has no longer input"
        )
    finetune = dict(config.finetune)
    lora = Lora(finetune.pop("lora_rank"), finetune.pop("lora_alpha"), tuple(finetune.pop("lora_targets")))
    own = {name: value for name in Noise._fields if (value := finetune.pop(name)) is not None}
    backbone = replace(checkpoint.backbone, noise=checkpoint.backbone.noise._replace(**own))
    tuning = Tuning(backbone, layer=layer, lora=lora, **finetune)
    return StreamSpec(stream, "linear", layers, stride, mixed, tuning)


def _read_layer(stream: Stream, config: ConfigDict, checkpoints: Mapping[str, Pretrained], name: str) -> Stream:
    """Returns a stream with the statistics of the hidden states that the config reads alone."""
    part = _statistics_read(config, checkpoints, name)
    return stream._replace(statistics=stream.statistics[..., slice(*part)]) if part else stream


def _statistics_read(config: ConfigDict, checkpoints: Mapping[str, Pretrained], name: str) -> tuple[int, int] | None:
    """Returns the place of the statistics of the one hidden state that a stream reads; None where it reads all."""
    if name not in checkpoints or config.model.encoder[name] != "none":
        return None
    backbone = checkpoints[name].backbone
    state = backbone.state(config.features.ssl[name].layers)
    size = 2 * backbone.hidden  # means and deviations
    return None if state is None else (state * size, (state + 1) * size)


def _inputs(
    config: ConfigDict, contents: Mapping[str, Contents], checkpoints: Mapping[str, Pretrained]
) -> dict[str, Input]:
    """Returns how each stream of a structure is made from audio."""
    return {
        name: Input(
            feature=contents[name].feature,
            settings=contents[name].settings,
            limit=frame_limit(config.max_seconds, _hop_length(config, checkpoints, name) / SAMPLING_RATE),
            dtype=config.frames_dtype if contents[name].dtype == np.float32 else np.dtype(contents[name].dtype).name,
            statistics=_statistics_read(config, checkpoints, name),
        )
        for name in config.streams
    }


def _assemble(
    config: ConfigDict, corpus: Corpus, features: Mapping[str, Stream], checkpoints: Mapping[str, Pretrained]
) -> tuple[Data, int]:
    """Returns the arrays of a structure's streams and targets, and how many utterances were cut."""
    target, vad = label_targets(corpus, soft=config.loss.soft_labels)
    if not corpus.classes:  # a layer needs an output: the class head has one that is neither trained nor read
        target = np.zeros((len(target), 1), target.dtype)
    return assemble(
        {name: _read_layer(features[name], config, checkpoints, name) for name in config.streams},
        encoded=[name for name in config.streams if config.model.encoder[name] != "none"],
        target=target,
        vad=vad,
        n_buckets=config.buckets,
        min_rows=config.batch_size,
        max_seconds=config.max_seconds,
        hop_seconds={name: _hop_length(config, checkpoints, name) / SAMPLING_RATE for name in config.streams},
        frames_dtype=jnp.dtype(config.frames_dtype),
    )


def _program(
    config: ConfigDict,
    structure: Mapping[str, Any],
    runs: Sequence[RunKey],
    final: Sequence[RunKey],
    folds: Sequence[Fold],
    corpus: Corpus,
    data: Data,
    checkpoints: Mapping[str, Pretrained],
) -> Program:
    """Returns the program that trains all runs of one structure, those of the folds and the final ones."""
    specs = tuple(_stream_spec(config, checkpoints, name) for name in config.streams)
    tuned = {spec.name: spec.tuning for spec in specs if spec.tuning is not None}
    parts = {name: divide(load_checkpoint(str(checkpoints[name].folder)).params, tuned[name]) for name in tuned}
    orders = batch_orders(folds, runs, shared=bool(tuned))
    shuffle = Shuffle(
        utterances=[bucket.utterance for bucket in data.buckets],
        orders=orders.drawn,
        batch_size=config.batch_size,
        views=len(config.speeds),
        corruptions=len(config.corruptions),
        corrupted=orders.corrupted,
        pools=batch_pools(corpus.utterances, folds, orders),
        visits=corpus_visits(corpus.utterances, config.corpus_temperature),
    )
    steps, rounds = count_steps(shuffle(1), orders.of_run, len(final), epochs=config.epochs, warmup=config.warmup)
    schemes = schemes_of(runs)
    predicted = {split: prediction_rows(data, selection_rows(folds, split), PREDICT_BATCH) for split in ("val", "test")}
    per_run = _per_run(config, (*runs, *final), (*folds, everyone(folds)), data, schemes)
    per_run = per_run._replace(steps=steps.of_runs)
    if config.loss.class_prior == "corpus":
        corpora = [utterance.corpus for utterance in corpus.utterances]
        priors = [class_prior(np.asarray(data.target), corpora, trained) for trained in per_run.trained]
        per_run = per_run._replace(prior=jax.tree.map(lambda *x: np.stack(x), *priors))
    program = Program(
        structure=structure,
        runs=runs,
        network=_network(config, specs, data, runs, steps.most),
        data=data,
        frozen=Frozen(
            {name: part.lower for name, part in parts.items()}, {name: part.upper for name, part in parts.items()}
        ),
        start={name: part.start for name, part in parts.items()},
        per_run=jax.tree.map(lambda x: x[: len(runs)], per_run),
        rows={split: tuple(rows) for split, (rows, _) in predicted.items()},
        columns={split: columns for split, (_, columns) in predicted.items()},
        order_of_run=orders.of_run,
        shuffle=shuffle,
        rounds=None if rounds is None else rounds[: len(runs)],
    )
    if not final:
        return program
    # As many orders, of as many batches, as the program is compiled for.
    own = batch_orders((*folds, everyone(folds)), final, shared=bool(tuned))
    of_everyone = replace(
        program,
        runs=final,
        per_run=jax.tree.map(lambda x: x[len(runs) :], per_run),
        rows={},
        columns={},
        order_of_run=own.of_run,
        shuffle=shuffle.of(own.drawn, own.corrupted),
        rounds=None if rounds is None else rounds[len(runs) :],
    )
    return replace(program, final=of_everyone)


def _network(
    config: ConfigDict, specs: tuple[StreamSpec, ...], data: Data, runs: Sequence[RunKey], steps: Steps
) -> Network:
    """Returns the model of a structure and the recipe that trains these runs, for so many steps at most."""
    of_streams = ("encoder", "layers", "stride")
    trunk = Trunk(
        streams=specs,
        dtype=jnp.dtype(config.compute_dtype),
        **{name: value for name, value in config.model.items() if name not in of_streams},
    )
    model = JointModel(trunk, Heads(classes=data.target.shape[1], dimensions=data.vad.shape[1]))
    recipe = Recipe(
        steps=steps,
        clip_norm=config.clip_norm,
        vad_loss=config.loss.vad,
        averaging=config.averaging,
        augment=Augment.of(config.augment.to_dict(), augmentation_of(runs)),
        tasks=TASKS[config.tasks],
        schemes=schemes_of(runs),
        gradients_at=config.gradients_at,
    )
    return Network(model, recipe)


def _per_run(
    config: ConfigDict, runs: Sequence[RunKey], folds: Sequence[Fold], data: Data, schemes: tuple[str, ...]
) -> Run:
    """Returns each run's hyperparameters, training utterances and normalisation by its fold's training speakers."""
    target = np.asarray(data.target)
    kinds = sorted({(run.fold, run.setting.corrupted) for run in runs})  # of runs whose batches are drawn alike
    folds, shares = [folds[fold] for fold, _ in kinds], [share for _, share in kinds]
    frame_scale, statistic_scale = fold_scales(
        data, [fold.train for fold in folds], corruptions=len(config.corruptions), corrupted=shares
    )
    balanced = config.loss.class_weight == "balanced"
    class_weight = [
        balanced_class_weight(target[fold.train]) if balanced else np.ones(target.shape[1], np.float32)
        for fold in folds
    ]
    per_fold = {
        "trained": np.stack([fold.train for fold in folds]),
        "class_weight": np.stack(class_weight),
        "frame_scale": frame_scale,
        "statistic_scale": statistic_scale,
    }
    of_run = np.array([kinds.index((run.fold, run.setting.corrupted)) for run in runs])
    return Run(hparams_of(runs, schemes), **jax.tree.map(lambda x: x[of_run], per_fold))
