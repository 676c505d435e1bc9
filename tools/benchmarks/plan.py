"""The times and the memory that `sejax.plan` predicts for each training that was measured, beside what was measured.

It reads the JSON files of `train` and `growth` in a folder, and measures nothing. The rates of a device are calibrated
on some of these trainings (`CALIBRATION`); the others are predicted.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sejax.data.order import Shuffle
from sejax.engine.plan import Placement
from sejax.engine.program import Program
from sejax.engine.runs import count_steps
from sejax.engine.step import Frozen
from sejax.planning.forecast import Forecast, forecast
from sejax.planning.machines import MACHINES
from tools.benchmarks.random_study import (
    Study,
    default_options,
    padded_data,
    random_network,
    random_runs,
    run_keys,
)

FOLDER = Path(__file__).parent.parent.parent / "experiments" / "speed"
CALIBRATION = {
    "cpu, 2 runs of 50,000 utterances of 1 s",
    "cpu, 2 runs of 64 utterances of 30 s",
    "cpu, mfcc stf mel, 1,600 utterances: solo",
    "h200, mfcc stf mel, 5,531 utterances: stacked",
    "h200, mfcc stf mel, 5,531 utterances: solo",
}
"""The trainings that the rates of a device were chosen by."""
SHORTEST = 0.2  # seconds; a shorter epoch is mostly its own begin and end


@dataclass(frozen=True)
class Measured:
    """A training that was measured: its study, and the seconds of an epoch of all runs."""

    name: str
    device: str  # of `MACHINES`
    count: int
    streams: tuple[str, ...]
    utterances: int
    length: float  # seconds of an utterance; 0: IEMOCAP's
    runs: int
    solo: bool  # whether the runs train one after the other, each as a program of its own
    seconds: float
    peak_bytes: int | None  # of the device
    steps: int | None  # of a run in an epoch, where they were more than today's


def measurements(folder: Path) -> Iterator[Measured]:
    """Yields the trainings of sejax in the JSON files of a folder whose devices are in the table."""
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if result.get("what") == "train":
            yield from _of_train(result)
        elif result.get("what") == "growth" and (device := _device(result)):
            yield from _of_growth(result, device)


def _device(facts: dict[str, Any]) -> str | None:
    """Returns the row of the table that a device is: its name is a part of jax's."""
    words = facts["device"].lower().split()
    return next((name for name in MACHINES if name in words), None)


def _of_train(result: dict[str, Any]) -> Iterator[Measured]:
    for side in ("stacked", "solo"):
        facts = result["sides"].get(side)
        if facts and (device := _device(facts)):
            yield Measured(
                name=f"{device}, {' '.join(result['streams'])}, {result['utterances']:,} utterances: {side}",
                device=device,
                count=result["cores"] if device == "cpu" else facts["devices"],
                streams=tuple(result["streams"]),
                utterances=result["utterances"],
                length=0.0,
                runs=result["runs"],
                solo=side == "solo",
                seconds=statistics.median(facts["seconds"]),
                peak_bytes=None if device == "cpu" else facts["peak_bytes"],  # of the process, and while it compiles
                steps=facts["steps_per_run"],
            )


def _of_growth(result: dict[str, Any], device: str) -> Iterator[Measured]:
    for axis in result["axes"].values():
        for point in axis["points"]:
            runs, utterances, length = point["runs"], point["utterances"], point["seconds"]
            yield Measured(
                name=f"{device}, {runs} run{'s' * (runs > 1)} of {utterances:,} utterances of {length:g} s",
                device=device,
                count=result["devices"],
                streams=("mfcc", "stf", "mel"),
                utterances=utterances,
                length=length,
                runs=runs,
                solo=False,
                seconds=point["epoch_seconds"],
                peak_bytes=None,
                steps=None,
            )


def program_of(streams: tuple[str, ...], utterances: int, length: float, n_runs: int) -> Program:
    """Returns the program of a random study."""
    options = default_options(streams=streams, **({"buckets": 1} if length else {}))
    study = Study(options, utterances=utterances, seconds=length)
    data, runs = padded_data(study), random_runs(study, n_runs)
    shuffle = Shuffle(
        utterances=[bucket.utterance for bucket in data.buckets],
        orders=[(0, trained) for trained in runs.trained],
        batch_size=options["batch_size"],
        views=1,
    )
    numbers = {name: options[name] for name in ("epochs", "warmup")}
    epoch_steps, steps = count_steps(shuffle(1), None, runs=n_runs, final=0, **numbers)
    return Program(
        structure={},
        runs=run_keys(study, n_runs),
        network=random_network(study),
        epoch_steps=epoch_steps,
        epochs=options["epochs"],
        data=data,
        frozen=Frozen({}, {}),
        start={},
        per_run=runs._replace(steps=steps),
        rows={},
        columns={},
        order_of_run=np.arange(n_runs),
        shuffle=shuffle,
    )


@cache
def predict(measured: Measured) -> tuple[float, Forecast]:
    """Returns the seconds of an epoch of all runs, and the forecast."""
    runs = 1 if measured.solo else measured.runs
    program = program_of(measured.streams, measured.utterances, measured.length, runs)
    placement = Placement(frames_on="device", runs_per_chunk=0, memory_fraction=1.0)
    found = forecast(program, MACHINES[measured.device], count=measured.count, placement=placement)
    steps = 1.0 if measured.steps is None else measured.steps / program.epoch_steps
    return found.epoch_seconds * steps * (measured.runs if measured.solo else 1), found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of JSON files of train and growth")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Predicts all trainings that were measured."""
    rows = []
    for measured in measurements(arguments.folder):
        seconds, found = predict(measured)
        rows.append(
            {
                "name": measured.name,
                "calibrates": measured.name in CALIBRATION,
                "seconds": measured.seconds,
                "predicted_seconds": seconds,
                "ratio": seconds / measured.seconds,
                "limits_seconds": found.limits,
                "peak_bytes": measured.peak_bytes,
                "predicted_bytes": found.needed,
            }
        )
    return {"trainings": rows}


def show(result: dict[str, Any]) -> None:
    print(f"{'':52}{'epoch s':>9}{'predicted':>11}{'ratio':>7}{'GB':>7}{'predicted':>11}")
    for row in result["trainings"]:
        peak = f"{row['peak_bytes'] / 1e9:7.1f}{row['predicted_bytes'] / 1e9:11.1f}" if row["peak_bytes"] else ""
        note = "  calibrates" * row["calibrates"]
        print(
            f"{row['name']:52}{row['seconds']:9.2f}{row['predicted_seconds']:11.2f}{row['ratio']:7.2f}{peak:18}{note}"
        )
    ratios = [row["ratio"] for row in result["trainings"] if not row["calibrates"] and row["seconds"] >= SHORTEST]
    if ratios:
        print(
            f"{len(ratios)} predictions of epochs of {SHORTEST:g} s or more: {min(ratios):.2f} to {max(ratios):.2f} of "
            f"what was measured, median {statistics.median(ratios):.2f}"
        )
