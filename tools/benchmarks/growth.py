"""Growth of an epoch's time with the number of runs, of utterances, and with their length.

Each row varies one of the three and holds the others. It reports the exponent of time against work. Work is counted in
matrix products (attention grows with the square of the length), padding included. The exponent leaves out sizes that do
not fill the device: those with an epoch faster than `--full-seconds`.
"""

import argparse
import os
import statistics
import time
from typing import Any

from tools.benchmarks.sides import versions

FEW = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", nargs="+", default=["mfcc", "stf", "mel"], help="of mfcc, stf, mel and ssl")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 5, 10, 20, 50, 100, 200])
    parser.add_argument("--utterances", type=int, nargs="+", default=[500, 1600, 5000, 16000, 50000])
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0, 15.0, 30.0])
    parser.add_argument("--slots", type=int, default=0, help="runs side by side; 0: one per core on a CPU, else all")
    parser.add_argument(
        "--full-seconds", type=float, default=0.5, help="an epoch from which on the device counts as full"
    )
    parser.add_argument("--rounds", type=int, default=3)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures the seconds of an epoch at every size, `rounds` times, the sizes of a row in turn."""
    import jax

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    devices = len(jax.local_devices())
    rows = {
        "runs": [(n, FEW * 2, 4.0) for n in arguments.runs],
        "utterances": [(devices, n, 1.0) for n in arguments.utterances],
        "seconds": [(devices, FEW, s) for s in arguments.seconds],
    }
    axes = {axis: _row(sizes, devices, arguments) for axis, sizes in rows.items()}
    return {"device": jax.devices()[0].device_kind, "devices": devices, "versions": versions(), "axes": axes}


def _row(sizes: list[tuple[int, int, float]], devices: int, arguments: argparse.Namespace) -> dict[str, Any]:
    import jax

    from tools.benchmarks.random_study import Epoch, Study, default_options, random_data

    options = default_options(streams=arguments.streams, buckets=1)
    epochs = []
    for n_runs, utterances, seconds in sizes:
        study = Study(options, utterances=utterances, seconds=seconds)
        used = min(devices, n_runs)
        slots = arguments.slots or (used if jax.default_backend() == "cpu" else n_runs)
        epochs.append(Epoch(study, random_data(study), n_runs, slots=slots, devices=used))
        epochs[-1]()
    took: list[list[float]] = [[] for _ in epochs]
    for _ in range(arguments.rounds):
        for seconds_of_size, epoch in zip(took, epochs, strict=True):
            began = time.perf_counter()
            epoch()
            seconds_of_size.append(time.perf_counter() - began)
    points = [
        {
            "runs": n_runs,
            "utterances": utterances,
            "seconds": seconds,
            "flops": epoch.flops,
            "epoch_seconds": statistics.median(seconds_of_size),
            "compile_seconds": epoch.compile_seconds,
        }
        for (n_runs, utterances, seconds), epoch, seconds_of_size in zip(sizes, epochs, took, strict=True)
    ]
    full = [point for point in points if point["epoch_seconds"] >= arguments.full_seconds]
    return {"points": points, **(growth_of(full) if len(full) > 1 else {})}


def growth_of(points: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the slope of log time over log work, and the time per unit of work relative to the smallest size."""
    import numpy as np

    work, seconds = (np.array([point[name] for point in points]) for name in ("flops", "epoch_seconds"))
    unit = seconds / work
    return {
        "exponent": float(np.polyfit(np.log(work), np.log(seconds), 1)[0]),
        "last_over_first": float(unit[-1] / unit[0]),
        "most_over_first": float(unit.max() / unit[0]),
    }


def show(result: dict[str, Any]) -> None:
    for axis, row in result["axes"].items():
        print(f"{axis:>12}{'epoch s':>10}{'GFLOP/s':>10}{'compile s':>11}")
        for point in row["points"]:
            speed = point["flops"] / point["epoch_seconds"] / 1e9
            print(f"{point[axis]:12g}{point['epoch_seconds']:10.3f}{speed:10.1f}{point['compile_seconds']:11.1f}")
        if "exponent" in row:
            print(
                f"exponent {row['exponent']:.3f}; a unit of work at the largest costs {row['last_over_first']:.2f} of "
                "that at the smallest that fills the device"
            )
