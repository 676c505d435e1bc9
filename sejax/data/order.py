"""In which order utterances are visited: the batches of an epoch and of a prediction."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Bool, Int

from sejax.data.types import AnyArray, Batch, Bucket, Data, Order

PREDICTION_BYTES = 1 << 30  # frames that a batch of all folds may have: it lies on the device whole


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
