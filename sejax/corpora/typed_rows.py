"""Rows of files whose cells have types, Parquet and JSON lines, as the text that a CSV file would have."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sejax.corpora.files import read_bytes
from sejax.errors import InputError, shown
from sejax.host.magic import FIRST_BYTES, describe_contents
from sejax.host.wording import first_line, json_problem

_PARQUET = b"PAR1"  # with which a file begins


def import_pyarrow(extra: str) -> Any:
    """Returns the package pyarrow with its reader of Parquet files.

    Args:
      extra: the extra of sejax that brings it, for the message.

    Raises:
      InputError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"Parquet files are read by pyarrow, which cannot be imported ({first_line(error)}): "
            f"pip install 'sejax[{extra}]'"
        ) from error
    return pyarrow


def open_parquet(path: str, extra: str) -> Any:
    """Returns a `pyarrow.parquet.ParquetFile`.

    Raises:
      InputError: pyarrow is not installed (see `import_pyarrow`), or the file is none that it reads.
    """
    pyarrow = import_pyarrow(extra)
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _no_parquet(path, error) from error


def read_parquet(path: str, columns: Sequence[str] | None, extra: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields each row of a Parquet file with its place: the file and the number of the row, from 1.

    A missing value is a blank cell. Time spans are seconds. The numbers of a column that Hugging Face's `datasets` has
    written as `ClassLabel` are replaced by their names.

    Args:
      path: the file.
      columns: those that are read, as far as the file has them; None: all that hold text, numbers, truth values or time
        spans.
      extra: see `import_pyarrow`.

    Raises:
      InputError: see `open_parquet`; or a column of `columns` holds something else.
    """
    pyarrow = import_pyarrow(extra)
    file = open_parquet(path, extra)
    plain = {field.name: field for field in file.schema_arrow if _is_plain(field.type, pyarrow)}
    for name in columns or ():
        if name in file.schema_arrow.names and name not in plain:
            kind = file.schema_arrow.field(name).type
            raise InputError(f"{path}: the column {name} holds {shown(str(kind))}, expected text or numbers")
    names = [name for name in plain if columns is None or name in columns]
    words = class_names(file.schema_arrow.metadata)
    number = 0
    try:
        for batch in file.iter_batches(columns=names):
            cells = {name: _values(batch.column(name), pyarrow) for name in names}
            for row in range(batch.num_rows):
                number += 1
                where = f"{path}, row {number}"
                values = {name: _named(cells[name][row], words.get(name), name, where) for name in names}
                yield where, {name: as_cell(value, name, where) for name, value in values.items()}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _no_parquet(path, error) from error


def read_structs(path: str, column: str, rows: int, extra: str) -> Iterator[dict[str, Any] | None]:
    """Yields the values of a column of structs, with so many rows in memory at once.

    Raises:
      InputError: see `open_parquet`.
    """
    pyarrow = import_pyarrow(extra)
    file = open_parquet(path, extra)
    try:
        for batch in file.iter_batches(rows, columns=[column]):
            yield from batch.column(0).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _no_parquet(path, error) from error


def class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Returns the names of the classes of each `ClassLabel` column, as `datasets` notes them in a Parquet schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):  # another program's file
        return {}


def read_json_lines(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each object of a file of JSON lines with its place: the file and the line. Blank lines are left out.

    The values are those of JSON; see `as_cell`.

    Raises:
      InputError: the file cannot be read or is no UTF-8 text, or a line is no JSON object.
    """
    data = read_bytes(path, "a file of JSON lines")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = describe_contents(data[:FIRST_BYTES]) or "no UTF-8 text"
        raise InputError(f"{path} is {found}, expected a file of JSON lines in UTF-8") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: {json_problem(line, error)}, expected an object like {{...}}") from error
        if not isinstance(values, dict):
            raise InputError(f"{where}: is {shown(values)}, expected an object like {{...}}")
        yield where, values


def as_cell(value: Any, column: str, where: str) -> str:
    """Returns a value as the text of a cell, blank for a missing one.

    Raises:
      InputError: it is neither text, number nor truth value.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise InputError(f"{where}: {column} is {shown(value)}, expected text or a number")


def _is_plain(kind: Any, pyarrow: Any) -> bool:
    types = pyarrow.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return types.is_duration(kind) or types.is_null(kind) or any(test(kind) for test in tests)


def _values(column: Any, pyarrow: Any) -> list[Any]:
    if not pyarrow.types.is_duration(column.type):
        return column.to_pylist()
    # Nanoseconds are cut from Python's own time spans.
    ticks = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
    return [None if value is None else value / ticks for value in column.cast(pyarrow.int64()).to_pylist()]


def _named(value: Any, names: Sequence[str] | None, column: str, where: str) -> Any:
    if names is None or not isinstance(value, int) or value == -1:  # -1 is `datasets`' word for a hidden label
        return None if names is not None and value == -1 else value
    if not 0 <= value < len(names):
        raise InputError(f"{where}: {column} is {value}, expected a class from 0 to {len(names) - 1}")
    return names[value]


def _no_parquet(path: str, error: Exception) -> InputError:
    start = read_bytes(path, "a Parquet file")[:FIRST_BYTES]
    found = f"damaged ({first_line(error)})" if start.startswith(_PARQUET) else describe_contents(start)
    return InputError(f"{path} is {found or 'no Parquet file'}, expected a whole Parquet file")
