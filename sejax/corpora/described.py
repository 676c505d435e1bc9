"""Corpora of which each utterance is described by a row of cells with agreed names: a table, a folder with metadata."""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import soundfile

from sejax.corpora.files import AudioFiles
from sejax.corpora.labels import as_distribution, most_voted
from sejax.corpora.schema import DIMENSIONS, SPLITS, Corpus, Dropped, Loss, Utterance, is_split
from sejax.corpora.spelling import clean, show, spelling_key, trim
from sejax.corpora.vad_scale import find_vad_scale
from sejax.errors import InputError
from sejax.host.wording import count

REQUIRED = ("path", "speaker")
COLUMNS = (
    *REQUIRED,
    "id",
    "start",
    "end",
    "session",
    "text",
    "gender",
    "label",
    *DIMENSIONS,
    "fold",
    "split",
)
VOTES = "votes:"
"""With what the name of a column of raters' votes begins; the rest is the class."""
NUMBERS = ("start", "end", *DIMENSIONS)
# The words that pandas writes for a missing value, or reads as one.
MISSING = ("nan", "NaN", "-nan", "-NaN", "NaT", "None", "null", "NULL", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NA")
GENDERS = {"f": "F", "female": "F", "m": "M", "male": "M"}
UNKNOWN = "unknown"
"""The word, in any case, for a speaker whom nobody knows."""
# Votes for one class that are believed.
MOST_VOTES = 10_000

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def read_described(
    rows: Iterable[tuple[str, dict[str, str]]],
    folder: str,
    *,
    corpus: str,
    listing: str,
    scale: tuple[float, float] | None,
) -> Corpus:
    """Returns the corpus that rows describe.

    Columns are those of `COLUMNS`, and `votes:<class>` with the raters' votes for a class, as their number or their
    share; a blank cell is no vote. The classes are the words of `label` and of `votes:`, sorted. The class of a row is
    its label; a row with votes and without a label has the class with the most votes, and no class for a tie.

    A row of a test split without label, votes and ratings is hidden: it is predicted, not scored. In other splits, and
    without splits, it is left out. The speaker `unknown` is a speaker of its own in every row. A word for a missing
    value (`MISSING`) is a blank cell where a number is expected.

    Args:
      rows: the place of each row, for messages, and its cells by column.
      folder: the folder to which paths are relative.
      corpus: its name, a key of `sejax.corpora.read.CORPORA`.
      listing: the file or folder that the rows come from, for messages.
      scale: of valence, arousal and dominance; None: see `find_vad_scale`.

    Raises:
      InputError: names the place of a missing path or speaker, a word for a missing value in place of a name, a value
        that is not a number, times that are no span, votes that are none, an unknown gender or split, a class in two
        spellings, or a `fold` or `split` in some rows only. Also raised without a usable row and for values on no
        known scale or far outside the given one.
    """
    utterances, dropped, voted = _gather(rows, folder, corpus)
    if not utterances and not dropped:
        raise InputError(f"{listing} has no row below its header, expected one per utterance")
    truths = _truths(bool(voted))
    unlabelled = sum(lost.kind is Loss.UNLABELLED for lost in dropped)
    if unlabelled == len(dropped) and not any(utterance.has_truth for utterance in utterances):
        raise InputError(f"{listing} has no row with a label or a rating, expected a filled column {truths}")
    _require_one_spelling_per_class(voted, utterances)
    vad_scale, notes = find_vad_scale(utterances, scale, listing)
    if unlabelled:
        notes.append(
            f"{count(unlabelled, 'row')} without {truths} {'is' if unlabelled == 1 else 'are'} left out, which "
            "config.max_bad_fraction does not limit: that is a choice of the table"
        )
    labelled = any(utterance.label is not None for utterance in utterances)
    classes = tuple(sorted({*voted, *(u.label for u in utterances if u.label is not None)}))
    return Corpus(
        name=corpus,
        classes=classes,
        vad_scale=vad_scale,
        utterances=tuple(_decide(utterance, classes) for utterance in utterances),
        dropped=tuple(dropped),
        notes=(*notes, *_describe(utterances, truths)),
        label_source=_label_source(labelled, bool(voted)),
    )


def _gather(
    rows: Iterable[tuple[str, dict[str, str]]], folder: str, corpus: str
) -> tuple[list[Utterance], list[Dropped], dict[str, str]]:
    """Separates the rows that cannot be used, and returns for each class with a column of votes the column's place."""
    files = AudioFiles()
    utterances: list[Utterance] = []
    dropped: list[Dropped] = []
    voted: dict[str, str] = {}
    filled: dict[str, tuple[bool, str]] = {}  # column -> whether its first row is filled, and the place of that row
    for where, row in rows:
        for column in ("fold", "split"):
            first, line = filled.setdefault(column, (bool(row.get(column)), where))
            if first != bool(row.get(column)):
                raise InputError(
                    f"{where}: {column} is {'blank' if first else 'filled'}, unlike in {line}, expected "
                    "a value in every row or in none"
                )
        for column in row:
            if column.startswith(VOTES):
                voted.setdefault(_class_of(column, where), where)
        file, problem = _find_file(row["path"], folder, files)
        utterance = _utterance(row, file, where, corpus, exists=problem is None)
        if not utterance.has_truth and not utterance.hidden:
            reason = f"{where}: the row has no {_truths(bool(voted))}"
            dropped.append(Dropped(utterance.id, file, reason, Loss.UNLABELLED))
        elif problem is not None:
            kind, sentence = problem
            dropped.append(Dropped(utterance.id, file, f"{where}: {sentence}", kind))
        else:
            utterances.append(utterance)
    return utterances, dropped, voted


def _find_file(cell: str, folder: str, files: AudioFiles) -> tuple[str, tuple[Loss, str] | None]:
    """Returns the file that a cell names, as it is written or else without blanks around, and what is wrong with it."""
    written, trimmed = (os.path.join(folder, name) for name in (cell, trim(cell)))
    if written != trimmed and files.problem(written) is None:
        return written, None
    return trimmed, files.problem(trimmed)


def _utterance(row: Mapping[str, str], file: str, where: str, corpus: str, *, exists: bool) -> Utterance:
    """Returns the utterance of a row; its votes are not scaled yet. `exists`: whether its file may be looked into."""
    path = clean(row["path"])
    for column, cell in {**row, "path": path}.items():
        if column in REQUIRED and not cell:
            hint = f" ({UNKNOWN} if nobody knows who speaks)" if column == "speaker" else ""
            raise InputError(f"{where}: {column} is blank, expected a value{hint}")
        if column not in NUMBERS and not column.startswith(VOTES) and cell in MISSING:
            raise InputError(
                f"{where}: {column} {cell!r} is a word for a missing value, as in pandas, expected a blank cell or "
                "another word"
            )
    start, end = (_number(row, column, where) for column in ("start", "end"))
    if start < 0 or end <= 0 or end <= start:
        raise InputError(
            f"{where}: start {row.get('start', '')!r} and end {row.get('end', '')!r} are no span, "
            "expected seconds, start before end"
        )
    gender = row.get("gender", "")
    if gender and gender.lower() not in GENDERS:
        raise InputError(f"{where}: gender {show(gender)}, expected F, M or a blank cell")
    split = row.get("split", "")
    if split and not is_split(split):
        raise InputError(
            f"{where}: split {show(split)}, expected {', '.join(SPLITS)}, a numbered test (test1, test2, ...) or a "
            "blank cell"
        )
    valence, arousal, dominance = (_number(row, dimension, where) for dimension in DIMENSIONS)
    first, last = (None if math.isnan(time) else time for time in (start, end))
    cut = "" if first is None and last is None else f"#{row.get('start', '')}-{row.get('end', '')}"
    name = row.get("id") or os.path.splitext(path)[0] + cut
    known = row["speaker"].casefold() != UNKNOWN
    utterance = Utterance(
        id=name,
        path=file,
        corpus=corpus,
        speaker=row["speaker"] if known else f"{UNKNOWN}-{name}",
        session=row.get("session") or None,
        start=first,
        end=last,
        text=row.get("text") or None,
        gender=GENDERS.get(gender.lower()),
        label=row.get("label") or None,
        distribution=_votes(row, where),
        vad=(valence, arousal, dominance),
        duration=find_duration(file, first, last) if exists else None,
        fold=row.get("fold") or None,
        split=split or None,
        speaker_known=known,
        place=where,
    )
    return replace(utterance, hidden=split.startswith("test") and not utterance.has_truth)


def _number(row: Mapping[str, str], column: str, where: str) -> float:
    """Returns the number in a cell, NaN for a missing one."""
    cell = row.get(column, "")
    if not cell or cell in MISSING:
        return math.nan
    value = float(cell) if _NUMBER.fullmatch(cell) else math.inf
    if math.isinf(value):
        unit = " of seconds" if column in ("start", "end") else ""
        hint = ", with a point for the decimals" if _NUMBER.fullmatch(cell.replace(",", ".", 1)) else ""
        raise InputError(f"{where}: {column} {show(cell)} is not a number{unit}, expected one such as 1.5{hint}")
    return value


def _votes(row: Mapping[str, str], where: str) -> dict[str, float] | None:
    """Returns the votes for each class that has a column, None where all of them are 0."""
    votes = {}
    for column in row:
        if column.startswith(VOTES):
            number = _number(row, column, where)
            if not (math.isnan(number) or 0 <= number <= MOST_VOTES):
                raise InputError(
                    f"{where}: {column} {show(row[column])} are no votes, expected their number or share, from 0 to "
                    f"{MOST_VOTES:,}, or a blank cell"
                )
            votes[_class_of(column, where)] = 0.0 if math.isnan(number) else number
    return votes if any(votes.values()) else None


def _class_of(column: str, where: str) -> str:
    word = clean(column.removeprefix(VOTES))
    if not word:
        raise InputError(f"{where}: the column {column!r} names no class, expected {VOTES}<class>, such as {VOTES}joy")
    return word


def find_duration(path: str, start: float | None, end: float | None) -> float | None:
    """Returns the seconds from `start` to `end` within a file, None without a readable header."""
    try:
        status = os.stat(path)
        length = _length(path, status.st_size, status.st_mtime_ns)
    except (soundfile.SoundFileError, OSError, TypeError):  # TypeError: headerless formats
        return None
    return max(0.0, (length if end is None else min(end, length)) - (start or 0.0))


@lru_cache(maxsize=4096)
def _length(path: str, size: int, mtime_ns: int) -> float:
    """Returns the seconds of a file, which utterances may be cut out of by the thousand."""
    return soundfile.info(path).duration


def _require_one_spelling_per_class(voted: Mapping[str, str], utterances: Sequence[Utterance]) -> None:
    """Checks the columns of votes; two spellings among the labels are found where all fields are (`unify`)."""
    first: dict[str, str] = {}
    words = [(word, f"the column {VOTES}{word}") for word in voted]
    words += {u.label: (u.label, f"the label {show(u.label)} ({u.place})") for u in utterances if u.label}.values()
    for word, what in words:
        one = first.setdefault(spelling_key(word), word)
        if one != word and one in voted:
            raise InputError(
                f"{voted[one]}: the column {VOTES}{one} and {what} are spellings of one class, expected one spelling"
            )


def _decide(utterance: Utterance, classes: Sequence[str]) -> Utterance:
    """Returns an utterance with votes as shares of all classes, and with the class that they say without a label."""
    if utterance.distribution is None:
        return utterance
    votes = {name: utterance.distribution.get(name, 0.0) for name in classes}
    return replace(utterance, label=utterance.label or most_voted(votes), distribution=as_distribution(votes))


def _describe(utterances: Sequence[Utterance], truths: str) -> list[str]:
    """Returns notes on ties, unknown speakers and hidden rows. The utterances are those before `_decide`."""
    votes = [u.distribution for u in utterances if u.label is None and u.distribution is not None]
    notes = []
    if ties := sum(most_voted(weights) is None for weights in votes):
        notes.append(f"{count(ties, 'row')} without a label whose votes are a tie: kept without a class")
    return [*notes, *describe_unknown(utterances, truths)]


def describe_unknown(utterances: Sequence[Utterance], truths: str) -> list[str]:
    """Returns notes on unknown speakers and hidden labels. `truths`: what a hidden utterance lacks."""
    notes = []
    if unknown := sum(not utterance.speaker_known for utterance in utterances):
        notes.append(
            f"{count(unknown, 'utterance')} of unknown speakers, each taken as a speaker of its own: nobody can say "
            "whether others have the same voice"
        )
    if hidden := sum(utterance.hidden for utterance in utterances):
        notes.append(f"{count(hidden, 'row')} of test splits without {truths}: predicted, not scored")
    return notes


def _truths(votes: bool) -> str:
    return ", ".join(("label", *(["votes"] if votes else []), *DIMENSIONS[:-1])) + f" or {DIMENSIONS[-1]}"


def _label_source(labelled: bool, voted: bool) -> str:
    if not voted:
        return "unknown"
    rule = "plurality of the votes in the table, no class for a tie"
    return f"unknown: the column label where it is filled, else the {rule}" if labelled else f"perceived: {rule}"
