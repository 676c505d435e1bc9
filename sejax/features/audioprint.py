"""What tells whether two files hold the same recording: a fingerprint of the audio, and the comparison of two of them.

The fingerprint is that of Haitsma and Kalker, A highly robust audio fingerprinting system, ISMIR 2002, with shorter
windows, because utterances are short: bits that say where the spectrum grows between two neighbouring bands and two
times. A gain changes none of them; another sampling rate or a codec changes a few; another take of the same words by
the same voice changes about half. It is 40 lines of numpy. Chromaprint, the library for this, is made for music: it
compares chroma over 2.7 s, and would be a native dependency.

Alike fingerprints are only suspects: `compare` then correlates the waveforms, of which no two takes are alike.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy.fft
import soxr
from jaxtyping import Float32, Int, UInt32

from sejax.corpora.schema import SAMPLING_RATE

# Raised when the same samples give another fingerprint, or two files another comparison.
AUDIOPRINT_VERSION = 1
RATE = 8000  # hertz, at which spectra are computed
WINDOW, HOP = 1024, 128  # samples at this rate: 128 and 16 ms
BITS = 32
# Time from the first to the second spectrum of a word, in hops.
STEP = 4
# What a telephone transmits: no copy lacks it.
LOWEST, HIGHEST = 300.0, 3400.0  # hertz
# What is taken from an utterance: 15,000 bytes for a minute.
LONGEST_SECONDS = 60.0
# Power of a frame relative to the loudest of the utterance, and of the loudest to full scale, below which it is silent.
SILENT_SHARE, SILENT_POWER = 1e-4, 1e-8
# Words of one utterance that say nothing: there is no sound.
SILENT = np.uint32(0)
# Samples at 16 kHz around the place where fingerprints are alike in which waveforms are compared.
SLACK = 512
# Places per sample at which waveforms are compared: a copy may begin between two samples of the original.
OVERSAMPLING = 4


class Alike(NamedTuple):
    """How alike two waveforms are where they are most alike."""

    offset: float  # seconds of the first in front of the beginning of the second; negative if the second begins before
    seconds: float  # that both have
    correlation: float  # of the waveforms between 300 and 3,400 Hz, from -1 (inverted) to 1


class Copy(NamedTuple):
    """Two utterances that hold the same recording."""

    first: str  # an id
    second: str  # an id
    alike: Alike


def audioprint(samples: Float32[np.ndarray, " samples"]) -> UInt32[np.ndarray, "words 1"]:
    """Returns the fingerprint of the first minute of an utterance: a word of 32 bits every 16 ms.

    Bit m is 1 where E[n + 4, m] - E[n + 4, m + 1] > E[n, m] - E[n, m + 1], with the energies E of 33 bands of equal
    width on a logarithmic scale from 300 to 3,400 Hz. A word of a silent frame is 0, and only that. Audio shorter than
    192 ms has no word.

    Args:
      samples: at 16 kHz, full scale at -1 and 1.
    """
    samples = first_part(samples)
    samples = soxr.resample(samples, SAMPLING_RATE, RATE, quality="LQ")
    if len(samples) < WINDOW + STEP * HOP:
        return np.zeros((0, 1), np.uint32)
    window, edges = _analysis()
    framed = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP] * window
    parts = scipy.fft.rfft(framed, axis=1, overwrite_x=True).view(np.float32)  # real and imaginary in turn
    energies = np.add.reduceat(np.square(parts, out=parts)[:, : 2 * edges[-1]], 2 * edges[:-1], axis=1)
    slopes = energies[:, :-1] - energies[:, 1:]
    bits = np.packbits(slopes[STEP:] > slopes[:-STEP], axis=1)
    words = np.maximum(bits.view(">u4")[:, 0].astype(np.uint32), 1)
    # The mean square of the samples of each frame, by Parseval's theorem.
    power = energies.sum(axis=1) * (2 / (WINDOW * float(window @ window)))
    loudest = power.max()
    heard = (power > SILENT_SHARE * loudest) & (loudest > SILENT_POWER)
    words[~(heard[STEP:] & heard[:-STEP])] = SILENT
    return words[:, None]


@cache
def _analysis() -> tuple[Float32[np.ndarray, " window"], Int[np.ndarray, " edges"]]:
    """Returns the window, and the bins of the spectrum with which the bands begin and the last one ends."""
    edges = np.geomspace(LOWEST, HIGHEST, BITS + 2) * (WINDOW / RATE)
    return np.hanning(WINDOW).astype(np.float32), np.rint(edges).astype(int)


def first_part(samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " first"]:
    """Returns the part of an utterance of which its fingerprint is."""
    return samples[: round(LONGEST_SECONDS * SAMPLING_RATE)]


def compare(samples: Float32[np.ndarray, " samples"], others: Float32[np.ndarray, " others"], lag: int) -> Alike:
    """Returns how alike two waveforms are, in the place near a lag where they are most alike.

    Args:
      samples: at 16 kHz.
      others: at 16 kHz.
      lag: the word of the first fingerprint that stands where the first word of the other does; may be negative.
    """
    lag *= HOP * SAMPLING_RATE // RATE
    lag += round(_correlate(samples, others, lag, SLACK)[0])
    moved, correlation, size = _correlate(samples, others, lag, 1)
    return Alike((lag + moved) / SAMPLING_RATE, size / SAMPLING_RATE, correlation)


def _correlate(
    samples: Float32[np.ndarray, " samples"], others: Float32[np.ndarray, " others"], lag: int, slack: int
) -> tuple[float, float, int]:
    """Returns by how many samples the first is to be moved further, the correlation then, and the samples in common.

    The correlation is that of the telephone band of what both have at `lag`; its sign counts for nothing, because
    copies may be inverted.
    """
    size = max(min(len(samples) - lag, len(others)) - max(-lag, 0), 0)
    if not size:
        return 0.0, 0.0, 0
    length = scipy.fft.next_fast_len(size + slack, real=True)
    mine = scipy.fft.rfft(samples[max(lag, 0) :][:size], length)
    theirs = scipy.fft.rfft(others[max(-lag, 0) :][:size], length)
    frequencies = np.arange(len(mine)) * (SAMPLING_RATE / length)
    outside = (frequencies < LOWEST) | (frequencies > HIGHEST)
    mine[outside] = theirs[outside] = 0
    norm = math.sqrt(float(np.vdot(mine, mine).real) * float(np.vdot(theirs, theirs).real))
    if not norm:
        return 0.0, 0.0, size
    # The band ends far below half the sampling rate: what is between two samples follows from them.
    finer = OVERSAMPLING * length
    correlations = scipy.fft.irfft(mine * theirs.conj(), finer) * (finer / (2 * norm))
    reach = OVERSAMPLING * slack
    near = np.concatenate([correlations[-reach:], correlations[: reach + 1]])
    best = int(np.abs(near).argmax())
    return (best - reach) / OVERSAMPLING, float(near[best]), size
