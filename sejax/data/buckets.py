"""Features and labels of a corpus as arrays for the device: frames are padded in buckets of similar length."""

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

ROUND_FRAMES = 8  # the length of a bucket is rounded up to a multiple, so that strides of encoders divide it


@dataclass(frozen=True, eq=False)
class Padded:
    """A stream's frames in one bucket, cut and padded to one shape. Rows are read when they are needed."""

    frames: Sequence[Sequence[Num[AnyArray, "_frames _feature"]]]  # [row][view]
    lengths: Int[np.ndarray, "row view"]  # to which they are cut
    shape: tuple[int, int, int, int]  # row, view, time, feature
    dtype: np.dtype

    def valid(self, row: int, view: int) -> Num[np.ndarray, "_frames _feature"]:
        """Reads the frames of one row and view, without padding."""
        return rounded(np.asarray(self.frames[row][view])[: self.lengths[row, view]], self.dtype)

    def take(
        self, rows: Int[np.ndarray, " taken"], wanted: Bool[np.ndarray, "taken view"], size: int
    ) -> Num[np.ndarray, "_size view _time _feature"]:
        """Reads some rows, padded to `size` rows; views that are not wanted are 0 and not read."""
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
    batch_size: int,
    trained: Bool[np.ndarray, "fold utterance"],
    max_seconds: float,
    hop_seconds: Mapping[str, float],
    frames_dtype: DTypeLike,
) -> tuple[Data, int]:
    """Arranges the streams in buckets of similar length.

    Args:
      streams: Features by stream.
      encoded: Streams whose frames the model reads; it reads the statistics alone of the others.
      target: One-hot labels, or the raters' distribution.
      vad: Valence, arousal and dominance.
      n_buckets: Largest number of buckets; fewer where a bucket would have less utterances than a batch.
      batch_size: Utterances in a batch.
      trained: The training utterances of each fold.
      max_seconds: Frames that begin after this time are cut off; 0 keeps all.
      hop_seconds: Time from frame to frame, by stream.
      frames_dtype: Type in which float32 frames are held; hidden states and raw audio keep their narrower types.

    Returns:
      The arrays (numpy; frames are not read yet), and the number of utterances that are cut.
    """
    lengths = {
        name: np.array([[len(view[row]) for view in s.frames] for row in range(len(target))])
        for name, s in streams.items()
    }
    kept, cut = {}, np.zeros(len(target), bool)
    for name, length in lengths.items():
        if not length.any():
            continue
        limit = frame_limit(max_seconds, hop_seconds[name])
        kept[name] = length if limit is None else np.minimum(length, limit)
        cut |= length[:, 0] > kept[name][:, 0]
    seconds = [length.max(axis=1) * hop_seconds[name] for name, length in kept.items()]
    longest = np.max([np.zeros(len(target)), *seconds], axis=0)
    buckets = []
    for rows in length_buckets(longest, trained, n_buckets=n_buckets, batch_size=batch_size):
        frames, valid = {}, {}
        for name in encoded:
            stream, length = streams[name], kept[name][rows]
            time = -(-int(length.max()) // ROUND_FRAMES) * ROUND_FRAMES
            stored = [[view[row] for view in stream.frames] for row in rows]
            first = stored[0][0]
            dtype = np.dtype(frames_dtype) if first.dtype == np.float32 else first.dtype
            frames[name] = Padded(stored, length, (*length.shape, time, first.shape[1]), dtype)
            valid[name] = length.astype(np.int32)
        buckets.append(Bucket(rows.astype(np.int32), frames, valid))
    data = Data(
        tuple(buckets),
        {name: stream.statistics for name, stream in streams.items()},
        target.astype(np.float32),
        vad.astype(np.float32),
    )
    return data, int(cut.sum())


def frame_limit(max_seconds: float, hop_seconds: float) -> int | None:
    """Returns the number of frames that begin before a time; None, for all, if the time is 0."""
    return int(max_seconds / hop_seconds) if max_seconds else None


def take_rows(
    bucket: Bucket, rows: Int[np.ndarray, " taken"], wanted: Bool[np.ndarray, "taken view"], size: int
) -> Bucket:
    """Reads some rows of a bucket into a bucket of `size` rows, which the rows are repeated to fill.

    Args:
      bucket: Frames are `Padded`.
      rows: Rows of `bucket`.
      wanted: Which of the first views of each row are read; the others are 0.
      size: Number of rows of the result.
    """
    views = wanted.shape[1]
    return Bucket(
        np.resize(bucket.utterance[rows], size),
        {name: x.take(rows, wanted, size) for name, x in bucket.frames.items()},
        {name: np.resize(x[rows, :views], (size, views)) for name, x in bucket.lengths.items()},
    )


def _aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Num[np.ndarray, "..."]:
    """Returns zeros at an address that CPU devices read in place, so that they share one copy."""
    alignment, size = 64, math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + size].view(dtype).reshape(shape)


def rounded(frames: Num[np.ndarray, "_frames _feature"], dtype: np.dtype[Any]) -> Num[np.ndarray, "_frames _feature"]:
    """Returns frames in another type: values beyond its range become its largest number, NaN stays NaN.

    Nothing is scaled: a stored value depends on that value alone, and never on a speaker whom a fold holds out.
    """
    if frames.dtype == dtype:
        return frames
    largest = float(jnp.finfo(dtype).max)
    return np.clip(frames, -largest, largest).astype(dtype)


def length_buckets(
    lengths: Float[np.ndarray, " utterance"],
    trained: Bool[np.ndarray, "fold utterance"],
    *,
    n_buckets: int,
    batch_size: int,
) -> list[Int[np.ndarray, " _row"]]:
    """Groups utterances by length, so that the padded batches of an epoch are shortest in sum.

    All folds take as many batches of a group as that with the most of them, and all batches are full. The groups are
    the best of all that are cut at 32 quantiles, found by dynamic programming. None has less utterances than a batch.
    Rows of a group are in corpus order.
    """
    order = np.argsort(lengths, kind="stable")
    n = len(order)
    cuts = sorted({0, n, *(int(n * q / 32) for q in range(1, 32))})
    most = max(1, min(n_buckets, n // batch_size))
    shorter = np.pad(np.cumsum(trained[:, order], axis=1), ((0, 0), (1, 0)))  # training utterances, [fold, end]

    def cost(start: int, end: int) -> float:
        batches = -(-(shorter[:, end] - shorter[:, start]) // batch_size)
        return int(batches.max()) * float(lengths[order[end - 1]])

    best: dict[tuple[int, int], tuple[float, int]] = {(0, 0): (0.0, 0)}  # (groups, end) -> (cost, start)
    for k in range(1, most + 1):
        for end in cuts[1:]:
            options = [
                (best[k - 1, start][0] + cost(start, end), start)
                for start in cuts
                if start <= end - batch_size and (k - 1, start) in best
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
    """Returns the class targets and the dimensions of a corpus.

    Args:
      corpus: Utterances with labels.
      soft: Whether targets are the raters' distribution, where there is one, instead of the majority label.

    Returns:
      One-hot (or soft) targets, all 0 for an utterance without a label; and valence, arousal and dominance, with the
      corpus's scale mapped to -1 to 1 and NaN where missing.
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
