"""The resolver: a config and a corpus become a study of frozen records. Nothing below reads a config."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from sejax.config import STRUCTURAL, check_config, settings_of, with_structure
from sejax.corpora.describe import describe_data, summarise_data
from sejax.corpora.schema import SPLITS, Corpus
from sejax.data.durations import measure
from sejax.data.feature_files import digest
from sejax.data.inputs import Input
from sejax.data.scales import fold_scales, normalise_by_group, unit_scales
from sejax.data.types import Stream
from sejax.engine import devices
from sejax.engine.again import final_runs
from sejax.engine.plan import Placement
from sejax.engine.program import Program
from sejax.engine.runs import (
    Learnable,
    RunKey,
    Setting,
    enumerate_runs,
    group_by_structure,
)
from sejax.features.registry import licences
from sejax.host.wording import count
from sejax.pretrained.convert import Pretrained
from sejax.protocols.audit import audit
from sejax.protocols.folds import Fold, everyone
from sejax.resolve.baselines import Baselines, make_baselines, stream_of
from sejax.resolve.corpus import corpus_of, expect_corpus, folds_of, prepare_corpus, protocol_of, read_vectors
from sejax.resolve.program import assemble_data, make_program
from sejax.resolve.streams import check_streams, feature_of, find_checkpoints, inputs_of


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long the runs train, and which epoch of each is tested."""

    epochs: int
    patience: int  # epochs without a better validation score after which a run stops; 0: never
    halving: int  # at each rung a fold stops all settings but one of so many; 0: none
    last_epoch: bool  # whether the last epoch is tested, and none chosen
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
    chooses_setting: bool  # whether each fold chooses its setting
    refit: bool  # whether what is tested is trained again on training and validation speakers
    explain: int  # test utterances of each setting that are explained
    importance: int  # permutations of each part of the input; 0: its importance is not measured
    noise_folders: Mapping[str, str]  # digests of the folders that corruptions draw from
    vectors: Mapping[str, str]  # digests of the vectors that streams have of feature files
    licences: Sequence[str]  # sentences about those of its features
    baselines: Baselines  # the classical ones

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
class Outline:
    """What of a study can be planned before its features are computed."""

    corpus: Corpus  # utterances whose files can be used, by their headers
    programs: Sequence[Program]  # whose features are shapes alone
    placement: Placement
    epochs: int
    n_devices: int  # that share the runs; 0: all


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
    settings, seeds = settings_of(config), range(config.seed, config.seed + config.seeds)
    structures, streams, checkpoints = _structures(config)
    of_baselines = find_checkpoints(config, map(stream_of, config.baselines))

    prepared = devices.leader_first(lambda: prepare_corpus(config, streams, check_corpus), "features")
    corpus, features = prepared.corpus, prepared.streams
    vectors = {name: digest(features[name].statistics) for name in streams if name not in prepared.contents}
    folds = folds_of(config, corpus)
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

    runs = enumerate_runs(len(folds), settings, seeds)
    programs, n_cut = _programs(config, structures, corpus, features, folds, checkpoints)
    if n_cut:
        audited["notes"][f"only the first {config.max_seconds:g} s encoded"] = n_cut

    return Study(
        corpus=corpus,
        audio_digests=prepared.digests,
        folds=folds,
        settings=settings,
        seeds=seeds,
        runs=runs,
        programs=programs,
        inputs=[inputs_of(structure, prepared.contents, checkpoints) for structure in structures],
        schedule=Schedule(
            epochs=config.epochs,
            patience=config.patience,
            halving=config.search.halving,
            last_epoch=config.test_epoch == "last",
            select_on="test" if config.select_on_test else "val",
            checkpoint_every=config.checkpoint_every,
            tensorboard=config.tensorboard,
        ),
        placement=_placement(config),
        n_devices=config.devices,
        checkpoints=checkpoints,
        protocol=protocol_of(config, folds, audited),
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
        chooses_setting=config.choose == "setting",
        refit=config.refit,
        explain=config.explain,
        importance=config.importance,
        noise_folders=prepared.folders,
        vectors=vectors,
        baselines=make_baselines(
            config,
            features,
            of_baselines,
            folds,
            first=len(runs) + len(final_runs(len(folds), settings, seeds)),
            workers=config.workers or os.cpu_count() or 1,
        ),
        licences=licences(given.feature for given in prepared.contents.values()),
    )


def outline(config: ConfigDict) -> Outline:
    """Resolves a config up to its programs, without computing features: nothing that they hold may be read.

    Raises:
      InputError: an option makes no sense, or the corpus or a pretrained model's description cannot be used.
    """
    check_config(config)
    structures, streams, checkpoints = _structures(config)
    corpus, features = expect_corpus(config, streams)
    folds = folds_of(config, corpus)
    programs, _ = _programs(config, structures, corpus, features, folds, checkpoints, unit_scales)
    return Outline(
        corpus=corpus, programs=programs, placement=_placement(config), epochs=config.epochs, n_devices=config.devices
    )


def _structures(config: ConfigDict) -> tuple[list[ConfigDict], tuple[str, ...], dict[str, Pretrained]]:
    """Returns the config of each program, the streams of all, and their pretrained models, which fit them."""
    of_one_fold = group_by_structure(enumerate_runs(1, settings_of(config), [config.seed]), STRUCTURAL)
    structures = [with_structure(config, structure) for structure, _ in of_one_fold]
    streams = tuple(dict.fromkeys(name for structure in structures for name in structure.streams))
    checkpoints = find_checkpoints(config, streams)
    check_streams(structures, checkpoints)
    return structures, streams, checkpoints


def _programs(
    config: ConfigDict,
    structures: Sequence[ConfigDict],
    corpus: Corpus,
    features: Mapping[str, Stream],
    folds: Sequence[Fold],
    checkpoints: Mapping[str, Pretrained],
    scales: Callable[..., Any] = fold_scales,
) -> tuple[list[Program], int]:
    """Returns the programs of the structures, and how many utterances are cut."""
    grid = len(folds), settings_of(config), range(config.seed, config.seed + config.seeds)
    final = final_runs(*grid) if config.final else []
    programs, n_cut = [], 0
    for resolved, (structure, runs) in zip(
        structures, group_by_structure(enumerate_runs(*grid), STRUCTURAL), strict=True
    ):
        data, cut = assemble_data(resolved, corpus, features, folds, checkpoints)
        names = {run.setting.name for run in runs}
        own = [run for run in final if run.setting.name in names]
        programs.append(make_program(resolved, structure, runs, own, folds, corpus, data, checkpoints, scales))
        n_cut = max(n_cut, cut)
    return programs, n_cut


def _placement(config: ConfigDict) -> Placement:
    # A run that trains a whole pretrained model leaves no room for others beside it: the folds train in turn.
    full_finetuning = config.finetune.mode == "full" and any(
        feature_of(config, name) == "raw" for name in config.streams
    )
    return Placement(
        frames_on=config.frames_on,
        runs_per_chunk=config.runs_per_chunk or int(full_finetuning),
        memory_fraction=config.memory_fraction,
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
    corpus, seconds = measure(corpus_of(config, check_corpus), workers=config.workers or os.cpu_count() or 1)
    corpus.require_usable(max_bad_fraction=1.0)
    corpus, _ = read_vectors(config, corpus)
    folds = folds_of(config, corpus)
    audited = audit(
        corpus.utterances,
        folds,
        corpus.classes,
        digests={},
        dropped=corpus.dropped,
        notes={},
        corpus_notes=corpus.notes,
        allow_shared_speakers=config.allow_shared_speakers,
    )
    return Preview(
        corpus=corpus,
        labels=config.labels,
        folds=folds,
        protocol=protocol_of(config, folds, audited),
        audit=audited,
        data=describe_data(corpus, seconds),
    )
