"""Checks the fields of a checkpoint's JSON files: every value that makes no sense is named in one sentence."""

import math
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sejax.errors import InputError


class Field(NamedTuple):
    """What a field may hold."""

    expected: str  # a part of a sentence
    accepts: Callable[[Any], bool]


def whole(least: int, most: int) -> Field:
    """Returns the field of a whole number in a range."""
    return Field(f"a whole number from {least} to {most}", lambda x: type(x) is int and least <= x <= most)


def number(least: float, below: float) -> Field:
    """Returns the field of a number from `least` up to but not including `below`."""
    return Field(
        f"a number from {least:g} to below {below:g}",
        lambda x: type(x) in (int, float) and math.isfinite(x) and least <= x < below,
    )


def wholes(least: int, most: int, length: int) -> Field:
    """Returns the field of a list of at most `length` whole numbers in a range."""
    one = whole(least, most)
    return Field(
        f"a list of 1 to {length} whole numbers from {least} to {most}",
        lambda x: isinstance(x, (list, tuple)) and 1 <= len(x) <= length and all(map(one.accepts, x)),
    )


FLAG = Field("true or false", lambda x: isinstance(x, bool))
WORD = Field("a word", lambda x: isinstance(x, str))


def optional(field: Field) -> Field:
    """Returns a field that may be null too."""
    return Field(f"{field.expected}, or null", lambda x: x is None or field.accepts(x))


def read_fields(
    content: Mapping[str, Any], fields: Mapping[str, Field], defaults: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """Returns the value of each field, or its default where the file does not have it.

    Raises:
      InputError: values that their fields do not accept, all of them in one sentence.
    """
    values = {name: content.get(name, defaults[name]) for name in fields}
    wrong = [
        f"{name} is {reprlib.repr(values[name])}, expected {field.expected}"
        for name, field in fields.items()
        if not field.accepts(values[name])
    ]
    if wrong:
        raise InputError(f"{path}: {'; '.join(wrong)}")
    return values
