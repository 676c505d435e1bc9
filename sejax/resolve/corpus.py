"""The corpus of a config, its features, its folds, and the words that its numbers are quoted with."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from sejax.config import feature_files, values_of
from sejax.corpora.join import read_corpora
from sejax.corpora.read import CORPORA, read_corpus
from sejax.corpora.schema import Corpus
from sejax.data.durations import measure
from sejax.data.engines import ENGINES
from sejax.data.expected import expect_streams
from sejax.data.feature_files import FeatureFile, read_feature_file
from sejax.data.prepare import Prepared, prepare
from sejax.data.types import Stream
from sejax.errors import InputError
from sejax.features.corrupt import parse_all
from sejax.protocols.audit import require_labels
from sejax.protocols.folds import Fold
from sejax.protocols.registry import describe_protocol, make_folds
from sejax.resolve.baselines import require_small, stream_of
from sejax.resolve.streams import feature_of, pooled_settings, settings_of


def protocol_of(config: ConfigDict, folds: Sequence[Fold], audited: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the description of a config's protocol, given its folds and what their audit has found."""
    return describe_protocol(
        config.protocol,
        normalisation=config.normalisation,
        select_on_test=config.select_on_test,
        chooses_epoch=config.test_epoch == "best",
        chooses_setting=config.choose == "setting",
        refit=config.refit,
        shared_speakers=bool(audited["speakers_shared"]),
        seeds=config.seeds,
        folds=folds,
        most=config.folds,
    )


def prepare_corpus(
    config: ConfigDict, streams: Sequence[str], check_corpus: Callable[[Corpus], None] | None
) -> Prepared:
    """Reads the corpus and its features, which are computed if the cache lacks them: of streams and of baselines."""
    corpus, files = read_vectors(config, corpus_of(config, check_corpus))
    own = {name: files[name] for name in streams if name in files}
    own |= {name: files[stream_of(name)] for name in config.baselines if stream_of(name) in files}
    computed = [name for name in streams if name not in own]
    originals = [name for name in config.baselines if name not in own]
    features = {name: feature_of(config, name) for name in computed}
    settings = {name: settings_of(config, name) for name in computed}
    for name in originals:
        stream = stream_of(name)
        pretrained = stream in config.features.ssl
        features[name] = "ssl" if pretrained else stream
        settings[name] = pooled_settings(config, stream) if pretrained else dict(config.features[stream])
    row = ENGINES[config.compute]
    return prepare(
        corpus,
        streams=computed,
        originals=originals,
        vectors=own,
        features=features,
        settings=settings,
        speeds=config.speeds,
        corruptions=parse_all(config.corruptions),
        cache_dir=os.path.expanduser(config.cache_dir),
        workers=config.workers or None,
        max_bad_fraction=config.max_bad_fraction,
        search_copies=config.find_copies,
        engine=partial(row.run, options=config[row.options] if row.options else ()) if row else None,
    )


def expect_corpus(config: ConfigDict, streams: Sequence[str]) -> tuple[Corpus, dict[str, Stream]]:
    """Reads the corpus and the headers of its files, and returns it with the shapes that its streams would have."""
    corpus, seconds = measure(corpus_of(config, None), workers=config.workers or os.cpu_count() or 1)
    corpus.require_usable(config.max_bad_fraction)
    corpus, files = read_vectors(config, corpus)
    computed = [name for name in streams if name not in files]
    return corpus, expect_streams(
        corpus,
        seconds,
        features={name: feature_of(config, name) for name in computed},
        settings={name: settings_of(config, name) for name in computed},
        vectors={name: files[name] for name in streams if name in files},
        speeds=config.speeds,
        corruptions=len(config.corruptions),
    )


def corpus_of(config: ConfigDict, check_corpus: Callable[[Corpus], None] | None) -> Corpus:
    """Reads the corpus, or the corpora as one, and refuses what nobody can use.

    Features may take hours: it is told before.
    """
    if config.corpora:
        corpus = read_corpora(config.corpora, config.labels, locate=partial(locate, config))
    else:
        corpus = read_one(config)
    corpus.require_usable(config.max_bad_fraction)
    require_labels(corpus.utterances, corpus.classes)
    _require_votes(config, corpus)
    require_small(config, folds_of(config, corpus))
    if check_corpus:
        check_corpus(corpus)
    return corpus


def read_vectors(config: ConfigDict, corpus: Corpus) -> tuple[Corpus, dict[str, FeatureFile]]:
    """Reads the feature files of a config, and returns them by stream, behind the corpus with notes about them.

    Those utterances may lack a vector whose audio may still prove unusable.

    Raises:
      InputError: a file cannot be read, or lacks more utterances.
    """
    files = {name: read_feature_file(os.path.expanduser(path)) for name, path in feature_files(config).items()}
    for file in files.values():
        file.require(corpus, config.max_bad_fraction)
    notes = tuple(note for file in files.values() if (note := file.note(corpus)))
    return replace(corpus, notes=(*corpus.notes, *notes)), files


def _require_votes(config: ConfigDict, corpus: Corpus) -> None:
    """Checks that there are votes if utterances weigh by them."""
    option = "loss.vote_entropy"
    strength = max(values_of(config, option))
    if strength and not any(utterance.distribution for utterance in corpus.utterances):
        raise InputError(
            f"config.{option} is {strength:g}, expected 0: the utterances of the corpus {corpus.name} have no votes"
        )


def read_one(config: ConfigDict) -> Corpus:
    """Reads the corpus of a config that names but one."""
    return read_corpus(config.corpus, locate(config, config.corpus, config.data_dir), labels=config.labels)


def locate(config: ConfigDict, reader: str, path: str) -> str:
    """Returns the place of a corpus on disk, given its reader and its path; a generated one is written first."""
    path, write = os.path.expanduser(path), CORPORA[reader].prepare
    section = config[reader].to_dict() if reader in config else {}
    return write(path, os.path.expanduser(config.cache_dir), section, config.workers or None) if write else path


def folds_of(config: ConfigDict, corpus: Corpus) -> tuple[Fold, ...]:
    """Returns the folds of a config's protocol."""
    return make_folds(
        corpus.utterances,
        config.protocol,
        most=config.folds,
        allow_shared_speakers=config.allow_shared_speakers,
    )
