"""The order in which utterances are visited: the batches of an epoch and of a prediction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sejax.data.balance import balance_classes
from sejax.data.types import AnyArray, Batch, Bucket, Data, Order

PREDICTION_BYTES = 1 << 30  # largest frames of a batch of all folds, which is on the device at once


def plan_rounds(n_batches: Sequence[int]) -> tuple[int, list[int]]:
    """Spreads the batches of each bucket over rounds, so that short and long utterances alternate.

    Buckets take fixed turns because a branch on the bucket inside the compiled loop costs up to three times the step
    on a CPU.

    Args:
      n_batches: Number of batches of each bucket.

    Returns:
      The number of rounds, and the room for steps of each bucket in one round.
    """
    rounds = min(n for n in n_batches if n)
    return rounds, [-(-n // rounds) for n in n_batches]


class Pool(NamedTuple):
    """The utterances among which some orders shuffle. Orders of one pool have equally many steps."""

    name: str
    utterances: Bool[np.ndarray, " utterance"] | None  # None: all


_EVERYONE = Pool("", None)


def count_batches(
    utterances: Sequence[Int[AnyArray, " _row"]],
    *,
    orders: Sequence[tuple[int, Bool[np.ndarray, " utterance"]]],
    batch_size: int,
    visits: Float[np.ndarray, " utterance"] | None = None,
) -> list[int]:
    """Returns the batches of each bucket that hold all utterances of the longest order; see `epoch_order`."""
    of_buckets = (max(_count_visits(np.asarray(u)[visited[u]], visits) for _, visited in orders) for u in utterances)
    return [-(-n // batch_size) for n in of_buckets]


def batches_of_pools(
    utterances: Sequence[Int[AnyArray, " _row"]],
    *,
    orders: Sequence[tuple[int, Bool[np.ndarray, " utterance"]]],
    pools: Sequence[Pool],
    batch_size: int,
    visits: Float[np.ndarray, " utterance"] | None = None,
) -> dict[str, list[int]]:
    """Returns `count_batches` of the orders of each pool, by its name."""
    orders_of: dict[str, list[tuple[int, Bool[np.ndarray, " utterance"]]]] = {}
    for order, pool in zip(orders, pools, strict=True):
        orders_of.setdefault(pool.name, []).append(order)
    return {
        name: count_batches(utterances, orders=own, batch_size=batch_size, visits=visits)
        for name, own in orders_of.items()
    }


def epoch_order(
    utterances: Sequence[Int[AnyArray, " _row"]],
    *,
    orders: Sequence[tuple[int, Bool[np.ndarray, " utterance"]]],
    epoch: int,
    batch_size: int,
    views: int,
    n_batches: Mapping[str, Sequence[int]] | None = None,
    corruptions: int = 0,
    corrupted: Sequence[float] = (),
    pools: Sequence[Pool] | None = None,
    visits: Float[np.ndarray, " utterance"] | None = None,
    class_temperature: Sequence[float] = (),
    label: Int[np.ndarray, " utterance"] | None = None,
    counted: bool = False,
) -> Order:
    """Shuffles one epoch of each order: every visited utterance once, each batch from one bucket.

    Orders of one seed are parts of one shuffle. They reach an utterance at about the same time, so that streamed frames
    are read once for all of them. All orders have the same number of steps and all batches are full: where the numbers
    do not divide, utterances from the start of the shuffle are visited twice; where `n_batches` has no room for all,
    those at its end are left out. One view is drawn per utterance and epoch: one of the first `views`, or, of a share
    of the utterances that each order has, one of the `corruptions` behind them. Of two orders of one seed, that with
    the larger share has the corrupted utterances of the other, and more. An order that visits classes more evenly than
    they are has as many steps as the others, and visits some utterances more often than others (`balance_classes`). An
    order depends on its seed, its utterances, its share, its temperature, the epoch and the number of steps alone, so
    that a resumed run gets the same orders.

    Args:
      utterances: Utterances of each bucket.
      orders: Seed and visited utterances of each order.
      epoch: Number of the epoch.
      batch_size: Utterances in a batch.
      views: Number of views of clean speech.
      n_batches: Batches of each bucket by the name of the pool, where they are not as many as these orders need.
      corruptions: Number of corrupted views.
      corrupted: Share of the utterances that each order draws from them, if there are any.
      pools: The pool of each order; without pools all orders have one, which has all utterances. The orders of a pool
        are, within a bucket, what they are without the other pools. A pool with less to visit has fewer steps.
      visits: How often an utterance is visited, 1 or more; without, all once.
      class_temperature: How evenly each order visits the classes; 1, or without, as they are.
      label: The class of each utterance, -1 without one. An order reads those of the utterances that it visits.
      counted: Whether each order has a count of its steps though all have as many.
    """
    pools = pools or [_EVERYONE] * len(orders)
    needed = n_batches or batches_of_pools(utterances, orders=orders, pools=pools, batch_size=batch_size, visits=visits)
    rounds, steps = plan_rounds([max(of_bucket) for of_bucket in zip(*needed.values(), strict=True)])
    spread = {name: _spread(n, rounds, steps) for name, n in needed.items()}
    per_order = []
    for number_of_order, ((seed, visited), pool) in enumerate(zip(orders, pools, strict=True)):
        rng = np.random.default_rng([seed, epoch])
        inside = [
            np.arange(len(u)) if pool.utterances is None else np.flatnonzero(pool.utterances[u]) for u in utterances
        ]
        shuffles = [rng.permutation(of_bucket) for of_bucket in inside]
        drawn = [np.zeros(len(u), int) for u in utterances]
        for view, of_bucket in zip(drawn, inside, strict=True):
            view[of_bucket] = rng.integers(0, views, len(of_bucket))
        if corruptions:
            noisy = [rng.integers(views, views + corruptions, len(of_bucket)) for of_bucket in inside]
            for view, of_bucket, instead in zip(drawn, inside, noisy, strict=True):
                chosen = rng.random(len(of_bucket)) < corrupted[number_of_order]
                view[of_bucket] = np.where(chosen, instead, view[of_bucket])
        kept = [shuffle[visited[np.asarray(u)[shuffle]]] for shuffle, u in zip(shuffles, utterances, strict=True)]
        if visits is not None:
            kept = [_repeated(r, visits[np.asarray(u)[r]], rng) for r, u in zip(kept, utterances, strict=True)]
        taken = spread[pool.name]
        if label is not None and (temperature := class_temperature[number_of_order]) != 1:
            of_class = [label[np.asarray(u)[r]] for r, u in zip(kept, utterances, strict=True)]
            places = [int(of_bucket.sum()) * batch_size for of_bucket in taken]
            kept = balance_classes(kept, of_class, places, temperature, rng)
        rows = [_in_batches(r, n, most, batch_size) for r, n, most in zip(kept, taken, steps, strict=True)]
        per_order.append((rows, [view[r] for view, r in zip(drawn, rows, strict=True)], taken))
    of_rows, of_views, of_steps = (
        tuple(np.stack(x).astype(np.int32) for x in zip(*part, strict=True)) for part in zip(*per_order, strict=True)
    )
    apart = counted or len(needed) > 1
    return Order(of_rows, of_views, of_steps if apart else tuple(of_bucket[0] for of_bucket in of_steps))


def _in_batches(
    rows: Int[np.ndarray, " _row"], taken: Int[np.ndarray, " round"], steps: int, batch_size: int
) -> Int[np.ndarray, "round step batch"]:
    """Returns rows as the batches of the first `taken` steps of each round, repeated where they do not fill them.

    Where an order visits nothing of a bucket, row 0 fills it, which no run of that order is trained on.
    """
    batches = np.zeros((len(taken), steps, batch_size), int)
    batches[np.arange(steps) < taken[:, None]] = np.resize(rows if len(rows) else 0, (int(taken.sum()), batch_size))
    return batches


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """Gives the batches of each epoch of a program: `epoch_order` with all its arguments but the epoch."""

    utterances: Sequence[Int[AnyArray, " _row"]]
    orders: Sequence[tuple[int, Bool[np.ndarray, " utterance"]]]
    batch_size: int
    views: int
    corruptions: int = 0
    corrupted: Sequence[float] = ()
    n_batches: Mapping[str, Sequence[int]] | None = None
    pools: Sequence[Pool] | None = None
    visits: Float[np.ndarray, " utterance"] | None = None
    class_temperature: Sequence[float] = ()
    label: Int[np.ndarray, " utterance"] | None = None
    counted: bool = False

    def __call__(self, epoch: int) -> Order:
        """Returns the batches of an epoch."""
        return epoch_order(epoch=epoch, **{field.name: getattr(self, field.name) for field in fields(self)})

    def of(
        self,
        orders: Sequence[tuple[int, Bool[np.ndarray, " utterance"]]],
        corrupted: Sequence[float],
        class_temperature: Sequence[float],
        *,
        pooled: bool = False,
    ) -> "Shuffle":
        """Returns the shuffle of as many other orders, whose arrays have the same shapes.

        Args:
          orders: seed and visited utterances; where there are fewer, they are repeated.
          corrupted: share of the utterances of each order that are drawn from corrupted views.
          class_temperature: how evenly each order visits the classes.
          pooled: whether each order stays in the pool of the one whose place it takes, with as many batches.
        """
        own = self.pools or [_EVERYONE] * len(self.orders)
        pools = own if pooled else [_EVERYONE] * len(own)
        n_batches = batches_of_pools(
            self.utterances, orders=self.orders, pools=pools, batch_size=self.batch_size, visits=self.visits
        )
        places = [n % len(orders) for n in range(len(self.orders))]
        return replace(
            self,
            orders=[orders[place] for place in places],
            corrupted=[corrupted[place] for place in places],
            class_temperature=[class_temperature[place] for place in places],
            n_batches=n_batches,
            pools=self.pools if pooled else None,
            counted=self.counted or len({pool.name for pool in own}) > 1,
        )


def _spread(n_batches: Sequence[int], rounds: int, steps: Sequence[int]) -> list[Int[np.ndarray, " round"]]:
    """Returns, per bucket, how many batches of a pool each round has.

    The pool has the first rounds, as few as its batches fit into; over these each bucket's batches are spread evenly.

    Args:
      steps: the room in a round for those of each bucket.
    """
    own = max(1, *(-(-n // most) for n, most in zip(n_batches, steps, strict=True) if most))
    ends = np.minimum(np.arange(rounds + 1), own)
    return [np.diff(n * ends // own) for n in n_batches]


def _count_visits(utterance: Int[np.ndarray, " _row"], visits: Float[np.ndarray, " utterance"] | None) -> int:
    """Returns how many visits some utterances of a bucket have together."""
    if visits is None:
        return len(utterance)
    often, n = np.unique(visits[utterance], return_counts=True)
    return int(np.ceil(often * n).sum())


def _repeated(
    rows: Int[np.ndarray, " _row"], visits: Float[np.ndarray, " _row"], rng: np.random.Generator
) -> Int[np.ndarray, " _visit"]:
    """Returns shuffled rows of a bucket as often as they are visited, shuffled again: the first are repeated most."""
    parts = [np.resize(rows[visits == n], int(np.ceil(n * (visits == n).sum()))) for n in np.unique(visits)]
    return rng.permutation(np.concatenate(parts)) if parts else rows


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


def even_batches(rows: int, bytes_per_row: int, batch_size: int) -> tuple[int, int]:
    """Returns the number of batches of about equal size that rows are predicted in, and this size.

    Args:
      rows: 1 or more.
      bytes_per_row: the frames of a row in all folds; a batch has `PREDICTION_BYTES` of them at most.
      batch_size: Largest number of rows in a batch.
    """
    most = max(1, min(batch_size, PREDICTION_BYTES // max(1, bytes_per_row)))
    n_batches = -(-rows // most)
    return n_batches, -(-rows // n_batches)


def prediction_rows(
    data: Data, wanted: Sequence[Int[np.ndarray, " _row"]], batch_size: int
) -> tuple[list[Int[np.ndarray, "fold _batch _row"]], Int[np.ndarray, "fold column"]]:
    """Returns batches of the utterances that each fold predicts, bucket by bucket, all folds padded to equal size.

    Batches of long frames are smaller than `batch_size` (`even_batches`).

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
            n_batches, size = even_batches(longest, len(rows_by_fold) * per_row, batch_size)
        rows = np.zeros((len(rows_by_fold), n_batches * size), np.int32)
        column = np.full(rows.shape, -1)
        for fold, r in enumerate(rows_by_fold):
            rows[fold, : len(r)] = r
            column[fold, : len(r)] = utterance[r]
        rows_by_bucket.append(rows.reshape(len(rows_by_fold), n_batches, size))
        columns.append(column)
    return rows_by_bucket, np.concatenate(columns, axis=1)
