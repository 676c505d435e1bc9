"""The time of an epoch under every weighting scheme, as a ratio to constant weights.

An epoch trains stacked runs of the default joint model on utterances of four seconds. All schemes run in turn in one
process.
"""

import argparse
import statistics
import time
from typing import Any

from tools.benchmarks.sides import versions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", nargs="+", default=["mfcc", "stf", "mel"], help="of mfcc, stf, mel and ssl")
    parser.add_argument("--tasks", type=int, choices=(2, 4), default=2)
    parser.add_argument("--gradients-at", choices=("representation", "parameters"), default="representation")
    parser.add_argument("--runs", type=int, default=4, help="runs that are stacked")
    parser.add_argument("--utterances", type=int, default=128)
    parser.add_argument("--schemes", nargs="+", help="compared with static; default: all")
    parser.add_argument("--rounds", type=int, default=9)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures the seconds of an epoch under each scheme, `rounds` times in turn."""
    import jax

    from sejax.corpora.schema import DIMENSIONS
    from sejax.weighting import SCHEMES
    from tools.benchmarks.random_study import Epoch, Study, default_options, random_data

    tasks = ("class", "vad") if arguments.tasks == 2 else ("class", *DIMENSIONS)
    epochs = {}
    compile_seconds = {}
    for scheme in dict.fromkeys(("static", *(arguments.schemes or SCHEMES))):
        began = time.perf_counter()
        options = default_options(
            streams=arguments.streams, buckets=1, weighting=scheme, tasks=tasks, gradients_at=arguments.gradients_at
        )
        study = Study(options, utterances=arguments.utterances, seconds=4.0)
        epochs[scheme] = Epoch(study, random_data(study), arguments.runs, slots=arguments.runs)
        epochs[scheme]()
        compile_seconds[scheme] = time.perf_counter() - began
    took: dict[str, list[float]] = {scheme: [] for scheme in epochs}
    for _ in range(arguments.rounds):
        for scheme, epoch in epochs.items():
            began = time.perf_counter()
            epoch()
            took[scheme].append(time.perf_counter() - began)
    # Ratios within a round: a slower machine slows all sides of a round.
    over_static = {
        scheme: statistics.median(some / static for some, static in zip(seconds, took["static"], strict=True))
        for scheme, seconds in took.items()
    }
    return {
        "streams": list(arguments.streams),
        "tasks": arguments.tasks,
        "gradients_at": arguments.gradients_at,
        "runs": arguments.runs,
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
        "schemes": {
            scheme: {
                "kind": SCHEMES[scheme].needs,
                "over_static": over_static[scheme],
                "seconds": [round(s, 4) for s in took[scheme]],
                "compile_seconds": compile_seconds[scheme],
            }
            for scheme in epochs
        },
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['tasks']} tasks, {result['runs']} runs, gradients at the {result['gradients_at']}")
    print(f"{'':14}{'needs':>10}{'epoch s':>9}{'of static':>11}{'first run s':>13}")
    for scheme, measured in result["schemes"].items():
        print(
            f"{scheme:14}{measured['kind']:>10}{statistics.median(measured['seconds']):9.3f}"
            f"{measured['over_static']:11.3f}{measured['compile_seconds']:13.1f}"
        )
