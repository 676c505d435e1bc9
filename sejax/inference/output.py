"""Tables of records: CSV or JSON lines, on standard output or in a file that a later start continues."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sejax.errors import InputError
from sejax.features.extract import Segment
from sejax.host.atomic import atomic_write
from sejax.host.json_files import write_json
from sejax.inference.records import Names, Record, columns, shown, shown_time

_MADE_BY = ".made_by.json"  # behind the name of a table: with which model and options it is made
_BYTES = "surrogateescape"  # the names of files are bytes, which need not be UTF-8
Write = Callable[[Record], None]


def format_of(path: str, given: str | None) -> str:
    """Returns the format of a table: the one that is given, or by its name."""
    return given or ("jsonl" if Path(path).suffix in (".jsonl", ".ndjson", ".json") else "csv")


def write_to(file: Any, names: Names, how: str, *, header: bool = True) -> Write:
    """Returns a function that writes a record.

    Args:
      file: of text; what is written can be read at once.
      names: of the outputs.
      how: one of `choices.TABLES`.
      header: whether a CSV begins with the names of its columns.
    """
    writer = csv.writer(file, lineterminator="\n")
    if header and how == "csv":
        writer.writerow(columns(names))

    def write(record: Record) -> None:
        row = record.row(names)
        if how == "csv":
            writer.writerow(shown(row))
        else:
            given = {name: value for name, value in row.items() if value is not None}
            file.write(_json_line(given))
        file.flush()

    return write


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Keeps other processes from writing the same table."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(f"{path}: another process writes it now, expected one at a time, or another file") from error
    except (OSError, NotImplementedError):  # a file system without locks, or a folder that the writing will refuse
        yield
        return
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def continued(
    path: str, names: Names, how: str, made_by: Mapping[str, Any], segments: Sequence[Segment]
) -> Iterator[tuple[Write, list[Segment]]]:
    """Opens a table to be written, or continued where an earlier start ended.

    Rows with an error are removed: their files are tried again. In a table over time the rows of a file belong
    together: they are removed if one of them is an error, and so are those of the last file, which may not all be
    there.

    Args:
      path: of the table.
      names: of the outputs.
      how: one of `choices.TABLES`.
      made_by: the model and the options; a table is continued with equal ones alone.
      segments: what is to be in the table.

    Yields:
      The function that writes a record, and the segments that are left, in their order; of a table over time the parts
      of a file one after the other.

    Raises:
      InputError: the file cannot be written, or is another table.
    """
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder, expected a file, or a new name")
    with _alone(path):
        rows, left = _begun(path, names, how, made_by, segments)
        try:
            with atomic_write(path, errors=_BYTES) as file:
                rewrite = _rewriter(file, names, how)
                for row in rows:
                    rewrite(row)
            write_json(path + _MADE_BY, dict(made_by))
            with open(path, "a", encoding="utf-8", errors=_BYTES, newline="") as file:
                yield write_to(file, names, how, header=False), left
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}), expected a file on a disk with room"
            ) from error


def _begun(
    path: str, names: Names, how: str, made_by: Mapping[str, Any], segments: Sequence[Segment]
) -> tuple[list[dict[str, Any]], list[Segment]]:
    """Returns the rows of a table that stay, and the segments that are left; see `continued`."""
    rows: list[dict[str, Any]] = []
    if os.path.exists(path) and os.path.getsize(path):
        _check_sidecar(path, Path(path + _MADE_BY), made_by)
        rows = _read_rows(path, names, how)
    if made_by.get("every"):
        again = {row["file"] for row in rows if row.get("error")} | {row["file"] for row in rows[-1:]}
        rows = [row for row in rows if row["file"] not in again]
        files = {row["file"] for row in rows}
        order = {name: place for place, name in enumerate(dict.fromkeys(segment.path for segment in segments))}
        return rows, sorted((each for each in segments if each.path not in files), key=lambda each: order[each.path])
    rows = [row for row in rows if not row.get("error")]
    done = {_key(row["file"], row.get("start"), row.get("end")) for row in rows}
    return rows, [segment for segment in segments if _key(*segment) not in done]


def _check_sidecar(path: str, sidecar: Path, made_by: Mapping[str, Any]) -> None:
    """Refuses to continue a table of another model or with other options: its rows would not be told apart."""
    try:
        found = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: is there already, and {sidecar} does not say how it was made, expected a new file, or one that "
            "this command has begun"
        )
    different = sorted(name for name in {*found, *made_by} if found.get(name) != made_by.get(name))
    if different:
        raise InputError(
            f"{path}: was begun with another {different[0]} ({found.get(different[0])!r}, now "
            f"{made_by.get(different[0])!r}), expected the same; use another file"
        )


def _read_rows(path: str, names: Names, how: str) -> list[dict[str, Any]]:
    """Returns the whole rows of a table; a killed process may have left a last one without its end."""
    try:
        text = Path(path).read_bytes().decode("utf-8", _BYTES)  # read as text, a name's "\r" would be another
        text = text[: text.rfind("\n") + 1]
        if how == "csv":
            reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            rows: list[dict[str, Any]] = list(reader)
            if rows and list(reader.fieldnames or ()) != columns(names):
                raise InputError(f"{path}: has the columns {', '.join(reader.fieldnames or ())}, expected those of now")
            if any(None in row or None in row.values() for row in rows):
                raise ValueError("a row has more or fewer cells than columns")
        else:
            # Not at other ends of lines than \n, which names of files may have.
            rows = [json.loads(line) for line in text.split("\n")[:-1]]
        if not all(isinstance(row, dict) and isinstance(row.get("file"), str) for row in rows):
            raise ValueError("a row names no file")
        for row in rows:
            _key(row["file"], row.get("start"), row.get("end"))
    except InputError:
        raise
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected a table that this command has begun") from error
    return rows


def _rewriter(file: Any, names: Names, how: str) -> Callable[[Mapping[str, Any]], None]:
    """Returns a function that writes a row as it was read."""
    if how == "jsonl":
        return lambda row: file.write(_json_line(row))
    writer = csv.DictWriter(file, columns(names), lineterminator="\n")
    writer.writeheader()
    return writer.writerow


def _json_line(row: Mapping[str, Any]) -> str:
    """Returns a row as a line; the bytes of a name that are no UTF-8 are escaped, for JSON is."""
    text = json.dumps(row, ensure_ascii=False)
    return (text if _is_unicode(text) else json.dumps(row)) + "\n"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(file: str, start: Any, end: Any) -> tuple[str, str, str]:
    """Returns what tells a part of a file from others: times as a table shows them, which rounds them.

    Raises:
      ValueError: a time is no number.
      TypeError: likewise.
    """
    begin, behind = ("" if cell in (None, "") else shown_time(float(cell)) for cell in (start, end))
    return file, begin, behind
