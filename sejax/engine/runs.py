"""A study as one array: folds x settings x seeds become runs, and runs become rows of stacked arrays.

Runs are stacked as `[chunk, slot]`: the compiled program maps over chunks and vmaps over the slots of a chunk. A
chunk holds runs of one seed only, so that its batches are read once for all of them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int

from sejax.corpora.schema import Utterance
from sejax.data.order import Pool
from sejax.data.types import Order
from sejax.engine import devices
from sejax.engine.augment import RATES
from sejax.engine.losses import VAD_LOSSES
from sejax.engine.step import HParams, Steps
from sejax.engine.tasks import Task
from sejax.protocols.folds import Fold

CORRUPTED, CLASS_TEMPERATURE = "augment.corrupted", "class_temperature"
"""The options of a run's batches rather than of its steps: `HParams` does not hold them."""


@dataclass(frozen=True)
class Setting:
    """One point of the grid: its name, and the value of every hyperparameter there."""

    name: str
    values: Mapping[str, Any]

    @property
    def corrupted(self) -> float:
        """The share of the utterances of an epoch that are drawn from corrupted views."""
        return float(self.values[CORRUPTED])

    @property
    def class_temperature(self) -> float:
        """How evenly an epoch visits the classes, see `sejax.data.balance`; 1: as they are."""
        return float(self.values[CLASS_TEMPERATURE])

    def trains(self, task: str) -> bool:
        """Returns whether the setting trains a task of this name: a task with a prior share of 0 is not trained."""
        alpha = float(self.values["alpha"])
        return alpha > 0 if task == "class" else alpha < 1


class Learnable(NamedTuple):
    """What the labels of a run's training utterances can teach."""

    label: bool  # the class
    dimensions: tuple[bool, ...]  # valence, arousal, dominance

    def has(self, task: Task) -> bool:
        """Returns whether a task can be learned, or a part of it."""
        return any(self.dimensions[column] for column in task.columns) if task.columns else self.label


@dataclass(frozen=True)
class RunKey:
    """The identity of a run: its number, fold, seed and setting."""

    number: int
    fold: int
    seed: int
    setting: Setting


def written(value: Any) -> str:
    """Returns a setting's value as text; streams are joined by +."""
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)


def group_by_structure(runs: Sequence[RunKey], structural: Sequence[str]) -> list[tuple[dict[str, Any], list[RunKey]]]:
    """Returns the runs of each program, those with equal structural options, and these options."""
    groups: dict[tuple[Any, ...], list[RunKey]] = {}
    for run in runs:
        groups.setdefault(tuple(run.setting.values.get(name) for name in structural), []).append(run)
    options = [group[0].setting.values for group in groups.values()]
    structures = [{name: values[name] for name in structural if name in values} for values in options]
    return list(zip(structures, groups.values(), strict=True))


def enumerate_runs(n_folds: int, settings: Sequence[Setting], seeds: Sequence[int]) -> list[RunKey]:
    """Returns all runs, seed by seed, then setting by setting, then fold by fold."""
    points = product(seeds, settings, range(n_folds))
    return [RunKey(i, fold, seed, setting) for i, (seed, setting, fold) in enumerate(points)]


@dataclass(frozen=True)
class Layout:
    """The place of each run of a program, by its index in the list of these runs.

    A slot beyond a chunk's last run repeats that run; its results are not read. So does a chunk beyond the last one.
    """

    run: Int[np.ndarray, "chunk slot"]
    seed: Int[np.ndarray, " chunk"]
    trained: int  # leading chunks that hold all runs which train

    @property
    def filled(self) -> int:
        """The number of leading chunks that hold all runs."""
        slots = self.run.shape[1]
        return int(self.place.max()) // slots + 1

    @property
    def place(self) -> Int[np.ndarray, " run"]:
        """The place of each run among all slots."""
        return np.unique(self.run.ravel(), return_index=True)[1]

    def collect(self, tree: Any) -> Any:
        """Returns `[chunk, slot, ...]` leaves as numpy `[run, ...]`, in the runs' order: one transfer to the host."""
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[self.place], devices.collect(tree))

    def scatter(self, x: np.ndarray) -> np.ndarray:
        """Returns numpy `[run, ...]` as `[chunk, slot, ...]`."""
        return x[self.run]


def lay_out(
    runs: Sequence[RunKey], *, slots: int, chunks: int = 0, training: Bool[np.ndarray, " run"] | None = None
) -> Layout:
    """Cuts each seed's runs into chunks of `slots`.

    Args:
      chunks: the least number of them; the last one is repeated.
      training: the runs that still train, which fill the first chunks; None: all, in their order.
    """
    going = np.ones(len(runs), bool) if training is None else training
    by_seed: dict[int, list[int]] = {}
    for place in np.argsort(~going, kind="stable").tolist():
        by_seed.setdefault(runs[place].seed, []).append(place)
    parts = []
    for seed in sorted(by_seed, key=[run.seed for run in runs].index):
        places = by_seed[seed]
        for start in range(0, len(places), slots):
            part = places[start : start + slots]
            parts.append((seed, part + [part[-1]] * (slots - len(part))))
    parts.sort(key=lambda part: not going[part[1]].any())
    trained = sum(bool(going[row].any()) for _, row in parts)
    parts += [parts[-1]] * (chunks - len(parts))
    return Layout(np.array([row for _, row in parts]), np.array([seed for seed, _ in parts]), trained)


def runs_per_seed(runs: Sequence[RunKey]) -> int:
    """Returns the largest number of runs that share a seed."""
    return max(Counter(run.seed for run in runs).values())


def even_slots(runs: Sequence[RunKey], *, most: int, devices: int) -> int:
    """Returns the slots of a chunk that leave the least padding: at most `most`, up to a multiple of the devices.

    Args:
      most: number of runs that are vmapped together; 0 puts all runs of a seed into one chunk.
      devices: number of devices that share the slots of a chunk.
    """
    per_seed = runs_per_seed(runs)
    n_chunks = -(-per_seed // most) if most else 1
    slots = -(-per_seed // n_chunks)
    return slots + -slots % devices


class BatchOrders(NamedTuple):
    """By what the batches of runs are drawn; see `sejax.data.order.epoch_order`."""

    drawn: list[tuple[int, Bool[np.ndarray, " utterance"]]]  # seed and visited utterances of each order
    corrupted: list[float]  # share of corrupted utterances of each order
    class_temperature: list[float]  # of each order
    of_run: Int[np.ndarray, " run"] | None  # the order of each run; None: by seed
    folds: list[int] | None  # of each order; None: all


def batch_orders(folds: Sequence[Fold], runs: Sequence[RunKey], *, shared: bool) -> BatchOrders:
    """Returns by what batches are drawn: runs of one seed and fold, one share of corrupted utterances and one
    temperature of the classes have one order.

    Every run visits its own training utterances. If the frozen forward pass of a batch serves all runs (`shared`),
    the runs of a seed share batches of the utterances that any fold trains on, all runs have one share, and classes
    are visited as they are.
    """
    if shared:
        anyone = np.any([fold.train for fold in folds], axis=0)
        seeds = sorted({run.seed for run in runs})
        drawn, n = [(seed, anyone) for seed in seeds], len(seeds)
        return BatchOrders(drawn, [runs[0].setting.corrupted] * n, [1.0] * n, None, None)
    of_runs = [(run.seed, run.fold, run.setting.corrupted, run.setting.class_temperature) for run in runs]
    keys = sorted(set(of_runs))
    row = np.array([keys.index(key) for key in of_runs], np.int32)
    return BatchOrders(
        [(seed, folds[fold].train) for seed, fold, _, _ in keys],
        [share for _, _, share, _ in keys],
        [temperature for *_, temperature in keys],
        row,
        [fold for _, fold, _, _ in keys],
    )


def batch_pools(utterances: Sequence[Utterance], folds: Sequence[Fold], orders: BatchOrders) -> list[Pool] | None:
    """Returns the pool of each order: the corpus that its fold trains on; None if they have none.

    A fold among the speakers of one corpus visits its utterances as it would without the other corpora, and so do those
    that test on others, which hold out other speakers and may have other numbers of steps.
    """
    if orders.folds is None or not any(fold.trained_on for fold in folds):
        return None
    corpus = np.array([utterance.corpus for utterance in utterances])
    pools = [Pool(f"{fold.trained_on} {'within' * fold.within}", corpus == fold.trained_on) for fold in folds]
    return [pools[fold] for fold in orders.folds]


def corpus_visits(utterances: Sequence[Utterance], temperature: float) -> Float[np.ndarray, " utterance"] | None:
    """Returns how often an epoch visits each utterance, so that a small corpus counts beside a large one.

    A corpus of n utterances has a share proportional to n^(1 / temperature) of the visits: as they are for 1, equal for
    infinity. Those of the largest are visited once. None if all are.
    """
    sizes = Counter(utterance.corpus for utterance in utterances)
    if temperature == 1 or len(sizes) < 2:
        return None
    largest = max(sizes.values())
    visits = {name: (largest / n) ** (1 - 1 / temperature) for name, n in sizes.items()}
    return np.array([visits[utterance.corpus] for utterance in utterances])


def count_steps(
    order: Order,
    order_of_run: Int[np.ndarray, " run"] | None,
    *,
    runs: int,
    final: int,
    epochs: int,
    warmup: float,
) -> tuple[int, Steps]:
    """Returns the steps of an epoch of the run with the most of them, and those of each run, `[run + final]`.

    Args:
      order: the batches of an epoch.
      order_of_run: the order of each run that trains on a fold.
      runs: number of these runs.
      final: number of final runs, which come after those; they have all steps.
      epochs: of the study.
      warmup: share of the steps in which the learning rate rises.
    """
    taken = [of_bucket.sum(axis=-1) for of_bucket in order.taken]  # of each order, or of all
    most = int(sum(of_bucket.max() for of_bucket in taken))
    apart = taken[0].ndim > 0 and order_of_run is not None
    own = np.sum(taken, axis=0)[order_of_run] if apart else np.full(runs, most)
    epoch = np.r_[own, np.full(final, most)].astype(np.int32)
    return most, Steps(epoch, (warmup * epoch * epochs).astype(np.int32), epoch * np.int32(epochs))


def augmentation_of(runs: Sequence[RunKey]) -> tuple[str, ...]:
    """Returns the augmentations of `RATES` that some run uses: those that the program has to hold."""
    return tuple(name for name in RATES if any(run.setting.values[f"augment.{name}"] > 0 for run in runs))


def schemes_of(runs: Sequence[RunKey]) -> tuple[str, ...]:
    """Returns the weighting schemes of the runs, each once: those that the program has to hold."""
    return tuple(dict.fromkeys(str(run.setting.values["weighting"]) for run in runs))


def hparams_of(runs: Sequence[RunKey], schemes: Sequence[str]) -> HParams:
    """Returns the hyperparameters of all runs as float32 `[run]` (the weighting as its index into `schemes`)."""
    values = {name: [run.setting.values[option] for run in runs] for name, option in HParams.options().items()}
    index = np.array([schemes.index(str(name)) for name in values.pop("weighting")], np.int32)
    return HParams(weighting=index, **{name: np.array(column, np.float32) for name, column in values.items()})


def learnable(
    target: Float[np.ndarray, "utterance class"],
    vad: Float[np.ndarray, "utterance dim"],
    trained: Bool[np.ndarray, " utterance"],
    *,
    vad_loss: str,
) -> Learnable:
    """Returns what training utterances can teach: a class needs a label, a dimension as many different ratings as its
    loss needs rows (CCC two).
    """
    least = VAD_LOSSES[vad_loss].least_rows
    ratings = vad[trained].T
    return Learnable(
        bool(target[trained].any()),
        tuple(len(np.unique(column[np.isfinite(column)])) >= least for column in ratings),
    )


def selection_rows(folds: Sequence[Fold], split: str) -> list[Int[np.ndarray, " _row"]]:
    """Returns the utterances of each fold's `split` ("train", "val" or "test")."""
    return [np.flatnonzero(getattr(fold, split)) for fold in folds]


def run_sharding(over: Sequence[jax.Device]) -> NamedSharding:
    """Shards the slots of `[chunk, slot, ...]` over the devices; no collective is needed."""
    # Auto axes: jax.make_mesh's default, explicit axes, does not go with vmapped training.
    mesh = Mesh(np.array(over), ("run",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec(None, "run"))
