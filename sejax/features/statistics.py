"""Statistics of an utterance: the level, spread and change of each track in one vector per stream."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.features.pitch import voiced_stretches

PERCENTILES = (5, 25, 50, 75, 95)
RHYTHM = 6


def functionals(frames: Float32[np.ndarray, "frames feature"]) -> Float32[np.ndarray, " statistic"]:
    """Computes mean, deviation and five percentiles of every feature and of its frame-to-frame change.

    Returns:
      14 numbers per feature: all means, then all deviations, then each percentile; then the same of the deltas.
    """
    # One row per feature: sorting along columns takes ten times as long.
    tracks = np.ascontiguousarray(frames.T)
    deltas = np.diff(tracks, axis=1, prepend=tracks[:, :1])
    return np.concatenate([_describe(tracks), _describe(deltas)])


def _describe(tracks: Float32[np.ndarray, "feature frames"]) -> Float32[np.ndarray, " statistic"]:
    """Returns all means, then all deviations, then each percentile.

    The percentiles equal those of `np.percentile` (linear interpolation), which partitions the values around each
    percentile and takes far longer than one sort.
    """
    last = tracks.shape[1] - 1
    position = np.array(PERCENTILES) / 100 * last
    below = position.astype(int)
    share = (position - below).astype(np.float32)
    ordered = np.sort(tracks, axis=1)
    low, high = ordered[:, below], ordered[:, np.minimum(below + 1, last)]
    percentiles = low + share * (high - low)
    return np.concatenate([tracks.mean(axis=1), tracks.std(axis=1), percentiles.T.ravel()])


def functional_names(tracks: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the track of each number of `functionals` and its kind: mean, deviation, percentiles, delta mean, ...

    Args:
      tracks: the name of each feature.
    """
    functionals = ("mean", "deviation", *["percentiles"] * len(PERCENTILES))
    kinds = [(track, kind) for kind in functionals for track in tracks]
    return [*kinds, *((track, f"delta {kind}") for track, kind in kinds)]


def voiced_functionals(
    frames: Float32[np.ndarray, "frames feature"], voiced: Bool[np.ndarray, " frames"], *, hop_length: int
) -> Float32[np.ndarray, " statistic"]:
    """Computes `functionals` of all frames, then of the voiced frames alone, then the `rhythm` of voicing.

    Args:
      frames: Tracks of one utterance.
      voiced: Which frames are voiced.
      hop_length: Distance between frames, in samples at 16 kHz.
    """
    spoken = frames[voiced] if voiced.sum() > 3 else frames
    return np.concatenate([functionals(frames), functionals(spoken), rhythm(voiced, hop_length=hop_length)])


def rhythm(voiced: Bool[np.ndarray, " frames"], *, hop_length: int) -> Float32[np.ndarray, " 6"]:
    """Computes the rhythm of voicing.

    Its six numbers are the duration in seconds, the share of voiced frames, voiced stretches per second, and the mean,
    deviation and greatest length of a stretch in seconds.

    Args:
      voiced: Which frames are voiced.
      hop_length: Distance between frames, in samples at 16 kHz.
    """
    frames_per_second = SAMPLING_RATE / hop_length
    stretches = voiced_stretches(voiced)
    lengths = np.diff(stretches)[:, 0] / frames_per_second if len(stretches) else np.zeros(1)
    seconds = len(voiced) / frames_per_second
    return np.array(
        [
            seconds,
            voiced.mean(),
            len(stretches) / seconds,
            lengths.mean(),
            lengths.std(),
            lengths.max(),
        ],
        np.float32,
    )
