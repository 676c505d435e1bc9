"""Databases in audformat, the form of audEERING's `audb`: a header `db.yaml` and a file for each table.

    db.yaml                                           schemes, raters, splits, tables and their columns
    db.<table>.parquet or db.<table>.csv              a row for each file or segment
    wav/...                                           the audio, where the rows say

They are read here, and not with the package audformat, because that one runs code that a foreign database may hold: its
version 1.4.3 loads the header with PyYAML's unsafe loader, and pickled tables (`db.<table>.pkl`) before others. Here a
header is plain YAML, and a pickle is refused.
"""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sejax.corpora.files import read_bytes
from sejax.corpora.rows import read_rows
from sejax.corpora.spelling import show
from sejax.corpora.typed_rows import read_parquet
from sejax.errors import InputError, shown
from sejax.host.wording import first_line

EXTRA = "audformat"
FILE = "file"
"""The column of a table that names the audio."""

_SPAN = re.compile(r"(?:(\d+) days?)? ?(?:(\d+):(\d\d):(\d\d(?:\.\d+)?))?")
_NUMBER = re.compile(r"\d+\.?\d*(?:e-?\d+)?")


@dataclass(frozen=True)
class Scheme:
    """What the values of a column are.

    Args:
      labels: the allowed values, each with its attributes (of a speaker: gender, age); None if any are allowed. A text
        in place of attributes is the attribute "text".
      minimum, maximum: of numbers, None if the database does not say.
    """

    labels: Mapping[str, Mapping[str, Any]] | None
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class Table:
    """A table of a database, of which nothing is read yet.

    Args:
      name: such as `emotion.categories.train.gold_standard`.
      columns: the name of each column -> that of its scheme, None without one.
      segmented: whether rows are parts of files, with the columns `start` and `end`.
      split: the id of its split, None if the header does not say.
    """

    name: str
    columns: Mapping[str, str | None]
    segmented: bool
    split: str | None


@dataclass(frozen=True)
class Database:
    """The header of a database.

    Args:
      folder: with the header.
      base: with what the names of its files begin, usually `db`.
      schemes: by name.
      splits: the id of each split -> its type: train, dev, test or another word.
      tables: in the order of the header, without those that list no files (`misc_tables`).
    """

    folder: str
    base: str
    schemes: Mapping[str, Scheme]
    splits: Mapping[str, str]
    tables: Sequence[Table]


def open_database(folder: str) -> Database:
    """Reads the header of the database in a folder, `db.yaml` or the only other one.

    Raises:
      InputError: there is no header or no folder, it is no YAML, or its parts are not those of audformat.
    """
    if not os.path.isdir(folder):
        what = "is a file" if os.path.exists(folder) else "is not there"
        raise InputError(f"{folder} {what}, expected a folder with the header db.yaml of an audformat database")
    headers = sorted(name for name in os.listdir(folder) if name.endswith(".yaml"))
    name = "db.yaml" if "db.yaml" in headers else headers[0] if len(headers) == 1 else None
    if name is None:
        found = ", ".join(headers) or "none"
        raise InputError(
            f"{folder} has no db.yaml (other headers: {found}), expected the header of an audformat database"
        )
    path = os.path.join(folder, name)
    header = _load_header(path)
    parts = {key: _mapping(header.get(key), path, key) for key in ("schemes", "splits", "tables", "misc_tables")}
    if not parts["tables"]:
        raise InputError(f"{path} has no tables, expected the header of an audformat database")
    base = name.removesuffix(".yaml")
    misc = {key: _mapping(table, path, f"misc_tables.{key}") for key, table in parts["misc_tables"].items()}
    schemes = {
        key: _scheme(_mapping(value, path, f"schemes.{key}"), misc, folder, base, f"{path}: schemes.{key}")
        for key, value in parts["schemes"].items()
    }
    splits = {key: str(_mapping(value, path, f"splits.{key}").get("type")) for key, value in parts["splits"].items()}
    tables = [_table(key, value, path) for key, value in parts["tables"].items()]
    return Database(folder, base, schemes, splits, tables)


def read_segments(
    database: Database, table: Table, columns: Sequence[str]
) -> Iterator[tuple[str, str, float | None, float | None, dict[str, str]]]:
    """Yields each row of a table: its place, the file, start and end in seconds, and cells, blank for a missing value.

    Args:
      database: the header.
      table: one of its tables.
      columns: those that are wanted.

    Raises:
      InputError: see `read_cells`; a row has no file, or times that are no span.
    """
    names = [FILE, "start", "end", *columns] if table.segmented else [FILE, *columns]
    for where, row in read_cells(database.folder, database.base, table.name, names, verbatim=FILE):
        if not row[FILE]:
            raise InputError(f"{where}: file is blank, expected a path")
        start, end = (_seconds(row[name], name, where) if table.segmented else None for name in ("start", "end"))
        if end is not None and end <= (start or 0.0):
            raise InputError(
                f"{where}: start {row['start']!r} and end {row['end']!r} are no span, expected start before end"
            )
        yield where, row[FILE], start or None, end, {name: row[name] for name in columns}


def read_cells(
    folder: str, base: str, table: str, columns: Sequence[str], *, all_columns: bool = False, verbatim: str = ""
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the place and the cells of each row of a table's file: Parquet, or else CSV.

    Args:
      folder, base: see `Database`.
      table: its name.
      columns: those that it must have.
      all_columns: whether to read the others too, as far as they hold text or numbers.
      verbatim: see `read_rows`.

    Raises:
      InputError: there is no such file, or only a pickled one; a column is absent; or what the readers of CSV and
        Parquet refuse.
    """
    stem = os.path.join(folder, f"{base}.{table}")
    if os.path.exists(f"{stem}.parquet"):
        rows = read_parquet(f"{stem}.parquet", None if all_columns else columns, EXTRA)
    elif os.path.exists(f"{stem}.csv"):
        rows = read_rows(f"{stem}.csv", None, (), verbatim=verbatim)
    elif os.path.exists(f"{stem}.pkl"):
        code = "import sys, audformat; f, n = sys.argv[1:]; d = audformat.Database.load(f, name=n, load_data=True); "
        code += "d.save(f, name=n)"
        raise InputError(
            f"{stem}.pkl is a pickle, which can run any code when it is read, expected {base}.{table}.parquet or .csv "
            f"beside it: if you trust it, `python -c {shlex.quote(code)} {shlex.quote(folder)} {shlex.quote(base)}` "
            "writes them with the package audformat"
        )
    else:
        raise InputError(f"{stem}.parquet is not there, nor is .csv, expected one of them: the header lists the table")
    for where, row in rows:
        if absent := [name for name in columns if name not in row]:
            raise InputError(f"{where}: no column {show(absent[0])}, found {', '.join(map(show, row))}")
        yield where, row


def _load_header(path: str) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise InputError(
            f"{path} is read by PyYAML, which cannot be imported ({first_line(error)}): pip install 'sejax[{EXTRA}]'"
        ) from error
    try:
        header = yaml.safe_load(read_bytes(path, "a header of audformat").decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as plain YAML in UTF-8 ({first_line(error)})") from error
    return _mapping(header, path, "the header")


def _mapping(value: Any, path: str, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{path}: {what} is {shown(value)}, expected names with values, as in audformat")
    return {str(key): value for key, value in value.items()}


def _scheme(
    value: Mapping[str, Any], misc: Mapping[str, Mapping[str, Any]], folder: str, base: str, where: str
) -> Scheme:
    labels = value.get("labels")
    if isinstance(labels, str):  # the name of a table
        if labels not in misc:
            raise InputError(
                f"{where}: labels is {shown(labels)}, expected one of misc_tables ({', '.join(misc) or 'none'})"
            )
        level = next(iter(_mapping(misc[labels].get("levels"), where, "levels")), labels)
        rows = [row for _, row in read_cells(folder, base, labels, [level], all_columns=True)]
        found = {row[level]: {name: cell for name, cell in row.items() if name != level} for row in rows}
    elif isinstance(labels, dict):
        found = {
            str(key): attributes if isinstance(attributes, dict) else {"text": attributes}
            for key, attributes in labels.items()
        }
    elif isinstance(labels, list):
        found = {str(label): {} for label in labels}
    elif labels is None:
        found = None
    else:
        raise InputError(f"{where}: labels is {shown(labels)}, expected a list, names with values, or a table's name")
    ends = [value.get(name) for name in ("minimum", "maximum")]
    low, high = (float(end) if isinstance(end, int | float) else None for end in ends)
    return Scheme(found, low, high)


def _table(name: str, value: Any, path: str) -> Table:
    table = _mapping(value, path, f"tables.{name}")
    columns = {
        column: _mapping(options, path, f"tables.{name}.columns.{column}").get("scheme_id")
        for column, options in _mapping(table.get("columns"), path, f"tables.{name}.columns").items()
    }
    if table.get("type") not in ("filewise", "segmented"):
        raise InputError(f"{path}: tables.{name}.type is {shown(table.get('type'))}, expected filewise or segmented")
    split = table.get("split_id")
    return Table(name, columns, table["type"] == "segmented", None if split is None else str(split))


def _seconds(cell: str, name: str, where: str) -> float | None:
    """Returns a time in seconds: a number, or pandas' words for a time span; None for a missing one."""
    if not cell or cell == "NaT":
        return None
    if _NUMBER.fullmatch(cell):
        return float(cell)
    match = _SPAN.fullmatch(cell)
    if match is None or not any(match.groups()):
        raise InputError(f"{where}: {name} {show(cell)} is no time, expected one such as 0 days 00:00:01.5 or 1.5")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 86_400 * days + 3600 * hours + 60 * minutes + seconds
