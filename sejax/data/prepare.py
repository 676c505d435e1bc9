"""From a corpus to its streams: reads or builds the features, and drops utterances with unusable audio."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sejax.corpora.schema import Corpus
from sejax.data.cache import Wanted, build_features
from sejax.data.compute import contents
from sejax.data.copies import find_copies
from sejax.data.types import Stream
from sejax.features.audioprint import Copy
from sejax.features.extract import Contents
from sejax.features.settings import Settings


@dataclass(frozen=True)
class Prepared:
    """A corpus of usable utterances, and the features of each stream in the order of `corpus.utterances`."""

    corpus: Corpus
    streams: dict[str, Stream]
    contents: dict[str, Contents]  # of each stream
    digests: dict[str, str]  # by utterance id, equal for duplicate audio
    copies: tuple[Copy, ...]  # of recordings in other samples
    notes: dict[str, str]  # by utterance id, about unusual audio
    seconds: float  # total duration


def prepare(
    corpus: Corpus,
    *,
    streams: Sequence[str],
    features: Mapping[str, str],
    settings: Mapping[str, Settings],
    speeds: Sequence[float],
    cache_dir: str,
    workers: int | None,
    max_bad_fraction: float,
    search_copies: bool = True,
) -> Prepared:
    """Reads the features of all streams, builds missing ones first, and moves bad utterances to `corpus.dropped`.

    Args:
      corpus: Utterances with audio; what its reader has dropped counts as bad audio too.
      streams: Names of the streams, one or more.
      features: Feature of each stream: a key of `sejax.data.compute.CONTENTS`.
      settings: Settings of each stream's feature; those that are not given have their defaults.
      speeds: Factors of the speed perturbation, one per view; the original, 1, comes first.
      cache_dir: See `build_features`.
      workers: See `build_features`.
      max_bad_fraction: See `build_features`.
      search_copies: Whether recordings in other samples are searched for.

    Raises:
      InputError: see `build_features`, `Corpus.require_usable` and `sejax.data.compute.contents`.
    """
    made_of = {stream: contents(features[stream], settings[stream]) for stream in streams}
    wanted = [Wanted(stream, made_of[stream], speed) for stream in streams for speed in speeds]
    if search_copies:
        wanted.append(Wanted("audioprint", contents("audioprint", {})))
    found = iter(
        build_features(corpus, wanted, cache_dir=cache_dir, workers=workers, max_bad_fraction=max_bad_fraction)
    )
    built = {stream: list(itertools.islice(found, len(speeds))) for stream in streams}
    errors: dict[str, str] = {}
    notes: dict[str, dict[str, None]] = {}  # by utterance, in order: streams repeat the notes of a file
    for views in built.values():
        for view in views:
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
    first = built[streams[0]][0]
    return Prepared(
        corpus=usable,
        streams={
            name: Stream(
                [[view.frames[u.id] for u in good] for view in views],
                np.stack([[view.statistics[u.id] for view in views] for u in good]),
            )
            for name, views in built.items()
        },
        contents=made_of,
        digests=first.digest,
        copies=copies,
        notes={u.id: "; ".join(notes[u.id]) for u in good if u.id in notes},
        seconds=float(sum(first.seconds[u.id] for u in good)),
    )
