"""From an audio file to the features of an utterance."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Num
from numpy.typing import DTypeLike

from sejax.errors import InputError
from sejax.features.audio import SAMPLING_RATE, change_speed, load_audio
from sejax.features.registry import (
    FEATURES,
    RAW_WINDOW,
    Setting,
    feature_dtype,
    feature_size,
    full_settings,
    statistics_dtype,
    summarise,
)


class Segment(NamedTuple):
    """A file, or what lies between two times (seconds) of it."""

    path: str
    start: float | None
    end: float | None


@dataclass(frozen=True)
class Loaded:
    """An utterance's samples at 16 kHz and at the speed asked for, and what an `Extraction` says of its file."""

    samples: Float32[np.ndarray, " samples"]
    digest: str
    note: str
    seconds: float


@dataclass(frozen=True)
class Extraction:
    """What one utterance came to: its frames and their statistics, or the sentence that says why not.

    `digest` is the blake2b of the decoded samples, `note` what was unusual about the file, `seconds` the
    duration before any change of speed. Of a bad file the frames are `[0, feature]`, the statistics `[0]`,
    the digest "" and the seconds 0.
    """

    frames: Num[np.ndarray, "frames feature"]
    statistics: Float[np.ndarray, " statistic"]
    digest: str
    error: str
    note: str
    seconds: float


def extract_utterance(segment: Segment, *, name: str, settings: Mapping[str, Setting], speed: float) -> Extraction:
    """Load an utterance, change its speed, compute its features; a bad file is a result, not an exception."""
    settings = full_settings(name, settings)
    try:
        loaded = load_segment(segment, speed=speed, window=int(settings.get("win_length", RAW_WINDOW)))
        frames = FEATURES[name](loaded.samples, **settings)
    except InputError as error:
        return bad_file(error, feature_size(name, settings), feature_dtype(name))
    return Extraction(frames, summarise(name, frames), loaded.digest, "", loaded.note, loaded.seconds)


def load_segment(segment: Segment, *, speed: float, window: int) -> Loaded:
    """Load an utterance and change its speed.

    Raises:
        InputError: see `load_audio`; or less than `window` samples are left.
    """
    audio = load_audio(segment.path, start=segment.start, end=segment.end)
    samples = change_speed(audio.samples, speed)
    if len(samples) < window:
        raise InputError(
            f"{segment.path}: has {len(samples)} samples at {SAMPLING_RATE} Hz and speed {speed:g}; "
            f"expected at least one window of {window}."
        )
    digest = hashlib.blake2b(audio.samples.tobytes(), digest_size=16).hexdigest()
    return Loaded(samples, digest, audio.note, len(audio.samples) / SAMPLING_RATE)


def bad_file(error: InputError, size: int, dtype: DTypeLike) -> Extraction:
    """What a file comes to that cannot be used: frames of `size` values it has none of."""
    nothing = np.zeros((0, size), dtype)
    return Extraction(nothing, np.zeros(0, statistics_dtype(dtype)), "", str(error), "", 0.0)
