"""The one exception that means: what the user gave is wrong, and this sentence says how to mend it."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

_LONGEST = 3000  # characters of a sentence
_MOST_CHARACTERS = 120  # of a value in a sentence
_SMALLEST = float(np.finfo(np.float32).tiny)  # smaller ones are 0 where compiled programs compute with them
_MOST_EXACT = 2**24  # floats from here on are whole numbers in float32


class InputError(ValueError):
    """A mistake in the input: one sentence that says what was found, what was expected and where.

    `sejax.main` prints the sentence without a traceback and exits with status 1. Whatever a sentence quotes from a
    file, it stays one line that a terminal shows as it is: other characters are escaped, and a very long one is cut.
    """

    def __str__(self) -> str:
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST * 2 // 3]} ... {text[-_LONGEST // 3 :]}"
        return text


class Check(NamedTuple):
    """A condition on a value, and the words for it in the error."""

    holds: Callable[[Any], bool]  # raises nothing, whatever the value
    expected: str

    def require(self, name: str, value: Any) -> None:
        """Refuses a value for which the condition does not hold.

        Raises:
          InputError: names the value and what was expected.
        """
        if not self.holds(value):
            raise InputError(f"{name} is {shown(value)}, expected {self.expected}{_hint(value)}")


def shown(value: Any) -> str:
    """Returns a value as it stands in a sentence: on one line, and cut if it is long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no int of more than 4,300 digits
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 4]} ..."


def _hint(value: Any) -> str:
    """Returns what is not plain about a number: another type than Python's, or that it is rounded to a whole one."""
    if type(value).__module__ == "numpy":
        return " (a number of Python: .item() gives it)"
    if isinstance(value, float) and abs(value) < _MOST_EXACT and single(value).is_integer() and not value.is_integer():
        return f" (in float32 it is {single(value):g})"
    return ""


def is_number(value: Any) -> bool:
    """Returns whether a value is a number of Python; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def single(value: int | float) -> float:
    """Returns the number that a program in float32 takes for a number of up to 1e38."""
    return 0.0 if abs(value) < _SMALLEST else float(np.float32(value))


def whole(low: int, high: int, also: str = "") -> Check:
    """Returns the check for a whole number within bounds.

    Args:
      low: the smallest.
      high: the largest.
      also: a meaning of the smallest, for the error.
    """
    return Check(
        lambda value: is_number(value) and isinstance(value, int) and low <= value <= high,
        f"a whole number from {low:,}{f' ({also})' if also else ''} to {high:,}",
    )


def number(low: int | float, high: int | float, *, above: bool = False, below: bool = False) -> Check:
    """Returns the check for a number within bounds, which may exclude them (`above` the lower, `below` the upper).

    Programs compute in float32: a number that is a bound there and not here is refused, because 0 and 1 often turn
    something off.
    """

    def holds(value: Any) -> bool:
        if not (is_number(value) and low <= value <= high):  # also false for NaN
            return False
        rounded = single(value)
        return (rounded == value or rounded not in (low, high)) and not (
            (above and value == low) or (below and value == high)
        )

    words = f"a number {'above' if above else 'from'} {low:,.12g} {'and up to' if above else 'to'} "
    return Check(holds, words + f"{'below ' if below else ''}{high:,.12g}")


def one_of(choices: Iterable[str]) -> Check:
    """Returns the check for one of some words."""
    choices = tuple(choices)
    return Check(lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}")


FLAG = Check(lambda value: isinstance(value, bool), "True or False")
TEXT = Check(lambda value: isinstance(value, str) and "\0" not in value, "text")
WORDS = Check(lambda value: TEXT.holds(value) and bool(value.strip()), "text that is not empty")
SHARE = number(0, 1)
