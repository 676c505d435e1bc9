"""The corpus on the device: its arrays, how a fold normalises them, and the masks of SpecAugment."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sejax.data.types import Data


class Scale(NamedTuple):
    """A fold's normalisation of one stream, from its training utterances: (x - mean) * inverse."""

    mean: Tensor
    inverse: Tensor


class Bucket(NamedTuple):
    """Utterances of similar length, on the device."""

    utterance: Tensor  # [row]
    frames: dict[str, Tensor]  # [row, time, feature], as they are stored, 0 beyond the end
    lengths: dict[str, Tensor]  # [row]


class Corpus(NamedTuple):
    """The arrays that all folds share, on the device."""

    buckets: tuple[Bucket, ...]
    statistics: dict[str, Tensor]  # [utterance, statistic]
    target: Tensor  # [utterance, class]
    vad: Tensor  # [utterance, dim]


def load_corpus(data: Data, names: Sequence[str], device: torch.device) -> Corpus:
    """Returns the corpus on the device: of the streams by these names, the first view.

    Raises:
      ValueError: when an utterance lacks its class or one of the dimensions.
    """
    if not (data.target.sum(axis=1) > 0).all() or not np.isfinite(data.vad).all():
        raise ValueError("an utterance lacks its class or a dimension, expected both of every utterance")
    return Corpus(
        tuple(
            Bucket(
                torch.from_numpy(bucket.utterance).to(device, torch.int64),
                {name: torch.from_numpy(np.asarray(bucket.frames[name])[:, 0]).to(device) for name in names},
                {name: torch.from_numpy(bucket.lengths[name][:, 0]).to(device) for name in names},
            )
            for bucket in data.buckets
        ),
        {name: torch.from_numpy(data.statistics[name][:, 0]).to(device) for name in names},
        torch.from_numpy(data.target).to(device),
        torch.from_numpy(data.vad).to(device),
    )


def fold_scales(corpus: Corpus, trained: Tensor) -> tuple[dict[str, Scale], dict[str, Scale]]:
    """Returns the scales of frames and of statistics, by stream, [fold, feature]; `trained` is [fold, utterance]."""
    share = trained.double()
    frame_scale, statistic_scale = {}, {}
    for name, statistics in corpus.statistics.items():
        feature = corpus.buckets[0].frames[name].shape[-1]
        sums = torch.zeros(len(statistics), 1 + 2 * feature, dtype=torch.float64, device=statistics.device)
        for bucket in corpus.buckets:
            for rows in torch.arange(len(bucket.utterance), device=statistics.device).split(64):
                x, length = bucket.frames[name][rows].double(), bucket.lengths[name][rows, None]
                sums[bucket.utterance[rows]] = torch.cat([length, x.sum(dim=1), x.square().sum(dim=1)], dim=1)
        count, total, square = (share @ sums).split([1, feature, feature], dim=1)
        frame_scale[name] = _scale(total / count, square / count)
        x = statistics.double()
        count = share.sum(dim=1, keepdim=True)
        statistic_scale[name] = _scale(share @ x / count, share @ x.square() / count)
    return frame_scale, statistic_scale


def _scale(mean: Tensor, square: Tensor) -> Scale:
    """Returns the scale for E[x] and E[x^2]; a feature that does not vary becomes 0."""
    deviation = (square - mean.square()).clamp_min(0.0).sqrt()
    varies = deviation > 1e-5 * mean.abs().clamp_min(1.0)
    return Scale(mean.float(), torch.where(varies, 1 / deviation, 0.0).float())


def normalise(x: Tensor, scale: Scale, seen: Tensor | None = None) -> Tensor:
    """Normalises `x` by the fold's scale and clips it at 8 deviations.

    Values that are not a number, or not `seen` (broadcast against `x`), become 0.
    """
    inverse = scale.inverse if seen is None else scale.inverse * seen
    return torch.addcmul(-scale.mean * inverse, x.float(), inverse).clamp_(-8.0, 8.0).nan_to_num_(0.0)


def bands(rows: int, n: int, size: int, widest: float, device: torch.device) -> Tensor:
    """Returns [row, position], False inside `n` random bands per row, each up to `widest` wide."""
    start = torch.rand(rows, n, 1, device=device) * size
    width = torch.rand(rows, n, 1, device=device) * widest
    position = torch.arange(size, device=device) + 0.5
    return ~((position >= start) & (position < start + width)).any(dim=1)
