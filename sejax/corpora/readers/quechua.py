"""The reader of Quechua Collao for speech emotion recognition (Paccotacya-Yanque et al., 2022), from its release tree.

    Audios/14197.wav
    Labels/Labels/{Arousal,Dominance,Valence}.csv   Audio, N1, N2, N3, N4: the ratings of four raters
    Labels/Labels/Labels.csv                        Audio, the means of the ratings, the class
    Data/Data/Data.xlsx, sheet map                  Audio, File, Actor, Emotion (or Data.csv with these columns)

Six actors read each sentence with an intended emotion; valence, arousal and dominance are perceived. Means are
computed from the raters: the valence of 22210 in Labels.csv has the number of the file added.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sejax.corpora.excel import read_sheet
from sejax.corpora.files import find_path, require_folder, require_path, separate_absent
from sejax.corpora.labels import Labelled, LabelScheme, classify, find_scheme
from sejax.corpora.published import compare_counts
from sejax.corpora.ratings import describe_ratings, parse_rating
from sejax.corpora.rows import read_rows
from sejax.corpora.schema import DIMENSIONS, Corpus, Dropped, Loss, Utterance
from sejax.corpora.spelling import show
from sejax.errors import InputError
from sejax.host.wording import count

VAD_SCALE = (1.0, 5.0)
COUNTS = {"rows": 12_420, "actors": 6}
GENDERS = {"a1": "F", "a2": "M", "a3": "F", "a4": "F", "a5": "M", "a6": "M"}
# Rows of the release that are known to be wrong.
FAULTY = {
    "22415": "its third rater filled it in wrongly",
    "11817": "its entry File in the map is invalid",
    "14197": "its actor is not known",
    "20888": "its actor is not known",
}
WRONG_MEAN = "22210"  # whose valence in Labels.csv has the number of the file added

_WORDS = {
    "happy": "happiness",
    "sleepy": "sleepiness",
    "calm": "calm",
    "excited": "excitement",
    "angry": "anger",
    "anger": "anger",
    "bored": "boredom",
    "boredom": "boredom",
    "sadness": "sadness",
    "fear": "fear",
    "neutral": "neutral",
}
_CLASSES = tuple(dict.fromkeys(_WORDS.values()))
QUECHUA_SCHEMES = {
    "default": LabelScheme("default", _CLASSES, {name: name for name in _CLASSES}, source="intended"),
}
_RATERS = ("n1", "n2", "n3", "n4")
_SENTENCE = re.compile(r"...([A-Z]\d{3})")


class _Entry(NamedTuple):
    """A row of the map."""

    where: str
    file: str
    actor: str
    emotion: str


def read_quechua(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the release tree at `data_dir`. The classes are intended, valence, arousal and dominance are perceived.

    Rows that are known to be wrong (`FAULTY`) and rows without one of the six actors are dropped with a sentence.
    `text` is the number of the sentence, which is the characters 3 to 6 of the entry File.

    Raises:
      InputError: no release is there, the scheme is unknown, the map is an Excel workbook and openpyxl is missing, or a
        row cannot be read (the message quotes it).
    """
    scheme = find_scheme("quechua", QUECHUA_SCHEMES, labels, default="default")
    root = require_folder(data_dir, "Quechua Collao", "the folder with Audios, Data and Labels")
    audio = require_path(root, "Quechua Collao", "Audios")
    entries = _read_map(root)
    means, notes = _read_ratings(root)
    utterances: list[Utterance] = []
    dropped: list[Dropped] = []
    for id, entry in sorted(entries.items()):
        path = os.path.join(audio, f"{id}.wav")
        reason = FAULTY.get(id)
        if reason is None and entry.actor not in GENDERS:
            reason = f"its actor is {show(entry.actor)}, expected a1 to a6"
        if reason is not None:
            dropped.append(Dropped(id, path, f"{entry.where}: {id} is left out: {reason}", Loss.UNLABELLED))
            continue
        utterances.append(
            Utterance(
                id=id,
                path=path,
                speaker=entry.actor,
                corpus="quechua",
                text=_sentence(entry.file),
                gender=GENDERS[entry.actor],
                label=_class(entry),
                vad=means.get(id, (math.nan, math.nan, math.nan)),
                place=entry.where,
            )
        )
    if without := sum(utterance.text is None for utterance in utterances):
        notes.append(f"{count(without, 'utterance')} with an entry File that names no sentence have no text id")
    found = {"rows": len(entries), "actors": len({utterance.speaker for utterance in utterances})}
    classified, outside = classify(map(Labelled, utterances), scheme)
    present, absent = separate_absent(classified)
    return Corpus(
        name="quechua",
        classes=scheme.classes,
        vad_scale=VAD_SCALE,
        utterances=tuple(present),
        dropped=(*dropped, *absent),
        notes=(
            compare_counts("Quechua Collao", "counts", COUNTS, found),
            "the classes are intended, valence, arousal and dominance are perceived",
            *notes,
            *outside,
            *describe_ratings(present, VAD_SCALE),
        ),
        label_source=scheme.source,
    )


def _class(entry: _Entry) -> str:
    word = entry.emotion.casefold()
    if word not in _WORDS:
        raise InputError(f"{entry.where}: the emotion is {show(entry.emotion)}, expected one of {', '.join(_WORDS)}")
    return _WORDS[word]


def _sentence(file: str) -> str | None:
    """Returns the number of the sentence in an entry File; `To43` is a typing error of the release."""
    match = _SENTENCE.match(file.replace("To43", "T043"))
    return match[1] if match else None


def _read_map(root: str) -> dict[str, _Entry]:
    required = ("audio", "file", "actor", "emotion")
    path = require_path(
        root, "Quechua Collao", "Data/Data/Data.csv", "Data/Data.csv", "Data/Data/Data.xlsx", "Data/Data.xlsx"
    )
    rows = _read_lower(path, required) if path.casefold().endswith(".csv") else read_sheet(path, "map", required)
    entries: dict[str, _Entry] = {}
    for where, row in rows:
        id = _number(row["audio"], where)
        if id in entries:
            raise InputError(f"{where}: {id} occurs twice, first in {entries[id].where}, expected once")
        entries[id] = _Entry(where, row["file"], row["actor"].casefold(), row["emotion"])
    return entries


def _read_lower(path: str, required: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the rows of a CSV file with the names of columns in lower case: the release mixes the case."""
    for where, row in read_rows(path, None, ()):
        lower = {name.casefold(): cell for name, cell in row.items()}
        if missing := [column for column in required if column not in lower]:
            raise InputError(f"{path}, line 1: found {', '.join(row)}, expected the column {missing[0]}")
        yield where, lower


def _number(cell: str, where: str) -> str:
    number = cell.removesuffix(".wav").removesuffix(".0")
    if not number.isascii() or not number.isdigit():
        raise InputError(f"{where}: Audio is {show(cell)}, expected the number of a file")
    return number


def _read_ratings(root: str) -> tuple[dict[str, tuple[float, float, float]], list[str]]:
    """Returns the mean ratings by id: valence, arousal, dominance, and notes about the raters."""
    means: dict[str, Mapping[str, float]] = {}
    for dimension in DIMENSIONS:
        name = f"{dimension.capitalize()}.csv"
        path = require_path(root, "Quechua Collao", f"Labels/Labels/{name}", f"Labels/{name}")
        means[dimension] = _read_raters(path, dimension)
    notes = []
    table = find_path(root, "Labels/Labels/Labels.csv", "Labels/Labels.csv")
    if table is not None:
        notes += _compare_means(table, means)
    ids = sorted(set().union(*means.values()))
    missing = math.nan
    return {
        id: (
            means["valence"].get(id, missing),
            means["arousal"].get(id, missing),
            means["dominance"].get(id, missing),
        )
        for id in ids
    }, notes


def _read_raters(path: str, dimension: str) -> dict[str, float]:
    means = {}
    for where, row in _read_lower(path, ("audio", *_RATERS)):
        id = _number(row["audio"], where)
        if id in FAULTY:
            continue
        values = [parse_rating(row[rater], dimension, VAD_SCALE, where) for rater in _RATERS]
        given = [value for value in values if not math.isnan(value)]
        means[id] = sum(given) / len(given) if given else math.nan
    return means


def _compare_means(table: str, means: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Compares the means of Labels.csv with those of the raters, which are used."""
    differ = Counter[str]()
    wrong = ""
    for where, row in _read_lower(table, ("audio",)):
        id = _number(row["audio"], where)
        for dimension in DIMENSIONS:
            try:
                printed = float(row.get(dimension, "") or "nan")
            except ValueError:
                raise InputError(f"{where}: {dimension} is {show(row[dimension])}, expected a number") from None
            mean = means[dimension].get(id, math.nan)
            if abs(printed - mean) > 0.01:  # false for NaN
                if id == WRONG_MEAN:
                    wrong = f"{dimension} of {id} is {printed:g} in Labels.csv, the mean of its raters {mean:g} is used"
                else:
                    differ[dimension] += 1
    notes = [wrong] if wrong else []
    notes += [
        f"{dimension} in Labels.csv is not the mean of the raters in {count(n, 'row')}: the mean of the raters is used"
        for dimension, n in sorted(differ.items())
    ]
    return notes
