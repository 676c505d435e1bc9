"""Windows over time: from samples that come in pieces of any size to overlapping windows at 16 kHz.

Windows are causal: each ends at a time that has been heard, and the next one ends `every` seconds later. The first is
the first whole one, and the last ends with the audio. The size of the pieces changes no sample.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soxr
from jaxtyping import Float32, Shaped

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.features.audio import MAX_PEAK, MAX_RATE, MIN_RATE, check_finite

LEAST_EVERY = 0.01  # seconds


class Window(NamedTuple):
    """A stretch of audio, and the seconds at which it begins and ends."""

    start: float
    end: float
    samples: Float32[np.ndarray, " samples"]  # at 16 kHz


class Windows:
    """Cuts the samples of one recording into windows."""

    def __init__(self, rate: int, *, every: float, length: float, name: str = "the stream") -> None:
        """Begins a recording.

        Args:
          rate: of the samples that will come, in hertz.
          every: seconds from the end of a window to that of the next.
          length: seconds of a window.
          name: of the recording, for errors.

        Raises:
          InputError: an argument makes no sense.
        """
        if not MIN_RATE <= rate <= MAX_RATE:
            raise InputError(f"{name}: the sampling rate is {rate} Hz, expected {MIN_RATE} to {MAX_RATE}")
        if not LEAST_EVERY <= every <= length < math.inf:  # also false for NaN
            raise InputError(
                f"{name}: windows of {length:g} s every {every:g} s were asked for, expected {LEAST_EVERY:g} s or "
                "more, and no more than the window: parts would be left out"
            )
        self._rate, self._name = rate, name
        self._resample = None if rate == SAMPLING_RATE else soxr.ResampleStream(rate, SAMPLING_RATE, 1, quality="HQ")
        self._step, self._size = round(every * SAMPLING_RATE), round(length * SAMPLING_RATE)
        self._heard = 0  # samples that came, at their rate
        self._end = self._size  # of the next window, in samples at 16 kHz
        self._kept = np.zeros(0, np.float32)
        self._first = 0  # where the kept samples begin

    def add(self, samples: Shaped[np.ndarray, "..."]) -> Iterator[Window]:
        """Takes the next samples, full scale at -1 and 1, and yields the windows that they complete.

        Raises:
          InputError: they are no floats [samples], or a sample is NaN, infinite or far above full scale.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            raise InputError(
                f"{self._name}: its samples are {samples.dtype} of shape {list(samples.shape)}, expected floats "
                "[samples], full scale at -1 and 1"
            )
        samples = samples.astype(np.float32)
        check_finite(self._name, samples, self._rate, self._heard / self._rate)
        if (peak := float(np.abs(samples).max(initial=0.0))) > MAX_PEAK:
            raise InputError(f"{self._name}: has samples up to {peak:g}, expected full scale at -1 and 1")
        self._heard += len(samples)
        self._append(samples if self._resample is None else self._resample.resample_chunk(samples))
        yield from self._whole()

    def close(self) -> Iterator[Window]:
        """Yields the windows that are left: the last one ends with the audio, and is shorter if all of it is."""
        if self._resample is not None:
            self._append(self._resample.resample_chunk(np.zeros(0, np.float32), last=True))
        yield from self._whole()
        behind = self._first + len(self._kept)
        if behind > self._end - self._step or (behind and self._end == self._size):
            yield self._window(max(0, behind - self._size), behind)

    def _whole(self) -> Iterator[Window]:
        while self._first + len(self._kept) >= self._end:
            yield self._window(self._end - self._size, self._end)
            self._end += self._step

    def _append(self, samples: Float32[np.ndarray, " samples"]) -> None:
        # The last window may begin up to a step before the next whole one.
        needed = max(0, self._end - self._size - self._step) - self._first
        self._kept = np.concatenate([self._kept[max(0, needed) :], samples])
        self._first += max(0, needed)

    def _window(self, first: int, last: int) -> Window:
        samples = self._kept[first - self._first : last - self._first]
        return Window(first / SAMPLING_RATE, last / SAMPLING_RATE, samples)
