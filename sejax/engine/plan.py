"""Plans a program: how many of its runs train side by side, and how much memory that needs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from sejax.data.prefetch import visits_of_epoch
from sejax.engine import epoch
from sejax.engine.compiled import Wanted, compile_side_by_side
from sejax.engine.devices import smallest
from sejax.engine.epoch import Chunk, Shared
from sejax.engine.leaves import Leaves
from sejax.engine.program import Placed, Program
from sejax.engine.runs import RunKey, even_slots, lay_out, run_sharding, runs_per_seed, written
from sejax.errors import InputError
from sejax.host.wording import count

APART = "folds_apart"  # in an entry of plan.json: whether each fold of the program is a job of its own


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A placed program, compiled."""

    placed: Placed
    frames_on: str  # "device", or "host": streamed
    compiled: Mapping[tuple[int, ...], Any]  # `epoch.train_part`, by the numbers of the buckets of a part
    block_rows: Mapping[str, dict[int, int]]  # of streamed blocks: `Program.block_rows`; empty if none is streamed
    leaves: Leaves  # the parameters of one run
    needed: int  # bytes per device
    free: int  # bytes per device


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The options of a plan: where frames are stored, and how many runs train side by side."""

    frames_on: str  # "device"; "host": streamed; "auto": streamed if a run per device does not fit beside them
    runs_per_chunk: int  # fixes the number; 0 chooses it (on a CPU one per device: more are not faster)
    memory_fraction: float  # the share of a device's free memory that a program may need


def plan_programs(
    programs: Sequence[Program],
    devices: Sequence[jax.Device],
    placement: Placement,
    begun: Sequence[Mapping[str, Any]] | None,
) -> list[Planned]:
    """Plans and compiles all programs of a study.

    Args:
      begun: the tree of plan.json in a workdir that is continued: its stacks are kept, and the place of its frames if
        `placement` leaves it open.

    Raises:
      InputError: see `used_devices`.
    """
    entries = begun if begun else [None] * len(programs)
    return [plan_program(program, devices, placement, tree) for program, tree in zip(programs, entries, strict=True)]


def plan_program(
    program: Program, devices: Sequence[jax.Device], placement: Placement, begun: Mapping[str, Any] | None
) -> Planned:
    """Compiles a program for as many runs side by side as the devices' memory holds, the rest in equal chunks.

    Args:
      begun: the program's entry in plan.json, see `plan_programs`.

    Raises:
      InputError: see `used_devices`.
    """
    slots = begun["slots"] if begun else 0
    if begun and placement.frames_on == "auto":
        placement = replace(placement, frames_on=begun["frames_on"])
    devices = used_devices(program.runs, devices, slots)
    free = smallest(int(placement.memory_fraction * free_memory(devices)))

    @cache
    def compiled(slots: int, frames_on: str) -> Planned:
        placed = Placed(program=program, layout=lay_out(program.runs, slots=slots), by_run=run_sharding(devices))
        return _compile(placed, frames_on, free)

    chosen = choose_stack(
        program,
        placement,
        Room(len(devices), free, in_turn=devices[0].platform == "cpu"),
        lambda slots, frames_on: compiled(slots, frames_on).needed,
        slots=slots,
    )
    return compiled(*chosen)


class Room(NamedTuple):
    """What devices have for a program, whether they are here or not."""

    devices: int  # that it uses
    free: int  # bytes that it may need on each
    in_turn: bool  # whether each trains one run at a time, because more are not faster: cores of a CPU


def choose_stack(
    program: Program, placement: Placement, room: Room, needs: Callable[[int, str], int], *, slots: int
) -> tuple[int, str]:
    """Returns how many runs train side by side, and where frames lie ("device" or "host").

    Args:
      needs: returns the bytes per device of so many slots with frames there.
      slots: as of `plan_program`.
    """
    even = partial(even_slots, program.runs, devices=room.devices)
    most = placement.runs_per_chunk or (room.devices if room.in_turn else 0)

    def stack(frames_on: str) -> tuple[int, str]:
        if slots or most:
            return slots or even(most=most), frames_on
        return largest_stack(even, room.free, lambda n: needs(n, frames_on)), frames_on

    if placement.frames_on != "auto":
        return stack(placement.frames_on)
    if nbytes(program.data) > room.free:
        return stack("host")
    resident = stack("device")
    return resident if needs(*resident) <= room.free else min(resident, stack("host"), key=lambda how: needs(*how))


def used_devices(runs: Sequence[RunKey], devices: Sequence[jax.Device], slots: int) -> Sequence[jax.Device]:
    """Returns as many devices as there are runs of a seed, at most; a number that divides the slots, if given.

    Raises:
      InputError: some process has none of them.
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
    """Finds the most runs side by side whose program needs no more than is free, in few compilations.

    Bytes grow linearly with the runs: the first guess extrapolates through zero, the next ones through the last two
    points. The result is never less than a run per device.

    Args:
      even: returns the slots of equal chunks, at most `even(most=n)` (0: no limit).
      needs: compiles for so many slots and returns the bytes per device.
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
    """Returns the bytes of a device that are not in use. Devices that are cores share the machine's memory."""
    local = [device for device in devices if device.process_index == jax.process_index()]
    if stats := local[0].memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"]
    import psutil  # which a machine with a GPU need not have

    available = psutil.virtual_memory().available
    container = Path("/sys/fs/cgroup")
    if (container / "memory.max").exists() and (limit := (container / "memory.max").read_text().strip()).isdigit():
        # Without the files that the kernel keeps as long as nobody needs the room.
        kept = dict(line.split() for line in (container / "memory.stat").read_text().splitlines())
        used = int((container / "memory.current").read_text()) - int(kept["active_file"]) - int(kept["inactive_file"])
        available = min(available, int(limit) - used)
    return available // len(local)


def _compile(placed: Placed, frames_on: str, free: int) -> Planned:
    """Compiles the parts of an epoch, and counts the bytes that training needs on each device."""
    program, by_run, replicated = placed.program, placed.by_run, placed.replicated
    network = program.network

    def abstract(tree: Any, sharding: NamedSharding) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding), tree)

    chunk = Chunk(*(abstract(part, how) for part, how in zip(placed.chunk, placed.chunk_sharding, strict=True)))
    shared = abstract(Shared(program.data, program.frozen), replicated)
    n_chunks = jax.ShapeDtypeStruct((), np.int32, sharding=replicated)
    init_runs = partial(epoch.init_runs, network=network)
    states = abstract(jax.eval_shape(init_runs, chunk, shared, program.start), by_run)
    metrics = abstract(placed.no_metrics(), by_run)
    if frames_on == "device":
        block_rows: Mapping[str, dict[int, int]] = {}
        buckets = dict(enumerate(shared.data.buckets))
        parts = dict(epoch.parts(1, program.shuffle(1), together=placed.compiled_together))
        beside = {numbers: nbytes([buckets[n] for n in buckets if n not in numbers]) for numbers in parts}
        in_common = nbytes(program.data)
    else:
        block_rows = program.block_rows
        buckets = {
            n: abstract(program.block(n, size, program.views), replicated) for n, size in block_rows["train"].items()
        }
        visits = visits_of_epoch(program.shuffle(1))
        parts = {(visit.bucket,): epoch.one_step(1, visit.number, visit.rows, visit.view) for visit in visits}
        predicted = [program.block(n, size, 1) for split in program.rows for n, size in block_rows[split].items()]
        # The next block is on the device beside the one of a step.
        in_common = max(map(nbytes, (*buckets.values(), *predicted)))
        beside = dict.fromkeys(parts, in_common)
    leaves = epoch.leaves_of(chunk, shared, program.start, network=network)
    network = replace(network, leaves=leaves)
    of_all = states, metrics, chunk, epoch.without_frames(shared)
    of_parts = {
        numbers: (tuple(buckets[n] for n in numbers), abstract(part, replicated)) for numbers, part in parts.items()
    }
    static = {"network": network, "by_run": by_run}
    compiled = compile_side_by_side(
        {
            numbers: Wanted(epoch.train_part, (*of_all, *of_part, n_chunks), static)
            for numbers, of_part in of_parts.items()
        }
    )
    needed = max(_bytes(of_part) + beside[numbers] for numbers, of_part in compiled.items())
    needed += nbytes(states.params) // by_run.mesh.size  # of the best epoch
    if by_run.mesh.devices.flat[0].platform == "cpu":
        needed -= in_common * (by_run.mesh.size - 1) // by_run.mesh.size  # cores share one copy
    return Planned(
        placed=placed,
        frames_on=frames_on,
        compiled=compiled,
        block_rows=block_rows,
        leaves=leaves,
        needed=needed,
        free=free,
    )


def _bytes(compiled: Any) -> int:
    """Returns the bytes that a compiled program needs on each device."""
    memory = compiled.memory_analysis()
    assert memory is not None, "XLA has counted the memory of every backend so far"
    arguments_and_results = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return arguments_and_results + memory.temp_size_in_bytes


class Description(NamedTuple):
    """What is known of a planned program without its devices."""

    tree: dict[str, Any]  # its entry in plan.json: how its runs are stacked, and what it needs (bytes per device)
    parameters: Any  # the shapes of one run's

    def of_every_fold(self, program: Program) -> "Description":
        """Returns the description of a program whose folds train apart; this one is of the runs of a fold."""
        folds = len(set(program.fold.tolist()))
        runs, chunks = [run.number for run in program.runs], folds * self.tree["chunks"]
        return self._replace(tree={**self.tree, "runs": runs, "chunks": chunks, APART: True})


def describe(plan: Planned) -> Description:
    """Returns what is known of a planned program without its devices."""
    return Description(
        {
            "structure": {name: written(value) for name, value in plan.placed.program.structure.items()},
            "runs": [run.number for run in plan.placed.program.runs],
            "chunks": plan.placed.layout.run.shape[0],
            "slots": plan.placed.layout.run.shape[1],
            "devices": plan.placed.by_run.mesh.size,
            "frames_on": plan.frames_on,
            "steps_per_epoch": plan.placed.program.epoch_steps,
            "data_bytes": nbytes(plan.placed.program.data),
            "needed_bytes": plan.needed,
            "free_bytes": plan.free,
        },
        plan.leaves.tree,
    )


def nbytes(tree: Any) -> int:
    """Returns the bytes of all arrays."""
    return sum(math.prod(np.shape(x)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def format_plan(programs: Sequence[Program], plans: Sequence[Description]) -> str:
    """Returns the plan for the terminal: the programs, the runs and steps of each, memory."""
    lines = []
    for number, (program, (tree, shapes)) in enumerate(zip(programs, plans, strict=True), 1):
        parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
        streamed = ", streamed" * (tree["frames_on"] == "host")
        buckets = count(len(program.data.buckets), "length bucket")
        what = ", ".join(f"{name}={written(value)}" for name, value in program.structure.items())
        lines += [
            f"program {number} of {len(programs)}{': ' * bool(what)}{what}",
            f"  {count(len(program.runs), 'run')} of {parameters:,} parameters, "
            f"{tree['slots']} side by side in {count(tree['chunks'], 'chunk')}{', fold by fold' * is_apart(tree)}",
            f"  {tree['steps_per_epoch']} steps per epoch, {buckets}",
            f"  {_gigabytes(tree['data_bytes'])} of data{streamed}; needs {_gigabytes(tree['needed_bytes'])} of "
            f"{_gigabytes(tree['free_bytes'])} per device",
        ]
    return "\n".join(lines)


def _gigabytes(n: int) -> str:
    return f"{n / 1e9:.2f} GB"


def is_apart(tree: Mapping[str, Any]) -> bool:
    """Returns whether an entry of plan.json is of a program whose folds train apart."""
    return bool(tree.get(APART))


def is_plan_of(tree: Any, programs: Sequence[Program]) -> bool:
    """Returns whether a tree, as `describe` returns it, plans these programs."""
    return (
        isinstance(tree, list)
        and len(tree) == len(programs)
        and all(_plans(entry, program) for entry, program in zip(tree, programs, strict=True))
    )


def _plans(entry: Any, program: Program) -> bool:
    if not isinstance(entry, dict) or entry.get("runs") != [run.number for run in program.runs]:
        return False
    chunks, slots = entry.get("chunks"), entry.get("slots")
    if not isinstance(chunks, int) or not isinstance(slots, int) or chunks < 1 or slots < 1:
        return False
    # Runs of several seeds share no chunk, nor do runs of folds that train apart.
    parts = len({(run.seed, run.fold * is_apart(entry)) for run in program.runs})
    return 0 <= chunks * slots - len(program.runs) < slots * parts and entry.get("frames_on") in ("device", "host")
