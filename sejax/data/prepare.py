"""From a corpus to its streams: features built or read, and what was unusable taken out of the corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sejax.corpora.schema import Corpus, Dropped
from sejax.data.cache import StreamFeatures, build_features
from sejax.data.types import Stream
from sejax.features.registry import Setting


@dataclass(frozen=True)
class Prepared:
    """A corpus of usable utterances, and per stream their features in the order of `corpus.utterances`."""

    corpus: Corpus
    streams: dict[str, Stream]
    digests: dict[str, str]  # by utterance id, equal for duplicate audio
    notes: dict[str, str]  # by utterance id: what was unusual about its audio
    seconds: float  # of audio in all


def prepare(
    corpus: Corpus,
    *,
    streams: Sequence[str],
    features: Mapping[str, str],
    settings: Mapping[str, Mapping[str, Setting]],
    speeds: Sequence[float],
    cache_dir: str,
    workers: int | None,
    max_bad_fraction: float,
) -> Prepared:
    """Builds what the cache lacks and reads it; utterances with bad audio go to `corpus.dropped`.

    Args:
      features: of each stream, what `build_features` calls feature.

    Raises:
      InputError: see `build_features`.
    """
    built: dict[str, list[StreamFeatures]] = {
        stream: [
            build_features(
                corpus,
                stream=stream,
                feature=features[stream],
                settings=settings[stream],
                speed=speed,
                cache_dir=cache_dir,
                workers=workers,
                max_bad_fraction=max_bad_fraction,
            )
            for speed in speeds
        ]
        for stream in streams
    }
    errors: dict[str, str] = {}
    notes: dict[str, dict[str, None]] = {}  # by utterance, in order: streams repeat what they say of a file
    for views in built.values():
        for view in views:
            errors.update(view.errors)
            for utterance, note in view.notes.items():
                notes.setdefault(utterance, {}).update(dict.fromkeys(note.split("; ")))
    bad = tuple(Dropped(u.id, u.path, errors[u.id]) for u in corpus.utterances if u.id in errors)
    good = tuple(u for u in corpus.utterances if u.id not in errors)
    first = built[streams[0]][0]
    return Prepared(
        corpus=replace(corpus, utterances=good, dropped=corpus.dropped + bad),
        streams={
            name: Stream(
                [[view.frames[u.id] for u in good] for view in views],
                np.stack([[view.statistics[u.id] for view in views] for u in good]),
            )
            for name, views in built.items()
        },
        digests=first.digest,
        notes={u.id: "; ".join(notes[u.id]) for u in good if u.id in notes},
        seconds=float(sum(first.seconds[u.id] for u in good)),
    )
