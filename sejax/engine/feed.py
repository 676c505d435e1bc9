"""Feeds frames to the compiled programs: all frames stay on the devices (`Resident`), or each step's are streamed to
them (`Streamed`). Both take the same steps on the same batches.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from sejax.data.buckets import take_rows
from sejax.data.prefetch import Blocks, read_ahead, visits_of_epoch, visits_of_prediction
from sejax.data.types import Bucket, Data
from sejax.engine import compiled, devices, epoch
from sejax.engine.epoch import Best, Chunk, EpochMetrics, Part, Shared, without_frames
from sejax.engine.plan import Planned
from sejax.engine.program import Program
from sejax.engine.step import State
from sejax.models.joint import mixing_scores


class Tested(NamedTuple):
    """The predictions of a run for its held-out utterances at its best epoch; utterance -1 is padding."""

    utterance: Int[np.ndarray, " column"]
    split: Shaped[np.ndarray, " column"]  # text: metrics are of "test" alone, "val" calibrates the run
    prob: Float[np.ndarray, "column class"]
    vad: Float[np.ndarray, "column dim"]  # half scales
    mixing_scores: dict[str, Float[np.ndarray, " _layer"]]  # by pretrained stream; the weights are their softmax

    def tested_by(self, other: "Tested") -> "Tested":
        """Returns the predictions of this run for validation, and those of its refit run, for test utterances."""
        validated = self.split == "val"
        own = (x[validated] for x in self[:-1])
        utterance, split, prob, vad = (np.concatenate(parts) for parts in zip(own, other[:-1], strict=True))
        return Tested(utterance, split, prob, vad, other.mixing_scores)


class Outcome(NamedTuple):
    """How the training of runs has ended."""

    best_epoch: Int[np.ndarray, " run"]  # which is tested; 0 for none
    best_score: Float[np.ndarray, " run"]  # on validation, in that epoch
    trained: Int[np.ndarray, " run"]  # epochs
    finished: Bool[np.ndarray, " run"]  # whether these are all epochs that the run trains


class Feed(ABC):
    """A planned program with its arrays on the devices, all but the frames."""

    def __init__(self, plan: Planned, shared: Shared | None = None):
        """Puts the arrays of a program on the devices.

        Args:
          shared: those that all runs read, if they are there.
        """
        self.plan, self.placed, self.program = plan, plan.placed, plan.placed.program
        self.layout, self.network, self.leaves = plan.placed.layout, plan.placed.program.network, plan.leaves
        self.shared = self.replicate(Shared(self.data(), self.program.frozen)) if shared is None else shared
        parts = zip(self.placed.chunk, self.placed.chunk_sharding, strict=True)
        self.chunk = Chunk(*(devices.put(part, sharding) for part, sharding in parts))
        self.n_chunks = self.replicate(np.int32(self.layout.trained))

    def of(self, program: Program) -> "Feed":
        """Returns a feed of the same compiled program for runs that train again."""
        return type(self)(replace(self.plan, placed=self.placed.of(program)), self.shared)

    def arranged(self, training: Bool[np.ndarray, " run"]) -> "Feed":
        """Returns a feed of the same runs that trains only the chunks of those that still train."""
        return type(self)(replace(self.plan, placed=self.placed.arranged(training)), self.shared)

    def moved_from(self, before: "Feed", tree: Any) -> Any:
        """Returns arrays `[chunk, slot, ...]` of another arrangement of these runs as this one has them."""
        place = self.replicate(before.layout.place[self.layout.run.ravel()].astype(np.int32))
        return self.put_runs(epoch.rearrange(tree, place))

    def replicate(self, tree: Any) -> Any:
        """Puts arrays that all runs read on every device."""
        return devices.put(tree, self.placed.replicated)

    def put_runs(self, tree: Any) -> Any:
        """Puts arrays `[chunk, slot, ...]` on the devices of their runs."""
        return devices.put(tree, self.placed.by_run)

    def filled(self, tree: Any) -> Any:
        """Returns the chunks that hold runs, of arrays `[chunk, slot, ...]`: what training changes."""
        return jax.tree.map(lambda x: x[: self.layout.filled], tree)

    def with_filled(self, tree: Any, filled: Any) -> Any:
        """Returns the tree with other values in the chunks that hold runs."""
        return self.put_runs(jax.tree.map(lambda x, new: x.at[: len(new)].set(new), tree, filled))

    @abstractmethod
    def data(self) -> Data:
        """Returns the corpus as it lies on the devices."""

    @abstractmethod
    def parts(self, number: int) -> Iterator[tuple[tuple[int, ...], tuple[Bucket, ...], Part]]:
        """Yields the parts of an epoch in turn, on the devices, each with its buckets and their numbers."""

    def train_epoch(self, states: State, number: int) -> tuple[State, EpochMetrics]:
        """Trains all runs for one epoch; the states given are used up."""
        shared = without_frames(self.shared)
        metrics = self.put_runs(self.placed.no_metrics())
        for numbers, buckets, part in self.parts(number):
            before = metrics
            states, metrics = self.plan.compiled[numbers](
                states, metrics, self.chunk, shared, buckets, part, self.n_chunks
            )
            states, metrics = self.put_runs((states, metrics))
            # So that the devices hold two streamed blocks at most: the one of this part and the next one.
            jax.block_until_ready(before)
        return states, epoch.over_epoch(metrics)

    @abstractmethod
    def predict(self, params: Float[Array, "chunk slot parameter"], split: str) -> Any:
        """Returns `epoch.predict` of each run's utterances of a split."""

    def init_states(self) -> State:
        """Returns the states of all runs before the first step."""
        one = np.zeros(1, np.int32), np.ones((1, 1), bool), 1
        first = self.replicate((take_rows(self.program.data.buckets[0], *one),))
        shared = self.shared._replace(data=self.shared.data._replace(buckets=first))
        by_run = self.placed.by_run
        states = epoch.init_runs(self.chunk, shared, self.program.start, network=self.network, by_run=by_run)
        return self.put_runs(states)  # placed as a step takes them

    def init_best(self, states: State) -> Best:
        """Returns the best epochs before the first one."""
        runs = len(self.program.runs)
        score, number = np.full(runs, -np.inf, np.float32), np.zeros(runs, np.int32)
        best = self.put_runs((self.layout.scatter(score), self.layout.scatter(number)))
        return Best(jnp.copy(states.averaged), *best)

    def keep_best(
        self,
        best: Best,
        states: State,
        score: Float[np.ndarray, " run"],
        improved: Bool[np.ndarray, " run"],
        number: int,
    ) -> Best:
        """Takes over the parameters of the runs that improved in this epoch."""
        scattered = self.put_runs((self.layout.scatter(score), self.layout.scatter(improved)))
        return epoch.keep_best(best, states.averaged, *scattered, self.replicate(np.int32(number)))

    def test(self, best: Best) -> list[Tested]:
        """Predicts the held-out utterances of each run at its best epoch."""
        splits = tuple(self.program.rows)
        outputs = [self.predict(best.params, split) for split in splits]
        mixing = mixing_scores(self.network.model.streams, self.leaves.split(best.params))
        outputs, mixing = self.layout.collect((outputs, mixing))
        prob, vad = (np.concatenate(parts, axis=1) for parts in zip(*outputs, strict=True))
        columns = np.concatenate([self.program.columns[split] for split in splits], axis=1)
        split = np.repeat(splits, [self.program.columns[name].shape[1] for name in splits])
        return [
            Tested(columns[run.fold], split, prob[i], vad[i], {name: scores[i] for name, scores in mixing.items()})
            for i, run in enumerate(self.program.runs)
        ]


class Resident(Feed):
    """All frames are on the devices."""

    def __init__(self, plan: Planned, shared: Shared | None = None):
        super().__init__(plan, shared)
        self.rows = {split: self.put_runs(self.placed.rows(split)) for split in self.program.rows}

    def data(self) -> Data:
        return jax.tree.map(np.asarray, self.program.data)

    def parts(self, number: int) -> Iterator[tuple[tuple[int, ...], tuple[Bucket, ...], Part]]:
        turns = epoch.parts(number, self.program.shuffle(number), together=self.placed.compiled_together)
        on_devices = self.replicate([part for _, part in turns])
        for (numbers, _), part in zip(turns, on_devices, strict=True):
            yield numbers, tuple(self.shared.data.buckets[n] for n in numbers), part

    def predict(self, params: Float[Array, "chunk slot parameter"], split: str) -> Any:
        arguments = self.chunk.runs, self.shared, self.rows[split]
        return compiled.call(epoch.predict, params, *arguments, model=self.network.model, leaves=self.leaves)


class Streamed(Feed):
    """Frames are read from the shards and put on the devices while these compute the step before."""

    def data(self) -> Data:
        return self.program.data._replace(buckets=())

    def parts(self, number: int) -> Iterator[tuple[tuple[int, ...], tuple[Bucket, ...], Part]]:
        visits = visits_of_epoch(self.program.shuffle(number))
        blocks = Blocks(self.program.data.buckets, visits, self.plan.block_rows["train"], self.program.views)
        for block in read_ahead(blocks):
            visit = block.visit
            part = epoch.one_step(number, visit.number, block.rows, visit.view)
            yield (visit.bucket,), *self.replicate(((block.bucket,), part))

    def predict(self, params: Float[Array, "chunk slot parameter"], split: str) -> Any:
        program, model = self.program, self.network.model
        outputs: list[Any] = []
        visits = visits_of_prediction(program.rows[split])
        blocks = Blocks(program.data.buckets, visits, self.plan.block_rows[split], 1)
        for block in read_ahead(blocks):
            bucket = self.replicate(block.bucket)
            rows = self.put_runs(block.rows[self.placed.fold])
            arguments = self.chunk.runs, self.shared, bucket, rows
            outputs.append(compiled.call(epoch.predict_batch, params, *arguments, model=model, leaves=self.leaves))
            jax.block_until_ready(outputs[-2:-1])
        return tuple(jnp.concatenate(parts, axis=2) for parts in zip(*outputs, strict=True))


def open_feed(plan: Planned) -> Feed:
    """Returns the feed that the plan names."""
    return Resident(plan) if plan.frames_on == "device" else Streamed(plan)
