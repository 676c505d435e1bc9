"""Pitch, voicing, loudness and the coarse shape of the spectrum, frame by frame."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.features.pitch import interpolated, track_pitch
from sejax.features.settings import Settings
from sejax.features.spectrum import (
    FLOOR,
    HERTZ,
    decibel,
    distribution,
    flux,
    power_spectrum,
    rolloff,
    zero_crossing_rate,
)
from sejax.features.statistics import RHYTHM, functional_names, voiced_functionals

PROSODY_NAMES = (
    "pitch",  # semitones above 55 Hz, interpolated over unvoiced frames
    "voicing",  # share of the power that is periodic
    "voiced",  # 0 or 1
    "level",  # decibel above an RMS amplitude of 0.001
    "flatness",  # log10 of the power's geometric mean against the arithmetic one
    "centroid",  # this and the next two as shares of half the sampling rate
    "rolloff",
    "bandwidth",
    "zero_crossing_rate",
    "flux",
    *(f"contrast_{band}" for band in range(6)),  # decibel, peaks above valleys
)
_OCTAVES = (0, 200, 400, 800, 1600, 3200, SAMPLING_RATE)  # Hz, edges of the bands of the contrast


def prosody(
    samples: Float32[np.ndarray, " samples"], *, fmin: int = 60, fmax: int = 600, hop_length: int = 160
) -> Float32[np.ndarray, "frames 16"]:
    """Computes the tracks of `PROSODY_NAMES` of samples at 16 kHz, in frames centred every `hop_length` samples.

    Pitch and voicing are those of `track_pitch`. Centroid, bandwidth (the deviation) and roll-off (85 %) are of the
    power.

    Args:
      samples: Signal at 16 kHz.
      fmin: Lowest pitch that is searched, in hertz.
      fmax: Highest pitch that is searched, in hertz.
      hop_length: Distance between frames, in samples.
    """
    pitch = track_pitch(samples, fmin=fmin, fmax=fmax, hop_length=hop_length)
    power = power_spectrum(samples, hop_length)
    shape = distribution(power)
    nyquist = SAMPLING_RATE / 2000
    tracks = [
        interpolated(12 * np.log2(pitch.hertz / 55.0)),
        pitch.periodicity,
        pitch.voiced,
        decibel(power.sum(axis=1)) + 60,
        np.log10(power + FLOOR).mean(axis=1) - np.log10(power.mean(axis=1) + FLOOR),
        shape.centroid / nyquist,
        rolloff(power, 0.85) / nyquist,
        shape.deviation / nyquist,
        zero_crossing_rate(samples, hop_length),
        flux(power),
        *_contrast(power).T,
    ]
    return np.stack(tracks, axis=1).astype(np.float32)


def summarise(frames: Float32[np.ndarray, "frames 16"], settings: Settings) -> Float32[np.ndarray, " statistic"]:
    """Computes the statistics of all frames, of the voiced ones, and of the rhythm of voicing."""
    voiced = frames[:, PROSODY_NAMES.index("voiced")] > 0.5
    return voiced_functionals(frames, voiced, hop_length=int(settings["hop_length"]))


_GROUPS = {"pitch": "pitch", "voicing": "voicing", "voiced": "voicing", "level": "level"}


def statistic_groups(settings: Settings) -> list[str]:
    """Returns the group of each statistic: `pitch`, `voicing`, `level`, `contrast`, `spectrum` or `rhythm`."""
    groups = [
        _GROUPS.get(track, "contrast" if track.startswith("contrast") else "spectrum")
        for track, _ in functional_names(PROSODY_NAMES)
    ]
    return [*groups, *groups, *["rhythm"] * RHYTHM]  # of all frames, and of the voiced ones


def _contrast(power: Float32[np.ndarray, "frames bins"]) -> Float32[np.ndarray, "frames 6"]:
    """Returns by how much the greatest 2 % of the bins of an octave are above the smallest 2 %, in dB.

    Spectral contrast is of D. Jiang et al., "Music type classification by spectral contrast feature", ICME 2002.
    """
    level = decibel(power)
    bands = []
    for low, high in pairwise(_OCTAVES):
        inside = np.sort(level[:, (low <= HERTZ) & (high > HERTZ)], axis=1)
        count = max(1, round(0.02 * inside.shape[1]))
        bands.append(inside[:, -count:].mean(axis=1) - inside[:, :count].mean(axis=1))
    return np.stack(bands, axis=1)
