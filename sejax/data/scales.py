"""Normalisation: of each fold by its training speakers, or of each speaker or corpus by its own audio."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num

from sejax.data.stored import Stored
from sejax.data.types import AnyArray, Data, Scale, Stream


def normalise_by_group(stream: Stream, groups: Sequence[str]) -> Stream:
    """Returns frames and statistics normalised by the mean and deviation of their own group, view by view.

    This uses the unlabelled audio of all utterances, those that are tested included: the setting is transductive, and
    reported as such.

    Args:
      stream: of a corpus.
      groups: the speaker, or the corpus, of each utterance.
    """
    group_rows: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        group_rows.setdefault(group, []).append(row)
    frames = [list(view) for view in stream.frames]
    statistics = stream.statistics.copy()
    for rows in group_rows.values():
        for view in frames:
            moments = [_moments(np.asarray(view[row])) for row in rows]
            if not any(count for count, _, _ in moments):  # a stream of statistics alone
                continue
            mean, inverse = _mean_and_inverse(*_mean_and_variance(*(np.stack(x) for x in zip(*moments, strict=True))))
            for row in rows:
                stored = view[row]
                view[row] = Stored(stored.shape, stored.dtype, partial(_normalised, stored, mean, inverse))
        of_group = statistics[rows].astype(np.float64)
        mean, inverse = _mean_and_inverse(of_group.mean(axis=0), of_group.var(axis=0))
        statistics[rows] = (of_group - mean) * inverse
    return Stream(frames, statistics)


def _normalised(
    frames: Num[AnyArray, "frames feature"],
    mean: Float[np.ndarray, " feature"],
    inverse: Float[np.ndarray, " feature"],
) -> Num[np.ndarray, "frames feature"]:
    """Reads frames and normalises them."""
    return ((np.asarray(frames) - mean) * inverse).astype(frames.dtype)


def fold_scales(
    data: Data,
    trained: Sequence[Bool[np.ndarray, " utterance"]],
    *,
    corruptions: int = 0,
    corrupted: Sequence[float] = (),
) -> tuple[dict[str, Scale], dict[str, Scale]]:
    """Returns the normalisation of frames and of statistics of each fold, `[fold, ...]`, by stream.

    Moments are summed in float64, over the views of a fold's training utterances alone. Corrupted views count as often
    as the fold draws them: without any, the normalisation is that of clean speech. Raw audio has no scale.

    Args:
      data: The corpus.
      trained: Training utterances of each fold.
      corruptions: Number of corrupted views, which are the last ones.
      corrupted: Share of the utterances that each fold draws from them, if there are any.
    """
    n_views = next(iter(data.statistics.values())).shape[1]
    clean, noisy = range(n_views - corruptions), range(n_views - corruptions, n_views)
    shares = corrupted if corruptions else [0.0] * len(trained)
    parts = [[(views, x) for views, x in ((clean, 1 - share), (noisy, share)) if x] for share in shares]
    frame_scale = {
        name: _frame_scale(data, name, trained, parts)
        for name, frames in data.buckets[0].frames.items()
        if not np.issubdtype(frames.dtype, np.integer)
    }
    statistic_scale = {name: _statistic_scale(np.asarray(x), trained, parts) for name, x in data.statistics.items()}
    return frame_scale, statistic_scale


def unit_scales(
    data: Data,
    trained: Sequence[Bool[np.ndarray, " utterance"]],
    *,
    corruptions: int = 0,
    corrupted: Sequence[float] = (),
) -> tuple[dict[str, Scale], dict[str, Scale]]:
    """Returns scales of the shapes of `fold_scales` that change nothing, of features that are not read."""

    def unit(size: int) -> Scale:
        return Scale(np.zeros((len(trained), size), np.float32), np.ones((len(trained), size), np.float32))

    frames = {name: x for name, x in data.buckets[0].frames.items() if not np.issubdtype(x.dtype, np.integer)}
    return (
        {name: unit(x.shape[-1]) for name, x in frames.items()},
        {name: unit(x.shape[-1]) for name, x in data.statistics.items()},
    )


Parts = Sequence[tuple[range, float]]
"""Views of which one is drawn, and the share of the utterances for which it is."""


def _frame_scale(
    data: Data, name: str, trained: Sequence[Bool[np.ndarray, " utterance"]], parts: Sequence[Parts]
) -> Scale:
    """Returns the normalisation of one stream's frames."""
    n, n_features = len(data.target), data.buckets[0].frames[name].shape[-1]
    moments = {}
    for views in {views for of_fold in parts for views, _ in of_fold}:
        count, total, square = np.zeros(n), np.zeros((n, n_features)), np.zeros((n, n_features))
        for bucket in data.buckets:
            frames = bucket.frames[name]
            for i, row in enumerate(bucket.utterance):
                count[row], total[row], square[row] = _moments(np.concatenate([frames.valid(i, v) for v in views]))
        moments[views] = count, total, square
    scales = []
    for rows, of_fold in zip(trained, parts, strict=True):
        n_first = len(of_fold[0][0])  # weights are relative: that of a part alone is 1, which rounds nothing
        weighted = [[share * n_first / len(views) * x[rows] for x in moments[views]] for views, share in of_fold]
        scales.append(_mean_and_inverse(*_mean_and_variance(*map(np.concatenate, zip(*weighted, strict=True)))))
    return Scale(*(np.stack(x) for x in zip(*scales, strict=True)))


def _moments(frames: Num[np.ndarray, "_frames feature"]) -> tuple[int, Any, Any]:
    """Returns the number of frames, and the sum and the sum of squares of each feature, in float64."""
    frames = frames.astype(np.float64)
    return len(frames), frames.sum(axis=0), (frames**2).sum(axis=0)


def _mean_and_variance(count, total, square) -> tuple[Float[np.ndarray, " feature"], Float[np.ndarray, " feature"]]:
    """Returns mean and variance over all frames, from the moments of each utterance."""
    mean = total.sum(axis=0) / count.sum()
    return mean, square.sum(axis=0) / count.sum() - mean**2


def _statistic_scale(
    statistics: Float[np.ndarray, "utterance view statistic"],
    trained: Sequence[Bool[np.ndarray, " utterance"]],
    parts: Sequence[Parts],
) -> Scale:
    """Returns the normalisation of one stream's statistics."""
    scales = []
    for rows, of_fold in zip(trained, parts, strict=True):
        drawn = [statistics[rows][:, views.start : views.stop].astype(np.float64) for views, _ in of_fold]
        moments = [
            (share, x.mean(axis=(0, 1)), x.var(axis=(0, 1))) for x, (_, share) in zip(drawn, of_fold, strict=True)
        ]
        mean = sum(share * of_part for share, of_part, _ in moments)
        # That inside the parts, and that between them.
        variance = sum(share * (inside + (of_part - mean) ** 2) for share, of_part, inside in moments)
        scales.append(_mean_and_inverse(mean, variance))
    return Scale(*(np.stack(x) for x in zip(*scales, strict=True)))


def _mean_and_inverse(mean, variance) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Returns mean and 1 / deviation in float32; 0 instead of 1 / deviation for a feature that does not vary."""
    deviation = np.sqrt(np.maximum(variance, 0.0))
    floor = 1e-5 * np.maximum(np.abs(mean), 1.0)
    inverse = np.where(deviation > floor, 1.0 / np.maximum(deviation, floor), 0.0)
    return mean.astype(np.float32), inverse.astype(np.float32)
