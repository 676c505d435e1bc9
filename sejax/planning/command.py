"""Plans a study for devices that are not here: programs, stacks, memory and time, from the operations of a step.

    python -m sejax.plan --config FILE[:ARG] [--config.OPTION=VALUE ...] --device h200 [--count 8] [--json FILE]

It needs the corpus (the headers of its files), and of pretrained models their descriptions, but neither features nor
the device: a training step is traced, not compiled. The time is that of training and validation, without compilation,
features, and what stops before the last epoch. `--device` is a row of a table of measured and published rates, which is
printed, or a JSON file with such rates.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sejax.errors import InputError
from sejax.inference.commands.running import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sejax.plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--device", required=True, metavar="NAME", help="such as h200, h100, cpu; or FILE.json")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="of devices; of a CPU, cores (default: 1)")
    parser.add_argument("--json", metavar="FILE", help="write all numbers")
    given, words = parser.parse_known_args(arguments)
    return run(lambda: _plan(given, words), interrupted="nothing is written")


def _plan(given: argparse.Namespace, words: Sequence[str]) -> int:
    from sejax import build
    from sejax.host.json_files import write_json
    from sejax.planning.forecast import as_json, forecast
    from sejax.planning.machines import find_machine
    from sejax.planning.table import format_forecasts
    from sejax.resolve.flag import parse_config

    machine = find_machine(given.device)
    if given.count < 1:
        raise InputError(f"--count is {given.count}, expected 1 or more devices")
    path = None if given.json is None else Path(given.json).expanduser()
    if path and not path.parent.is_dir():
        raise InputError(f"--json is {given.json!r}, expected a file in a folder that exists")
    outline = build.outline(parse_config(words))
    count = min(given.count, outline.n_devices or given.count)
    programs = [forecast(program, machine, count=count, placement=outline.placement) for program in outline.programs]
    if path:
        tree = {
            "device": {"name": given.device, "count": count, **dataclasses.asdict(machine)},
            "utterances": len(outline.corpus.utterances),
            "epochs": outline.epochs,
            "programs": as_json(programs, outline.epochs),
        }
        write_json(path, tree)
    print(format_forecasts(programs, machine, f"{count} x {given.device}", outline.epochs))
    return 0
