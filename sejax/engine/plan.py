"""The programs of a study: which runs each trains, how many of them side by side, and what that needs of memory."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
from jax.sharding import NamedSharding

from sejax.engine import epoch as program
from sejax.engine.devices import compile_lowered, smallest
from sejax.engine.program import Placed, Program
from sejax.engine.runs import RunKey, even_slots, lay_out, run_sharding, runs_per_seed, written
from sejax.errors import InputError
from sejax.wording import count


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A placed program, compiled."""

    placed: Placed
    frames_on: str  # "device", or "host": streamed
    compiled: Any  # an epoch; where frames are streamed, by length bucket a step
    parameters: Any  # shapes, of one run
    needed: int  # bytes per device
    free: int  # bytes per device


def plan_program(
    own: Program,
    devices: Sequence[jax.Device],
    *,
    frames_on: str,
    slots: int,
    runs_per_chunk: int,
    memory_fraction: float,
) -> Planned:
    """Compiles a program for as many runs side by side as the devices' memory holds, the rest in equal chunks.

    Args:
      frames_on: "device"; "host" streams them; "auto" does where a run per device does not fit beside them.
      slots: how the runs lie in a checkpoint, which is how they stay; 0: there is none.
      runs_per_chunk: so many instead; 0: on a CPU one per device, where more are no faster.
      memory_fraction: of a device's free memory that may be needed.

    Raises:
      InputError: see `used_devices`.
    """
    devices = used_devices(own.runs, devices, slots)
    free = smallest(int(memory_fraction * free_memory(devices)))
    even = partial(even_slots, own.runs, devices=len(devices))
    most = runs_per_chunk or (len(devices) if devices[0].platform == "cpu" else 0)

    def plan(frames_on: str) -> Planned:
        planned: dict[int, Planned] = {}

        def needs(slots: int) -> int:
            placed = Placed(program=own, layout=lay_out(own.runs, slots=slots), by_run=run_sharding(devices))
            planned[slots] = _compile(placed, frames_on, free)
            return planned[slots].needed

        if slots or most:
            chosen = slots or even(most=most)
            needs(chosen)
        else:
            chosen = largest_stack(even, free, needs)
        return planned[chosen]

    if frames_on != "auto":
        return plan(frames_on)
    if nbytes(own.data) > free:
        return plan("host")
    resident = plan("device")
    return resident if resident.needed <= free else min(resident, plan("host"), key=lambda found: found.needed)


def used_devices(runs: Sequence[RunKey], devices: Sequence[jax.Device], slots: int) -> Sequence[jax.Device]:
    """No more devices than there are runs of a seed, and a number that divides the slots, if these are given.

    Raises:
      InputError: if that leaves none to some process.
    """
    used = devices[: runs_per_seed(runs)]
    if slots:
        used = used[: max(n for n in range(1, len(used) + 1) if slots % n == 0)]
    if idle := set(range(jax.process_count())) - {device.process_index for device in used}:
        raise InputError(
            f"{jax.process_count()} processes share {runs_per_seed(runs)} runs of a seed on {len(used)} devices, which "
            f"leaves none to process {min(idle)}; expected fewer processes"
        )
    return used


def largest_stack(even: Callable[..., int], free: int, needs: Callable[[int], int]) -> int:
    """The most runs side by side whose program needs no more than is free, found in few compilations.

    Bytes grow with the runs as a straight line; the first guess takes it through zero, the next ones through the
    last two points. Never less than a run per device.

    Args:
      even: the slots of equal chunks, `even(most=n)` of them at most (0: no limit).
      needs: compiles so many and says the bytes per device.
    """
    slots, fewest = even(most=0), even(most=1)
    n, bytes_n = 0, 0
    while (needed := needs(slots)) > free and slots > fewest:
        per_run = (needed - bytes_n) / (slots - n)
        fits = math.floor(slots - (needed - free) / per_run) if per_run > 0 else fewest
        n, bytes_n = slots, needed
        # Rounding up to the devices may give as many again.
        slots = next(
            s for most in range(max(1, fits), 0, -1) if (s := even(most=most)) <= max(fewest, min(fits, n - 1))
        )
    return slots


def free_memory(devices: Sequence[jax.Device]) -> int:
    """Bytes of a device that are not in use. Devices that are cores share the machine's."""
    local = [device for device in devices if device.process_index == jax.process_index()]
    if stats := local[0].memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"]
    available = psutil.virtual_memory().available
    container = Path("/sys/fs/cgroup")
    if (container / "memory.max").exists() and (limit := (container / "memory.max").read_text().strip()).isdigit():
        # Without the files that the kernel keeps as long as nobody needs the room.
        kept = dict(line.split() for line in (container / "memory.stat").read_text().splitlines())
        used = int((container / "memory.current").read_text()) - int(kept["active_file"]) - int(kept["inactive_file"])
        available = min(available, int(limit) - used)
    return available // len(local)


def _compile(placed: Placed, frames_on: str, free: int) -> Planned:
    """Compiles an epoch or its steps, and counts the bytes that training needs on each device."""
    own, by_run, shared = placed.program, placed.by_run, placed.shared

    def abstract(tree: Any, sharding: NamedSharding) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding), tree)

    runs, data, frozen = abstract(placed.stacked(), by_run), abstract(own.data, shared), abstract(own.frozen, shared)
    seed, number = abstract(placed.seed, shared), jax.ShapeDtypeStruct((), np.int32, sharding=shared)
    order_row = abstract(placed.order_row, by_run if placed.order_row.ndim == 2 else shared)
    order = abstract(own.shuffle(1), shared)
    model_and_recipe: Any = {"model": own.model, "recipe": own.recipe}
    init_runs = partial(program.init_runs, **model_and_recipe)
    states = abstract(jax.eval_shape(init_runs, runs, data, frozen, own.start, seed), by_run)
    compiled: Any
    if frames_on == "device":
        compiled = compile_lowered(
            program.train_epoch.lower(states, runs, data, frozen, order, order_row, seed, number, **model_and_recipe)
        )
        needed, in_common = _bytes(compiled), nbytes(data)
    else:
        metrics, data = abstract(placed.no_metrics(), by_run), data._replace(buckets=())
        blocks = {n: abstract(own.block(n, size, own.views), shared) for n, size in own.block_rows["train"].items()}
        batch = jax.ShapeDtypeStruct((order.rows[0].shape[0], order.rows[0].shape[-1]), np.int32, sharding=shared)
        compiled = {
            n: compile_lowered(
                program.train_batch.lower(
                    *(states, metrics, runs, data, block, frozen, batch, batch, order_row, seed, number, number),
                    **model_and_recipe,
                )
            )
            for n, block in blocks.items()
        }
        predicted = [own.block(n, size, 1) for split in own.rows for n, size in own.block_rows[split].items()]
        # Beside the block of a step lies the next one.
        in_common = max(map(nbytes, (*blocks.values(), *predicted)))
        needed = max(map(_bytes, compiled.values())) + in_common
    needed += nbytes(states.params) // by_run.mesh.size  # of the best epoch
    if by_run.mesh.devices.flat[0].platform == "cpu":
        needed -= in_common * (by_run.mesh.size - 1) // by_run.mesh.size  # cores read it where it lies
    parameters = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), states.params)
    return Planned(
        placed=placed, frames_on=frames_on, compiled=compiled, parameters=parameters, needed=needed, free=free
    )


def _bytes(compiled: Any) -> int:
    """What a compiled program needs on each device."""
    found = compiled.memory_analysis()
    assert found is not None, "XLA has counted the memory of every backend so far"
    return (
        found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes + found.temp_size_in_bytes
    )


def describe(planned: Sequence[Planned]) -> list[dict[str, Any]]:
    """The plan as JSON: how the runs of each program lie, and what it needs (bytes per device)."""
    return [
        {
            "structure": {name: written(value) for name, value in plan.placed.program.structure.items()},
            "runs": [run.number for run in plan.placed.program.runs],
            "chunks": plan.placed.layout.run.shape[0],
            "slots": plan.placed.layout.run.shape[1],
            "devices": plan.placed.by_run.mesh.size,
            "frames_on": plan.frames_on,
            "steps_per_epoch": plan.placed.program.recipe.epoch_steps,
            "data_bytes": nbytes(plan.placed.program.data),
            "needed_bytes": plan.needed,
            "free_bytes": plan.free,
        }
        for plan in planned
    ]


def nbytes(tree: Any) -> int:
    """Bytes of all arrays."""
    return sum(math.prod(np.shape(x)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def format_plan(planned: Sequence[Planned]) -> str:
    """What is about to run: programs, runs and steps of each, memory."""
    lines = []
    for number, plan in enumerate(planned, 1):
        own = plan.placed.program
        chunks, slots = plan.placed.layout.run.shape
        parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(plan.parameters))
        streamed = ", streamed" * (plan.frames_on == "host")
        what = ", ".join(f"{name}={written(value)}" for name, value in own.structure.items())
        lines += [
            f"program {number} of {len(planned)}{': ' * bool(what)}{what}",
            f"  {count(len(own.runs), 'run')} of {parameters:,} parameters, {slots} side by side in "
            f"{count(chunks, 'chunk')}",
            f"  {own.recipe.epoch_steps} steps per epoch, {len(own.data.buckets)} length buckets",
            f"  {_gigabytes(nbytes(own.data))} of data{streamed}; needs {_gigabytes(plan.needed)} of "
            f"{_gigabytes(plan.free)} per device",
        ]
    return "\n".join(lines)


def _gigabytes(n: int) -> str:
    return f"{n / 1e9:.2f} GB"
