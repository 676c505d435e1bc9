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
from sejax.engine.step import ClassPrior, HParams, Steps
from sejax.engine.tasks import Task
from sejax.protocols.folds import Fold

CORRUPTED = "augment.corrupted"
"""The option of a run's batches rather than of its steps: `HParams` does not hold it."""


@dataclass(frozen=True)
class Setting:
    """One point of the grid: its name, and the value of every hyperparameter there."""

    name: str
    values: Mapping[str, Any]

    @property
    def corrupted(self) -> float:
        """The share of the utterances of an epoch that are drawn from corrupted views."""
        return float(self.values[CORRUPTED])

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


def expand_grid(base: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Returns every combination of the grid's values over the base values, the last name varying fastest.

    A setting is named by the options that the grid varies, `alpha=0.5 weighting=joint`; without a grid it is named by
    its weighting. The base holds all of `HParams`; the grid may also vary options that shape the program.
    """
    varied = {name: tuple(values) for name, values in grid.items() if len(values)}
    return list_settings(base, [dict(zip(varied, point, strict=True)) for point in product(*varied.values())])


def list_settings(base: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """Returns a setting for each point: the base values, but for those that the point names."""
    return [
        Setting(" ".join(f"{k}={written(v)}" for k, v in point.items()) or str(base["weighting"]), {**base, **point})
        for point in points
    ]


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

    @property
    def filled(self) -> int:
        """The number of leading chunks that hold all runs."""
        slots = self.run.shape[1]
        return int(np.unique(self.run.ravel(), return_index=True)[1].max()) // slots + 1

    def collect(self, tree: Any) -> Any:
        """Returns `[chunk, slot, ...]` leaves as numpy `[run, ...]`, in the runs' order: one transfer to the host."""
        _, first = np.unique(self.run.ravel(), return_index=True)
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[first], devices.collect(tree))

    def scatter(self, x: np.ndarray) -> np.ndarray:
        """Returns numpy `[run, ...]` as `[chunk, slot, ...]`."""
        return x[self.run]


def lay_out(runs: Sequence[RunKey], *, slots: int, chunks: int = 0) -> Layout:
    """Cuts each seed's runs into chunks of `slots`.

    Args:
      chunks: the least number of them; the last one is repeated.
    """
    by_seed: dict[int, list[int]] = {}
    for place, run in enumerate(runs):
        by_seed.setdefault(run.seed, []).append(place)
    rows, seeds = [], []
    for seed, places in by_seed.items():
        for start in range(0, len(places), slots):
            part = places[start : start + slots]
            rows.append(part + [part[-1]] * (slots - len(part)))
            seeds.append(seed)
    rows += [rows[-1]] * (chunks - len(rows))
    seeds += [seeds[-1]] * (chunks - len(seeds))
    return Layout(np.array(rows), np.array(seeds))


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
    of_run: Int[np.ndarray, " run"] | None  # the order of each run; None: by seed
    folds: list[int] | None  # of each order; None: all


def batch_orders(folds: Sequence[Fold], runs: Sequence[RunKey], *, shared: bool) -> BatchOrders:
    """Returns by what batches are drawn: runs of one seed, fold and share of corrupted utterances have one order.

    Every run visits its own training utterances. If the frozen forward pass of a batch serves all runs (`shared`),
    the runs of a seed share batches of the utterances that any fold trains on, and all runs have one share.
    """
    if shared:
        anyone = np.any([fold.train for fold in folds], axis=0)
        seeds = sorted({run.seed for run in runs})
        return BatchOrders([(seed, anyone) for seed in seeds], [runs[0].setting.corrupted] * len(seeds), None, None)
    keys = sorted({(run.seed, run.fold, run.setting.corrupted) for run in runs})
    row = np.array([keys.index((run.seed, run.fold, run.setting.corrupted)) for run in runs], np.int32)
    drawn = [(seed, folds[fold].train) for seed, fold, _ in keys]
    return BatchOrders(drawn, [share for *_, share in keys], row, [fold for _, fold, _ in keys])


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


class RunSteps(NamedTuple):
    """The steps of a program's runs."""

    most: Steps  # of the runs with the most of them
    of_runs: Steps | None  # arrays `[run]`; None if all have as many


def count_steps(
    order: Order,
    order_of_run: Int[np.ndarray, " run"] | None,
    n_final: int,
    *,
    epochs: int,
    warmup: float,
) -> tuple[RunSteps, Int[np.ndarray, " every_run"] | None]:
    """Returns how many steps the runs take, and in how many rounds of an epoch (None: all in all).

    Args:
      order: the batches of an epoch.
      order_of_run: the order of each run that trains on a fold.
      n_final: number of final runs, which come after those; they have all steps.
      epochs: of the study.
      warmup: share of the steps in which the learning rate rises.
    """

    most = sum(rows.shape[1] * rows.shape[2] for rows in order.rows)
    fixed = Steps(most, int(warmup * most * epochs), most * epochs)
    if order.number is None or order_of_run is None:
        return RunSteps(fixed, None), None
    taken = np.concatenate([number >= 0 for number in order.number], axis=2)  # [order, round, step]
    own = taken.sum(axis=(1, 2))[order_of_run], taken.any(axis=2).sum(axis=1)[order_of_run]
    epoch, rounds = (
        np.r_[x, np.full(n_final, whole)].astype(np.int32) for x, whole in zip(own, (most, taken.shape[1]), strict=True)
    )
    of_runs = Steps(epoch, (warmup * epoch * epochs).astype(np.int32), epoch * np.int32(epochs))
    return RunSteps(fixed, of_runs), rounds


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


def balanced_class_weight(target: Float[np.ndarray, "utterance class"]) -> Float[np.ndarray, " class"]:
    """Returns weights inverse to the class mass, of mean 1 over utterances; 0 for a class that never occurs."""
    mass = target.sum(axis=0)
    weight = np.divide(mass.sum(), mass * np.count_nonzero(mass), out=np.zeros_like(mass), where=mass > 0)
    return weight.astype(np.float32)


def class_prior(
    target: Float[np.ndarray, "utterance class"],
    corpora: Sequence[str],
    trained: Bool[np.ndarray, " utterance"],
) -> ClassPrior:
    """Returns the priors of the classes in each corpus, from the training utterances of a fold.

    One utterance of each class is added, so that a class which a corpus does not have is rare there, not impossible.

    Args:
      target: one-hot labels or votes.
      corpora: the corpus of each utterance.
      trained: the fold's training utterances.
    """
    names, corpus = np.unique(np.array(corpora), return_inverse=True)
    mass = np.ones((len(names), target.shape[1]))
    np.add.at(mass, corpus[trained], target[trained])
    return ClassPrior(np.log(mass / mass.sum(axis=1, keepdims=True)).astype(np.float32), corpus.astype(np.int32))


def selection_rows(folds: Sequence[Fold], split: str) -> list[Int[np.ndarray, " _row"]]:
    """Returns the utterances of each fold's `split` ("train", "val" or "test")."""
    return [np.flatnonzero(getattr(fold, split)) for fold in folds]


def run_sharding(over: Sequence[jax.Device]) -> NamedSharding:
    """Shards the slots of `[chunk, slot, ...]` over the devices; no collective is needed."""
    # Auto axes: jax.make_mesh's default, explicit axes, does not go with vmapped training.
    mesh = Mesh(np.array(over), ("run",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec(None, "run"))
