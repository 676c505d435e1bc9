"""The voice: pitch, its irregularity, harmonics, formants, and the shape of the spectrum while it sounds."""

import numpy as np
from jaxtyping import Float, Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.features.contours import FUNCTIONALS, contour_functionals
from sejax.features.cycles import jitter_and_shimmer
from sejax.features.formants import formants
from sejax.features.pitch import Pitch, interpolated, track_pitch
from sejax.features.settings import Settings
from sejax.features.spectrum import SHAPE_NAMES, decibel, power_spectrum, spectral_shape
from sejax.features.statistics import RHYTHM, rhythm

VOICE_NAMES: tuple[str, ...] = (
    "voiced",  # 0 or 1
    "pitch",  # semitones above 27.5 Hz
    "harmonics_to_noise",  # dB
    "jitter",  # share of the period
    "jitter_change",  # share of the period
    "shimmer",  # dB
    "h1_h2",  # dB, the first harmonic against the second
    "h1_a3",  # dB, the first harmonic against the greatest one at the third formant
    *(f"formant_{i}" for i in (1, 2, 3)),  # kHz
    *(f"bandwidth_{i}" for i in (1, 2, 3)),  # natural logarithm of kHz
    *(f"formant_level_{i}" for i in (1, 2, 3)),  # dB, the greatest harmonic at the formant against the first one
    "level",  # dB full scale
    *SHAPE_NAMES,
)
_LEAST_VOICED = 4  # frames; of fewer the statistics are those of all frames
_NEUTRAL = np.array([500.0, 1500.0, 2500.0])  # Hz, formants of a tube as long as a man's vocal tract
_WINDOW, _N_FFT = 1024, 2048  # samples, of the window that resolves harmonics and of its transform


def voice(
    samples: Float32[np.ndarray, " samples"], *, fmin: int = 60, fmax: int = 600, hop_length: int = 160
) -> Float32[np.ndarray, "frames 36"]:
    """Computes the tracks of `VOICE_NAMES` of samples at 16 kHz, in frames centred every `hop_length` samples.

    They are the descriptors of the voice in eGeMAPS (F. Eyben et al., IEEE Trans. Affective Computing 7(2), 2016).
    `track_pitch`, `jitter_and_shimmer`, `formants` and `spectral_shape` say how they are computed. The ratio of
    harmonics to noise is that of the periodicity r to 1 - r (Boersma 1993). What only a voice has is interpolated over
    unvoiced frames.

    Args:
      samples: Signal at 16 kHz.
      fmin: Lowest pitch that is searched, in hertz.
      fmax: Highest pitch that is searched, in hertz.
      hop_length: Distance between frames, in samples.
    """
    pitch = track_pitch(samples, fmin=fmin, fmax=fmax, hop_length=hop_length)
    power = power_spectrum(samples, hop_length)
    periodic = np.clip(pitch.periodicity, 1e-4, 1 - 1e-4)
    tracks = [
        pitch.voiced,
        interpolated(12 * np.log2(pitch.hertz / 27.5)),
        10 * np.log10(periodic / (1 - periodic)),
        *(interpolated(track) for track in jitter_and_shimmer(samples, pitch, hop_length=hop_length)),
        *_harmonics_and_formants(samples, pitch, power, hop_length),
        decibel(power.sum(axis=1)),
    ]
    return np.concatenate([np.stack(tracks, axis=1), spectral_shape(power)], axis=1, dtype=np.float32)


def summarise(frames: Float32[np.ndarray, "frames 36"], settings: Settings) -> Float32[np.ndarray, " statistic"]:
    """Computes `contour_functionals` of every track but `voiced` in the voiced frames, then their `rhythm`.

    Contours have the voiced frames alone, one behind the other.
    """
    hop_length = int(settings["hop_length"])
    voiced = frames[:, 0] > 0.5
    spoken = frames[voiced] if voiced.sum() >= _LEAST_VOICED else frames
    functionals = contour_functionals(spoken[:, 1:].T, SAMPLING_RATE / hop_length)
    return np.concatenate([functionals.ravel(), rhythm(voiced, hop_length=hop_length)], dtype=np.float32)


_GROUPS = {
    "pitch": "pitch",
    "harmonics_to_noise": "harmonics and noise",
    **dict.fromkeys(("jitter", "jitter_change", "shimmer"), "jitter and shimmer"),
    **dict.fromkeys(("h1_h2", "h1_a3"), "voice source"),
    "level": "level",
    **dict.fromkeys(SHAPE_NAMES, "spectrum"),
}  # what is not here is of the formants


def statistic_groups(settings: Settings) -> list[str]:
    """Returns the group of each statistic, in words."""
    groups = [_GROUPS.get(track, "formants") for track in VOICE_NAMES[1:] for _ in FUNCTIONALS]
    return [*groups, *["rhythm"] * RHYTHM]


def _harmonics_and_formants(
    samples: Float32[np.ndarray, " samples"],
    pitch: Pitch,
    power: Float32[np.ndarray, "frames bins"],
    hop_length: int,
) -> list[Float[np.ndarray, " frames"]]:
    """Returns the tracks from `h1_h2` to `formant_level_3`."""
    voiced = np.flatnonzero(pitch.voiced)
    frequency, bandwidth = formants(power[voiced])
    level = decibel(power_spectrum(samples, hop_length, win_length=_WINDOW, n_fft=_N_FFT)[voiced])
    hertz = pitch.hertz[voiced]
    first, second = (_greatest(level, harmonic * hertz, 0.3 * hertz) for harmonic in (1, 2))
    at_formants = [
        # Half a harmonic's distance to both sides holds one at least.
        _greatest(level, np.where(np.isnan(of_one), neutral, of_one), 0.6 * hertz) - first
        for of_one, neutral in zip(frequency.T, _NEUTRAL, strict=True)
    ]
    found = [first - second, -at_formants[2], *frequency.T / 1000, *np.log(bandwidth.T / 1000), *at_formants]
    tracks = np.full((len(found), len(pitch.voiced)), np.nan)
    tracks[:, voiced] = found
    return [interpolated(track) for track in tracks]


def _greatest(
    level: Float32[np.ndarray, "voiced bins"], centre: Float[np.ndarray, " voiced"], reach: Float[np.ndarray, " voiced"]
) -> Float[np.ndarray, " voiced"]:
    """Returns the greatest level within `reach` of `centre` (hertz), which has a bin at least."""
    bins = np.arange(level.shape[1]) * (SAMPLING_RATE / _N_FFT)
    inside = np.abs(bins - centre[:, None]) <= np.maximum(reach, SAMPLING_RATE / _N_FFT)[:, None]
    return np.where(inside, level, -np.inf).max(axis=1)
