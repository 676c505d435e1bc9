"""What the paths on a command line name: files, folders, archives, tables, and lists on standard input."""

import math
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sejax.corpora.files import is_audio
from sejax.corpora.rows import read_rows
from sejax.corpora.spelling import trim
from sejax.errors import InputError
from sejax.features.extract import Segment
from sejax.features.files import audio_files

STANDARD_INPUT = "-"
_TABLE = ".csv"
_ARCHIVE = ".zip"
_NUMBER = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)


def find_audio(paths: Sequence[str], listed: Iterable[str]) -> list[Segment]:
    """Returns what is to be predicted, in the order of the paths.

    Args:
      paths: a file; a folder, whose audio files are taken, also those in folders of it; a zip archive likewise; a
        CSV table with the column `path` and perhaps `start` and `end` in seconds; or "-", a path per line of `listed`.
      listed: standard input.

    Raises:
      InputError: a folder or a table cannot be read, or has nothing in it.
    """
    return [segment for path in paths for segment in _named_by(path, listed)]


def _named_by(path: str, listed: Iterable[str]) -> Iterable[Segment]:
    if path == STANDARD_INPUT:
        lines = (line.rstrip("\r\n") for line in listed)
        return [Segment(line, None, None) for line in lines if line]
    suffix = Path(path).suffix.casefold()
    if os.path.isdir(path):
        return _some([Segment(name, None, None) for name in audio_files(path)], path)
    if suffix == _TABLE and os.path.exists(path):
        return _some(list(_in_table(path)), path)
    if suffix == _ARCHIVE and os.path.isfile(path):
        return _some([Segment(f"{path}::{name}", None, None) for name in _in_archive(path)], path)
    return [Segment(path, None, None)]  # of which the decoder says what is wrong with it


def _some(found: list[Segment], path: str) -> list[Segment]:
    if not found:
        raise InputError(f"{path}: has no audio files in it, expected some (wav, flac, ogg, mp3 and the like)")
    return found


def _in_archive(path: str) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.filename for member in archive.infolist() if not member.is_dir()]
            return [name for name in names if is_audio(name) and not _is_hidden(name)]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected a zip archive") from error


def _is_hidden(member: str) -> bool:
    """Returns whether a member is what a folder would hide, or what macOS adds of its own."""
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in member.split("/"))


def _in_table(path: str) -> Iterator[Segment]:
    folder = os.path.dirname(os.path.abspath(path))
    for where, row in read_rows(path, None, ("path",)):
        name = trim(row["path"])
        if not name:
            raise InputError(f"{where}: path is blank, expected a file")
        start, end = (_seconds(row.get(column, ""), column, where) for column in ("start", "end"))
        if start is not None and end is not None and end <= start:
            raise InputError(f"{where}: start {start:g} and end {end:g} are no span, expected start before end")
        yield Segment(os.path.join(folder, name), start, end)


def _seconds(cell: str, column: str, where: str) -> float | None:
    if not cell or cell.casefold() == "nan":
        return None
    value = float(cell) if _NUMBER.fullmatch(cell) else math.inf
    if not math.isfinite(value):
        raise InputError(f"{where}: {column} {cell!r} is not a number of seconds, expected one such as 1.5")
    return value
