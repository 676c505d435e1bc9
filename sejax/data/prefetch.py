"""Batches of a corpus that does not lie on the devices: read from the shards, by grain, while these compute."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from sejax.data.buckets import take_rows
from sejax.data.types import Bucket, Order

READ_AHEAD = 4  # batches that are read at once, and that wait for the devices


class Visit(NamedTuple):
    """One step: each order's batch, all of one bucket."""

    bucket: int
    rows: Int[np.ndarray, "order batch"]  # of the bucket
    view: Int[np.ndarray, "order batch"]


class Block(NamedTuple):
    """A visit with the frames it needs, each utterance's once for all orders."""

    number: int  # of the bucket that `bucket` is a part of
    bucket: Bucket
    rows: Int[np.ndarray, "order batch"]  # of `bucket`
    view: Int[np.ndarray, "order batch"]


def visits_of_epoch(order: Order) -> list[Visit]:
    """The steps of an epoch, in their order."""
    return [
        Visit(number, rows[:, i, step], order.view[number][:, i, step])
        for i in range(order.rows[0].shape[1])
        for number, rows in enumerate(order.rows)
        for step in range(rows.shape[2])
    ]


def visits_of_prediction(rows: Sequence[Int[np.ndarray, "fold _n_batch _batch"]]) -> list[Visit]:
    """The batches that each fold predicts, bucket by bucket; the original view."""
    return [
        Visit(number, own[:, batch], np.zeros_like(own[:, batch]))
        for number, own in enumerate(rows)
        for batch in range(own.shape[1])
    ]


def largest_blocks(visits: Iterable[Visit]) -> dict[int, int]:
    """Of each bucket that is visited, the most distinct rows in a visit."""
    sizes: dict[int, int] = {}
    for visit in visits:
        sizes[visit.bucket] = max(sizes.get(visit.bucket, 0), len(np.unique(visit.rows)))
    return sizes


@dataclass(frozen=True)
class Blocks:
    """The blocks of some visits, each read when it is asked for. `sizes` (rows, by bucket) make equal shapes."""

    buckets: Sequence[Bucket]
    visits: Sequence[Visit]
    sizes: dict[int, int]
    views: int  # that have a place in a block

    def __len__(self) -> int:
        return len(self.visits)

    def __getitem__(self, place: int) -> Block:
        number, rows, view = self.visits[place]
        distinct, local = np.unique(rows, return_inverse=True)
        local = local.reshape(rows.shape).astype(np.int32)
        wanted = np.zeros((len(distinct), self.views), bool)
        wanted[local, view] = True
        return Block(number, take_rows(self.buckets[number], distinct, wanted, self.sizes[number]), local, view)


def read_ahead(blocks: Blocks) -> Iterator[Block]:
    """All blocks in order, of which threads read the next ones meanwhile; no more than these are held."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it says that profiling of worker processes, which there are none of, will not work
    try:
        import grain  # a second, that only a corpus that is streamed has to wait
    finally:
        logger.setLevel(level)
    options = grain.ReadOptions(num_threads=READ_AHEAD, prefetch_buffer_size=READ_AHEAD)
    return iter(grain.MapDataset.source(blocks).to_iter_dataset(options))
