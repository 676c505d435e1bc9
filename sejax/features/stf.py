"""Short-term features: 34 per frame (time domain, spectrum, MFCC, chroma) and their differences, 68 in all.

They are those of pyAudioAnalysis (Giannakopoulos, PLoS ONE 10(12), 2015), in two variants:

- "standard": the definitions as published. The spectrum has all bins from 0 Hz to half the sampling rate, bin k at
  k * rate / window. Filters and pitch classes are at their true frequencies.
- "pyaudioanalysis": the library's own numbers, for comparison with papers that used it. Its spectrum lacks the last
  bin and takes bin k for (k + 1) * rate / window. Its MFCC filters are at half their frequencies. Of the bins that
  share a pitch its chroma keeps the last one only. This variant accepts windows of any length; the library itself
  fails on those of 12 ms and less at 16 kHz.

Frames are not centred: n samples give 1 + (n - win_length) // hop_length frames, cut by a rectangular window.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.sparse
from jaxtyping import Float, Float32, Int

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.features.settings import Settings
from sejax.features.statistics import functional_names

VARIANTS = ("standard", "pyaudioanalysis")
N_MFCC = 13
N_BLOCKS = 10
ROLLOFF_SHARE = 0.90
# Pitch class 0 is A: 27.5 Hz is the lowest A of a piano.
LOWEST_A_HERTZ = 27.5
EPS = np.finfo(np.float64).eps

_FRAME_NAMES = (
    "zcr",
    "energy",
    "energy_entropy",
    "spectral_centroid",
    "spectral_spread",
    "spectral_entropy",
    "spectral_flux",
    "spectral_rolloff",
    *(f"mfcc_{i}" for i in range(1, N_MFCC + 1)),
    *(f"chroma_{i}" for i in range(1, 13)),
    "chroma_std",
)
STF_NAMES: tuple[str, ...] = (*_FRAME_NAMES, *(f"delta_{name}" for name in _FRAME_NAMES))


def statistic_groups(settings: Settings) -> list[str]:
    """Returns the group of each statistic: `zcr`, `energy`, `spectral`, `mfcc` or `chroma`, changes included."""
    return [track.removeprefix("delta_").partition("_")[0] for track, _ in functional_names(STF_NAMES)]


def stf(
    samples: Float32[np.ndarray, " samples"],
    *,
    variant: str = "standard",
    win_length: int = 400,
    hop_length: int = 160,
) -> Float32[np.ndarray, "frames 68"]:
    """Computes the features of `STF_NAMES`: 34 per frame, and their differences to the frame before (0 at the first).

    Centroid, spread and roll-off are fractions of half the sampling rate. The mean of the signal is removed first and
    its maximum scaled to 1, so that the loudness of an utterance has no effect.

    Args:
      samples: Signal at 16 kHz.
      variant: "standard" or "pyaudioanalysis".
      win_length: Length of the window, in samples.
      hop_length: Distance between frames, in samples.

    Raises:
      InputError: an unknown variant, a window below 20 samples or a signal shorter than one window.
    """
    settings: Settings = {"variant": variant, "win_length": win_length}
    for key, expected in check(settings).items():
        raise InputError(f"{key} is {settings[key]!r}, expected {expected}")
    if len(samples) < win_length:
        raise InputError(f"the signal has {len(samples)} samples, expected at least a window of {win_length}")
    signal = samples.astype(np.float64)
    signal -= signal.mean()
    signal /= np.abs(signal).max() + 1e-10
    frames = np.lib.stride_tricks.sliding_window_view(signal, win_length)[::hop_length]
    tables = _tables(variant, win_length)

    magnitude = np.abs(scipy.fft.rfft(frames))[:, : len(tables.frequencies)] / (win_length // 2)
    power = np.square(magnitude)
    features = np.empty((len(frames), len(_FRAME_NAMES)))
    features[:, 0] = _zero_crossing_rate(signal, win_length, hop_length)
    features[:, 1:3] = _energy_and_entropy(frames)
    features[:, 3:5] = _centroid_and_spread(magnitude, tables.frequencies) / (SAMPLING_RATE / 2)
    features[:, 5] = _block_entropy(power)
    features[:, 6] = _flux(magnitude)
    features[:, 7] = _rolloff_bin(power) / tables.rolloff_bins
    features[:, 8:21] = _cepstrum(magnitude @ tables.filters)
    chroma = (power @ tables.chroma) / _or_eps(power.sum(axis=1))[:, None]
    features[:, 21:33] = chroma
    features[:, 33] = chroma.std(axis=1)
    deltas = np.diff(features, axis=0, prepend=features[:1])
    return np.concatenate((features, deltas), axis=1, dtype=np.float32, casting="same_kind")


def check(settings: Settings) -> dict[str, str]:
    """Returns what is expected of settings that are wrong: a window has 10 blocks of two samples or more."""
    expected = {}
    if settings["variant"] not in VARIANTS:
        expected["variant"] = f"one of {VARIANTS}"
    if int(settings["win_length"]) < 2 * N_BLOCKS:
        expected["win_length"] = f"{2 * N_BLOCKS} samples or more"
    return expected


def _zero_crossing_rate(
    signal: Float[np.ndarray, " samples"], win_length: int, hop_length: int
) -> Float[np.ndarray, " frames"]:
    """Computes sum |diff sign x| / 2 / (W - 1) of each window, from one running sum over the whole signal."""
    crossings = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(np.sign(signal))))))
    starts = np.arange(0, len(signal) - win_length + 1, hop_length)
    return (crossings[starts + win_length - 1] - crossings[starts]) / 2 / (win_length - 1)


def _energy_and_entropy(frames: Float[np.ndarray, "frames window"]) -> Float[np.ndarray, "frames 2"]:
    squares = np.square(frames)
    return np.stack((squares.mean(axis=1), _block_entropy(squares)), axis=1)


def _block_entropy(energies: Float[np.ndarray, "frames bins"]) -> Float[np.ndarray, " frames"]:
    """Computes the entropy (bits) of the energy in 10 blocks of equal length; remaining bins are left out."""
    length = energies.shape[1] // N_BLOCKS
    blocks = energies[:, : N_BLOCKS * length].reshape(-1, N_BLOCKS, length).sum(axis=2)
    share = blocks / (energies.sum(axis=1, keepdims=True) + EPS)
    return -(share * np.log2(share + EPS)).sum(axis=1)


def _centroid_and_spread(
    magnitude: Float[np.ndarray, "frames bins"], frequencies: Float[np.ndarray, " bins"]
) -> Float[np.ndarray, "frames 2"]:
    """Computes mean and standard deviation (hertz) of the frequency, weighted by the magnitude."""
    weight = magnitude / _or_eps(magnitude.max(axis=1))[:, None]
    total = weight.sum(axis=1) + EPS
    centroid = np.einsum("fk,k->f", weight, frequencies) / total
    deviation = frequencies - centroid[:, None]
    spread = np.sqrt(np.einsum("fk,fk,fk->f", deviation, deviation, weight) / total)
    return np.stack((centroid, spread), axis=1)


def _flux(magnitude: Float[np.ndarray, "frames bins"]) -> Float[np.ndarray, " frames"]:
    """Computes the squared distance between the normalised spectra of a frame and the one before; 0 at the first."""
    normalised = magnitude / (magnitude + EPS).sum(axis=1, keepdims=True)
    return np.concatenate(([0.0], np.square(np.diff(normalised, axis=0)).sum(axis=1)))


def _rolloff_bin(power: Float[np.ndarray, "frames bins"]) -> Int[np.ndarray, " frames"]:
    """Returns the first bin where the running sum of the power exceeds 90 % of its sum."""
    cumulated = np.cumsum(power, axis=1) + EPS
    return (cumulated > ROLLOFF_SHARE * power.sum(axis=1, keepdims=True)).argmax(axis=1)


def _cepstrum(filtered: Float[np.ndarray, "frames filters"]) -> Float[np.ndarray, "frames 13"]:
    return scipy.fft.dct(np.log10(filtered + EPS), type=2, norm="ortho")[:, :N_MFCC]


def _or_eps(values: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
    """Returns divisors with 0, those of silent frames, replaced by eps."""
    return np.where(values == 0, EPS, values)


class _Tables(NamedTuple):
    """Arrays that depend on variant and window alone."""

    frequencies: Float[np.ndarray, " bins"]  # hertz
    rolloff_bins: int  # the bin of half the sampling rate
    # Sparse [bins, filters] and [bins, 12]: in dense products BLAS threads would wait for each other.
    filters: scipy.sparse.csr_array
    chroma: scipy.sparse.csr_array


@lru_cache(maxsize=8)
def _tables(variant: str, win_length: int) -> _Tables:
    if variant == "standard":
        frequencies = np.arange(win_length // 2 + 1) * SAMPLING_RATE / win_length
        chroma = np.zeros((len(frequencies), 12))
        # The lowest bin, 0 Hz, has no pitch.
        chroma[np.arange(1, len(frequencies)), _pitch(frequencies[1:]) % 12] = 1
        return _Tables(
            frequencies,
            len(frequencies) - 1,
            scipy.sparse.csr_array(_filter_bank(frequencies)),
            scipy.sparse.csr_array(chroma),
        )
    bins = win_length // 2
    frequencies = np.arange(1, bins + 1) * SAMPLING_RATE / (2 * bins)
    filters = _filter_bank(np.arange(bins) * SAMPLING_RATE / bins)
    chroma = _pyaudioanalysis_chroma(_pitch(frequencies))
    return _Tables(frequencies, bins, scipy.sparse.csr_array(filters), scipy.sparse.csr_array(chroma))


def _filter_bank(frequencies: Float[np.ndarray, " bins"]) -> Float[np.ndarray, "bins filters"]:
    """Returns 40 triangles, 13 of them linear from 133.33 Hz and 27 logarithmic, each of height 2 / width.

    Slaney, Auditory toolbox, Technical report 1998-010, Interval Research.
    """
    linear = 133.33 + 200 / 3 * np.arange(13)
    edges = np.concatenate((linear, linear[-1] * 1.0711703 ** np.arange(1, 30)))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies[:, None] - low) / (centre - low)
    falling = (high - frequencies[:, None]) / (high - centre)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)


def _pitch(frequencies: Float[np.ndarray, " bins"]) -> Int[np.ndarray, " bins"]:
    """Returns semitones above the lowest A."""
    return np.round(12 * np.log2(frequencies / LOWEST_A_HERTZ)).astype(int)


def _pyaudioanalysis_chroma(pitch: Int[np.ndarray, " bins"]) -> Float[np.ndarray, "bins 12"]:
    """Returns the library's map from the power of the bins to 12 pitch classes, as a matrix.

    The library writes the power of bin k to index `pitch[k]` of an array with one entry per bin. The last bin of a
    pitch therefore wins, and a negative pitch counts from the end. It then divides entry i by the number of bins that
    share the pitch of *bin* i. Where the array would be too short and the library fails, it is longer here, and
    entries beyond the bins are not divided.
    """
    bins = len(pitch)
    places = max(bins, int(pitch.max()) + 1)
    last_bin = {int(p) % places: k for k, p in enumerate(pitch)}
    sharing = np.ones(places)
    sharing[:bins] = [np.count_nonzero(pitch == p) for p in pitch]
    divisor = np.ones(places)
    divisor[:bins] = sharing[pitch]
    chroma = np.zeros((bins, 12))
    for place, k in last_bin.items():
        chroma[k, place % 12] = 1 / divisor[place]
    return chroma
