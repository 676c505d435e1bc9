"""An utterance in one vector per stream: how each track lies, spreads and moves."""

import numpy as np
from jaxtyping import Bool, Float32

PERCENTILES = (5, 25, 50, 75, 95)
FRAMES_PER_SECOND = 100.0  # at the default hop; only a scale


def functionals(frames: Float32[np.ndarray, "frames feature"]) -> Float32[np.ndarray, " statistic"]:
    """Mean, deviation and five percentiles of every feature and of its frame-to-frame change.

    Returns 14 numbers per feature: all means first, then all deviations, then each percentile; the same of the
    deltas after that.
    """
    # A row per feature: across rows, sorting takes ten times as long.
    tracks = np.ascontiguousarray(frames.T)
    deltas = np.diff(tracks, axis=1, prepend=tracks[:, :1])
    return np.concatenate([_describe(tracks), _describe(deltas)])


def _describe(tracks: Float32[np.ndarray, "feature frames"]) -> Float32[np.ndarray, " statistic"]:
    """All means, then all deviations, then each percentile.

    The percentiles are those of `np.percentile` (linear interpolation), which partitions around each of them and
    takes far longer than one sort.
    """
    last = tracks.shape[1] - 1
    position = np.array(PERCENTILES) / 100 * last
    below = position.astype(int)
    share = (position - below).astype(np.float32)
    ordered = np.sort(tracks, axis=1)
    low, high = ordered[:, below], ordered[:, np.minimum(below + 1, last)]
    percentiles = low + share * (high - low)
    return np.concatenate([tracks.mean(axis=1), tracks.std(axis=1), percentiles.T.ravel()])


def voiced_functionals(
    frames: Float32[np.ndarray, "frames feature"], voiced: Bool[np.ndarray, " frames"]
) -> Float32[np.ndarray, " statistic"]:
    """`functionals`, then the same of the voiced frames alone, then the rhythm of voicing.

    The rhythm is six numbers: seconds in all, the share of voiced frames, voiced stretches per second, and the
    mean, deviation and greatest length (seconds) of a stretch.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], voiced.astype(np.int8), [0]])))
    stretches = (edges[1::2] - edges[::2]) / FRAMES_PER_SECOND if len(edges) else np.zeros(1)
    seconds = len(frames) / FRAMES_PER_SECOND
    rhythm = [
        seconds,
        voiced.mean(),
        len(edges) / 2 / seconds,
        stretches.mean(),
        stretches.std(),
        stretches.max(),
    ]
    spoken = frames[voiced] if voiced.sum() > 3 else frames
    return np.concatenate([functionals(frames), functionals(spoken), np.array(rhythm, np.float32)])
