"""From audio files to the features of utterances."""

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Num
from numpy.typing import DTypeLike

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.features.audio import change_speed, load_audio
from sejax.features.registry import FEATURES, full_settings
from sejax.features.settings import Settings


class Segment(NamedTuple):
    """A file, or the part of it between two times (seconds)."""

    path: str
    start: float | None
    end: float | None


@dataclass(frozen=True)
class Loaded:
    """An utterance's samples at 16 kHz and at the requested speed, and the description of its file.

    `digest`, `note` and `seconds` are those of `Extraction`.
    """

    samples: Float32[np.ndarray, " samples"]
    digest: str
    note: str
    seconds: float


@dataclass(frozen=True)
class Extraction:
    """The features of one utterance: its frames and their statistics, or the reason why there are none.

    `digest` is the blake2b of the decoded samples, `note` says what was unusual about the file, and `seconds` is the
    duration before any change of speed. A bad file has frames `[0, feature]`, statistics `[0]`, the digest "" and
    0 seconds.
    """

    frames: Num[np.ndarray, "frames feature"]
    statistics: Float[np.ndarray, " statistic"]
    digest: str
    error: str
    note: str
    seconds: float


@runtime_checkable
class Extract(Protocol):
    """Computes one feature of every segment."""

    def __call__(
        self, segments: Sequence[Segment], *, speed: float, workers: int
    ) -> Generator[tuple[int, Extraction], None, None]:
        """Yields the features of every segment with its number, in any order.

        Args:
          segments: One or more.
          speed: Factor of the speed perturbation; 1 changes nothing.
          workers: Number of processes or threads that may be used.
        """
        ...


@dataclass(frozen=True)
class Contents:
    """The contents of a dataset: one feature, its identity, its types and how it is computed."""

    feature: str
    settings: Settings  # complete
    identity: Settings  # everything that changes the numbers
    size: int  # values in a frame
    dtype: DTypeLike  # of the frames
    extract: Extract
    fingerprint: str = ""  # of the pretrained model that computes it


def extract_utterance(segment: Segment, *, name: str, settings: Settings, speed: float) -> Extraction:
    """Loads an utterance, changes its speed and computes a feature; a bad file is a result, not an exception."""
    settings = full_settings(name, settings)
    feature = FEATURES[name]
    try:
        loaded = load_segment(segment, speed=speed, window=feature.window(settings))
        frames = feature.extract(loaded.samples, **settings)
    except InputError as error:
        return bad_file(error, feature.size(settings), feature.dtype)
    return Extraction(frames, feature.summarise(frames, settings), loaded.digest, "", loaded.note, loaded.seconds)


def load_segment(segment: Segment, *, speed: float, window: int) -> Loaded:
    """Loads an utterance and changes its speed.

    Raises:
      InputError: see `load_audio`; or fewer than `window` samples are left.
    """
    audio = load_audio(segment.path, start=segment.start, end=segment.end)
    samples = change_speed(audio.samples, speed)
    if len(samples) < window:
        raise InputError(
            f"{segment.path}: has {len(samples)} samples at {SAMPLING_RATE} Hz and speed {speed:g}, "
            f"expected at least one window of {window}"
        )
    digest = hashlib.blake2b(audio.samples.tobytes(), digest_size=16).hexdigest()
    return Loaded(samples, digest, audio.note, len(audio.samples) / SAMPLING_RATE)


def bad_file(error: InputError, size: int, dtype: DTypeLike) -> Extraction:
    """Returns the result for an unusable file: no frames (of `size` values each), no statistics, and the error."""
    return Extraction(np.zeros((0, size), dtype), np.zeros(0, statistics_dtype(dtype)), "", str(error), "", 0.0)


def statistics_dtype(frames: DTypeLike) -> DTypeLike:
    """Returns the type in which the statistics of frames of a type are stored."""
    return np.float16 if frames == np.float16 else np.float32
