"""Functionals of contours, as in openSMILE's ComParE set: what a track does over an utterance."""

from itertools import pairwise

import numpy as np
import scipy.fft
from jaxtyping import Float

_PERCENTILES = (1, 25, 50, 75, 99)
_LEVELS = (0.25, 0.50, 0.75, 0.90)  # of the range from the 1st to the 99th percentile
_MODULATION = (0.5, 2.0, 4.0, 8.0, 16.0)  # Hz, edges of the bands of the contour's own spectrum

FUNCTIONALS: tuple[str, ...] = (
    *("mean", "deviation", "skewness", "kurtosis"),
    *(f"percentile_{p}" for p in _PERCENTILES),
    *("range_1_99", "range_25_75", "range_25_50", "range_50_75"),
    *("position_of_maximum", "position_of_minimum", "centroid"),
    *("slope", "linear_error", "curvature", "quadratic_slope", "quadratic_error"),
    *("peaks_per_second", "peak_distance", "peak_distance_deviation", "peak_height", "peak_range"),
    *("rise", "rise_deviation", "fall", "fall_deviation", "share_rising", "share_left_curved"),
    *(f"share_above_{round(100 * level)}" for level in _LEVELS),
    *(f"modulation_{low:g}_{high:g}" for low, high in pairwise(_MODULATION)),
    *("delta_deviation", "delta_skewness", "delta_kurtosis", *(f"delta_percentile_{p}" for p in _PERCENTILES)),
)


def contour_functionals(
    tracks: Float[np.ndarray, "feature frames"], frames_per_second: float
) -> Float[np.ndarray, "feature functional"]:
    """Computes the numbers of `FUNCTIONALS` of each track; all are finite, for one frame and for constants too.

    They are those of ComParE (F. Weninger et al., Frontiers in Psychology 4:292, 2013), restated: moments,
    percentiles and their ranges; regression by a line and by a parabola over the time from 0 to 1; peaks above the
    mean, smoothed over three frames; rising and falling per second; shares of the time. In place of ComParE's linear
    prediction of the contour stands its modulation: the logarithm of its power in octaves of frequency, relative to
    all of it.
    """
    x = np.ascontiguousarray(tracks, dtype=np.float64)
    deltas = np.diff(x, axis=1) if x.shape[1] > 1 else np.zeros_like(x)
    percentiles = np.percentile(x, _PERCENTILES, axis=1)
    return np.concatenate(
        [
            np.stack(_moments(x), axis=1),
            percentiles.T,
            _ranges(percentiles),
            _positions(x),
            _regression(x),
            _peaks(x, frames_per_second),
            _slopes(x, deltas * frames_per_second),
            _levels(x, percentiles),
            _modulation(x, frames_per_second),
            np.stack(_moments(deltas)[1:], axis=1),
            np.percentile(deltas, _PERCENTILES, axis=1).T,
        ],
        axis=1,
    )


def _moments(x: np.ndarray) -> list[np.ndarray]:
    """Returns mean, deviation, skewness and excess kurtosis; the last two are 0 of a constant."""
    mean = x.mean(axis=1)
    centred = x - mean[:, None]
    deviation = np.sqrt(np.square(centred).mean(axis=1))
    scaled = centred / _divisors(deviation, mean)[:, None]
    cubes = scaled**3
    skewness, kurtosis = cubes.mean(axis=1), (cubes * scaled).mean(axis=1)
    return [mean, deviation, skewness, np.where(kurtosis > 0, kurtosis - 3, 0.0)]


def _divisors(deviation: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Returns deviations to divide by; infinity where they are rounding, so that the quotient is 0."""
    return np.where(deviation > 1e-7 * np.maximum(np.abs(mean), 1e-3), deviation, np.inf)


def _ranges(percentiles: np.ndarray) -> np.ndarray:
    p1, p25, p50, p75, p99 = percentiles
    return np.stack([p99 - p1, p75 - p25, p50 - p25, p75 - p50], axis=1)


def _time(frames: int) -> np.ndarray:
    return np.linspace(0.0, 1.0, frames) if frames > 1 else np.full(1, 0.5)


def _positions(x: np.ndarray) -> np.ndarray:
    """Returns the times of maximum, minimum and of the centre of what is above the minimum, from 0 to 1."""
    time = _time(x.shape[1])
    above = x - x.min(axis=1, keepdims=True)
    mass = above.sum(axis=1)
    centroid = np.where(mass > 1e-12, (above @ time) / np.maximum(mass, 1e-12), 0.5)
    return np.stack([time[x.argmax(axis=1)], time[x.argmin(axis=1)], centroid], axis=1)


def _regression(x: np.ndarray) -> np.ndarray:
    """Returns slope and error of a line, curvature, slope at the middle and error of a parabola (orthogonal)."""
    time = _time(x.shape[1]) - 0.5
    centred = x - x.mean(axis=1, keepdims=True)
    parabola = time**2 - (time**2).mean()
    slope = centred @ time / max((time**2).sum(), 1e-12)
    curvature = centred @ parabola / max((parabola**2).sum(), 1e-12)
    line = centred - slope[:, None] * time
    curve = line - curvature[:, None] * parabola
    errors = [np.sqrt(np.square(e).mean(axis=1)) for e in (line, curve)]
    return np.stack([slope, errors[0], curvature, slope + curvature, errors[1]], axis=1)


def _peaks(x: np.ndarray, frames_per_second: float) -> np.ndarray:
    """Returns the rate of peaks above the mean, mean and deviation of their distances (s), height, height range."""
    frames = x.shape[1]
    padded = np.pad(x, ((0, 0), (1, 1)), mode="edge")
    smooth = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
    mean = x.mean(axis=1, keepdims=True)
    peak = np.zeros(x.shape, bool)
    peak[:, 1:-1] = (smooth[:, 1:-1] > smooth[:, :-2]) & (smooth[:, 1:-1] >= smooth[:, 2:])
    peak &= smooth > mean + 1e-9 * np.abs(mean)
    count = peak.sum(axis=1)
    row, place = np.nonzero(peak)
    steps = np.diff(place) / frames_per_second
    same = np.diff(row) == 0
    gaps = np.maximum(np.bincount(row[1:][same], minlength=len(x)), 1)
    distance = np.bincount(row[1:][same], steps[same], minlength=len(x)) / gaps
    square = np.bincount(row[1:][same], steps[same] ** 2, minlength=len(x)) / gaps
    height = np.where(peak, smooth - mean, 0.0)
    least = np.where(peak, smooth - mean, np.inf).min(axis=1, initial=np.inf)
    spread = np.where(count > 0, height.max(axis=1, initial=0.0) - least, 0.0)
    return np.stack(
        [
            count * frames_per_second / frames,
            distance,
            np.sqrt(np.maximum(square - distance**2, 0.0)),
            height.sum(axis=1) / np.maximum(count, 1),
            spread,
        ],
        axis=1,
    )


def _slopes(x: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Returns mean and deviation of rising and of falling per second, and shares of time rising and left curved."""
    columns = []
    for side in (rates > 0, rates < 0):
        count = np.maximum(side.sum(axis=1), 1)
        mean = np.where(side, rates, 0.0).sum(axis=1) / count
        square = np.where(side, rates**2, 0.0).sum(axis=1) / count
        columns += [mean, np.sqrt(np.maximum(square - mean**2, 0.0))]
    curved = (np.diff(rates, axis=1) > 0).mean(axis=1) if rates.shape[1] > 1 else np.zeros(len(x))
    return np.stack([*columns, (rates > 0).mean(axis=1), curved], axis=1)


def _levels(x: np.ndarray, percentiles: np.ndarray) -> np.ndarray:
    """Returns the shares of the time that the track is above levels of its range."""
    low, extent = percentiles[0], percentiles[-1] - percentiles[0]
    return np.stack([(x > (low + level * extent)[:, None]).mean(axis=1) for level in _LEVELS], axis=1)


def _modulation(x: np.ndarray, frames_per_second: float) -> np.ndarray:
    """Returns the logarithms of the shares of the contour's power in the bands of `_MODULATION`."""
    n_fft = scipy.fft.next_fast_len(x.shape[1], real=True)
    power = np.abs(scipy.fft.rfft(x - x.mean(axis=1, keepdims=True), n_fft, axis=1)) ** 2
    hertz = np.arange(power.shape[1]) * frames_per_second / n_fft
    total = power.sum(axis=1) + 1e-12
    shares = [power[:, (hertz >= low) & (hertz < high)].sum(axis=1) / total for low, high in pairwise(_MODULATION)]
    return np.log(np.stack(shares, axis=1) + 1e-3)
