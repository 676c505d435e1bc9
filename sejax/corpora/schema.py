"""The data model of a corpus after reading: utterances, dropped utterances with reasons, and notes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

SAMPLING_RATE = 16_000  # hertz; all audio is brought to this rate
DIMENSIONS = ("valence", "arousal", "dominance")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Utterance:
    """One utterance and everything that its corpus says about it.

    Args:
      id: unique within the corpus.
      path: a file, or a member of a zip archive (`/x/emodb.zip::wav/03a01Fa.wav`).
      speaker: the speaker's id within the corpus.
      corpus: the name of the corpus, a key of `sejax.corpora.read.CORPORA`. Every reader sets it.
      session: the recording session, None if the corpus has none.
      start, end: seconds that cut the utterance out of a longer file, None without a cut.
      text: an id of the words, equal for utterances of the same words. It is not the words themselves.
      gender: "F" or "M", None if unknown.
      label: one of the corpus's classes, None for an utterance without a class.
      distribution: every class -> its share of the raters' votes, which sum to 1; None without votes.
      vad: values of `DIMENSIONS` in the corpus's own scale, NaN for a missing dimension.
      duration: seconds, None if the corpus does not say.
      fold, split: the corpus's own fold and its own split (one of `SPLITS`), None if it has none.
    """

    id: str
    path: str
    speaker: str
    corpus: str = ""
    session: str | None = None
    start: float | None = None
    end: float | None = None
    text: str | None = None
    gender: str | None = None
    label: str | None = None
    distribution: Mapping[str, float] | None = None
    vad: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    duration: float | None = None
    fold: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Dropped:
    """An utterance that the corpus lists and that cannot be used. `reason` is a sentence."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """The utterances of one corpus under one label scheme.

    Args:
      name: a key of `sejax.corpora.read.CORPORA`.
      classes: the classes in their order.
      vad_scale: the lowest and the highest value of the corpus's own scale. Single values may be outside; the
        notes then count them.
      utterances: sorted by id, each id once.
      dropped: the utterances that cannot be used.
      notes: remarks of the reader for the audit, one sentence each.
    """

    name: str
    classes: tuple[str, ...]
    vad_scale: tuple[float, float]
    utterances: tuple[Utterance, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
