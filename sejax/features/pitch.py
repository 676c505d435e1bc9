"""Fundamental frequency and periodicity of speech: the autocorrelation method of Boersma (1993), which Praat uses.

P. Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a sampled
sound", Proc. Institute of Phonetic Sciences 17, 97-110, Amsterdam, 1993. All frames of an utterance are transformed at
once; the path through the candidates is found by dynamic programming.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float, Float32, Int

from sejax.corpora.schema import SAMPLING_RATE
from sejax.features.settings import Settings
from sejax.features.shared import shared

LOWEST, HIGHEST = 20, 2000  # Hz, of the range that may be searched
_PERIODS = 3  # of the lowest pitch, in a window
_CANDIDATES = 6  # periods of a frame that the path may take
# Praat's defaults.
_SILENCE_THRESHOLD = 0.03  # of the greatest amplitude: quieter frames are unvoiced
_VOICING_THRESHOLD = 0.45  # strength of the unvoiced candidate
_OCTAVE_COST = 0.01  # by which higher pitches are preferred, per octave
_OCTAVE_JUMP_COST = 0.35  # per octave and 10 ms
_VOICING_COST = 0.14  # of a change between voiced and unvoiced, per 10 ms


class Pitch(NamedTuple):
    """The pitch of each frame."""

    hertz: Float[np.ndarray, " frames"]  # NaN where the frame is unvoiced
    periodicity: Float[np.ndarray, " frames"]  # autocorrelation at the period, or the greatest one if unvoiced; 0..1
    voiced: Bool[np.ndarray, " frames"]


def centred_frames(
    samples: Float32[np.ndarray, " samples"], win_length: int, hop_length: int
) -> Float32[np.ndarray, "frames win_length"]:
    """Returns a view of the windows centred every `hop_length` samples, `1 + samples // hop_length` of them.

    The signal is padded with zeros.
    """
    half = win_length // 2
    padded = np.pad(samples, (half, win_length - half))
    count = 1 + len(samples) // hop_length
    return np.lib.stride_tricks.sliding_window_view(padded, win_length)[: (count - 1) * hop_length + 1 : hop_length]


def hann(length: int) -> Float[np.ndarray, " length"]:
    """Returns a Hann window that is symmetric and above 0."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 0.5) / length)


def voiced_stretches(voiced: Bool[np.ndarray, " frames"]) -> Int[np.ndarray, "stretch 2"]:
    """Returns the first frame of each stretch of voiced frames, and the frame behind its last one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], voiced.astype(np.int8), [0]])))
    return edges.reshape(-1, 2)


def pitch_window(fmin: int) -> int:
    """Returns the length of the window of the pitch, in samples: three periods of the lowest one."""
    return _PERIODS * SAMPLING_RATE // fmin


def check_pitch(settings: Settings) -> dict[str, str]:
    """Returns what is expected of the range of the pitch where it is wrong."""
    fmin, fmax = int(settings["fmin"]), int(settings["fmax"])
    if fmax > HIGHEST:
        return {"fmax": f"at most {HIGHEST} Hz"}
    if fmin < LOWEST:
        return {"fmin": f"at least {LOWEST} Hz"}
    return {"fmin": f"below fmax ({fmax} Hz)"} if fmin >= fmax else {}


@shared
def track_pitch(
    samples: Float32[np.ndarray, " samples"],
    *,
    fmin: int,
    fmax: int,
    hop_length: int,
) -> Pitch:
    """Tracks the pitch of samples at 16 kHz, in frames centred every `hop_length` samples.

    The autocorrelation of a windowed frame is divided by that of the window, so that its greatest value at a lag above
    0 is the share of the power that is periodic. Peaks are interpolated by parabolas. The Hann window has three periods
    of `fmin`.

    Args:
      samples: Signal at 16 kHz.
      fmin: Lowest pitch that is searched, in hertz.
      fmax: Highest pitch that is searched, in hertz.
      hop_length: Distance between frames, in samples.
    """
    frames = centred_frames(samples, pitch_window(fmin), hop_length)
    frames = frames - frames.mean(axis=1, keepdims=True)
    peak = np.abs(frames).max(axis=1) / max(float(np.abs(samples - samples.mean()).max()), 1e-10)
    shortest, longest = max(int(SAMPLING_RATE / fmax), 2), int(np.ceil(SAMPLING_RATE / fmin))
    correlation = _autocorrelation(frames, longest + 2)

    lag, strength, is_peak = _candidates(correlation, shortest, longest)
    octaves = np.log2(SAMPLING_RATE / lag)
    silence = np.maximum(0.0, 2.0 - peak * (1 + _VOICING_THRESHOLD) / _SILENCE_THRESHOLD)
    local = np.concatenate(
        [
            (_VOICING_THRESHOLD + silence)[:, None],
            np.where(is_peak, strength + _OCTAVE_COST * (octaves - np.log2(fmin)), -1e3),
        ],
        axis=1,
    )
    chosen = _best_path(local, octaves, hop_length)
    voiced = chosen > 0
    row, column = np.arange(len(chosen)), np.maximum(chosen - 1, 0)
    hertz = np.where(voiced, SAMPLING_RATE / lag[row, column], np.nan)
    greatest = np.where(is_peak, strength, 0.0).max(axis=1, initial=0.0)
    periodicity = np.where(voiced, strength[row, column], greatest)
    return Pitch(hertz, np.clip(periodicity, 0.0, 1.0), voiced)


def _autocorrelation(frames: Float32[np.ndarray, "frames window"], lags: int) -> Float32[np.ndarray, "frames lags"]:
    """Returns the autocorrelation of windowed frames at lags from 0, relative to lag 0 and to the window's own."""
    window, of_window, n_fft = _window(frames.shape[1], lags)
    power = np.abs(scipy.fft.rfft(frames * window, n_fft)) ** 2
    correlation = scipy.fft.irfft(power, n_fft)[:, :lags]
    return correlation / np.maximum(correlation[:, :1], 1e-12) / of_window


@lru_cache(maxsize=8)
def _window(win_length: int, lags: int) -> tuple[Float32[np.ndarray, " window"], Float32[np.ndarray, " lags"], int]:
    """Returns the Hann window, its normalised autocorrelation, and the length of a transform without wrapping."""
    window = hann(win_length)
    n_fft = scipy.fft.next_fast_len(win_length + lags, real=True)
    correlation = scipy.fft.irfft(np.abs(scipy.fft.rfft(window, n_fft)) ** 2, n_fft)[:lags]
    return window.astype(np.float32), np.maximum(correlation / correlation[0], 1e-3).astype(np.float32), n_fft


def _candidates(
    correlation: Float32[np.ndarray, "frames lags"], shortest: int, longest: int
) -> tuple[
    Float[np.ndarray, "frames candidate"], Float[np.ndarray, "frames candidate"], Bool[np.ndarray, "frames candidate"]
]:
    """Returns the lags of the greatest peaks, their heights, and which of them are peaks at all."""
    before, here, after = (correlation[:, shortest + i - 1 : longest + i] for i in (0, 1, 2))
    height = np.where((here > before) & (here >= after) & (here > 0), here, -1.0)
    count = min(_CANDIDATES, height.shape[1])
    # Higher pitches win between equal peaks, so that multiples of a period do not crowd it out.
    preferred = height - 0.02 * np.log2(np.arange(shortest, longest + 1)).astype(np.float32)
    index = np.argpartition(-preferred, count - 1, axis=1)[:, :count]
    a, b, c = (np.take_along_axis(x, index, axis=1).astype(np.float64) for x in (before, here, after))
    is_peak = np.take_along_axis(height, index, axis=1) > 0
    curvature = np.where(is_peak, a - 2 * b + c, -1.0)
    shift = np.where(is_peak, 0.5 * (a - c) / np.minimum(curvature, -1e-9), 0.0)
    return index + shortest + shift, b - 0.25 * (a - c) * shift, is_peak


def _best_path(
    local: Float[np.ndarray, "frames state"], octaves: Float[np.ndarray, "frames candidate"], hop_length: int
) -> Int[np.ndarray, " frames"]:
    """Returns the states with the greatest sum of local scores less the costs of changes; state 0 is unvoiced."""
    per_frame = 0.01 * SAMPLING_RATE / hop_length
    costs = np.full((len(local) - 1, local.shape[1], local.shape[1]), _VOICING_COST * per_frame)
    costs[:, 0, 0] = 0.0
    costs[:, 1:, 1:] = _OCTAVE_JUMP_COST * per_frame * np.abs(octaves[:-1, :, None] - octaves[1:, None, :])
    best = np.empty(costs.shape[::2], np.int64) if len(costs) else np.empty((0, local.shape[1]), np.int64)
    total, states = local[0], np.arange(local.shape[1])
    for frame, cost in enumerate(costs):
        reached = total[:, None] - cost
        best[frame] = came_from = reached.argmax(axis=0)
        total = reached[came_from, states] + local[frame + 1]
    path = np.empty(len(local), np.int64)
    path[-1] = total.argmax()
    for frame in range(len(costs) - 1, -1, -1):
        path[frame] = best[frame, path[frame + 1]]
    return path


def interpolated(track: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
    """Returns the track with NaN interpolated linearly between the nearest numbers; 0 where there is none."""
    known = np.isfinite(track)
    if not known.any():
        return np.zeros_like(track)
    frame = np.arange(len(track))
    return np.interp(frame, frame[known], track[known])
