"""From a corpus to its streams: reads or builds the features, and drops utterances with unusable audio."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float32

from sejax.corpora.join import members
from sejax.corpora.schema import Corpus
from sejax.data.cache import Wanted, build_features
from sejax.data.compute import contents
from sejax.data.copies import find_copies
from sejax.data.engines import Engine
from sejax.data.feature_files import FeatureFile
from sejax.data.fingerprints import fingerprint_folder
from sejax.data.shards import StreamFeatures
from sejax.data.types import Stream
from sejax.features.audioprint import Copy
from sejax.features.corrupt import Corruption
from sejax.features.extract import Contents
from sejax.features.settings import Settings


@dataclass(frozen=True)
class Prepared:
    """A corpus of usable utterances, and the features of each stream in the order of `corpus.utterances`."""

    corpus: Corpus
    streams: dict[str, Stream]
    contents: dict[str, Contents]  # of each stream that is made from audio
    digests: dict[str, str]  # by utterance id, equal for duplicate audio
    copies: tuple[Copy, ...]  # of recordings in other samples
    notes: dict[str, str]  # by utterance id, about unusual audio
    seconds: dict[str, float]  # by utterance id
    folders: dict[str, str]  # digests of the folders that corruptions draw from


def prepare(
    corpus: Corpus,
    *,
    streams: Sequence[str],
    originals: Sequence[str] = (),
    vectors: Mapping[str, FeatureFile] = MappingProxyType({}),
    features: Mapping[str, str],
    settings: Mapping[str, Settings],
    speeds: Sequence[float],
    corruptions: Sequence[Corruption] = (),
    cache_dir: str,
    workers: int | None,
    max_bad_fraction: float,
    search_copies: bool = True,
    engine: Engine | None = None,
) -> Prepared:
    """Reads the features of all streams, builds missing ones first, and moves bad utterances to `corpus.dropped`.

    Args:
      corpus: Utterances with audio; what its reader has dropped counts as bad audio too.
      streams: Names of the streams that are made from audio.
      originals: Names of further streams, of which the statistics of the original recordings alone are read.
      vectors: Further streams by name, which feature files have the statistics of.
      features: Feature of each stream: a key of `sejax.data.compute.CONTENTS`.
      settings: Settings of each stream's feature; those that are not given have their defaults.
      speeds: Factors of the speed perturbation, one per view; the original, 1, comes first.
      corruptions: Of further views, behind those of the speeds.
      cache_dir: See `build_features`.
      workers: See `build_features`.
      max_bad_fraction: See `build_features`.
      search_copies: Whether recordings in other samples are searched for.
      engine: See `build_features`.

    Raises:
      InputError: see `build_features`, `Corpus.require_usable`, `sejax.data.compute.contents` and `FeatureFile.of`.
    """
    made_of = {stream: contents(features[stream], settings[stream]) for stream in (*streams, *originals)}
    views = [*((speed, None) for speed in speeds), *((1.0, corruption) for corruption in corruptions)]
    views_of = {**dict.fromkeys(streams, views), **dict.fromkeys(originals, views[:1])}
    wanted = [Wanted(stream, made_of[stream], *view) for stream, own in views_of.items() for view in own]
    if search_copies or not wanted:  # all audio is read, also where no stream is made from it
        wanted.append(Wanted("audioprint", contents("audioprint", {})))
    # Each corpus has its own datasets in the cache, whatever others it is joined with.
    built_of = {
        prefix: build_features(
            member,
            wanted,
            cache_dir=cache_dir,
            workers=workers,
            max_bad_fraction=max_bad_fraction,
            engine=engine,
        )
        for prefix, member in members(corpus).items()
    }
    unions = [_union(built_of.keys(), parts) for parts in zip(*built_of.values(), strict=True)]
    first, found = unions[0], iter(unions)
    built = {stream: list(itertools.islice(found, len(own))) for stream, own in views_of.items()}
    errors: dict[str, str] = {}
    notes: dict[str, dict[str, None]] = {}  # by utterance, in order: streams repeat the notes of a file
    for view in (first, *itertools.chain(*built.values())):
        errors.update(view.errors)
        for utterance, note in view.notes.items():
            notes.setdefault(utterance, {}).update(dict.fromkeys(note.split("; ")))
    usable = corpus.without(errors)
    usable.require_usable(max_bad_fraction)  # each stream may have lost others
    good = usable.utterances
    copies: tuple[Copy, ...] = ()
    if search_copies:
        prints = next(found)
        copies = find_copies(good, prints.frames, prints.digest, cache_dir=cache_dir)
    return Prepared(
        corpus=usable,
        streams={
            name: Stream(
                [] if name in originals else [[view.frames[u.id] for u in good] for view in built_views],
                np.stack([[view.statistics[u.id] for view in built_views] for u in good]),
            )
            for name, built_views in built.items()
        }
        | {name: statistics_alone(file.of(usable)) for name, file in vectors.items()},
        contents=made_of,
        digests=first.digest,
        copies=copies,
        notes={u.id: "; ".join(notes[u.id]) for u in good if u.id in notes},
        seconds={u.id: first.seconds[u.id] for u in good},
        folders={
            folder: fingerprint_folder(folder, cache_dir, workers=workers or 1)
            for corruption in corruptions
            for folder in corruption.folders
        },
    )


def statistics_alone(vectors: Float32[np.ndarray, "utterance value"]) -> Stream:
    """Returns a stream of the original recordings without frames."""
    return Stream([[vectors[0, :0, None]] * len(vectors)], vectors[:, None])


def _union(prefixes: Iterable[str], parts: Iterable[StreamFeatures]) -> StreamFeatures:
    """Returns one feature of the members of a corpus as that of the whole, whose ids are a prefix and their own."""
    whole: dict[str, dict[str, Any]] = {field.name: {} for field in fields(StreamFeatures)}
    for prefix, part in zip(prefixes, parts, strict=True):
        for name, of_part in whole.items():
            of_part.update({prefix + utterance: value for utterance, value in getattr(part, name).items()})
    return StreamFeatures(**whole)
