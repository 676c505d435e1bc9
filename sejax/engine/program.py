"""The runs of one structure as arrays: on the host, and placed on devices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Int

from sejax.data.prefetch import largest_blocks, visits_of_epoch, visits_of_prediction
from sejax.data.types import Bucket, Data, Order
from sejax.engine.runs import Layout, RunKey
from sejax.engine.step import Frozen, Recipe, Run, StepMetrics
from sejax.models.joint import JointModel

Rows = tuple[Int[np.ndarray, "fold _batch _row"], ...]


@dataclass(frozen=True, kw_only=True)
class Program:
    """Runs of one structure, on the host, before it is decided how they lie on the devices."""

    structure: Mapping[str, Any]  # the options that tell it from the study's other programs
    runs: Sequence[RunKey]
    model: JointModel
    recipe: Recipe
    data: Data
    frozen: Frozen
    start: Mapping[str, Any]
    per_run: Run  # [run, ...]
    rows: Mapping[str, Rows]  # by split ("val", "test"), per bucket
    columns: Mapping[str, Int[np.ndarray, "fold column"]]
    order_of_run: Int[np.ndarray, " run"] | None  # None: by seed, shared by the runs of a chunk
    shuffle: Callable[[int], Order]  # of an epoch

    @property
    def fold(self) -> Int[np.ndarray, " run"]:
        return np.array([run.fold for run in self.runs])

    @property
    def views(self) -> int:
        return next(iter(self.data.statistics.values())).shape[1]

    @cached_property
    def block_rows(self) -> dict[str, dict[int, int]]:
        """The utterances of the largest block of each bucket, where frames are streamed: in training, and by split."""
        epochs = range(1, self.recipe.total_steps // self.recipe.epoch_steps + 1)
        train = largest_blocks(visit for epoch in epochs for visit in visits_of_epoch(self.shuffle(epoch)))
        return {"train": train} | {name: largest_blocks(visits_of_prediction(own)) for name, own in self.rows.items()}

    def block(self, number: int, size: int, views: int) -> Bucket:
        """The shapes of a block of so many utterances of a bucket."""

        def cut(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((size, *([views] if len(x.shape) > 1 else []), *x.shape[2:]), x.dtype)

        return jax.tree.map(cut, self.data.buckets[number])


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A program whose runs lie on devices in `[chunk, slot, ...]`."""

    program: Program
    layout: Layout
    by_run: NamedSharding

    @property
    def shared(self) -> NamedSharding:
        """Of what all runs read."""
        return NamedSharding(self.by_run.mesh, PartitionSpec())

    @property
    def seed(self) -> Int[np.ndarray, " chunk"]:
        return self.layout.seed.astype(np.int32)

    @property
    def order_row(self) -> Int[np.ndarray, "chunk *slot"]:
        own = self.program.order_of_run
        if own is None:
            return np.unique(self.layout.seed, return_inverse=True)[1].astype(np.int32)
        return self.layout.scatter(own)

    def stacked(self) -> Run:
        return jax.tree.map(self.layout.scatter, self.program.per_run)

    @property
    def fold(self) -> Int[np.ndarray, "chunk slot"]:
        return self.layout.scatter(self.program.fold)

    def rows(self, split: str) -> tuple[Int[np.ndarray, "chunk slot _batch _row"], ...]:
        return tuple(rows[self.fold] for rows in self.program.rows[split])

    def no_metrics(self) -> StepMetrics:
        """Of an epoch that has not begun, `[chunk, slot, step, task]`."""
        shape = (*self.layout.run.shape, self.program.recipe.epoch_steps, len(self.program.recipe.tasks))
        zeros: Any = [np.zeros(shape, dtype) for dtype in (np.float32, np.float32, bool)]
        return StepMetrics(*zeros)
