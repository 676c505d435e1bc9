"""The reader of a user's own corpus: a CSV file with a row per utterance."""

import csv
import math
import os
import re
from collections.abc import Iterator, Sequence

import soundfile

from sejax.corpora.schema import DIMENSIONS, SPLITS, Corpus, Dropped, Utterance
from sejax.errors import InputError

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
# VAD scales, tried in this order unless the user gives one.
SCALES = ((1.0, 5.0), (1.0, 7.0), (0.0, 1.0), (-1.0, 1.0))

_SCALE = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)")
_GENDERS = {"f": "F", "female": "F", "m": "M", "male": "M"}


def read_table(data_dir: str, labels: str = "default") -> Corpus:
    """Reads the CSV file at `data_dir` (UTF-8, comma-separated, with the names of the columns in its first line).

    The columns `path` and `speaker` are required. Optional ones are `id` (default: the path without its extension,
    and the cut if there is one), `start` and `end` (seconds; they cut the utterance out of a longer file),
    `session`, `text` (an id, equal for equal words), `gender` (F or M), `label`, `valence`, `arousal`,
    `dominance`, `fold` (fixes the folds) and `split` (train, val or test). Paths are relative to the folder of the
    CSV file. A blank cell is a missing value. `fold` and `split` must be filled in every row or in none. The
    classes are the labels, sorted.

    A row without label, valence, arousal and dominance is dropped with a sentence, and so is one whose audio file
    is missing.

    Args:
      data_dir: the CSV file.
      labels: no label scheme, because a table has none, but the VAD scale: see `parse_vad_scale`. With "default"
        the scale is the first of 1..5, 1..7, 0..1 and -1..1 that contains all values, and a note says so. Values
        outside a given scale are kept and counted in the notes.

    Raises:
      InputError: names the file and the line of a missing or unknown column, a row with too few or too many
        cells, a missing path or speaker, an id that occurs twice, a value that is not a number, times that are
        no span, an unknown gender or split, or a `fold` or `split` in some rows only. Also raised without a
        usable row and for values on no known scale.
    """
    given_scale = parse_vad_scale(labels)
    if not os.path.isfile(data_dir):
        raise InputError(f"no table at {data_dir!r}: expected a CSV file with the columns path and speaker")
    utterances, dropped = _usable(data_dir)
    if not utterances:
        first_reason = f" (the first: {dropped[0].reason})" if dropped else ""
        raise InputError(
            f"{data_dir} has no usable row, {len(dropped)} were dropped{first_reason}, expected at least one"
        )
    utterances.sort(key=lambda utterance: utterance.id)
    scale, notes = _vad_scale(utterances, given_scale, data_dir)
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
      InputError: `labels` is neither "default" nor of the form `lowest..highest`.
    """
    if labels == "default":
        return None
    match = _SCALE.fullmatch(labels)
    if match is None or not float(match[1]) < float(match[2]):
        raise InputError(
            f"config.labels is {labels!r}, expected default or the scale of valence, arousal and dominance, "
            "lowest..highest, such as 1..7"
        )
    return float(match[1]), float(match[2])


def _usable(path: str) -> tuple[list[Utterance], list[Dropped]]:
    """Reads all rows and separates those that cannot be used."""
    folder = os.path.dirname(os.path.abspath(path))
    utterances: list[Utterance] = []
    dropped: list[Dropped] = []
    lines: dict[str, str] = {}  # id -> its place
    filled: dict[str, tuple[bool, str]] = {}  # column -> whether its first row is filled, and the place of that row
    for where, row in _rows(path):
        utterance = _utterance(row, folder, where)
        if utterance.id in lines:
            raise InputError(
                f"{where}: the id {utterance.id!r} occurs twice, first in {lines[utterance.id]}, expected once"
            )
        lines[utterance.id] = where
        for column in ("fold", "split"):
            first, line = filled.setdefault(column, (bool(row.get(column)), where))
            if first != bool(row.get(column)):
                raise InputError(
                    f"{where}: {column} is {'blank' if first else 'filled'}, unlike in {line}, expected "
                    "a value in every row or in none"
                )
        if utterance.label is None and all(math.isnan(value) for value in utterance.vad):
            reason = f"{where}: the row has no label and no {', '.join(DIMENSIONS[:2])} or {DIMENSIONS[2]}"
            dropped.append(Dropped(utterance.id, utterance.path, reason))
        elif not os.path.isfile(utterance.path):
            reason = f"{where}: there is no audio file {utterance.path}"
            dropped.append(Dropped(utterance.id, utterance.path, reason))
        else:
            utterances.append(utterance)
    return utterances, dropped


def _rows(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields each row with its place in the file. Blanks around cells are removed."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(header, path)
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise InputError(f"{where}: {len(cells)} cells, expected the {len(header)} columns of the header")
                yield where, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}), expected a CSV file in UTF-8"
        ) from error
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: cannot be read as CSV ({error}), expected cells separated by commas"
        ) from error


def _check_header(header: Sequence[str], path: str) -> None:
    where = f"{path}, line 1"
    missing = [column for column in REQUIRED if column not in header]
    if missing:
        raise InputError(
            f"{where}: the column {' and '.join(missing)} is missing, found {', '.join(header) or 'nothing'}, expected "
            "them in lower case, separated by commas"
        )
    unknown = [column for column in header if column not in COLUMNS]
    if unknown:
        raise InputError(
            f"{where}: unknown column {', '.join(map(repr, unknown))}, expected columns out of {', '.join(COLUMNS)}"
        )
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise InputError(f"{where}: the column {', '.join(twice)} occurs twice, expected once")


def _utterance(row: dict[str, str], folder: str, where: str) -> Utterance:
    for column in REQUIRED:
        if not row[column]:
            raise InputError(f"{where}: {column} is blank, expected a value")
    start, end = (_number(row, column, where) for column in ("start", "end"))
    if start < 0 or end <= 0 or end <= start:
        raise InputError(
            f"{where}: start {row.get('start')!r} and end {row.get('end')!r} are no span, "
            "expected seconds, start before end"
        )
    gender = row.get("gender", "")
    if gender and gender.lower() not in _GENDERS:
        raise InputError(f"{where}: gender {gender!r}, expected F, M or a blank cell")
    split = row.get("split", "")
    if split and split not in SPLITS:
        raise InputError(f"{where}: split {split!r}, expected {', '.join(SPLITS)} or a blank cell")
    valence, arousal, dominance = (_number(row, dimension, where) for dimension in DIMENSIONS)
    path = os.path.join(folder, row["path"])
    cut = "" if math.isnan(start) and math.isnan(end) else f"#{row.get('start', '')}-{row.get('end', '')}"
    return Utterance(
        id=row.get("id") or os.path.splitext(row["path"])[0] + cut,
        path=path,
        corpus="table",
        speaker=row["speaker"],
        session=row.get("session") or None,
        start=None if math.isnan(start) else start,
        end=None if math.isnan(end) else end,
        text=row.get("text") or None,
        gender=_GENDERS.get(gender.lower()),
        label=row.get("label") or None,
        vad=(valence, arousal, dominance),
        duration=_duration(path, start, end),
        fold=row.get("fold") or None,
        split=split or None,
    )


def _number(row: dict[str, str], column: str, where: str) -> float:
    """Returns the number in a cell, NaN for a blank one."""
    cell = row.get(column, "")
    if not cell:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise InputError(f"{where}: {column} {cell!r} is not a number, expected one")
    return value


def _duration(path: str, start: float, end: float) -> float | None:
    """Returns the seconds from `start` to `end` within the file, None without a readable header."""
    try:
        length = soundfile.info(path).duration
    except (soundfile.SoundFileError, OSError):
        return None
    begin = 0.0 if math.isnan(start) else start
    return max(0.0, (length if math.isnan(end) else min(end, length)) - begin)


def _vad_scale(
    utterances: Sequence[Utterance], given: tuple[float, float] | None, path: str
) -> tuple[tuple[float, float], list[str]]:
    """Returns the given scale, or the first of `SCALES` that contains all values, and notes."""
    values = [value for utterance in utterances for value in utterance.vad if not math.isnan(value)]
    if given is not None:
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
