"""Checks the fields of a checkpoint's JSON files: every value that makes no sense is named in one sentence."""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sejax import errors
from sejax.errors import Check, InputError


def whole(least: int, most: int) -> Check:
    """Returns the check for a whole number within bounds, which stand in its words as in JSON."""
    return errors.whole(least, most)._replace(expected=f"a whole number from {least} to {most}")


def wholes(least: int, most: int, length: int) -> Check:
    """Returns the check for a list of at most `length` whole numbers within bounds."""
    one = whole(least, most)
    return Check(
        lambda x: isinstance(x, (list, tuple)) and 1 <= len(x) <= length and all(map(one.holds, x)),
        f"a list of 1 to {length} whole numbers from {least} to {most}",
    )


FLAG = errors.FLAG._replace(expected="true or false")
WORD = Check(lambda x: isinstance(x, str), "a word")


def read_fields(
    content: Mapping[str, Any], fields: Mapping[str, Check], defaults: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """Returns the value of each field, or its default where the file does not have it.

    Raises:
      InputError: values that their fields do not accept, all of them in one sentence.
    """
    values = {name: content.get(name, defaults[name]) for name in fields}
    wrong = [
        f"{name} is {reprlib.repr(values[name])}, expected {field.expected}"
        for name, field in fields.items()
        if not field.holds(values[name])
    ]
    if wrong:
        raise InputError(f"{path}: {'; '.join(wrong)}")
    return values
