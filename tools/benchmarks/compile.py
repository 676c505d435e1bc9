"""The compilation of the default model's training, length bucket by length bucket, with IEMOCAP's durations.

Three processes compile two runs, one after the other: the first with an empty cache (`cold`), the second like the first
(`again`), the third with other numbers (`other_numbers`: epochs, learning rate, weight decay, dropout, smoothing). The
time has all that comes before the first step but the data and the first states: shapes, tracing, XLA, or reading what
an earlier process has compiled.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from typing import Any

from tools.benchmarks.sides import Facts, Process, Side, measure_in_turn

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}  # XLA takes its own words for features of the processor
NUMBERS = {"epochs": 7, "learning_rate": 0.002, "weight_decay": 0.01, "dropout": 0.4, "label_smoothing": 0.05}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", nargs="+", default=["mfcc", "stf", "mel"], help="of mfcc, stf, mel and ssl")
    parser.add_argument("--utterances", type=int, default=320)


def side(name: str, options: dict[str, Any]) -> Side:
    """Returns the side, all of which do the same with their own numbers."""
    return lambda: _compiled(options)


def _compiled(options: dict[str, Any]) -> tuple[Callable[[], None], Facts]:
    import jax

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    jax.config.update("jax_compilation_cache_dir", options["folder"])
    from tools.benchmarks.random_study import Epoch, Study, default_options, random_data

    numbers = {**options["numbers"], "streams": options["streams"]}
    study = Study(default_options(**numbers), utterances=options["utterances"])
    data, devices = random_data(study), len(jax.local_devices())
    runs = max(2, devices)
    epoch = Epoch(study, data, runs, slots=devices if jax.default_backend() == "cpu" else runs, devices=devices)
    facts = {"device": jax.devices()[0].device_kind, "devices": devices, "buckets": len(data.buckets)}
    return epoch, facts | {"compile_seconds": epoch.compile_seconds}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compiles in three processes."""
    own = {"streams": arguments.streams, "utterances": arguments.utterances}
    with tempfile.TemporaryDirectory() as folder:
        numbers = {"cold": {}, "again": {}, "other_numbers": NUMBERS}
        sides = {
            name: Process("compile", name, {**own, "folder": folder, "numbers": changed}, environment=QUIET)
            for name, changed in numbers.items()
        }
        measured = measure_in_turn(sides, 0)
    return {**own, "sides": {name: process.facts for name, process in measured.items()}}


def show(result: dict[str, Any]) -> None:
    print(f"{' + '.join(result['streams'])}, {result['sides']['cold']['buckets']} length buckets")
    for name, facts in result["sides"].items():
        print(f"{name.replace('_', ' '):16}{facts['compile_seconds']:8.1f} s")
