"""Batches of a corpus that is not on the devices: grain reads them from the shards while the devices compute."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from sejax.data.buckets import take_rows
from sejax.data.types import Bucket, Order

READ_AHEAD = 4  # batches that are read in parallel, and that wait for the devices


class Visit(NamedTuple):
    """One step: the batches of all orders, from one bucket."""

    bucket: int
    rows: Int[np.ndarray, "order batch"]  # of the bucket
    view: Int[np.ndarray, "order batch"]
    number: Int[np.ndarray, "*order_or_none"]  # of the step in its epoch; -1 for orders without it, and in a prediction


class Block(NamedTuple):
    """A visit with its frames, each utterance once for all orders."""

    visit: Visit
    bucket: Bucket  # the distinct rows of the visit's bucket
    rows: Int[np.ndarray, "order batch"]  # of `bucket`


def visits_of_epoch(order: Order) -> list[Visit]:
    """Returns the steps of an epoch that some order takes, in turn."""
    buckets = list(zip(order.rows, order.view, order.taken, order.first, strict=True))
    return [
        Visit(bucket, rows[:, i, step], view[:, i, step], np.where(step < taken[..., i], first[..., i] + step, -1))
        for i in range(order.rows[0].shape[1])
        for bucket, (rows, view, taken, first) in enumerate(buckets)
        for step in range(taken[..., i].max())
    ]


def visits_of_prediction(rows: Sequence[Int[np.ndarray, "fold _n_batch _batch"]]) -> list[Visit]:
    """Returns the batches that each fold predicts, bucket by bucket, in the original view."""
    return [
        Visit(number, rows_of_bucket[:, batch], np.zeros_like(rows_of_bucket[:, batch]), np.array(-1))
        for number, rows_of_bucket in enumerate(rows)
        for batch in range(rows_of_bucket.shape[1])
    ]


def largest_blocks(visits: Iterable[Visit]) -> dict[int, int]:
    """Returns, for each visited bucket, the largest number of distinct rows in a visit."""
    sizes: dict[int, int] = {}
    for visit in visits:
        sizes[visit.bucket] = max(sizes.get(visit.bucket, 0), len(np.unique(visit.rows)))
    return sizes


@dataclass(frozen=True)
class Blocks:
    """The blocks of some visits, each read when it is asked for; all blocks of a bucket have one shape."""

    buckets: Sequence[Bucket]
    visits: Sequence[Visit]
    sizes: dict[int, int]  # rows in a block, by bucket
    views: int  # in a block

    def __len__(self) -> int:
        return len(self.visits)

    def __getitem__(self, place: int) -> Block:
        visit = self.visits[place]
        distinct, local = np.unique(visit.rows, return_inverse=True)
        local = local.reshape(visit.rows.shape).astype(np.int32)
        wanted = np.zeros((len(distinct), self.views), bool)
        wanted[local, visit.view] = True
        return Block(visit, take_rows(self.buckets[visit.bucket], distinct, wanted, self.sizes[visit.bucket]), local)


def read_ahead(blocks: Blocks) -> Iterator[Block]:
    """Yields all blocks in order. Threads read the next `READ_AHEAD` meanwhile; no other blocks are held."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)  # grain warns that worker processes cannot be profiled, of which there are none
    try:
        import grain  # takes a second, which only a streamed corpus needs
    finally:
        logger.setLevel(level)
    options = grain.ReadOptions(num_threads=READ_AHEAD, prefetch_buffer_size=READ_AHEAD)
    return iter(grain.MapDataset.source(blocks).to_iter_dataset(options))
