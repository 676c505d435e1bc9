"""Ratings of valence, arousal and dominance: one cell of a label file, and what is odd about a corpus's ratings."""

import math
import re
from collections.abc import Sequence

from sejax.corpora.schema import DIMENSIONS, Utterance
from sejax.corpora.spelling import show
from sejax.errors import InputError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def parse_rating(cell: str, dimension: str, scale: tuple[float, float], where: str) -> float:
    """Returns the rating in a cell, NaN for a blank one and for `nan`.

    A value outside the scale by half of its width is a mistake; a little outside is kept, because some releases have
    such values.

    Args:
      cell: its text.
      dimension: what is rated, for messages.
      scale: the lowest and the highest value.
      where: the place of the cell, for messages.

    Raises:
      InputError: the cell is no number, or lies far outside the scale.
    """
    low, high = scale
    word = cell.strip()
    if word.casefold() in ("", "nan"):
        return math.nan
    value = float(word) if _NUMBER.fullmatch(word) else math.inf
    margin = (high - low) / 2
    if not low - margin <= value <= high + margin:
        raise InputError(f"{where}: {dimension} is {show(cell)}, expected a number from {low:g} to {high:g}")
    return value


def describe_ratings(utterances: Sequence[Utterance], scale: tuple[float, float]) -> list[str]:
    """Returns notes that count, by dimension, the missing ratings and those outside the scale.

    Utterances with hidden labels do not count.
    """
    notes = []
    open_labels = [utterance for utterance in utterances if not utterance.hidden]
    for index, dimension in enumerate(DIMENSIONS):
        values = [utterance.vad[index] for utterance in open_labels]
        missing = sum(math.isnan(value) for value in values)
        beyond = sum(not math.isnan(value) and not scale[0] <= value <= scale[1] for value in values)
        if missing:
            notes.append(f"{dimension} is missing in {missing} utterances")
        if beyond:
            notes.append(
                f"{dimension} lies outside the scale {scale[0]:g} to {scale[1]:g} in {beyond} utterances "
                "(kept as it is)"
            )
    return notes
