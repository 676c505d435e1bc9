"""A forecast for the terminal."""

from collections.abc import Sequence

from sejax.host.wording import count
from sejax.planning.forecast import Forecast
from sejax.planning.machines import Machine

_LIMITS = {
    "launches": "the launches of kernels",
    "products": "products of matrices",
    "arithmetic": "other arithmetic",
    "bytes": "bytes moved",
}


def format_forecasts(programs: Sequence[Forecast], machine: Machine, devices: str, epochs: int) -> str:
    """Returns programs, stacks, memory and time in a few lines each, and where the rates are from."""
    blocks = [
        line for number, program in enumerate(programs, 1) for line in _program(number, programs, program, epochs)
    ]
    total = sum(program.seconds(epochs) for program in programs)
    kind = "measured" if machine.measured else "published"
    lines = [
        *blocks,
        f"{devices}: {_time(total)} for at most {count(epochs, 'epoch')} of {count(len(programs), 'program')}, without "
        "compilation and features",
        f"rates ({kind}): {machine.source}",
    ]
    if not machine.measured:
        lines.append("no study was measured on this device: the times are predictions from published rates")
    if machine.unknown:
        lines.append(f"nothing is known of its {' and '.join(machine.unknown)}: a study takes at least so long")
    if any(program.frames_on == "host" for program in programs):
        lines.append("streamed frames: that the host reads them as fast as they are used is assumed")
    if short := [program for program in programs if program.needed > program.free]:
        lines.append(f"{count(len(short), 'program')} do not fit: a smaller batch or config.max_seconds needs less")
    return "\n".join(lines)


def _program(number: int, programs: Sequence[Forecast], program: Forecast, epochs: int) -> list[str]:
    what = ", ".join(f"{name}={value}" for name, value in program.structure.items())
    on = f" on {count(program.devices, 'device')}"
    streamed = ", streamed" * (program.frames_on == "host")
    longest = max(program.limits, key=program.limits.__getitem__)
    share = program.limits[longest] / program.epoch_seconds
    lines = [
        f"program {number} of {len(programs)}{': ' * bool(what)}{what}",
        f"  {count(program.runs, 'run')} of {program.parameters:,} parameters, {program.slots} side by side{on} in "
        f"{count(program.chunks, 'chunk')}",
        f"  {_gigabytes(program.data_bytes)} of data{streamed}; states {_gigabytes(program.state_bytes)}, a step "
        f"{_gigabytes(program.temporary_bytes)}; needs {_gigabytes(program.needed)} of {_gigabytes(program.free)} per "
        "device",
        f"  {count(program.steps_per_epoch, 'step')} per epoch, by length of the utterances:",
        f"    {'frames':>8}{'steps':>8}{'kernels':>9}{'TFLOP':>9}{'GB':>9}{'ms':>9}",
    ]
    lines += [
        f"    {max(step.frames.values(), default=0):8,}{step.steps:8,}{step.work.launches:9,}"
        f"{step.work.products / 1e12:9.4f}{step.work.bytes / 1e9:9.2f}{1e3 * step.seconds:9.2f}"
        for step in program.steps
    ]
    lines.append(
        f"  epoch: {_time(program.epoch_seconds)} of training ({share:.0%} bound by {_LIMITS[longest]}) and "
        f"{_time(program.validation_seconds)} of validation; {count(epochs, 'epoch')}: {_time(program.seconds(epochs))}"
    )
    return lines


def _gigabytes(n: int) -> str:
    return f"{n / 1e9:.2f} GB"


def _time(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    if seconds < 600:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 36_000 else f"{seconds / 3600:.3g} h"
