"""The rows of a sheet of an Excel workbook, for corpora that have a table in no other form. Needs openpyxl."""

from collections.abc import Iterator, Sequence
from typing import Any

from sejax.corpora.files import check_regular
from sejax.corpora.spelling import clean
from sejax.errors import InputError
from sejax.host.wording import one_line


def read_sheet(path: str, sheet: str, required: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields each row of a sheet with its place, as `sejax.corpora.rows.read_rows` does for a CSV file.

    Names of columns are in lower case. Whole numbers have no decimals, blank cells are "".

    Args:
      path: the workbook (xlsx).
      sheet: the name of the sheet.
      required: the columns that it must have, in lower case.

    Raises:
      InputError: openpyxl is missing, the file is no workbook, it has no such sheet, or a column is missing.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            f"{path} is an Excel workbook, for which openpyxl is missing, expected it (pip install 'sejax[excel]') or "
            f"the sheet {sheet} saved as a CSV file beside it"
        ) from error
    check_regular(path, "an Excel workbook")
    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises what its parsers raise
        raise InputError(f"{path} cannot be read as an Excel workbook ({one_line(error)}), expected xlsx") from error
    try:
        if sheet not in workbook.sheetnames:
            raise InputError(f"{path} has the sheets {', '.join(workbook.sheetnames)}, expected one called {sheet}")
        rows = workbook[sheet].iter_rows(values_only=True)
        header = [_text(value).casefold() for value in next(rows, ())]
        if missing := [column for column in required if column not in header]:
            raise InputError(f"{path}, sheet {sheet}: found {', '.join(header)}, expected the column {missing[0]}")
        for number, values in enumerate(rows, start=2):
            cells = [_text(value) for value in values]
            if any(cells):
                yield f"{path}, sheet {sheet}, row {number}", dict(zip(header, cells, strict=True))
    finally:
        workbook.close()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else clean(str(value))
