"""Loudness, auditory bands and the shape of the spectrum, frame by frame, with functionals as in ComParE."""

import numpy as np
import scipy.signal
from jaxtyping import Float, Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.features.contours import FUNCTIONALS, contour_functionals
from sejax.features.settings import Settings
from sejax.features.spectrum import (
    FLOOR,
    N_BANDS,
    SHAPE_NAMES,
    decibel,
    distribution,
    flux,
    mel_bands,
    power_between,
    power_spectrum,
    rolloff,
    spectral_shape,
    zero_crossing_rate,
)

ROLLOFFS = (25, 50, 75, 90)  # percent of the power

AUDITORY_NAMES: tuple[str, ...] = (
    "loudness",  # sum of the auditory spectrum
    "rasta_loudness",  # of the filtered one
    "level",  # dB full scale
    "zero_crossing_rate",  # per sample
    "flux",
    "centroid",  # kHz, as the deviation and the roll-offs
    "deviation",
    "skewness",  # its inverse hyperbolic sine: the moments of a narrow spectrum are huge
    "kurtosis",  # its logarithm
    "entropy",  # of the power over the bins, relative to that of a flat spectrum
    "sharpness",  # Bark
    "level_250_650",  # dB full scale, as in ComParE
    "level_1000_4000",
    *(f"rolloff_{share}" for share in ROLLOFFS),
    *SHAPE_NAMES,
    *(f"band_{i}" for i in range(N_BANDS)),  # RASTA-filtered
)
_COMPRESSION = 0.33  # exponent from power to loudness


def auditory(samples: Float32[np.ndarray, " samples"], *, hop_length: int = 160) -> Float32[np.ndarray, "frames 61"]:
    """Computes the tracks of `AUDITORY_NAMES` of samples at 16 kHz, in frames centred every `hop_length` samples.

    - The auditory spectrum is that of PLP (H. Hermansky, J. Acoust. Soc. Am. 87(4), 1990): powers in mel bands,
      weighted by equal loudness, to the power of 0.33.
    - RASTA (H. Hermansky and N. Morgan, IEEE Trans. Speech and Audio Processing 2(4), 1994) filters the logarithm of
      each band over time, which takes away what is constant: the channel, and in part the speaker. Its filter is
      defined at frames of 10 ms.
    - Sharpness is the centre of the auditory spectrum in Bark, weighted from 16 Bark on (E. Zwicker and H. Fastl,
      Psychoacoustics, 1999).

    Args:
      samples: Signal at 16 kHz.
      hop_length: Distance between frames, in samples.
    """
    power = power_spectrum(samples, hop_length)
    bands = mel_bands()
    auditory_bands = np.log(power @ bands.filters * _equal_loudness(bands.centre) + FLOOR)
    filtered = _rasta(auditory_bands)
    specific = np.exp(_COMPRESSION * auditory_bands)
    loudness = specific.sum(axis=1)
    shape = distribution(power)
    tracks = [
        loudness,
        np.exp(_COMPRESSION * filtered).sum(axis=1),
        decibel(power.sum(axis=1)),
        zero_crossing_rate(samples, hop_length),
        flux(power),
        shape.centroid,
        shape.deviation,
        np.arcsinh(shape.skewness),
        np.log(shape.kurtosis),
        shape.entropy,
        specific @ _sharpness_weight(bands.centre) / loudness,
        decibel(power_between(power, 250, 650)),
        decibel(power_between(power, 1000, 4000)),
        *(rolloff(power, share / 100) for share in ROLLOFFS),
    ]
    return np.concatenate([np.stack(tracks, axis=1), spectral_shape(power), filtered], axis=1, dtype=np.float32)


def summarise(frames: Float32[np.ndarray, "frames 61"], settings: Settings) -> Float32[np.ndarray, " statistic"]:
    """Computes `contour_functionals` of every track, all numbers of a track side by side."""
    functionals = contour_functionals(frames.T, SAMPLING_RATE / int(settings["hop_length"]))
    return functionals.ravel().astype(np.float32)


_GROUPS = {
    **dict.fromkeys(("loudness", "rasta_loudness"), "loudness"),
    **dict.fromkeys(("level", "level_250_650", "level_1000_4000"), "level"),
    **dict.fromkeys(("zero_crossing_rate", "flux"), "flux and crossings"),
    **dict.fromkeys(("centroid", "deviation", "skewness", "kurtosis", "entropy", "sharpness"), "moments"),
    **dict.fromkeys((f"rolloff_{share}" for share in ROLLOFFS), "roll-offs"),
    **dict.fromkeys(SHAPE_NAMES, "spectrum"),
}  # what is not here is a band


def statistic_groups(settings: Settings) -> list[str]:
    """Returns the group of each statistic, in words."""
    return [_GROUPS.get(track, "RASTA bands") for track in AUDITORY_NAMES for _ in FUNCTIONALS]


def _equal_loudness(hertz: Float[np.ndarray, " band"]) -> Float32[np.ndarray, " band"]:
    """Returns the sensitivity of hearing at about 40 dB (Hermansky 1990, equation 8)."""
    square = (2 * np.pi * hertz) ** 2
    return ((square + 56.8e6) * square**2 / ((square + 6.3e6) ** 2 * (square + 0.38e9))).astype(np.float32)


def _sharpness_weight(hertz: Float[np.ndarray, " band"]) -> Float32[np.ndarray, " band"]:
    """Returns Bark (PLP's approximation) times Zwicker's weight."""
    bark = 6 * np.arcsinh(hertz / 600)
    return (bark * np.where(bark < 16, 1.0, 0.066 * np.exp(0.171 * bark))).astype(np.float32)


def _rasta(bands: Float[np.ndarray, "frames band"]) -> Float[np.ndarray, "frames band"]:
    """Returns logarithmic bands filtered over time; before the first frame they were as they are there."""
    numerator, denominator = 0.1 * np.array([2.0, 1.0, 0.0, -1.0, -2.0]), np.array([1.0, -0.98])
    return scipy.signal.lfilter(numerator, denominator, bands - bands[:1], axis=0)
