"""Formants by linear prediction: the resonances of the vocal tract, of many frames at once."""

import numpy as np
import scipy.fft
from jaxtyping import Float, Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.features.spectrum import HERTZ

CEILING = 5500  # Hz: five formants of an adult woman lie below it, and those of a man (Praat's default)
ORDER = 10  # two poles per formant
_PREEMPHASIS = 50.0  # Hz, from which the spectrum is raised by 6 dB per octave
_LOWEST, _WIDEST = 90.0, 1000.0  # Hz; a pole below, or one that is wider, is no formant


def formants(
    power: Float32[np.ndarray, "frames bins"], *, count: int = 3
) -> tuple[Float[np.ndarray, "frames count"], Float[np.ndarray, "frames count"]]:
    """Returns frequencies and bandwidths of the lowest formants, in hertz; NaN where a frame has fewer.

    Selective linear prediction (J. Makhoul, "Spectral linear prediction", IEEE Trans. ASSP 23(3), 1975): the
    autocorrelation is that of the power spectrum up to `CEILING` alone, after pre-emphasis. A pole z of the predictor
    is a resonance at arg(z) f / (2 pi) with the bandwidth -ln|z| f / pi, at the rate f = 2 `CEILING`.

    Args:
      power: Of `power_spectrum`.
      count: Number of formants.
    """
    predictor = _linear_prediction(_band(power))
    poles = _roots(predictor)
    rate = 2 * CEILING
    frequency = np.angle(poles) * rate / (2 * np.pi)
    bandwidth = -np.log(np.maximum(np.abs(poles), 1e-6)) * rate / np.pi
    is_formant = (frequency > _LOWEST) & (frequency < CEILING - _LOWEST) & (bandwidth < _WIDEST) & (bandwidth > 0)
    frequency = np.where(is_formant, frequency, np.inf)
    order = np.argsort(frequency, axis=1)[:, :count]
    frequency, bandwidth = (np.take_along_axis(x, order, axis=1) for x in (frequency, bandwidth))
    missing = ~np.isfinite(frequency)
    return np.where(missing, np.nan, frequency), np.where(missing, np.nan, bandwidth)


def _linear_prediction(autocorrelation: Float[np.ndarray, "frames lags"]) -> Float[np.ndarray, "frames lags"]:
    """Returns the predictor polynomials, from 1 on (Levinson and Durbin)."""
    r = autocorrelation.astype(np.float64)
    power = np.maximum(r[:, 0], 1e-30)
    error = power * (1 + 1e-9)
    a = np.zeros_like(r)
    a[:, 0] = 1.0
    for i in range(1, r.shape[1]):
        reflection = -(a[:, :i] * r[:, i:0:-1]).sum(axis=1) / error
        a[:, 1 : i + 1] += reflection[:, None] * a[:, i - 1 :: -1][:, :i]
        error = np.maximum(error * (1 - reflection**2), 1e-9 * power)
    return a


def _band(power: Float32[np.ndarray, "frames bins"]) -> Float[np.ndarray, "frames lags"]:
    """Returns the autocorrelation, up to `ORDER`, of the pre-emphasised signal below `CEILING`."""
    band = HERTZ <= CEILING
    coefficient = np.exp(-2 * np.pi * _PREEMPHASIS / SAMPLING_RATE)
    emphasis = 1 + coefficient**2 - 2 * coefficient * np.cos(2 * np.pi * HERTZ[band] / SAMPLING_RATE)
    return scipy.fft.irfft(power[:, band] * emphasis, axis=1)[:, : ORDER + 1]


def _roots(predictor: Float[np.ndarray, "frames lags"]) -> np.ndarray:
    """Returns the roots of monic polynomials, the eigenvalues of their companion matrices `[frames, order]`."""
    order = predictor.shape[1] - 1
    companion = np.zeros((len(predictor), order, order))
    companion[:, 0] = -predictor[:, 1:]
    companion[:, np.arange(1, order), np.arange(order - 1)] = 1.0
    return np.linalg.eigvals(companion)
