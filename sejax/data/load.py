"""Features of a corpus as arrays for the device: padded in length buckets, and in which order they are visited."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num
from numpy.typing import DTypeLike

from sejax.corpora.schema import Corpus
from sejax.data.stored import Stored
from sejax.step import AnyArray, Batch, Scale

PREDICTION_BYTES = 1 << 30  # frames that a batch of all folds may have: it lies on the device whole
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


class Bucket(NamedTuple):
    """Utterances of similar length. `view` counts the augmented copies of an utterance; view 0 is the original."""

    utterance: Int[AnyArray, " row"]  # row in the corpus
    frames: dict[str, Num[AnyArray, "row view _time _feature"]]  # of the encoded streams; `Padded` until they are read
    lengths: dict[str, Int[AnyArray, "row view"]]  # valid frames


class Data(NamedTuple):
    """A corpus, shared by all runs."""

    buckets: tuple[Bucket, ...]
    statistics: dict[str, Float[AnyArray, "utterance view _statistic"]]
    target: Float[AnyArray, "utterance class"]
    vad: Float[AnyArray, "utterance dim"]


class Order(NamedTuple):
    """The batches of one epoch, in several orders: in every round some steps on each bucket in turn."""

    rows: tuple[Int[AnyArray, "order round _step batch"], ...]  # per bucket, rows of that bucket
    view: tuple[Int[AnyArray, "order round _step batch"], ...]


class Stream(NamedTuple):
    """One stream of a corpus on the host: per view and utterance, frames and statistics.

    Float32; hidden states of pretrained models float16; raw audio int16, a sample a frame, without statistics.
    Where only statistics are kept an utterance has 0 frames.
    """

    frames: list[list[Num[AnyArray, "_frames _feature"]]]  # [view][utterance], arrays or `Stored`
    statistics: Float[np.ndarray, "utterance view statistic"]


def normalise_by_speaker(stream: Stream, speakers: Sequence[str]) -> Stream:
    """Every speaker's frames and statistics with that speaker's own mean and deviation taken out, view by view.

    It uses the speaker's own unlabelled audio, the test speaker's too: a transductive setting, reported as one.
    """
    speaker_rows: dict[str, list[int]] = {}
    for row, speaker in enumerate(speakers):
        speaker_rows.setdefault(speaker, []).append(row)
    frames = [list(view) for view in stream.frames]
    statistics = stream.statistics.copy()
    for rows in speaker_rows.values():
        for view in frames:
            moments = [_moments(np.asarray(view[row])) for row in rows]
            if not any(count for count, _, _ in moments):  # a stream of statistics alone
                continue
            mean, inverse = _mean_and_inverse(*_mean_and_variance(*(np.stack(x) for x in zip(*moments, strict=True))))
            for row in rows:
                own = view[row]
                view[row] = Stored(own.shape, own.dtype, partial(_normalised, own, mean, inverse))
        own = statistics[rows].astype(np.float64)
        mean, inverse = _mean_and_inverse(own.mean(axis=0), own.var(axis=0))
        statistics[rows] = (own - mean) * inverse
    return Stream(frames, statistics)


def _normalised(frames: Num[AnyArray, "..."], mean, inverse) -> Num[np.ndarray, "..."]:
    return ((np.asarray(frames) - mean) * inverse).astype(frames.dtype)


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


def plan_rounds(n_batches: Sequence[int], *, most_extra: float = 0.1) -> tuple[int, list[int]]:
    """Spreads the batches of each bucket evenly over rounds, so that short and long utterances alternate.

    Buckets take fixed turns because a branch on the bucket inside the compiled loop costs up to three times the
    step on a CPU.

    Returns:
      The number of rounds, and each bucket's steps in one; rounding up adds at most `most_extra` of the steps.
    """
    for rounds in range(max(1, min(n for n in n_batches if n)), 0, -1):
        steps = [-(-n // rounds) for n in n_batches]
        if rounds * sum(steps) <= (1 + most_extra) * sum(n_batches):
            break
    return rounds, steps


def epoch_order(
    utterances: Sequence[Int[AnyArray, " _row"]],
    *,
    orders: Sequence[tuple[int, Bool[np.ndarray, " utterance"]]],
    epoch: int,
    batch_size: int,
    views: int,
) -> Order:
    """Shuffles one epoch, for each seed and the utterances visited under it: all of them, each batch from one bucket.

    `utterances` are those of each bucket. Orders of one seed are what each visits of one shuffle, so that they come
    to an utterance at about the same time, which is read once for all of them where frames are streamed. All orders
    have the same steps; where these do not come out even, utterances from the start of the shuffle come a second
    time, so that all batches are full. A view is drawn for an utterance and epoch. An order depends on its seed, its
    utterances, the epoch and the number of steps: a resumed run sees the same.
    """
    most = [max(int(visited[np.asarray(u)].sum()) for _, visited in orders) for u in utterances]
    rounds, steps = plan_rounds([-(-n // batch_size) for n in most])
    shapes = [(rounds, n, batch_size) for n in steps]
    per_order = []
    for seed, visited in orders:
        rng = np.random.default_rng([seed, epoch])
        shuffles = [rng.permutation(len(u)) for u in utterances]
        drawn = [rng.integers(0, views, len(u)) for u in utterances]
        own = [shuffle[visited[np.asarray(u)[shuffle]]] for shuffle, u in zip(shuffles, utterances, strict=True)]
        # A bucket of which an order visits nothing is filled with a row that no run of that order is trained on.
        rows = [np.resize(r if len(r) else 0, s) for r, s in zip(own, shapes, strict=True)]
        per_order.append((rows, [view[r] for view, r in zip(drawn, rows, strict=True)]))
    return Order(
        *(tuple(np.stack(x).astype(np.int32) for x in zip(*part, strict=True)) for part in zip(*per_order, strict=True))
    )


def take_batch(data: Data, bucket: Bucket, rows: Int[Array, " batch"], view: Int[Array, " batch"]) -> Batch:
    """Gathers rows of one bucket, on the device."""
    utterance = bucket.utterance[rows]
    return Batch(
        utterance=utterance,
        frames={name: x[rows, view] for name, x in bucket.frames.items()},
        lengths={name: x[rows, view] for name, x in bucket.lengths.items()},
        statistics={name: x[utterance, view] for name, x in data.statistics.items()},
        target=data.target[utterance],
        vad=data.vad[utterance],
    )


def prediction_rows(
    data: Data, wanted: Sequence[Int[np.ndarray, " _row"]], batch_size: int
) -> tuple[list[Int[np.ndarray, "fold _batch _row"]], Int[np.ndarray, "fold column"]]:
    """Batches of each fold's wanted utterances, bucket by bucket, all folds padded to equal size.

    Long frames make batches smaller than `batch_size` (`PREDICTION_BYTES`).

    Returns:
      Per bucket, rows of that bucket `[fold, n_batch, batch_size]` (0 where padded), and for the predictions of
      all buckets laid end to end, `[fold, column]`, the utterance of each (-1 where padded).
    """
    rows_by_bucket, columns = [], []
    for bucket in data.buckets:
        utterance = np.asarray(bucket.utterance)
        own = [np.flatnonzero(np.isin(utterance, w)) for w in wanted]
        longest = max(len(rows) for rows in own)
        if not longest:
            n_batches, size = 0, batch_size
        else:
            per_row = sum(math.prod(x.shape[2:]) * x.dtype.itemsize for x in bucket.frames.values())
            most = max(1, min(batch_size, PREDICTION_BYTES // max(1, len(own) * per_row)))
            n_batches = -(-longest // most)
            size = -(-longest // n_batches)
        rows = np.zeros((len(own), n_batches * size), np.int32)
        column = np.full(rows.shape, -1)
        for fold, r in enumerate(own):
            rows[fold, : len(r)] = r
            column[fold, : len(r)] = utterance[r]
        rows_by_bucket.append(rows.reshape(len(own), n_batches, size))
        columns.append(column)
    return rows_by_bucket, np.concatenate(columns, axis=1)


def fold_scales(
    data: Data, trained: Sequence[Bool[np.ndarray, " utterance"]]
) -> tuple[dict[str, Scale], dict[str, Scale]]:
    """Each fold's normalisation of frames and of statistics, from its training utterances alone: `[fold, ...]`.

    Moments are summed in float64, over all views. Raw audio has no scale.
    """
    frame_scale = {
        name: _frame_scale(data, name, trained)
        for name, frames in data.buckets[0].frames.items()
        if not np.issubdtype(frames.dtype, np.integer)
    }
    statistic_scale = {name: _statistic_scale(np.asarray(x), trained) for name, x in data.statistics.items()}
    return frame_scale, statistic_scale


def _frame_scale(data: Data, name: str, trained: Sequence[Bool[np.ndarray, " utterance"]]) -> Scale:
    n, n_features = len(data.target), data.buckets[0].frames[name].shape[-1]
    count, total, square = np.zeros(n), np.zeros((n, n_features)), np.zeros((n, n_features))
    for bucket in data.buckets:
        frames = bucket.frames[name]
        for i, row in enumerate(bucket.utterance):
            own = np.concatenate([frames.valid(i, view) for view in range(frames.shape[1])])
            count[row], total[row], square[row] = _moments(own)
    scales = [_mean_and_inverse(*_mean_and_variance(count[rows], total[rows], square[rows])) for rows in trained]
    return Scale(*(np.stack(x) for x in zip(*scales, strict=True)))


def _moments(frames: Num[np.ndarray, "_frames feature"]) -> tuple[int, Any, Any]:
    """How many frames, and per feature the sum and the sum of squares, in float64."""
    frames = frames.astype(np.float64)
    return len(frames), frames.sum(axis=0), (frames**2).sum(axis=0)


def _mean_and_variance(count, total, square) -> tuple[Float[np.ndarray, " feature"], Float[np.ndarray, " feature"]]:
    """Of all frames, from the moments of each utterance."""
    mean = total.sum(axis=0) / count.sum()
    return mean, square.sum(axis=0) / count.sum() - mean**2


def _statistic_scale(
    statistics: Float[np.ndarray, "utterance view statistic"], trained: Sequence[Bool[np.ndarray, " utterance"]]
) -> Scale:
    scales = []
    for rows in trained:
        own = statistics[rows].astype(np.float64)
        scales.append(_mean_and_inverse(own.mean(axis=(0, 1)), own.var(axis=(0, 1))))
    return Scale(*(np.stack(x) for x in zip(*scales, strict=True)))


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


def _mean_and_inverse(mean, variance) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Float32 mean and 1 / deviation; a feature that does not vary is left at 0, not blown up."""
    deviation = np.sqrt(np.maximum(variance, 0.0))
    floor = 1e-5 * np.maximum(np.abs(mean), 1.0)
    inverse = np.where(deviation > floor, 1.0 / np.maximum(deviation, floor), 0.0)
    return mean.astype(np.float32), inverse.astype(np.float32)
