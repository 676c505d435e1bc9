"""Pitch, voicing, loudness and the coarse shape of the spectrum, frame by frame (librosa)."""

import math

import numpy as np
from jaxtyping import Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.features.settings import Settings
from sejax.features.statistics import RHYTHM, functional_names, voiced_functionals

PROSODY_NAMES = (
    "pitch",  # semitones above 55 Hz, interpolated over unvoiced frames
    "voicing",  # probability
    "voiced",  # 0 or 1
    "level",  # decibel above an RMS amplitude of 0.001
    "flatness",  # log10
    "centroid",  # this and the next two as a share of the Nyquist frequency
    "rolloff",
    "bandwidth",
    "zero_crossing_rate",
    "flux",
    *(f"contrast_{band}" for band in range(6)),  # decibel, peaks above valleys
)

_RESOLUTION = 0.25  # of the pitch, in semitones
_OCTAVES_PER_SECOND = 35.92  # by which the pitch moves at most; librosa's default


def prosody(
    samples: Float32[np.ndarray, " samples"],
    *,
    fmin: int = 60,
    fmax: int = 600,
    win_length: int = 1024,
    hop_length: int = 160,
) -> Float32[np.ndarray, "frames 16"]:
    """Computes the tracks of `PROSODY_NAMES` of samples at 16 kHz, in frames centred every `hop_length` samples.

    Pitch is probabilistic YIN (Mauch & Dixon, 2014) at a quarter of a semitone. The spectral tracks are those of
    librosa with windows of 400 samples.

    Args:
      samples: Signal at 16 kHz.
      fmin: Lowest pitch that is searched, in hertz.
      fmax: Highest pitch that is searched, in hertz.
      win_length: Length of the window of the pitch, in samples.
      hop_length: Distance between frames, in samples.
    """
    import librosa

    pitch, voiced, voicing = librosa.pyin(
        samples,
        fmin=fmin,
        fmax=fmax,
        sr=SAMPLING_RATE,
        frame_length=win_length,
        hop_length=hop_length,
        # Coarser than librosa's defaults and four times faster; finer steps do not change the statistics.
        resolution=_RESOLUTION,
        n_thresholds=40,
        max_transition_rate=_OCTAVES_PER_SECOND,
    )
    spectrum = np.abs(librosa.stft(samples, n_fft=1024, win_length=400, hop_length=hop_length))
    shape = {"S": spectrum, "sr": SAMPLING_RATE}
    nyquist = SAMPLING_RATE / 2
    tracks = [
        _interpolated(12 * np.log2(pitch / 55.0)),
        voicing,
        voiced.astype(np.float32),
        20 * np.log10(np.maximum(librosa.feature.rms(S=spectrum, frame_length=1024)[0], 1e-5) / 1e-3),
        np.log10(librosa.feature.spectral_flatness(S=spectrum)[0] + 1e-8),
        librosa.feature.spectral_centroid(**shape)[0] / nyquist,
        librosa.feature.spectral_rolloff(**shape)[0] / nyquist,
        librosa.feature.spectral_bandwidth(**shape)[0] / nyquist,
        librosa.feature.zero_crossing_rate(samples, frame_length=400, hop_length=hop_length)[0],
        _flux(spectrum),
        *librosa.feature.spectral_contrast(**shape, n_bands=5),
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


def check(settings: Settings) -> dict[str, str]:
    """Returns what is expected of settings that do not fit together: librosa's conditions for `pyin`."""
    fmin, fmax, window, hop = (int(settings[name]) for name in ("fmin", "fmax", "win_length", "hop_length"))
    if fmax > SAMPLING_RATE // 2:
        return {"fmax": f"at most half the sampling rate ({SAMPLING_RATE // 2} Hz)"}
    if fmin >= fmax:
        return {"fmin": f"below fmax ({fmax} Hz)"}
    if window % 2 or SAMPLING_RATE / fmin >= window - 1:
        least = SAMPLING_RATE // fmin + 2
        return {"win_length": f"an even number from {least + least % 2}, a period of fmin ({fmin} Hz)"}
    step = max(round(_OCTAVES_PER_SECOND * 12 * hop / SAMPLING_RATE), _RESOLUTION)  # semitones
    if step > math.floor(12 / _RESOLUTION * math.log2(fmax / fmin)) * _RESOLUTION:
        return {"hop_length": f"a smaller one: the pitch moves by {step:g} semitones within it, fmin to fmax is less"}
    return {}


def identity(settings: Settings) -> Settings:
    """Returns what tells stored features apart.

    Rhythm is in seconds at every hop. It used to be at the default hop alone, so that features stored then are still
    valid there, and nowhere else.
    """
    return settings if settings["hop_length"] == 160 else {**settings, "rhythm": "seconds"}


def _interpolated(track: np.ndarray) -> np.ndarray:
    """Returns the track with NaN interpolated linearly between the nearest numbers; 0 where there is none."""
    known = np.isfinite(track)
    if not known.any():
        return np.zeros_like(track)
    frame = np.arange(len(track))
    return np.interp(frame, frame[known], track[known])


def _flux(spectrum: np.ndarray) -> np.ndarray:
    """Returns the distance between consecutive magnitude spectra, relative to the loudest frame's magnitude."""
    change = np.sqrt((np.diff(spectrum, axis=1, prepend=spectrum[:, :1]) ** 2).sum(axis=0))
    return change / max(spectrum.sum(axis=0).max(), 1e-10)
