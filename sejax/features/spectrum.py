"""The power spectrum in short windows, and measures of its shape."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.fft
from jaxtyping import Float, Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.features.pitch import centred_frames, hann
from sejax.features.shared import shared

WINDOW = 400  # samples, 25 ms
N_FFT = 512
N_BANDS = 26
N_MFCC = 14
FLOOR = 1e-10  # of powers, -100 dB full scale
HERTZ: Float[np.ndarray, " bins"] = np.fft.rfftfreq(N_FFT, 1 / SAMPLING_RATE)

SHAPE_NAMES: tuple[str, ...] = (
    "alpha_ratio",  # dB, from 50 Hz to 1 kHz against 1 to 5 kHz
    "hammarberg",  # dB, greatest below 2 kHz against greatest from 2 to 5 kHz
    "slope_0_500",  # dB per kHz, of the regression line of the level over frequency; as the next one
    "slope_500_1500",
    *(f"mfcc_{i}" for i in range(1, N_MFCC + 1)),
)


class Bands(NamedTuple):
    """Mel bands from 20 Hz to 8 kHz."""

    filters: Float32[np.ndarray, "bins band"]
    centre: Float[np.ndarray, " band"]  # hertz


@lru_cache(maxsize=1)
def mel_bands() -> Bands:
    """Returns `N_BANDS` triangles that overlap by half and peak at 1, equally far apart in HTK's mel, as in ComParE."""
    from librosa.filters import mel

    filters = mel(sr=SAMPLING_RATE, n_fft=N_FFT, n_mels=N_BANDS, fmin=20.0, htk=True, norm=None).T
    return Bands(filters.astype(np.float32), HERTZ @ filters / filters.sum(axis=0))


@shared
def power_spectrum(
    samples: Float32[np.ndarray, " samples"], hop_length: int, *, win_length: int = WINDOW, n_fft: int = N_FFT
) -> Float32[np.ndarray, "frames bins"]:
    """Returns the power spectra of centred Hann windows.

    They are scaled so that those of a sine with amplitude a sum up to a ** 2 / 2, its mean square.
    """
    frames = centred_frames(samples, win_length, hop_length) * _window(win_length, n_fft)
    return np.square(np.abs(scipy.fft.rfft(frames, n_fft, axis=1)))


@lru_cache(maxsize=8)
def _window(win_length: int, n_fft: int) -> Float32[np.ndarray, " window"]:
    window = hann(win_length)
    return (window / np.sqrt(n_fft / 2 * np.square(window).sum())).astype(np.float32)


def spectral_shape(power: Float32[np.ndarray, "frames bins"]) -> Float32[np.ndarray, "frames 18"]:
    """Computes the tracks of `SHAPE_NAMES`, which do not depend on the level.

    Alpha ratio, Hammarberg index and slopes are those of eGeMAPS (F. Eyben et al., IEEE Trans. Affective Computing
    7(2), 2016). MFCC are the orthonormal DCT-II of the mel bands' natural logarithms, without the first coefficient.

    Args:
      power: Of `power_spectrum`.
    """
    level = decibel(power)
    mfcc = scipy.fft.dct(np.log(power @ mel_bands().filters + FLOOR), axis=1, norm="ortho")[:, 1 : N_MFCC + 1]
    low, high = HERTZ < 2000, (HERTZ >= 2000) & (HERTZ < 5000)
    tracks = [
        decibel(power_between(power, 50, 1000)) - decibel(power_between(power, 1000, 5000)),
        level[:, low].max(axis=1) - level[:, high].max(axis=1),
        _slope(level, 0, 500),
        _slope(level, 500, 1500),
    ]
    return np.concatenate([np.stack(tracks, axis=1), mfcc], axis=1, dtype=np.float32)


class Distribution(NamedTuple):
    """The power of each frame as a distribution over frequency; that of silence is flat."""

    centroid: Float[np.ndarray, " frames"]  # kHz
    deviation: Float[np.ndarray, " frames"]  # kHz
    skewness: Float[np.ndarray, " frames"]
    kurtosis: Float[np.ndarray, " frames"]
    entropy: Float[np.ndarray, " frames"]  # relative to that of a flat spectrum


def distribution(power: Float32[np.ndarray, "frames bins"]) -> Distribution:
    """Computes centre, deviation, standardised moments and entropy of the power over frequency.

    Args:
      power: Of `power_spectrum`.
    """
    share = (power + FLOOR / power.shape[1]) / (power.sum(axis=1, keepdims=True) + FLOOR)
    kilohertz = HERTZ / 1000
    centroid = share @ kilohertz
    distance = kilohertz - centroid[:, None]
    square = distance * distance
    deviation = np.sqrt((share * square).sum(axis=1))
    return Distribution(
        centroid,
        deviation,
        (share * square * distance).sum(axis=1) / deviation**3,
        (share * square * square).sum(axis=1) / deviation**4,
        -(share * np.log(share)).sum(axis=1) / np.log(power.shape[1]),
    )


def rolloff(power: Float32[np.ndarray, "frames bins"], share: float) -> Float[np.ndarray, " frames"]:
    """Returns the frequency up to which a share of the power lies, in kHz."""
    below = np.cumsum(power + FLOOR / power.shape[1], axis=1)
    return HERTZ[(below < share * below[:, -1:]).sum(axis=1)] / 1000


def flux(power: Float32[np.ndarray, "frames bins"]) -> Float32[np.ndarray, " frames"]:
    """Returns the distance between consecutive magnitude spectra of length 1; 0 for the first frame."""
    magnitude = np.sqrt(power / (power.sum(axis=1, keepdims=True) + FLOOR))
    return np.sqrt(np.square(np.diff(magnitude, axis=0, prepend=magnitude[:1])).sum(axis=1))


def zero_crossing_rate(samples: Float32[np.ndarray, " samples"], hop_length: int) -> Float32[np.ndarray, " frames"]:
    """Returns the zero crossings per sample in windows of `WINDOW` samples."""
    crossings = np.diff(np.signbit(samples), prepend=np.signbit(samples[:1])).astype(np.float32)
    return centred_frames(crossings, WINDOW, hop_length).mean(axis=1)


def power_between(power: Float32[np.ndarray, "frames bins"], low: int, high: int) -> Float32[np.ndarray, " frames"]:
    """Returns the power from `low` up to below `high`, in hertz."""
    return power[:, (low <= HERTZ) & (high > HERTZ)].sum(axis=1)


def decibel(power: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Returns levels relative to full scale."""
    return 10 * np.log10(power + FLOOR)


def _slope(level: np.ndarray, low: int, high: int) -> np.ndarray:
    """Returns the slope of the regression line of levels over the frequencies from `low` to `high`, in dB per kHz."""
    inside = (low <= HERTZ) & (high >= HERTZ)
    kilohertz = HERTZ[inside] / 1000
    centred = kilohertz - kilohertz.mean()
    return level[:, inside] @ centred / np.square(centred).sum()
