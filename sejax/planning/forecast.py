"""How a program would be stacked on devices that are not here, what it would need of their memory, and its time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sejax.data.types import Bucket
from sejax.engine import epoch
from sejax.engine.epoch import Shared
from sejax.engine.leaves import Leaves
from sejax.engine.plan import Placement, Room, choose_stack, nbytes
from sejax.engine.program import Program
from sejax.engine.runs import lay_out, runs_per_seed, written
from sejax.engine.step import Network, StepMetrics, init_params, init_state
from sejax.nn.backend import traced_for
from sejax.nn.generator import HASH
from sejax.planning.kernels import Work, work_of
from sejax.planning.machines import Machine

FORWARD = 1 / 3
"""The share of a training step's time that its forward pass takes: the backward pass has twice the products."""


@dataclass(frozen=True, kw_only=True)
class StepForecast:
    """A training step of the runs that a device trains side by side, on utterances of one length bucket."""

    frames: Mapping[str, int]  # of a padded utterance, by encoded stream
    steps: int  # of each run in an epoch
    work: Work
    limits: Mapping[str, float]  # seconds of the kernels that each limit binds: a key of `Machine.times`

    @property
    def seconds(self) -> float:
        """The time of a step."""
        return sum(self.limits.values())


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A program on devices that need not be here. Bytes are per device; no epoch stops early, nothing is compiled."""

    structure: Mapping[str, str]  # the options that tell the program from the study's others
    runs: int
    parameters: int  # of a run
    slots: int  # runs side by side
    chunks: int
    devices: int
    frames_on: str  # "device", or "host": streamed
    steps: tuple[StepForecast, ...]  # of each length bucket that is trained on
    validation_seconds: float  # of an epoch
    again_chunks: int  # of runs that train a second time, with validation speakers or on all speakers
    data_bytes: int  # of the whole corpus
    state_bytes: int
    temporary_bytes: int  # of a step of the longest utterances
    needed: int
    free: int

    @property
    def steps_per_epoch(self) -> int:
        """The steps of each run in an epoch."""
        return sum(step.steps for step in self.steps)

    @property
    def limits(self) -> dict[str, float]:
        """The seconds of an epoch's training, by what limits the kernels."""
        names = dict.fromkeys(name for step in self.steps for name in step.limits)
        return {
            name: self.chunks * sum(step.steps * step.limits.get(name, 0.0) for step in self.steps) for name in names
        }

    @property
    def epoch_seconds(self) -> float:
        """The time of an epoch's training of all runs."""
        return sum(self.limits.values())

    def seconds(self, epochs: int) -> float:
        """Returns the time of so many epochs, all runs that train again included."""
        again = self.again_chunks / self.chunks * self.epoch_seconds
        return epochs * (self.epoch_seconds + self.validation_seconds + again)


class _Abstract:
    """The arrays of a program as shapes. What a step does not depend on has size 1: utterances that are not in it."""

    def __init__(self, program: Program, backend: str):
        self.program, self.backend = program, backend
        self.order = program.shuffle(1)
        self.network = program.network
        n = len(program.data.target)

        def of_one(x: Any, axis: int) -> jax.ShapeDtypeStruct:
            shape = list(np.shape(x))
            if shape[axis:] and shape[axis] == n:
                shape[axis] = 1
            return jax.ShapeDtypeStruct(tuple(shape), x.dtype)

        buckets = [program.block(number, 1, program.views) for number in range(len(program.data.buckets))]
        data = jax.tree.map(partial(of_one, axis=0), program.data._replace(buckets=()))
        self.shared = Shared(data._replace(buckets=tuple(buckets)), _shapes(program.frozen))
        per_run = jax.tree.map(partial(of_one, axis=1), program.per_run)
        self.run = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), per_run)

    @cached_property
    def leaves(self) -> Leaves:
        """The parameters of a run."""
        return _leaves(self.network, self.backend, *_hashable(self._of_a_run))

    @cached_property
    def state(self) -> Any:
        """The state of one run."""
        return _state(self.network, self.backend, *_hashable(self._of_a_run))

    @property
    def _of_a_run(self) -> Any:
        return self.run, self.shared, _shapes(self.program.start)

    def work(self, number: int, runs: int) -> Work:
        """Returns the work of a step of some runs on a bucket."""
        batch = self.order.rows[number].shape[-1]
        rows = jax.ShapeDtypeStruct((batch,) if self.program.order_of_run is None else (runs, batch), np.int32)
        stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((runs, *x.shape), x.dtype), (self.state, self.run))
        bucket = self.shared.data.buckets[number]
        arrays = (*stacked, rows, epoch.without_frames(self.shared), bucket)
        return _work(replace(self.network, leaves=self.leaves), self.backend, *_hashable(arrays))


def _hashable(tree: Any) -> tuple[Any, tuple[Any, ...]]:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(leaves)


@cache
def _leaves(network: Network, backend: str, structure: Any, shapes: tuple[Any, ...]) -> Leaves:
    """Returns the parameters of a run."""
    return Leaves.of(_initial(init_params, network, backend, *jax.tree.unflatten(structure, shapes)))


@cache
def _state(network: Network, backend: str, structure: Any, shapes: tuple[Any, ...]) -> Any:
    """Returns the shapes of a run's state before its first step."""
    return _initial(init_state, network, backend, *jax.tree.unflatten(structure, shapes))


def _initial(function: Callable[..., Any], network: Network, backend: str, run: Any, shared: Any, start: Any) -> Any:
    """Returns the shapes of `init_params` or `init_state`."""

    def init(run, shared, start, seed):
        batch = epoch.first_batch(shared.data)
        return function(network, shared.frozen, start, run, batch, jax.random.key(seed))

    with traced_for(backend):
        return jax.eval_shape(init, run, shared, start, np.int32(0))


@cache
def _work(network: Network, backend: str, structure: Any, shapes: tuple[Any, ...]) -> Work:
    """Returns the work of a step of stacked runs."""

    def step(state, run, rows, shared, bucket):
        key = jax.random.key(0, impl=HASH)
        return epoch.train_slots(network, shared, bucket, state, run, rows, rows, key, jnp.int32(0))

    with traced_for(backend):
        return work_of(step, *jax.tree.unflatten(structure, shapes))


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)


def forecast(program: Program, machine: Machine, *, count: int, placement: Placement) -> Forecast:
    """Predicts how a program is stacked on so many devices, and what it takes.

    The stack is chosen as `sejax.engine.plan` does, by an estimate of the memory.
    """
    arrays = _Abstract(program, machine.backend)
    trained = [number for number, rows in enumerate(arrays.order.rows) if rows.size]
    longest = max(trained, key=lambda number: _frames(program.data.buckets[number]))
    devices = min(count, runs_per_seed(program.runs))
    free = int(placement.memory_fraction * machine.memory)
    in_common = {"device": nbytes(program.data)}
    # The next block is there beside that of a step.
    block = program.block(longest, arrays.order.rows[longest].shape[-1] * devices, program.views)
    in_common["host"] = 2 * nbytes(block)

    @cache
    def memory(slots: int) -> tuple[int, int]:
        """Returns the bytes of the states and of what a step computes meanwhile."""
        layout = lay_out(program.runs, slots=slots).run
        metrics = StepMetrics.none(program.epoch_steps, len(program.network.recipe.tasks))
        own = nbytes((metrics, jax.tree.map(lambda x: x[0], program.per_run)))
        # A chunk's states are taken out of all and put back; the best epoch's parameters are kept.
        states = (layout.size + 2 * slots) * nbytes(arrays.state) + layout.size * (own + nbytes(arrays.state.params))
        return states // devices, arrays.work(longest, slots // devices).temporary

    def needs(slots: int, frames_on: str) -> int:
        common = in_common[frames_on] // (devices if machine.backend == "cpu" else 1)  # cores share one copy
        return common + nbytes(program.frozen) + sum(memory(slots))

    room = Room(devices, free, in_turn=machine.backend == "cpu")
    slots, frames_on = choose_stack(program, placement, room, needs, slots=0)
    layout = lay_out(program.runs, slots=slots)
    # Cores without runs of their own help the others.
    faster = 1 + (count / devices - 1) * (machine.threads - 1)
    steps = []
    for number in trained:
        work = arrays.work(number, slots // devices)
        steps.append(
            StepForecast(
                frames={name: x.shape[2] for name, x in program.data.buckets[number].frames.items()},
                steps=int(arrays.order.taken[number].sum(axis=-1).max()),
                work=work,
                limits={name: seconds / faster for name, seconds in limits_of(work, machine).items()},
            )
        )
    chunks = layout.run.shape[0]
    states, temporary = memory(slots)
    return Forecast(
        structure={name: written(value) for name, value in program.structure.items()},
        runs=len(program.runs),
        parameters=arrays.leaves.size,
        slots=slots,
        chunks=chunks,
        devices=devices,
        frames_on=frames_on,
        steps=tuple(steps),
        validation_seconds=chunks * _validation(program, dict(zip(trained, steps, strict=True))),
        again_chunks=sum(
            lay_out(again.runs, slots=slots).run.shape[0] for again in (program.refit, program.final) if again
        ),
        data_bytes=in_common["device"],
        state_bytes=states,
        temporary_bytes=temporary,
        needed=needs(slots, frames_on),
        free=free,
    )


def limits_of(work: Work, machine: Machine) -> dict[str, float]:
    """Returns the seconds of the kernels that each limit binds (`Machine.times`)."""
    limits = dict[str, float]()
    for kernel in work.kernels:
        times = machine.times(kernel)
        longest = max(times, key=times.__getitem__)
        limits[longest] = limits.get(longest, 0.0) + kernel.times * times[longest]
    return limits


def _frames(bucket: Bucket) -> int:
    return max((x.shape[2] for x in bucket.frames.values()), default=0)


def _validation(program: Program, steps: Mapping[int, StepForecast]) -> float:
    """Returns the seconds of predicting the validation utterances of the runs side by side."""
    seconds = 0.0
    batch = program.shuffle(1).rows[0].shape[-1]
    for number, rows in enumerate(program.rows.get("val", ())):
        # A bucket that nobody trains on takes the time of the longest.
        step = steps.get(number) or max(steps.values(), key=lambda step: step.seconds)
        seconds += FORWARD * step.seconds * rows.shape[1] * rows.shape[2] / batch
    return seconds


def as_json(forecasts: Sequence[Forecast], epochs: int) -> list[dict[str, Any]]:
    """Returns programs as JSON values."""
    plain = ("structure", "runs", "parameters", "slots", "chunks", "devices", "frames_on", "steps_per_epoch")
    sizes = ("data_bytes", "state_bytes", "temporary_bytes", "needed", "free")
    return [
        {
            **{name: getattr(program, name) for name in plain},
            **{name.removesuffix("_bytes") + "_bytes": getattr(program, name) for name in sizes},
            "epoch_seconds": program.epoch_seconds,
            "validation_seconds": program.validation_seconds,
            "limits_seconds": program.limits,
            "seconds": program.seconds(epochs),
            "steps": [
                {
                    "frames": dict(step.frames),
                    "steps": step.steps,
                    "seconds": step.seconds,
                    "kernels": step.work.launches,
                    "product_operations": step.work.products,
                    "bytes": step.work.bytes,
                }
                for step in program.steps
            ],
        }
        for program in forecasts
    ]
