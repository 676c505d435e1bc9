"""The rows of a CSV file: its encoding, its separators, its header and its cells."""

import codecs
import csv
import difflib
import io
from collections.abc import Iterator, Sequence

from sejax.corpora.files import read_bytes
from sejax.corpora.spelling import clean, find_control, show, trim
from sejax.errors import InputError
from sejax.host.magic import FIRST_BYTES, describe_contents

_WIDE = {  # the marks with which a text begins
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_EXCEL = "in Excel: save as 'CSV UTF-8'"
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_cells(path: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the cells of each record of a CSV file, as they are written, with its place as in `read_rows`.

    Raises:
      InputError: the file cannot be read, is no UTF-8 text or no CSV.
    """
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    line = 1  # in which the record begins that is read next
    try:
        for cells in reader:
            where, line = f"{path}, line {line}", reader.line_num + 1
            yield where, cells
    except csv.Error as error:
        problem = "a quote is opened and never closed" if "end of data" in str(error) else str(error)
        raise InputError(
            f"{path}, line {line}: cannot be read as CSV ({problem}), expected cells separated by commas"
        ) from error


def read_rows(
    path: str,
    columns: Sequence[str] | None,
    required: Sequence[str],
    *,
    families: tuple[str, ...] = (),
    verbatim: str = "path",
    free: Sequence[str] = (),
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields each row of a CSV file with its place: the file and the line in which the row begins.

    The file is UTF-8, its cells are separated by commas, and its first line names the columns. Cells are in the normal
    form NFC and without blanks at their ends, except that of the column `verbatim`, which stays as it is written.
    Blank lines are left out.

    Args:
      path: the file.
      columns: the columns that it may have; None: any.
      required: the columns that it must have.
      families: with what the names of further columns may begin, such as "votes:".
      verbatim: the column with paths.
      free: the columns of free text, in which control characters are no error.

    Raises:
      InputError: the file cannot be read, is no UTF-8 text or no CSV; a column is missing, unknown or named twice; a
        row has more or fewer cells than the header; or a cell has a control character in it.
    """
    records = read_cells(path)
    header = [clean(name) for name in next(records, ("", []))[1]]
    check_header(header, columns, required, families, path)
    for where, cells in records:
        if not any(trim(cell) for cell in cells):
            continue
        if len(cells) != len(header):
            raise InputError(f"{where}: {len(cells)} cells, expected the {len(header)} columns of the header")
        for name, cell in zip(header, cells, strict=True):
            if name not in free and (control := find_control(trim(cell))):
                raise InputError(
                    f"{where}: {name} {show(trim(cell))} has {control} in it, expected text without any (is a "
                    "quote never closed?)"
                )
        yield (
            where,
            {name: cell if name == verbatim else clean(cell) for name, cell in zip(header, cells, strict=True)},
        )


def _read_text(path: str) -> str:
    data = read_bytes(path, "a CSV file")
    wide = next((name for name, marks in _WIDE.items() if data.startswith(marks)), None)
    if wide is None and data[:1000].count(0) > len(data[:1000]) // 3:
        wide = "UTF-16"
    if wide:
        raise InputError(f"{path} is text in {wide}, expected UTF-8 ({_EXCEL}; elsewhere: iconv -f {wide} -t UTF-8)")
    contents = describe_contents(data[:FIRST_BYTES])
    if contents and not contents.startswith("a text"):
        raise InputError(f"{path} is {contents}, expected a CSV file ({_EXCEL})")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise InputError(f"{path} is no text, expected a CSV file ({_EXCEL})") from error
        byte = data[error.start : error.start + 1]
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: is not UTF-8 text (the byte 0x{byte.hex()}, the letter "
            f"{byte.decode('cp1252', 'replace')} if it is Windows-1252), expected UTF-8 ({_EXCEL}; elsewhere: "
            "iconv -f WINDOWS-1252 -t UTF-8)"
        ) from error


def check_header(
    header: Sequence[str],
    columns: Sequence[str] | None,
    required: Sequence[str],
    families: tuple[str, ...],
    path: str,
) -> None:
    """Refuses the header of a CSV file; arguments as for `read_rows`."""
    where = f"{path}, line 1"
    if not any(header):
        raise InputError(f"{where}: has no names of columns, expected {', '.join(required)} and others")
    line = ",".join(header)
    for separator, words in _SEPARATORS.items():
        if separator in line and set(required) <= {clean(name).casefold() for name in line.split(separator)}:
            raise InputError(f"{where}: the columns are separated by {words}, expected commas")
    missing = [column for column in required if column not in header]
    if missing:
        are = f"column {missing[0]} is" if len(missing) == 1 else f"columns {' and '.join(missing)} are"
        raise InputError(f"{where}: the {are} missing, found {', '.join(header)}{_hint(header, missing)}")
    unknown = [column for column in header if not column.startswith(families)]
    unknown = [] if columns is None else [column for column in unknown if column not in columns]
    if columns is not None and unknown:
        raise InputError(
            f"{where}: unknown column {', '.join(map(show, unknown))}{_hint(unknown, columns)}, expected columns out "
            f"of {', '.join((*columns, *(f'{family}...' for family in families)))}"
        )
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise InputError(f"{where}: the column {', '.join(twice)} occurs twice, expected once")


def _hint(found: Sequence[str], columns: Sequence[str]) -> str:
    """Returns what may be meant by names of columns, as the end of a sentence; empty if nothing shows."""
    if any(name.casefold() in columns for name in found):
        return " (names are in lower case)"
    if any(not name or name.startswith("Unnamed:") for name in found):
        return " (pandas writes its index so: to_csv(..., index=False))"
    close = [match for name in found for match in difflib.get_close_matches(name.casefold(), columns, 1, 0.75)]
    return f" (is {close[0]} meant?)" if close else ""
