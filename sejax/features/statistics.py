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
    deltas = np.diff(frames, axis=0, prepend=frames[:1])
    parts = []
    for track in (frames, deltas):
        parts += [track.mean(axis=0), track.std(axis=0), *np.percentile(track, PERCENTILES, axis=0)]
    return np.concatenate(parts).astype(np.float32)


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
