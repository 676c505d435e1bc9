"""Features of a corpus as arrays for the device: padded in length buckets, and in which order they are visited."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Num
from numpy.typing import DTypeLike

from sejax.corpora.schema import Corpus
from sejax.data.types import AnyArray, Bucket, Data, Stream

ROUND_FRAMES = 8  # a bucket's length is rounded up to this, so that encoders' strides divide it


@dataclass(frozen=True, eq=False)
class Padded:
    """A stream's frames in one bucket: cut and padded to one array, of which rows are read as they are needed."""

    frames: Sequence[Sequence[Num[AnyArray, "_frames _feature"]]]  # [row][view]
    lengths: Int[np.ndarray, "row view"]  # to which they are cut
    shape: tuple[int, int, int, int]  # row, view, time, feature
    dtype: np.dtype

    def valid(self, row: int, view: int) -> Num[np.ndarray, "_frames _feature"]:
        return _rounded(np.asarray(self.frames[row][view])[: self.lengths[row, view]], self.dtype)

    def take(
        self, rows: Int[np.ndarray, " taken"], wanted: Bool[np.ndarray, "taken view"], size: int
    ) -> Num[np.ndarray, "_size view _time _feature"]:
        """Some rows, padded to `size` rows; views that are not wanted are not read, but 0."""
        padded = _aligned_zeros((size, wanted.shape[1], *self.shape[2:]), self.dtype)
        for place, view in np.argwhere(wanted).tolist():
            frames = self.valid(int(rows[place]), view)
            padded[place, view, : len(frames)] = frames
        return padded

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Num[np.ndarray, "row view time feature"]:
        everything = self.take(np.arange(len(self.frames)), np.ones(self.lengths.shape, bool), len(self.frames))
        return everything if dtype is None else everything.astype(dtype, copy=False)


def assemble(
    streams: Mapping[str, Stream],
    *,
    encoded: Collection[str],
    target: Float[np.ndarray, "utterance class"],
    vad: Float[np.ndarray, "utterance dim"],
    n_buckets: int,
    min_rows: int,
    max_seconds: float,
    hop_seconds: Mapping[str, float],
    frames_dtype: DTypeLike,
) -> tuple[Data, int]:
    """Lays the streams out in buckets of similar length.

    Args:
      encoded: the streams whose frames the model reads; of the others it reads the statistics alone.
      n_buckets: most buckets; fewer where a bucket would hold less than `min_rows` utterances.
      max_seconds: frames that begin after this are cut off (0: none).
      hop_seconds: from frame to frame, per stream.
      frames_dtype: what float32 frames are stored in; narrower ones (hidden states, raw audio) stay as they are.

    Returns:
      The arrays (numpy, to be put on the device; the frames not yet read) and how many utterances were cut.
    """
    lengths = {
        name: np.array([[len(view[row]) for view in s.frames] for row in range(len(target))])
        for name, s in streams.items()
    }
    kept, cut = {}, np.zeros(len(target), bool)
    for name, length in lengths.items():
        if not length.any():
            continue
        limit = int(max_seconds / hop_seconds[name]) if max_seconds else int(length.max())
        kept[name] = np.minimum(length, limit)
        cut |= length[:, 0] > limit
    seconds = [length.max(axis=1) * hop_seconds[name] for name, length in kept.items()]
    longest = np.max([np.zeros(len(target)), *seconds], axis=0)
    buckets = []
    for rows in length_buckets(longest, n_buckets=n_buckets, min_rows=min_rows):
        frames, valid = {}, {}
        for name in encoded:
            stream, length = streams[name], kept[name][rows]
            time = -(-int(length.max()) // ROUND_FRAMES) * ROUND_FRAMES
            own = [[view[row] for view in stream.frames] for row in rows]
            one = own[0][0]
            dtype = np.dtype(frames_dtype) if one.dtype == np.float32 else one.dtype
            frames[name] = Padded(own, length, (*length.shape, time, one.shape[1]), dtype)
            valid[name] = length.astype(np.int32)
        buckets.append(Bucket(rows.astype(np.int32), frames, valid))
    data = Data(
        tuple(buckets),
        {name: stream.statistics for name, stream in streams.items()},
        target.astype(np.float32),
        vad.astype(np.float32),
    )
    return data, int(cut.sum())


def take_rows(
    bucket: Bucket, rows: Int[np.ndarray, " taken"], wanted: Bool[np.ndarray, "taken view"], size: int
) -> Bucket:
    """Reads a small bucket of some rows and of their first views, filled up to `size` rows.

    Args:
      wanted: which views of each row are read; `wanted.shape[1]` of them have a place.
    """
    views = wanted.shape[1]
    return Bucket(
        np.resize(bucket.utterance[rows], size),
        {name: x.take(rows, wanted, size) for name, x in bucket.frames.items()},
        {name: np.resize(x[rows, :views], (size, views)) for name, x in bucket.lengths.items()},
    )


def _aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Num[np.ndarray, "..."]:
    """Zeros at an address that a CPU device reads in place: all its devices share one copy."""
    alignment, size = 64, math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + size].view(dtype).reshape(shape)


def _rounded(frames: Num[np.ndarray, "_frames _feature"], dtype: np.dtype[Any]) -> Num[np.ndarray, "_frames _feature"]:
    """Frames in another dtype: what is beyond its range becomes its largest number, NaN stays NaN.

    A stored value depends on that value alone, and so never on a speaker whom a fold holds out: nothing is scaled.
    """
    if frames.dtype == dtype:
        return frames
    largest = float(jnp.finfo(dtype).max)
    return np.clip(frames, -largest, largest).astype(dtype)


def length_buckets(
    lengths: Float[np.ndarray, " utterance"], *, n_buckets: int, min_rows: int
) -> list[Int[np.ndarray, " _row"]]:
    """Groups utterances by length so that the padding, summed over groups, is least.

    Exact over cuts at 32 quantiles, by dynamic programming. Rows of a group are in corpus order.
    """
    order = np.argsort(lengths, kind="stable")
    n = len(order)
    cuts = sorted({0, n, *(int(n * q / 32) for q in range(1, 32))})
    most = max(1, min(n_buckets, n // max(min_rows, 1)))
    best: dict[tuple[int, int], tuple[float, int]] = {(0, 0): (0.0, 0)}  # (groups, end) -> (cost, start)
    for k in range(1, most + 1):
        for end in cuts[1:]:
            options = [
                (best[k - 1, start][0] + (end - start) * float(lengths[order[end - 1]]), start)
                for start in cuts
                if start <= end - min_rows and (k - 1, start) in best
            ]
            if options:
                best[k, end] = min(options)
    if not any((k, n) in best for k in range(1, most + 1)):
        return [np.arange(n)]
    k = min((k for k in range(1, most + 1) if (k, n) in best), key=lambda k: best[k, n][0])
    groups, end = [], n
    for groups_left in range(k, 0, -1):
        start = best[groups_left, end][1]
        groups.append(np.sort(order[start:end]))
        end = start
    return groups[::-1]


def label_targets(
    corpus: Corpus, *, soft: bool
) -> tuple[Float[np.ndarray, "utterance class"], Float[np.ndarray, "utterance dim"]]:
    """Class targets and dimensions of a corpus.

    Args:
      soft: take the raters' distribution where there is one, instead of the majority label.

    Returns:
      One-hot (or soft) targets, all 0 for an utterance without a label; and valence, arousal, dominance in half
      scales around the middle of the corpus's scale (-1 to 1), NaN where missing.
    """
    target = np.zeros((len(corpus.utterances), len(corpus.classes)), np.float32)
    for row, utterance in enumerate(corpus.utterances):
        if soft and utterance.distribution is not None:
            target[row] = [utterance.distribution.get(name, 0.0) for name in corpus.classes]
        elif utterance.label is not None:
            target[row, corpus.classes.index(utterance.label)] = 1.0
    low, high = corpus.vad_scale
    vad = np.array([u.vad for u in corpus.utterances], np.float32)
    return target, ((vad - (low + high) / 2) / ((high - low) / 2)).astype(np.float32)
