"""The readers of KEMDy19 and KEMDy20 (Noh and Jeong, ETRI, 2019 and 2020), Korean, from their release trees.

    KEMDy19   annotation/Sess01_F_res.csv     wav/Session01/Sess01_script01/Sess01_script01_F001.wav
    KEMDy20   annotation/Sess01_eval.csv      wav/Session01/Sess01_script01_User002M_001.wav

Annotation files have two rows of headers: `Segment ID` and `Total Evaluation` in the first, emotion, valence and
arousal in the second, for the total and for each of ten raters. The columns are found by these words. There is no
dominance. In KEMDy19 each actor has a file, and both actors' rows stand in both files: an actor's own rows are used.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from sejax.corpora.files import read_bytes, require_folder, require_path, separate_absent
from sejax.corpora.labels import Labelled, LabelScheme, classify, find_scheme
from sejax.corpora.ratings import describe_ratings, parse_rating
from sejax.corpora.rows import read_cells
from sejax.corpora.schema import Corpus, Utterance
from sejax.corpora.spelling import clean, hash_words, show
from sejax.errors import InputError
from sejax.host.wording import count

VAD_SCALE = (1.0, 5.0)
_WORDS = {
    "angry": "anger",
    "disgust": "disgust",
    "disqust": "disgust",  # so spelt in the totals
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}
_CLASSES = tuple(dict.fromkeys(_WORDS.values()))
_MERGE = {name: name for name in _CLASSES}
_SOURCE = "perceived: majority of 10 raters, no class for a tie"
KEMDY_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        LabelScheme("seven", _CLASSES, _MERGE, keep_rated=True, source=_SOURCE),
        LabelScheme("soft", _CLASSES, _MERGE, soft=True, keep_rated=True, source=_SOURCE),
    )
}


@dataclass(frozen=True)
class _Edition:
    """What tells the two corpora apart.

    Args:
      name: a key of `sejax.corpora.read.CORPORA`.
      title: its name in messages.
      annotation: the names of annotation files; the group `actor` is whose rows are used.
      segment: the ids of segments. Its groups are fields of the utterance; `script` is set where words are scripted.
      example: an id, for messages.
      sessions, segments: the number of sessions, and about the number of segments.
    """

    name: str
    title: str
    annotation: re.Pattern[str]
    segment: re.Pattern[str]
    example: str
    sessions: int
    segments: int


KEMDY19 = _Edition(
    name="kemdy19",
    title="KEMDy19",
    annotation=re.compile(r"Sess(?:ion)?\d+_(?P<actor>[FM])_.*\.csv"),
    segment=re.compile(r"(?P<session>Sess\d\d)_(?:(?P<script>script\d\d)|impro\d\d)_(?P<gender>[FM])\d{3}"),
    example="Sess01_script01_F001",
    sessions=20,
    segments=10_280,
)
KEMDY20 = _Edition(
    name="kemdy20",
    title="KEMDy20",
    annotation=re.compile(r"Sess(?:ion)?\d+_eval.*\.csv"),
    segment=re.compile(r"(?P<session>Sess\d\d)_script\d\d_(?P<speaker>User\d{3}(?P<gender>[FM]))_\d{3}"),
    example="Sess01_script01_User002M_001",
    sessions=40,
    segments=13_460,
)
# Recordings of KEMDy19 that many papers leave out for gaps in signals of the body. Their audio is whole.
GAPS = ("Sess01_impro03", "Sess01_impro04", "Sess03_script04", "Sess06_script02", "Sess07_script02")


def read_kemdy19(data_dir: str, labels: str = "default") -> Corpus:
    """Reads KEMDy19.

    The schemes `seven` (the default) and `soft` keep segments whose raters did not agree for their ratings, without a
    class. Dominance is missing. `text` is set for scripted segments with a transcript.

    Raises:
      InputError: no release is there, the scheme is unknown, or a row cannot be read (the message quotes it).
    """
    return _read(KEMDY19, data_dir, labels)


def read_kemdy20(data_dir: str, labels: str = "default") -> Corpus:
    """Reads KEMDy20, free talk of 80 people: see `read_kemdy19`. There is no `text`."""
    return _read(KEMDY20, data_dir, labels)


class _Row(NamedTuple):
    """A row of an annotation file."""

    id: str
    label: str | None
    vad: tuple[float, float, float]
    votes: tuple[tuple[str, ...], ...]
    where: str


def _read(edition: _Edition, data_dir: str, labels: str) -> Corpus:
    scheme = find_scheme(edition.name, KEMDY_SCHEMES, labels, default="seven")
    root = require_folder(data_dir, edition.title, "the folder with annotation and wav")
    annotation = require_path(root, edition.title, "annotation")
    wav = require_path(root, edition.title, "wav")
    rows: dict[str, _Row] = {}
    others: dict[str, str] = {}  # rows of the other actor -> their place
    for name in sorted(os.listdir(annotation)):
        match = edition.annotation.fullmatch(name)
        if match is None:
            continue
        actor = match.groupdict().get("actor")
        for row in _read_annotation(os.path.join(annotation, name), edition):
            if actor is not None and row.id[-4] != actor:
                others[row.id] = row.where
            elif row.id in rows:
                raise InputError(f"{row.where}: {row.id} occurs twice, first in {rows[row.id].where}, expected once")
            else:
                rows[row.id] = row
    if not rows:
        raise InputError(
            f"{annotation} has no row of a segment, expected files such as Sess01_F_res.csv, Sess01_eval.csv"
        )
    labelled = [Labelled(_utterance(row, edition, wav), row.votes) for _, row in sorted(rows.items())]
    classified, outside = classify(labelled, scheme)
    present, dropped = separate_absent(classified)
    with_text, without_text = _with_texts(present, edition)
    sessions = len({item.utterance.session for item in labelled})
    notes = [
        f"{edition.title} has {edition.sessions} sessions and about {edition.segments:,} segments, found {sessions} "
        f"and {len(rows):,}",
        *_describe_lost_rows(others, rows),
        *outside,
        *describe_ratings(with_text, VAD_SCALE),
    ]
    if without_text:
        notes.append(f"{count(without_text, 'scripted segment')} without a transcript have no text id")
    if gaps := [name for name in GAPS if edition is KEMDY19 and any(id.startswith(f"{name}_") for id in rows)]:
        notes.append(f"papers leave out {', '.join(gaps)} for gaps in other signals; the audio is whole: kept")
    return Corpus(
        name=edition.name,
        classes=scheme.classes,
        vad_scale=VAD_SCALE,
        utterances=tuple(with_text),
        dropped=tuple(dropped),
        notes=tuple(notes),
        label_source=scheme.source,
    )


def _utterance(row: _Row, edition: _Edition, wav: str) -> Utterance:
    match = edition.segment.fullmatch(row.id)
    assert match is not None  # checked when the row was read
    groups = match.groupdict()
    folder = f"Session{groups['session'][4:]}"
    inside = (row.id[:-5],) if edition is KEMDY19 else ()
    return Utterance(
        id=row.id,
        path=os.path.join(wav, folder, *inside, f"{row.id}.wav"),
        speaker=groups.get("speaker") or groups["session"] + groups["gender"],
        corpus=edition.name,
        session=groups["session"],
        gender=groups["gender"],
        label=row.label,
        vad=row.vad,
        place=row.where,
    )


def _read_annotation(path: str, edition: _Edition) -> Iterator[_Row]:
    records = read_cells(path)
    headers = [[clean(cell) for cell in next(records, ("", []))[1]] for _ in range(2)]
    segment, (total, *raters) = _columns(headers, path)
    last = max(column for group in (total, *raters) for column in group.values())
    for where, cells in records:
        cells = [clean(cell) for cell in cells]
        if not any(cells):
            continue
        if len(cells) <= max(segment, last):
            raise InputError(f"{where}: {len(cells)} cells, expected {1 + max(segment, last)} or more")
        if edition.segment.fullmatch(cells[segment]) is None:
            raise InputError(f"{where}: the segment is {show(cells[segment])}, expected one like {edition.example}")
        named = _words(cells[total["emotion"]], where)
        votes = (_words(cells[rater["emotion"]], where) for rater in raters)
        yield _Row(
            id=cells[segment],
            label=named[0] if len(named) == 1 else None,
            vad=(
                parse_rating(cells[total["valence"]], "valence", VAD_SCALE, where),
                parse_rating(cells[total["arousal"]], "arousal", VAD_SCALE, where),
                math.nan,
            ),
            votes=tuple(words for words in votes if words),
            where=where,
        )


def _columns(headers: Sequence[Sequence[str]], path: str) -> tuple[int, list[Mapping[str, int]]]:
    """Returns the column of the segment, and of the total and each rater the column of each of three words."""
    first, second = ([cell.casefold() for cell in header] for header in headers)
    segment = next((column for column, cell in enumerate(first) if cell.startswith("segment")), None)
    total = next((column for column, cell in enumerate(first) if cell.startswith("total")), None)
    if segment is None or total is None:
        raise InputError(f"{path}, line 1: found {', '.join(headers[0])}, expected Segment ID and Total Evaluation")
    words = ("emotion", "valence", "arousal")
    found = [
        (next(word for word in words if word in cell), column)
        for column, cell in enumerate(second)
        if column >= total and any(word in cell for word in words)
    ]
    groups = [dict(found[begin : begin + 3]) for begin in range(0, len(found), 3)]
    if not groups or any(set(group) != set(words) for group in groups):
        raise InputError(
            f"{path}, line 2: found {', '.join(headers[1])}, expected emotion, valence and arousal of the total and of "
            "each rater"
        )
    return segment, list(groups)


def _words(cell: str, where: str) -> tuple[str, ...]:
    """Returns the classes in a cell, each once: several are joined by semicolons."""
    words = [word.strip().casefold() for word in cell.split(";") if word.strip()]
    for word in words:
        if word not in _WORDS:
            raise InputError(f"{where}: the emotion is {show(cell)}, expected one of {', '.join(_WORDS)}")
    return tuple(dict.fromkeys(_WORDS[word] for word in words))


def _describe_lost_rows(others: Mapping[str, str], rows: Mapping[str, _Row]) -> list[str]:
    lost = sorted(others.keys() - rows.keys())
    if not lost:
        return []
    return [
        f"{count(len(lost), 'segment')} only in the other actor's file left out, as their own actor's file has no row "
        f"(the first: {lost[0]}, {others[lost[0]]})"
    ]


def _with_texts(utterances: Sequence[Utterance], edition: _Edition) -> tuple[list[Utterance], int]:
    """Returns the utterances with ids of their words if they are scripted, and the number of those without words."""
    complete, without = [], 0
    for utterance in utterances:
        match = edition.segment.fullmatch(utterance.id)
        script = match.groupdict().get("script") if match else None
        if script is not None:
            words = _read_words(f"{utterance.path.removesuffix('.wav')}.txt")
            without += words is None
            utterance = replace(utterance, text=None if words is None else f"{script}_{words}")
        complete.append(utterance)
    return complete, without


def _read_words(path: str) -> str | None:
    """Returns the id of the words of a transcript, None without one. Its encoding is UTF-8 or Korean Windows."""
    if not os.path.isfile(path):
        return None
    data = read_bytes(path, "a transcript")
    try:
        return hash_words(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return hash_words(data.decode("cp949", errors="replace"))
