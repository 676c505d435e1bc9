"""Words around numbers, names and errors in messages, tables and the report."""

from collections.abc import Iterable

_LONGEST = 200  # characters of a line


def count(number: int, noun: str) -> str:
    """Returns a number with its noun: `1 fold`, `3 folds`, `10,039 utterances`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_names(names: Iterable[str], most: int, separator: str = ", ") -> str:
    """Returns names as words of a sentence: all, or the first `most` of them and the number of the others."""
    every = list(names)
    more = [f"and {len(every) - most:,} more"] if len(every) > most else []
    return separator.join([*every[:most], *more])


def first_line(error: Exception) -> str:
    """Returns the first line of an error's words, cut if it is long, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:_LONGEST]


def one_line(error: BaseException, *, most: int | None = None) -> str:
    """Returns an error's words on one line, or its type if it has none; cut behind so many characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]


def printable(text: str) -> str:
    """Returns a text with its invisible characters, and bytes that are no text, shown by their codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_problem(text: str, error: Exception) -> str:
    """Returns why a text is no JSON, as the end of a sentence about its file."""
    if not text.strip():
        return "is empty"
    return "holds NUL bytes" if "\0" in text else f"is no JSON ({first_line(error)})"
