"""The order in which utterances are visited: the batches of an epoch and of a prediction."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Bool, Int

from sejax.data.types import AnyArray, Batch, Bucket, Data, Order

PREDICTION_BYTES = 1 << 30  # largest frames of a batch of all folds, which is on the device at once


def plan_rounds(n_batches: Sequence[int], *, most_extra: float = 0.1) -> tuple[int, list[int]]:
    """Spreads the batches of each bucket evenly over rounds, so that short and long utterances alternate.

    Buckets take fixed turns because a branch on the bucket inside the compiled loop costs up to three times the step
    on a CPU.

    Args:
      n_batches: Number of batches of each bucket.
      most_extra: Largest share of steps that rounding up may add.

    Returns:
      The number of rounds, and the steps of each bucket in one round.
    """
    for rounds in range(max(1, min(n for n in n_batches if n)), 0, -1):
        steps = [-(-n // rounds) for n in n_batches]
        if rounds * sum(steps) <= (1 + most_extra) * sum(n_batches):
            break
    return rounds, steps


def count_batches(
    utterances: Sequence[Int[AnyArray, " _row"]],
    *,
    orders: Sequence[tuple[int, Bool[np.ndarray, " utterance"]]],
    batch_size: int,
) -> list[int]:
    """Returns the batches of each bucket that hold all utterances of the longest order; see `epoch_order`."""
    return [-(-max(int(visited[np.asarray(u)].sum()) for _, visited in orders) // batch_size) for u in utterances]


def epoch_order(
    utterances: Sequence[Int[AnyArray, " _row"]],
    *,
    orders: Sequence[tuple[int, Bool[np.ndarray, " utterance"]]],
    epoch: int,
    batch_size: int,
    views: int,
    n_batches: Sequence[int] | None = None,
    corruptions: int = 0,
    corrupted: Sequence[float] = (),
) -> Order:
    """Shuffles one epoch of each order: every visited utterance once, each batch from one bucket.

    Orders of one seed are parts of one shuffle. They reach an utterance at about the same time, so that streamed frames
    are read once for all of them. All orders have the same number of steps and all batches are full: where the numbers
    do not divide, utterances from the start of the shuffle are visited twice; where `n_batches` has no room for all,
    those at its end are left out. One view is drawn per utterance and epoch: one of the first `views`, or, of a share
    of the utterances that each order has, one of the `corruptions` behind them. Of two orders of one seed, that with
    the larger share has the corrupted utterances of the other, and more. An order depends on its seed, its utterances,
    its share, the epoch and the number of steps alone, so that a resumed run gets the same orders.

    Args:
      utterances: Utterances of each bucket.
      orders: Seed and visited utterances of each order.
      epoch: Number of the epoch.
      batch_size: Utterances in a batch.
      views: Number of views of clean speech.
      n_batches: Batches of each bucket, where they are not as many as these orders need.
      corruptions: Number of corrupted views.
      corrupted: Share of the utterances that each order draws from them, if there are any.
    """
    rounds, steps = plan_rounds(n_batches or count_batches(utterances, orders=orders, batch_size=batch_size))
    shapes = [(rounds, n, batch_size) for n in steps]
    per_order = []
    for number, (seed, visited) in enumerate(orders):
        rng = np.random.default_rng([seed, epoch])
        shuffles = [rng.permutation(len(u)) for u in utterances]
        drawn = [rng.integers(0, views, len(u)) for u in utterances]
        if corruptions:
            noisy = [rng.integers(views, views + corruptions, len(u)) for u in utterances]
            drawn = [np.where(rng.random(len(x)) < corrupted[number], x, y) for x, y in zip(noisy, drawn, strict=True)]
        kept = [shuffle[visited[np.asarray(u)[shuffle]]] for shuffle, u in zip(shuffles, utterances, strict=True)]
        # Where an order visits nothing of a bucket, row 0 fills it, which no run of that order is trained on.
        rows = [np.resize(r if len(r) else 0, s) for r, s in zip(kept, shapes, strict=True)]
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
    """Returns batches of the utterances that each fold predicts, bucket by bucket, all folds padded to equal size.

    Batches of long frames are smaller than `batch_size` (`PREDICTION_BYTES`).

    Args:
      data: The corpus.
      wanted: Utterances that each fold predicts.
      batch_size: Largest number of utterances in a batch.

    Returns:
      For each bucket its rows `[fold, n_batch, batch_size]` (0 where padded); and the utterances of the concatenated
      predictions of all buckets `[fold, column]` (-1 where padded).
    """
    rows_by_bucket, columns = [], []
    for bucket in data.buckets:
        utterance = np.asarray(bucket.utterance)
        rows_by_fold = [np.flatnonzero(np.isin(utterance, w)) for w in wanted]
        longest = max(len(rows) for rows in rows_by_fold)
        if not longest:
            n_batches, size = 0, batch_size
        else:
            per_row = sum(math.prod(x.shape[2:]) * x.dtype.itemsize for x in bucket.frames.values())
            most = max(1, min(batch_size, PREDICTION_BYTES // max(1, len(rows_by_fold) * per_row)))
            n_batches = -(-longest // most)
            size = -(-longest // n_batches)
        rows = np.zeros((len(rows_by_fold), n_batches * size), np.int32)
        column = np.full(rows.shape, -1)
        for fold, r in enumerate(rows_by_fold):
            rows[fold, : len(r)] = r
            column[fold, : len(r)] = utterance[r]
        rows_by_bucket.append(rows.reshape(len(rows_by_fold), n_batches, size))
        columns.append(column)
    return rows_by_bucket, np.concatenate(columns, axis=1)
