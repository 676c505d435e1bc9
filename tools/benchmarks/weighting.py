"""An epoch of stacked runs of the joint model (MFCC, STF and mel, four seconds, batches of 32) under every weighting
scheme, as a ratio to the same under constant weights, all in turn in one process.
"""

import argparse
import statistics
import time
from typing import Any

from tools.benchmarks.sides import versions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", type=int, choices=(2, 4), default=2)
    parser.add_argument("--gradients-at", choices=("representation", "parameters"), default="representation")
    parser.add_argument("--runs", type=int, default=4, help="runs that are stacked")
    parser.add_argument("--utterances", type=int, default=128)
    parser.add_argument("--schemes", nargs="+", help="beside static; all of them if left out")
    parser.add_argument("--rounds", type=int, default=9)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an epoch under each scheme, `rounds` times in turn."""
    import jax

    from sejax.weighting import SCHEMES
    from tools.benchmarks.random_study import Epoch, Study, random_data

    epochs = {}
    compile_seconds = {}
    for scheme in dict.fromkeys(("static", *(arguments.schemes or SCHEMES))):
        began = time.perf_counter()
        study = Study(
            utterances=arguments.utterances,
            seconds=4.0,
            buckets=1,
            scheme=scheme,
            tasks=arguments.tasks,
            gradients_at=arguments.gradients_at,
        )
        epochs[scheme] = Epoch(study, random_data(study), arguments.runs, slots=arguments.runs)
        epochs[scheme]()
        compile_seconds[scheme] = time.perf_counter() - began
    took: dict[str, list[float]] = {scheme: [] for scheme in epochs}
    for _ in range(arguments.rounds):
        for scheme, epoch in epochs.items():
            began = time.perf_counter()
            epoch()
            took[scheme].append(time.perf_counter() - began)
    # Of the ratios within a round: what slows the machine slows its neighbours too.
    over_static = {
        scheme: statistics.median(own / static for own, static in zip(seconds, took["static"], strict=True))
        for scheme, seconds in took.items()
    }
    return {
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
    for scheme, found in result["schemes"].items():
        print(
            f"{scheme:14}{found['kind']:>10}{statistics.median(found['seconds']):9.3f}"
            f"{found['over_static']:11.3f}{found['compile_seconds']:13.1f}"
        )
