"""The programs of a study as arrays: the runs of one structure on the host, and placed on devices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Bool, Int

from sejax.data.prefetch import largest_blocks, visits_of_epoch, visits_of_prediction
from sejax.data.types import Bucket, Data, Order
from sejax.engine.again import median_epochs
from sejax.engine.epoch import Chunk
from sejax.engine.runs import Layout, Learnable, RunKey, lay_out, learnable
from sejax.engine.step import Frozen, Network, Run, StepMetrics
from sejax.engine.tasks import Task

Rows = tuple[Int[np.ndarray, "fold _batch _row"], ...]


@dataclass(frozen=True, kw_only=True)
class Program:
    """The runs of one structure on the host, before they are placed on devices."""

    structure: Mapping[str, Any]  # the options that tell it from the study's other programs
    runs: Sequence[RunKey]
    network: Network
    data: Data
    frozen: Frozen
    start: Mapping[str, Any]
    per_run: Run  # [run, ...]
    epoch_steps: int  # steps of an epoch, of the run with the most of them
    epochs: int
    rows: Mapping[str, Rows]  # by split ("val", "test"), per bucket
    columns: Mapping[str, Int[np.ndarray, "fold column"]]
    order_of_run: Int[np.ndarray, " run"] | None  # None: by seed, shared by the runs of a chunk
    shuffle: Callable[[int], Order]  # of an epoch
    # Runs that train again, as arrays of the same shapes: these with validation speakers too, and these settings and
    # seeds on every speaker.
    refit: "Program | None" = None
    final: "Program | None" = None

    @property
    def fold(self) -> Int[np.ndarray, " run"]:
        """The number of each run's fold."""
        return np.array([run.fold for run in self.runs])

    @property
    def tunes_whole_models(self) -> bool:
        """Whether a run trains all layers of a pretrained model, so that no others have room beside it."""
        return any(stream.tuning and stream.tuning.mode == "full" for stream in self.network.model.trunk.streams)

    def of_fold(self, fold: int) -> "Program":
        """Returns the runs of one fold, on the same batches. Those of every fold are arrays of the same shapes."""
        own = np.flatnonzero(self.fold == fold)

        def cut(of_runs: Any) -> Any:
            return jax.tree.map(lambda x: x[own], of_runs)

        return replace(
            self,
            runs=[self.runs[place] for place in own.tolist()],
            per_run=cut(self.per_run),
            order_of_run=cut(self.order_of_run),
            refit=self.refit and self.refit.of_fold(fold),
        )

    def final_epochs(self, best_epoch: Int[np.ndarray, " run"]) -> Int[np.ndarray, " final"]:
        """Returns how long each final run trains, given the epochs that the runs chose; 0: all folds diverged."""
        return median_epochs(self.final.runs, self.runs, best_epoch) if self.final else np.zeros(0, int)

    @property
    def labelled_tasks(self) -> dict[Task, int]:
        """The tasks that the corpus has labels for, with their places on the task axis."""
        target, rated = np.asarray(self.data.target), np.isfinite(np.asarray(self.data.vad))
        return {
            task: place
            for place, task in enumerate(self.network.recipe.tasks)
            if (rated[:, task.columns] if task.columns else target).any()
        }

    @cached_property
    def learnable(self) -> list[Learnable]:
        """What each run can learn from the labels of its training utterances."""
        target, vad, trained = (np.asarray(x) for x in (self.data.target, self.data.vad, self.per_run.trained))
        vad_loss = self.network.recipe.vad_loss
        _, first, fold = np.unique(self.fold, return_index=True, return_inverse=True)
        by_fold = [learnable(target, vad, trained[run], vad_loss=vad_loss) for run in first]
        return [by_fold[number] for number in fold]

    @property
    def views(self) -> int:
        """The number of views of an utterance: the original and its augmented copies."""
        return next(iter(self.data.statistics.values())).shape[1]

    @cached_property
    def block_rows(self) -> dict[str, dict[int, int]]:
        """The utterances in the largest streamed block of each bucket: in training ("train"), and by split."""
        epochs = range(1, self.epochs + 1)
        shuffles = [program.shuffle for program in (self, self.refit, self.final) if program]
        orders = (shuffle(epoch) for shuffle in shuffles for epoch in epochs)
        train = largest_blocks(visit for order in orders for visit in visits_of_epoch(order))
        return {"train": train} | {name: largest_blocks(visits_of_prediction(rows)) for name, rows in self.rows.items()}

    def block(self, number: int, size: int, views: int) -> Bucket:
        """Returns the shapes of a block of `size` utterances of a bucket."""

        def cut(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((size, *([views] if len(x.shape) > 1 else []), *x.shape[2:]), x.dtype)

        return jax.tree.map(cut, self.data.buckets[number])


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A program whose runs are stacked as `[chunk, slot, ...]` and sharded over devices."""

    program: Program
    layout: Layout
    by_run: NamedSharding

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of arrays that all runs read."""
        return NamedSharding(self.by_run.mesh, PartitionSpec())

    @property
    def compiled_together(self) -> bool:
        """Whether one compiled program trains on all length buckets: where chunks take turns on a CPU.

        A GPU's compiler takes longer for one program of all buckets than for one of each, one after the other.
        """
        return self.by_run.mesh.devices.flat[0].platform == "cpu"

    @property
    def chunk(self) -> Chunk:
        """The runs as the compiled programs take them, on the host."""
        seed = self.layout.seed.astype(np.int32)
        order_of_run = self.program.order_of_run
        if order_of_run is None:
            order_row = np.unique(self.layout.seed, return_inverse=True)[1].astype(np.int32)
        else:
            order_row = self.layout.scatter(order_of_run)
        return Chunk(jax.tree.map(self.layout.scatter, self.program.per_run), order_row, seed)

    @property
    def chunk_sharding(self) -> tuple[NamedSharding, NamedSharding, NamedSharding]:
        """The sharding of each part of `chunk`."""
        shared_order = self.program.order_of_run is None
        return self.by_run, self.replicated if shared_order else self.by_run, self.replicated

    @property
    def fold(self) -> Int[np.ndarray, "chunk slot"]:
        """The number of each run's fold."""
        return self.layout.scatter(self.program.fold)

    def of(self, program: Program) -> "Placed":
        """Returns runs that train again (`Program.refit`, `Program.final`) as arrays of the same shapes."""
        chunks, slots = self.layout.run.shape
        return replace(self, program=program, layout=lay_out(program.runs, slots=slots, chunks=chunks))

    def arranged(self, training: Bool[np.ndarray, " run"]) -> "Placed":
        """Returns the same runs with those that still train in the first chunks."""
        chunks, slots = self.layout.run.shape
        layout = lay_out(self.program.runs, slots=slots, chunks=chunks, training=training)
        return replace(self, layout=layout)

    def rows(self, split: str) -> tuple[Int[np.ndarray, "chunk slot _batch _row"], ...]:
        """Returns each run's rows of a split, per bucket."""
        return tuple(rows[self.fold] for rows in self.program.rows[split])

    def no_metrics(self) -> StepMetrics:
        """Returns the metrics of an epoch that has not begun, `[chunk, slot, step, task]`."""
        program = self.program
        return StepMetrics.none(*self.layout.run.shape, program.epoch_steps, len(program.network.recipe.tasks))
