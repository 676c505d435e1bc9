"""What a corpus is once it has been read: a list of utterances, what was dropped and why, and notes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

SAMPLING_RATE = 16_000  # hertz; all audio is brought to this rate
DIMENSIONS = ("valence", "arousal", "dominance")


@dataclass(frozen=True)
class Utterance:
    """One utterance and everything the corpus says about it.

    `path` is a file or a member of a zip archive (`/x/emodb.zip::wav/03a01Fa.wav`); `start` and `end`
    (seconds) cut the utterance out of a longer file. `text` is an id, equal for utterances of the same words,
    not the words. `distribution` maps every class of the corpus to the share of the raters' votes and sums to
    1. `vad` is in the corpus's own scale, in the order of `DIMENSIONS`, NaN where a dimension is missing.
    `duration` is in seconds, None where the corpus does not say. `fold` and `split` are the corpus's own,
    where it has them.
    """

    id: str
    path: str
    speaker: str
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
    """An utterance that the corpus names and that cannot be used; `reason` is a sentence."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """The utterances of one corpus under one label scheme, sorted by id, each id once.

    `vad_scale` is the lowest and the highest value of the corpus's own scale (single values may lie outside:
    the notes then count them).
    """

    name: str
    classes: tuple[str, ...]
    vad_scale: tuple[float, float]
    utterances: tuple[Utterance, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
