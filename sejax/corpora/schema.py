"""The data model of a corpus after reading: utterances, dropped utterances with reasons, and notes."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from sejax.errors import InputError
from sejax.host.wording import count, printable

SAMPLING_RATE = 16_000  # hertz; all audio is brought to this rate
DIMENSIONS = ("valence", "arousal", "dominance")
SPLITS = ("train", "val", "test")
"""The parts of a fold. A corpus with several test sets numbers them: test1, test2, ..."""
SOURCES = ("intended", "elicited", "perceived", "unknown")
"""Where a label comes from: an actor's task, a situation's, raters, or the corpus does not say."""

_SPLIT = re.compile(r"train|val|test\d*")


@dataclass(frozen=True)
class Utterance:
    """One utterance and everything that its corpus says about it.

    Args:
      id: unique within the corpus.
      path: a file, or a member of a zip archive (`/x/emodb.zip::wav/03a01Fa.wav`).
      speaker: the speaker's id within the corpus; a name of the utterance's own if the corpus does not say who speaks.
      corpus: the name of the corpus, a key of `sejax.corpora.read.CORPORA`. Every reader sets it.
      session: the recording session, None if the corpus has none.
      start, end: seconds that cut the utterance out of a longer file, None without a cut.
      text: an id of the words, equal for utterances of the same words. It is not the words themselves.
      gender: "F" or "M", None if unknown.
      label: one of the corpus's classes, None for an utterance without a class.
      distribution: every class -> its share of the raters' votes, which sum to 1; None without votes.
      secondary: further emotion words of the raters -> the share of the raters who named each; None without any.
      vad: values of `DIMENSIONS` in the corpus's own scale, NaN for a missing dimension.
      duration: seconds, None if the corpus does not say.
      fold, split: the corpus's own fold and its own split (see `is_split`), None if it has none.
      speaker_known: whether the corpus says who speaks. Of an utterance of an unknown speaker nobody can say whether
        another one has the same voice.
      hidden: whether the owners of the corpus keep the labels to themselves: the utterance is predicted, not scored.
      place: the line of a file that lists the utterance, for messages; empty if no line does.
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
    secondary: Mapping[str, float] | None = None
    vad: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    duration: float | None = None
    fold: str | None = None
    split: str | None = None
    speaker_known: bool = True
    hidden: bool = False
    place: str = ""

    @property
    def is_rated(self) -> bool:
        """Whether it has valence, arousal or dominance."""
        return not all(map(math.isnan, self.vad))

    @property
    def has_truth(self) -> bool:
        """Whether there is anything to learn from or to score: a class, votes or a rating."""
        return self.label is not None or self.distribution is not None or self.is_rated


def unknown_speaker(id: str) -> str:
    """Returns the speaker of an utterance, by its id, of which nobody says who speaks: a name of its own."""
    return f"unknown-{id}"


def is_split(name: str) -> bool:
    """Returns whether a name is that of a split: train, val, test, or test1, test2, ... where there are several."""
    return _SPLIT.fullmatch(name) is not None


class Loss(Enum):
    """The kinds of reasons for which an utterance is dropped, in the words of messages and the report."""

    ABSENT = "no such file"
    OTHER_FORM = "the file's name has another Unicode form"
    FOLDER = "a folder"
    SPECIAL = "no regular file"
    LINK = "a link that leads nowhere"
    URL = "a URL"
    NAME = "a file name that says nothing"
    AUDIO = "unusable audio"
    UNLABELLED = "no label"

    @property
    def is_selection(self) -> bool:
        """Whether the corpus leaves the utterance out by design: its audio is not at fault."""
        return self is Loss.UNLABELLED


@dataclass(frozen=True)
class Dropped:
    """An utterance that the corpus lists and that cannot be used. `reason` is a sentence."""

    id: str
    path: str
    reason: str
    kind: Loss = Loss.AUDIO


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
      label_source: where the labels come from: a word of `SOURCES`, and behind a colon how a label follows from the
        raters' votes and what a tie is, such as "perceived: plurality of 3 raters, no class for a tie".
    """

    name: str
    classes: tuple[str, ...]
    vad_scale: tuple[float, float]
    utterances: tuple[Utterance, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    label_source: str = "unknown"

    def label_numbers(self) -> list[int]:
        """Returns the place of each utterance's label in `classes`, -1 without one."""
        return [-1 if u.label is None else self.classes.index(u.label) for u in self.utterances]

    def describe_losses(self) -> str:
        """Returns one line about what was dropped, by kind of reason with the first of each; empty if nothing was."""
        if not self.dropped:
            return ""
        first = {dropped.kind: dropped.path for dropped in reversed(self.dropped)}
        kinds = "; ".join(f"{kind.value} {n:,} (the first: {first[kind]})" for kind, n in _by_kind(self.dropped))
        listed = count(len(self.utterances) + len(self.dropped), "utterance")
        return f"{self.name}: {len(self.dropped):,} of {listed} dropped: {kinds}; the report lists them"

    def without(self, errors: Mapping[str, str]) -> "Corpus":
        """Returns the corpus with the utterances that have an error (by id) among the dropped ones."""
        bad = tuple(Dropped(u.id, printable(u.path), errors[u.id]) for u in self.utterances if u.id in errors)
        return replace(
            self,
            utterances=tuple(u for u in self.utterances if u.id not in errors),
            dropped=self.dropped + bad,
        )

    def require_usable(self, max_bad_fraction: float, errors: Mapping[str, str] = MappingProxyType({})) -> None:
        """Checks that enough of the corpus can be used.

        Args:
          max_bad_fraction: the largest share of utterances that may be dropped for their audio. Those that are left
            out by design (`Loss.is_selection`) do not count.
          errors: of utterances (by id) that have turned out to be unusable too, see `without`.

        Raises:
          InputError: more are dropped, or nothing is left. It counts them by kind of reason and quotes the first of
            the three most frequent kinds.
        """
        lost = [dropped for dropped in self.dropped if not dropped.kind.is_selection]
        listed, left = len(self.utterances) + len(lost), len(self.utterances) - len(errors)
        # A build asks after each bad file: only a refusal looks at all utterances.
        if left and listed - left <= max_bad_fraction * listed:
            return
        lost += self.without(errors).dropped[len(self.dropped) :]
        if not lost:
            raise InputError(f"the corpus {self.name} has 0 utterances, expected 1 or more")
        first = {dropped.kind: dropped.reason for dropped in reversed(lost)}
        kinds = _by_kind(lost)
        counts = ", ".join(f"{kind.value} {n:,}" for kind, n in kinds)
        # Older caches hold sentences with a full stop.
        quoted = "; ".join(first[kind].rstrip(".") for kind, _ in kinds[:3])
        allowed = "audio for at least one"
        if left:
            allowed = f"at most {100 * max_bad_fraction:g} % (config.max_bad_fraction)"
        # The audio of the others may not have been read yet: a build stops at the first that is too much.
        raise InputError(
            f"the corpus {self.name} has no usable audio for at least {len(lost):,} of {count(listed, 'utterance')} "
            f"({counts}), expected {allowed}; the first: {quoted}"
        )


def _by_kind(dropped: Sequence[Dropped]) -> list[tuple[Loss, int]]:
    """Returns the kinds of reasons and their numbers, the most frequent first."""
    return Counter(lost.kind for lost in dropped).most_common()
