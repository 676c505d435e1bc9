"""The reader of a user's own corpus: a CSV file with a row per utterance."""

import math
import os
import re
from collections.abc import Sequence

import soundfile

from sejax.corpora.files import AudioFiles
from sejax.corpora.rows import read_rows
from sejax.corpora.schema import DIMENSIONS, SPLITS, Corpus, Dropped, Loss, Utterance
from sejax.corpora.spelling import clean, show, trim
from sejax.errors import InputError, shown
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
NUMBERS = ("start", "end", *DIMENSIONS)
# The words that pandas writes for a missing value, or reads as one.
MISSING = ("nan", "NaN", "-nan", "-NaN", "NaT", "None", "null", "NULL", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NA")
# VAD scales, tried in this order unless the user gives one.
SCALES = ((1.0, 5.0), (1.0, 7.0), (0.0, 1.0), (-1.0, 1.0))
# A scale that is believed: its ends, and how far they are apart.
LARGEST_END, LEAST_SPAN = 10_000, 0.01

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SCALE = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)")
_RATINGS = f"label, {', '.join(DIMENSIONS[:-1])} or {DIMENSIONS[-1]}"
_GENDERS = {"f": "F", "female": "F", "m": "M", "male": "M"}


def read_table(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the CSV file at `data_dir` (UTF-8, comma-separated, with the names of the columns in its first line).

    The columns `path` and `speaker` are required. Optional ones are `id` (default: the path without its extension,
    and the cut if there is one), `start` and `end` (seconds; they cut the utterance out of a longer file),
    `session`, `text` (an id, equal for equal words), `gender` (F or M), `label`, `valence`, `arousal`,
    `dominance`, `fold` (fixes the folds) and `split` (train, val or test). Paths are relative to the folder of the
    CSV file. A blank cell is a missing value. `fold` and `split` must be filled in every row or in none. The
    classes are the labels, sorted.

    A row without label, valence, arousal and dominance is left out, and so is one whose `path` names no file; each has
    a sentence in `Corpus.dropped`. A word for a missing value (`MISSING`) is a blank cell where a number is expected.

    Args:
      data_dir: the CSV file.
      labels: no label scheme, because a table has none, but the VAD scale: see `parse_vad_scale`. With "default"
        the scale is the first of 1..5, 1..7, 0..1 and -1..1 that contains all values, and a note says so. Values
        outside a given scale are kept and counted in the notes.

    Raises:
      InputError: names the file and the line of what `read_rows` refuses, a missing path or speaker, a word for a
        missing value in place of a name, a value that is not a number, times that are no span, an unknown gender or
        split, or a `fold` or `split` in some rows only. Also raised without a usable row and for values on no known
        scale or far outside the given one.
    """
    given_scale = parse_vad_scale(labels)
    if not os.path.exists(data_dir):
        raise InputError(f"no table at {data_dir!r}: expected a CSV file with the columns path and speaker")
    utterances, dropped = _usable(data_dir)
    if not utterances and not dropped:
        raise InputError(f"{data_dir} has no row below its header, expected one per utterance")
    unlabelled = sum(lost.kind is Loss.UNLABELLED for lost in dropped)
    if unlabelled == len(utterances) + len(dropped):
        raise InputError(f"{data_dir} has no row with a label or a rating, expected a filled column {_RATINGS}")
    scale, notes = _vad_scale(utterances, given_scale, data_dir)
    if unlabelled:
        notes.append(
            f"{count(unlabelled, 'row')} without {_RATINGS} {'is' if unlabelled == 1 else 'are'} left out, which "
            "config.max_bad_fraction does not limit: that is a choice of the table"
        )
    return Corpus(
        name="table",
        classes=tuple(sorted({utterance.label for utterance in utterances if utterance.label is not None})),
        vad_scale=scale,
        utterances=tuple(utterances),
        dropped=tuple(dropped),
        notes=tuple(notes),
    )


def parse_vad_scale(labels: str) -> tuple[float, float] | None:
    """Returns the lowest and the highest value of a scale such as "1..7", None for "default".

    The scale is a property of the questionnaire. The values alone do not determine it.

    Raises:
      InputError: `labels` is neither "default" nor of the form `lowest..highest`, or nobody has such a scale.
    """
    if labels == "default":
        return None
    match = _SCALE.fullmatch(labels)
    low, high = map(float, match.groups()) if match else (0.0, 0.0)
    if not low < high:
        raise InputError(
            f"config.labels is {shown(labels)}, expected default or the scale of valence, arousal and dominance, "
            "lowest..highest, such as 1..7"
        )
    if max(-low, high) > LARGEST_END or high - low < LEAST_SPAN:
        raise InputError(
            f"config.labels is {shown(labels)}, expected a scale from {-LARGEST_END:,} or more to {LARGEST_END:,} or "
            f"less, of which the ends are {LEAST_SPAN} or more apart"
        )
    return low, high


def _usable(path: str) -> tuple[list[Utterance], list[Dropped]]:
    """Reads all rows and separates those that cannot be used."""
    folder = os.path.dirname(os.path.abspath(path))
    files = AudioFiles()
    utterances: list[Utterance] = []
    dropped: list[Dropped] = []
    filled: dict[str, tuple[bool, str]] = {}  # column -> whether its first row is filled, and the place of that row
    for where, row in read_rows(path, COLUMNS, REQUIRED):
        for column in ("fold", "split"):
            first, line = filled.setdefault(column, (bool(row.get(column)), where))
            if first != bool(row.get(column)):
                raise InputError(
                    f"{where}: {column} is {'blank' if first else 'filled'}, unlike in {line}, expected "
                    "a value in every row or in none"
                )
        file, problem = _find_file(row["path"], folder, files)
        utterance = _utterance(row, file, where, exists=problem is None)
        if utterance.label is None and all(math.isnan(value) for value in utterance.vad):
            reason = f"{where}: the row has no {_RATINGS}"
            dropped.append(Dropped(utterance.id, file, reason, Loss.UNLABELLED))
        elif problem is not None:
            kind, sentence = problem
            dropped.append(Dropped(utterance.id, file, f"{where}: {sentence}", kind))
        else:
            utterances.append(utterance)
    return utterances, dropped


def _find_file(cell: str, folder: str, files: AudioFiles) -> tuple[str, tuple[Loss, str] | None]:
    """Returns the file that a cell names, as it is written or else without blanks around, and what is wrong with it."""
    written, trimmed = (os.path.join(folder, name) for name in (cell, trim(cell)))
    if written != trimmed and files.problem(written) is None:
        return written, None
    return trimmed, files.problem(trimmed)


def _utterance(row: dict[str, str], file: str, where: str, *, exists: bool) -> Utterance:
    """Returns the utterance of a row. `exists` says whether its file may be looked into."""
    path = clean(row["path"])
    for column, cell in {**row, "path": path}.items():
        if column in REQUIRED and not cell:
            raise InputError(f"{where}: {column} is blank, expected a value")
        if column not in NUMBERS and cell in MISSING:
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
    if gender and gender.lower() not in _GENDERS:
        raise InputError(f"{where}: gender {show(gender)}, expected F, M or a blank cell")
    split = row.get("split", "")
    if split and split not in SPLITS:
        raise InputError(f"{where}: split {show(split)}, expected {', '.join(SPLITS)} or a blank cell")
    valence, arousal, dominance = (_number(row, dimension, where) for dimension in DIMENSIONS)
    cut = "" if math.isnan(start) and math.isnan(end) else f"#{row.get('start', '')}-{row.get('end', '')}"
    return Utterance(
        id=row.get("id") or os.path.splitext(path)[0] + cut,
        path=file,
        corpus="table",
        speaker=row["speaker"],
        session=row.get("session") or None,
        start=None if math.isnan(start) else start,
        end=None if math.isnan(end) else end,
        text=row.get("text") or None,
        gender=_GENDERS.get(gender.lower()),
        label=row.get("label") or None,
        vad=(valence, arousal, dominance),
        duration=_duration(file, start, end) if exists else None,
        fold=row.get("fold") or None,
        split=split or None,
        place=where,
    )


def _number(row: dict[str, str], column: str, where: str) -> float:
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


def _duration(path: str, start: float, end: float) -> float | None:
    """Returns the seconds from `start` to `end` within the file, None without a readable header."""
    try:
        length = soundfile.info(path).duration
    except (soundfile.SoundFileError, OSError, TypeError):  # TypeError: headerless formats
        return None
    begin = 0.0 if math.isnan(start) else start
    return max(0.0, (length if math.isnan(end) else min(end, length)) - begin)


def _vad_scale(
    utterances: Sequence[Utterance], given: tuple[float, float] | None, path: str
) -> tuple[tuple[float, float], list[str]]:
    """Returns the given scale, or the first of `SCALES` that contains all values, and notes."""
    values = [value for utterance in utterances for value in utterance.vad if not math.isnan(value)]
    if given is not None:
        _refuse_far_ratings(utterances, *given)
        outside = sum(not given[0] <= value <= given[1] for value in values)
        note = (
            f"{outside} values of valence, arousal and dominance lie outside the scale {given[0]:g} to "
            f"{given[1]:g} (kept as they are)"
        )
        return given, [note] if outside else []
    if not values:
        return SCALES[0], []
    for low, high in SCALES:
        if all(low <= value <= high for value in values):
            seen = f"all values lie from {min(values):g} to {max(values):g}"
            note = f"valence, arousal and dominance are taken to be on the scale {low:g} to {high:g}, as {seen}"
            return (low, high), [f"{note} (labels=lowest..highest says otherwise)"]
    known = ", ".join(f"{low:g}..{high:g}" for low, high in SCALES)
    raise InputError(
        f"{path}: valence, arousal and dominance run from {min(values):g} to {max(values):g}, which is on "
        f"none of the scales {known}, expected theirs as config.labels (lowest..highest)"
    )


def _refuse_far_ratings(utterances: Sequence[Utterance], low: float, high: float) -> None:
    """Refuses a rating that is further outside a scale than the scale is wide: a mistake, or of another scale."""
    span = high - low
    for utterance in utterances:
        for dimension, value in zip(DIMENSIONS, utterance.vad, strict=True):
            if value < low - span or value > high + span:
                raise InputError(
                    f"{utterance.place}: {dimension} {value:g} is far outside the scale {low:g} to {high:g} of "
                    "config.labels, expected a rating on that scale: correct it, or name another scale"
                )
