"""Jitter and shimmer: how much the length and the amplitude of a voice's cycles change from one to the next."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.features.pitch import Pitch, voiced_stretches

_SEARCH = 0.2  # share of a period by which a cycle may be shorter or longer than the tracked one
_PERIOD_FACTOR, _AMPLITUDE_FACTOR = 1.3, 1.6  # greatest change from one cycle to the next that counts
_LEAST_CYCLES = 4  # of a stretch that is measured
_LEAST_CORRELATION = 0.3  # of a cycle with the next one; below it they are not counted


class Cycles(NamedTuple):
    """The cycles of one voiced stretch, in order; NaN where a cycle does not resemble the next one."""

    start: Float[np.ndarray, " cycle"]  # seconds
    period: Float[np.ndarray, " cycle"]  # seconds
    amplitude: Float[np.ndarray, " cycle"]  # from the lowest to the highest sample


def jitter_and_shimmer(
    samples: Float32[np.ndarray, " samples"], pitch: Pitch, *, hop_length: int
) -> tuple[Float[np.ndarray, " frames"], Float[np.ndarray, " frames"], Float[np.ndarray, " frames"]]:
    """Returns jitter, its change, and shimmer of each frame, interpolated between cycles; NaN in unvoiced frames.

    - Local jitter is the difference of consecutive periods, relative to the median period of the stretch.
    - Its change is the difference of consecutive differences (Praat's DDP), also relative.
    - Shimmer is the difference of the amplitudes of consecutive cycles, in decibel.

    All three are absolute values, as in eGeMAPS (Eyben et al., IEEE Trans. Affective Computing 7(2), 2016). They are
    averaged over three cycles. As in Praat, greater changes than by a factor of 1.3 (1.6 of the amplitude) are no
    irregularity of a voice and are not counted.
    """
    tracks = np.full((3, len(pitch.voiced)), np.nan)
    for first, end in voiced_stretches(pitch.voiced).tolist():
        cycles = find_cycles(samples, pitch.hertz[first:end], first * hop_length, hop_length)
        alike = np.isfinite(cycles.period)
        if len(alike) < _LEAST_CYCLES or not alike.any():
            continue
        change = np.diff(cycles.period) / np.median(cycles.period[alike])
        change[np.abs(np.diff(np.log(cycles.period))) > np.log(_PERIOD_FACTOR)] = np.nan
        louder = 20 * np.abs(np.diff(np.log10(cycles.amplitude)))
        measures = [
            np.abs(change),
            np.abs(np.diff(change, prepend=np.nan)),
            np.where(louder > 20 * np.log10(_AMPLITUDE_FACTOR), np.nan, louder),
        ]
        time = np.arange(first, end) * (hop_length / SAMPLING_RATE)
        for row, measure in enumerate(measures):
            known = np.isfinite(measure)
            if known.any():
                smooth = np.convolve(np.pad(measure[known], 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
                tracks[row, first:end] = np.interp(time, cycles.start[1:][known], smooth)
    return tracks[0], tracks[1], tracks[2]


def find_cycles(
    samples: Float32[np.ndarray, " samples"], hertz: Float[np.ndarray, " frame"], start: int, hop_length: int
) -> Cycles:
    """Finds the cycles of a voiced stretch: each as long as the lag at which it resembles the next one most.

    This is the normalised cross-correlation of Praat's "To PointProcess (cc)", interpolated by a parabola.

    Args:
      samples: Signal at 16 kHz.
      hertz: Pitch of the frames of the stretch.
      start: Sample at which the first of them is centred.
      hop_length: Distance between frames, in samples.
    """
    end = min(start + (len(hertz) - 1) * hop_length, len(samples))
    squares = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    # The first cycle has its greatest sample in the middle, so that those behind do not begin inside a pulse.
    length = round(SAMPLING_RATE / hertz[0])
    at = max(start + int(np.abs(samples[start : start + length]).argmax()) - length // 2, 0)
    cycles = []
    while at < end:
        expected = SAMPLING_RATE / hertz[min(max(round((at - start) / hop_length), 0), len(hertz) - 1)]
        length, reach = round(expected), max(2, int(_SEARCH * expected))
        shortest = length - reach
        if at + 2 * length + reach + 1 > len(samples):
            break
        cycle = samples[at : at + length]
        products = np.correlate(samples[at + shortest - 1 : at + length + reach + 1 + length], cycle, mode="valid")
        lags = np.arange(shortest - 1, shortest - 1 + len(products)) + at
        energy = (squares[lags + length] - squares[lags]) * (squares[at + length] - squares[at])
        correlation = products / np.sqrt(np.maximum(energy, 1e-20))
        best = 1 + int(correlation[1:-1].argmax())
        a, b, c = (float(x) for x in correlation[best - 1 : best + 2])
        lag = shortest - 1 + best + (0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c < -1e-9 else 0.0)
        alike = b >= _LEAST_CORRELATION and a <= b >= c
        amplitude = float(cycle.max() - cycle.min())
        cycles.append((at, lag if alike else np.nan, amplitude if alike and amplitude > 0 else np.nan))
        at += round(lag) if alike else length
    found = np.array(cycles).reshape(-1, 3)
    return Cycles(found[:, 0] / SAMPLING_RATE, found[:, 1] / SAMPLING_RATE, found[:, 2])
