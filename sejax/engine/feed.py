"""How runs come by their frames: those lie on the devices from the start, or each batch's come with its step.

Both ways take the same steps on the same batches.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sejax.data.buckets import take_rows
from sejax.data.prefetch import Blocks, read_ahead, visits_of_epoch, visits_of_prediction
from sejax.data.types import Data
from sejax.engine import devices
from sejax.engine import epoch as program
from sejax.engine.epoch import EpochMetrics
from sejax.engine.plan import Planned
from sejax.engine.step import State


class _Feed:
    """A program's arrays on the devices, but for the frames."""

    def __init__(self, plan: Planned, data: Data):
        self.plan, self.placed = plan, plan.placed
        self.own, self.by_run, self.shared = plan.placed.program, plan.placed.by_run, plan.placed.shared
        self.data, self.frozen, self.seed = self.share((data, self.own.frozen, self.placed.seed))
        order_row = self.placed.order_row
        self.runs, self.order_row = (
            devices.put(self.placed.stacked(), self.by_run),
            devices.put(order_row, self.by_run if order_row.ndim == 2 else self.shared),
        )

    def share(self, tree: Any) -> Any:
        """Puts what all runs read on every device."""
        return devices.put(tree, self.shared)

    def init_states(self) -> State:
        """Of all runs, before the first step."""
        one = np.zeros(1, np.int32), np.ones((1, 1), bool), 1
        data = self.data._replace(buckets=self.share((take_rows(self.own.data.buckets[0], *one),)))
        states = program.init_runs(
            self.runs, data, self.frozen, self.own.start, self.seed, model=self.own.model, recipe=self.own.recipe
        )
        return devices.put(states, self.by_run)  # placed as a step takes them


class Resident(_Feed):
    """All frames lie on the devices."""

    def __init__(self, plan: Planned):
        super().__init__(plan, jax.tree.map(np.asarray, plan.placed.program.data))
        self.rows = {split: devices.put(self.placed.rows(split), self.by_run) for split in self.own.rows}

    def train_epoch(self, states: State, epoch: int) -> tuple[State, EpochMetrics]:
        """One epoch of all runs; the states given are used up."""
        order, number = self.share((self.own.shuffle(epoch), np.int32(epoch)))
        states, metrics = self.plan.compiled(
            states, self.runs, self.data, self.frozen, order, self.order_row, self.seed, number
        )
        return devices.put(states, self.by_run), metrics

    def predict(self, params: Any, split: str) -> Any:
        """What `program.predict` says of each run's utterances of a split."""
        return program.predict(params, self.runs, self.data, self.frozen, self.rows[split], model=self.own.model)


class Streamed(_Feed):
    """Frames are read from the shards, and put on the devices while these take the step before."""

    def __init__(self, plan: Planned):
        super().__init__(plan, plan.placed.program.data._replace(buckets=()))

    def train_epoch(self, states: State, epoch: int) -> tuple[State, EpochMetrics]:
        """One epoch of all runs; the states given are used up."""
        own = self.own
        metrics = devices.put(self.placed.no_metrics(), self.by_run)
        number = self.share(np.int32(epoch))
        blocks = Blocks(own.data.buckets, visits_of_epoch(own.shuffle(epoch)), own.block_rows["train"], own.views)
        for step, block in enumerate(read_ahead(blocks)):
            bucket, rows, view, at = self.share((block.bucket, block.rows, block.view, np.int32(step)))
            before = metrics
            states, metrics = self.plan.compiled[block.number](
                states,
                metrics,
                self.runs,
                self.data,
                bucket,
                self.frozen,
                rows,
                view,
                self.order_row,
                self.seed,
                number,
                at,
            )
            states, metrics = devices.put((states, metrics), self.by_run)
            # So that no more than two blocks lie on the devices: the one of this step and the next one.
            jax.block_until_ready(before)
        return states, program.over_epoch(metrics)

    def predict(self, params: Any, split: str) -> Any:
        """What `program.predict` says of each run's utterances of a split."""
        own = self.own
        outputs: list[Any] = []
        blocks = Blocks(own.data.buckets, visits_of_prediction(own.rows[split]), own.block_rows[split], 1)
        for block in read_ahead(blocks):
            bucket = self.share(block.bucket)
            rows = devices.put(block.rows[self.placed.fold], self.by_run)
            outputs.append(
                program.predict_batch(params, self.runs, self.data, bucket, self.frozen, rows, model=own.model)
            )
            jax.block_until_ready(outputs[-2:-1])
        return tuple(jnp.concatenate(parts, axis=2) for parts in zip(*outputs, strict=True))


def open_feed(plan: Planned) -> Resident | Streamed:
    """The way that was planned."""
    return Resident(plan) if plan.frames_on == "device" else Streamed(plan)
