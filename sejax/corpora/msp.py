"""What the MSP corpora share: the letters of classes, and the text in which utterances and raters are listed.

    UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:2.4; V:3.0; D:2.8 ; N:3.2;      an utterance: file, class, ratings
    WORKER00000001; Angry; Frustrated, Other (fed up); A:4; V:2; D:4; N:3;   a rater: word, further words, ratings

The ratings are activation (arousal), valence and dominance in this order, and naturalness in MSP-IMPROV; they are
read by their letters. The further words may be absent, and may hold semicolons and colons of their own.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sejax.corpora.files import read_text
from sejax.corpora.ratings import parse_rating
from sejax.errors import InputError
from sejax.host.wording import count

# The letter of a consensus label and its class; X: the raters did not agree.
CLASS_OF_LETTER: Mapping[str, str | None] = {
    "A": "anger",
    "S": "sadness",
    "H": "happiness",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
    "X": None,
}
# The word of a rater for the main emotion, in lower case, and its class. All other words are "Other-..." of a kind.
CLASS_OF_WORD = {
    "angry": "anger",
    "sad": "sadness",
    "happy": "happiness",
    "surprise": "surprise",
    "fear": "fear",
    "disgust": "disgust",
    "contempt": "contempt",
    "neutral": "neutral",
    "other": "other",
}
# Further words of raters that other corpora write as a noun, or that are misspelt.
_SECONDARY = {
    **CLASS_OF_WORD,
    "excited": "excitement",
    "frustrated": "frustration",
    "dissapointed": "disappointed",
}

_UTTERANCE = re.compile(r"\s*(\S+)\.(?:avi|wav)\s*;\s*([A-Z])\s*;(.*)")
_RATING = re.compile(r"([AVDN])\s*:\s*([-+\d.]*|[Nn][Aa][Nn])")
_COMMA = re.compile(r",(?![^()]*\))")  # outside of parentheses


class Rater(NamedTuple):
    """A rater of an utterance.

    Args:
      name: of the worker.
      word: the class of the main emotion.
      known: whether the word is one of the questionnaire's, and not the rater's own in place of one.
      secondary: further emotion words, in the spelling of classes.
      ratings: letter (A, V, D, N) -> the number as it is written.
    """

    name: str
    word: str
    known: bool
    secondary: tuple[str, ...]
    ratings: Mapping[str, str]


class Evaluation(NamedTuple):
    """An utterance of a list, with its raters.

    Args:
      name: of the file, without its ending.
      label: its class, None if the raters did not agree.
      vad: valence, arousal and dominance, NaN for a missing one.
      raters: as they are listed.
      where: the file and the line.
    """

    name: str
    label: str | None
    vad: tuple[float, float, float]
    raters: list[Rater]
    where: str


def read_evaluations(path: str, scale: tuple[float, float]) -> Iterator[Evaluation]:
    """Yields the utterances of a list with their raters, see the module.

    Raises:
      InputError: a line is neither an utterance nor a rater's; the message quotes it with its place.
    """
    current: Evaluation | None = None
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        match = _UTTERANCE.fullmatch(line)
        if match is not None:
            if current is not None:
                yield current
            label = parse_letter(match[2], f"{where}: {line.strip()!r}")
            current = Evaluation(match[1], label, _vad(match[3], scale, where, line), [], where)
        elif current is None or re.match(r"\s*\S+\.(?:avi|wav)\s*;", line):
            raise InputError(
                f"{where}: found {line.strip()!r}, expected an utterance such as 'NAME.wav; N; A:2.2; V:4.0; D:2.6;'"
            )
        else:
            current.raters.append(parse_rater(line, where))
    if current is not None:
        yield current


def parse_letter(letter: str, where: str) -> str | None:
    """Returns the class of a consensus label, None for X.

    Raises:
      InputError: the letter is none of `CLASS_OF_LETTER`. The message begins with `where`.
    """
    if letter not in CLASS_OF_LETTER:
        raise InputError(f"{where} has the label {letter!r}, expected one of {', '.join(CLASS_OF_LETTER)}")
    return CLASS_OF_LETTER[letter]


def _vad(text: str, scale: tuple[float, float], where: str, line: str) -> tuple[float, float, float]:
    found = {}
    for field in text.split(";"):
        match = _RATING.fullmatch(field.strip())
        if match is not None:
            found[match[1]] = match[2]
        elif field.strip():
            raise InputError(f"{where}: {field.strip()!r} in {line.strip()!r} is no rating, expected one like A:2.2")
    if missing := [letter for letter in "AVD" if letter not in found]:
        raise InputError(f"{where}: {line.strip()!r} has no rating {missing[0]}:, expected A:, V: and D:")
    valence, arousal, dominance = (
        parse_rating(found[letter], dimension, scale, where)
        for letter, dimension in (("V", "valence"), ("A", "arousal"), ("D", "dominance"))
    )
    return valence, arousal, dominance


def parse_rater(line: str, where: str) -> Rater:
    """Reads a rater's line.

    The ratings are the last fields with a letter and a colon. What is between the main word and them is the further
    words, which may be absent.

    Raises:
      InputError: there is no main word or no rating. The message quotes the line after `where`.
    """
    fields = [field.strip() for field in line.strip().rstrip(";").split(";")]
    ratings: dict[str, str] = {}
    while fields and (match := _RATING.fullmatch(fields[-1])) and match[1] not in ratings:
        ratings[match[1]] = match[2]
        fields.pop()
    if len(fields) < 2 or not ratings or not fields[0] or not fields[1]:
        raise InputError(
            f"{where}: found {line.strip()!r}, expected a rater's line like 'WORKER01; Angry; Annoyed; A:5; V:2; D:4;'"
        )
    name, primary, *further = fields
    word = CLASS_OF_WORD.get(primary.casefold())
    known = word is not None or primary.casefold().startswith("other")
    return Rater(name, word or "other", known, _secondary(";".join(further)), ratings)


def _secondary(text: str) -> tuple[str, ...]:
    words = []
    for part in _COMMA.split(text):
        word = part.strip().casefold()
        word = "other" if word.startswith("other") else _SECONDARY.get(word, word)
        if word and word not in words:
            words.append(word)
    return tuple(words)


class RaterCounts:
    """What is odd about the raters of a corpus, counted while they are read."""

    def __init__(self) -> None:
        self._doubled = self._changed = self._own_words = 0
        self._other_plurality: list[str] = []

    def each_once(self, raters: Sequence[Rater]) -> list[Rater]:
        """Returns the first line of each rater of an utterance. A rater who stands there twice has one vote."""
        first: dict[str, Rater] = {}
        for rater in raters:
            kept = first.setdefault(rater.name, rater)
            if kept is rater:
                self._own_words += not rater.known
            elif kept == rater:
                self._doubled += 1
            else:
                self._changed += 1
        return list(first.values())

    def compare(self, name: str, label: str | None, winner: str | None) -> None:
        """Remembers an utterance whose label is not the plurality of its raters."""
        if label != winner:
            self._other_plurality.append(name)

    def notes(self) -> list[str]:
        """Returns a sentence for each kind."""
        notes = []
        if self._doubled:
            notes.append(f"{count(self._doubled, 'line')} of a rater stand twice under an utterance: counted once")
        if self._changed:
            notes.append(
                f"{count(self._changed, 'line')} of a rater who stands twice under an utterance with other words or "
                "ratings: the first counts"
            )
        if self._own_words:
            notes.append(f"{count(self._own_words, 'vote')} for a word that is not of the questionnaire count as other")
        if self._other_plurality:
            notes.append(
                f"the label of {count(len(self._other_plurality), 'utterance')} is not the plurality of the raters "
                f"who are listed (the first: {self._other_plurality[0]}): the label of the release is used"
            )
        return notes


def votes_of(raters: Iterable[Rater]) -> tuple[tuple[str, ...], ...]:
    """Returns the class that each rater named."""
    return tuple((rater.word,) for rater in raters)


def secondary_shares(raters: Sequence[Rater]) -> dict[str, float] | None:
    """Returns the further words of the raters -> the share of the raters who named each; None without any."""
    named = Counter(word for rater in raters for word in rater.secondary)
    return {word: n / len(raters) for word, n in sorted(named.items())} or None
