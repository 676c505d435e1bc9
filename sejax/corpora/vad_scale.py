"""The scale of valence, arousal and dominance where the corpus is not known: given by the user, or guessed."""

import math
import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from sejax.corpora.schema import DIMENSIONS, Utterance
from sejax.errors import InputError, shown

# Tried in this order unless the user gives one.
SCALES = ((1.0, 5.0), (1.0, 7.0), (0.0, 1.0), (-1.0, 1.0))
# A scale that is believed: its ends, and how far they are apart.
LARGEST_END, LEAST_SPAN = 10_000, 0.01

Value = TypeVar("Value", float, np.ndarray)

_SCALE = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)")


def in_scale(value: Value, scale: tuple[float, float], other: tuple[float, float]) -> Value:
    """Returns a value, or an array of values, of one scale in another: its ends become the ends; NaN stays NaN."""
    if scale == other:
        return value
    (low, high), (to_low, to_high) = scale, other
    return to_low + (value - low) * ((to_high - to_low) / (high - low))


def parse_vad_scale(labels: str) -> tuple[float, float] | None:
    """Returns the lowest and the highest value of a scale such as "1..7", None for "default".

    The scale is a property of the questionnaire. The values alone do not determine it.

    Raises:
      InputError: `labels` is neither "default" nor of the form `lowest..highest`, or nobody has such a scale.
    """
    if labels == "default":
        return None
    match = _SCALE.fullmatch(labels)
    low, high = map(float, match.groups()) if match else (0.0, 0.0)
    if not low < high:
        raise InputError(
            f"config.labels is {shown(labels)}, expected default or the scale of valence, arousal and dominance, "
            "lowest..highest, such as 1..7"
        )
    if max(-low, high) > LARGEST_END or high - low < LEAST_SPAN:
        raise InputError(
            f"config.labels is {shown(labels)}, expected a scale from {-LARGEST_END:,} or more to {LARGEST_END:,} or "
            f"less, of which the ends are {LEAST_SPAN} or more apart"
        )
    return low, high


def find_vad_scale(
    utterances: Sequence[Utterance], given: tuple[float, float] | None, path: str
) -> tuple[tuple[float, float], list[str]]:
    """Returns the given scale, or the first of `SCALES` that contains all values, and notes.

    Args:
      utterances: their `vad` is read.
      given: see `parse_vad_scale`.
      path: what lists the utterances, for messages.

    Raises:
      InputError: no known scale contains all values, or one is far outside the given scale.
    """
    values = [value for utterance in utterances for value in utterance.vad if not math.isnan(value)]
    if given is not None:
        _refuse_far_ratings(utterances, *given)
        outside = sum(not given[0] <= value <= given[1] for value in values)
        note = (
            f"{outside} values of valence, arousal and dominance lie outside the scale {given[0]:g} to "
            f"{given[1]:g} (kept as they are)"
        )
        return given, [note] if outside else []
    if not values:
        return SCALES[0], []
    for low, high in SCALES:
        if all(low <= value <= high for value in values):
            seen = f"all values lie from {min(values):g} to {max(values):g}"
            note = f"valence, arousal and dominance are taken to be on the scale {low:g} to {high:g}, as {seen}"
            return (low, high), [f"{note} (labels=lowest..highest says otherwise)"]
    known = ", ".join(f"{low:g}..{high:g}" for low, high in SCALES)
    raise InputError(
        f"{path}: valence, arousal and dominance run from {min(values):g} to {max(values):g}, which is on "
        f"none of the scales {known}, expected theirs as config.labels (lowest..highest)"
    )


def _refuse_far_ratings(utterances: Sequence[Utterance], low: float, high: float) -> None:
    """Refuses a rating that is further outside a scale than the scale is wide: a mistake, or of another scale."""
    span = high - low
    for utterance in utterances:
        for dimension, value in zip(DIMENSIONS, utterance.vad, strict=True):
            if value < low - span or value > high + span:
                raise InputError(
                    f"{utterance.place}: {dimension} {value:g} is far outside the scale {low:g} to {high:g} of "
                    "config.labels, expected a rating on that scale: correct it, or name another scale"
                )
