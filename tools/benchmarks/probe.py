"""The commonest study of the field: a frozen probe of all hidden states, for every fold, seed and learning rate.

SUPERB's probe: a learned mixture of the hidden states, a projection to 256, the mean over time, a linear layer to the
classes. All maps are linear, so that the means over time can come first. The sides train the same: the same batches,
optimizer, schedule and losses. "ours" trains an epoch of all runs as a study does, with the predictions and scores on
validation. "pooled" is PyTorch on the same means, the runs of a fold and seed together; "chained" is the same with both
kernels multiplied first. They train `--pooled-share` of the runs. "frames" is PyTorch on frames, run by run, as s3prl
and EmoBox do: some steps of one run, without validation, on `--frames` utterances that stand for all. What a side does
not train is scaled, and the table is of an epoch of all runs.

The bounds: the products of a step, taken at the speed of large products, and the bytes of parameters, moments and
average, which each step reads and writes once, at the speed of an addition that is too large for the cache.

`--torch-python` is an interpreter with torch, jax, flax, optax, numpy and jaxtyping; on a CPU also with psutil. On a
CPU that is not Intel's, PyTorch is also measured with an MKL that is told to use AVX-512 (`tools/benchmarks/mkl.py`).
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.benchmarks import mkl
from tools.benchmarks.sides import Facts, Process, Side, add_other, matmul_peak, measure_in_turn, ratio

TORCH = ("pooled", "chained", "frames")


def _probe(options: dict[str, Any]) -> Any:
    from tools.benchmarks.random_probe import Probe

    return Probe(options["utterances"], options["states"], options["size"], options["folds"], options["seeds"])


def ours_side(options: dict[str, Any]) -> tuple[Callable[[], None], Facts]:
    """Prepares an epoch of all runs, as a study trains it."""
    import jax

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    from tools.benchmarks.random_probe import Epoch

    probe = _probe(options)
    epoch = Epoch(probe, jax.local_devices())
    steps = probe.program.epoch_steps
    return epoch, {
        "device": jax.devices()[0].device_kind,
        "compile_seconds": epoch.compile_seconds,
        "runs": len(probe.runs),
        "slots": epoch.feed.layout.run.shape[1],
        "steps_per_run": steps,
        "flops": probe.step_flops * steps * len(probe.runs),
        "state_bytes": probe.state_bytes * steps * len(probe.runs),
        "share": 1.0,
    }


def pooled_side(options: dict[str, Any], *, chained: bool) -> tuple[Callable[[], None], Facts]:
    """Prepares an epoch of a share of the runs in PyTorch, on means, with its validation."""
    import torch

    from tools.benchmarks.random_probe import Pooled

    probe = _probe(options)
    pooled = Pooled(probe, options["pooled_share"], chained=chained)
    return pooled, {"threads": torch.get_num_threads(), "runs": pooled.n_runs, "share": pooled.n_runs / len(probe.runs)}


def frames_side(options: dict[str, Any]) -> tuple[Callable[[], None], Facts]:
    """Prepares some steps of one run in PyTorch, on frames."""
    import torch

    from tools.benchmarks.random_probe import Framed

    probe = _probe(options)
    framed = Framed(probe, options["frames"], options["frame_steps"])
    steps = probe.program.epoch_steps * len(probe.runs)
    return framed, {
        "threads": torch.get_num_threads(),
        "utterances_in_memory": options["frames"],
        "steps": options["frame_steps"],
        "share": options["frame_steps"] / steps,
    }


def memory_peak() -> tuple[Callable[[], None], Facts]:
    """Prepares an addition that is too large for the cache, on all cores."""
    import jax
    import jax.numpy as jnp

    x, times = jnp.ones(1 << 26, jnp.float32), 8
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def run() -> None:
        nonlocal x
        for _ in range(times):
            x = add(x)
        x.block_until_ready()

    return run, {"bytes": 2.0 * x.nbytes * times}


def side(name: str, options: dict[str, Any]) -> Side:
    """Returns the side of that name."""
    sides: dict[str, Side] = {
        "ours": lambda: ours_side(options),
        "pooled": lambda: pooled_side(options, chained=False),
        "chained": lambda: pooled_side(options, chained=True),
        "frames": lambda: frames_side(options),
        "matmul": matmul_peak,
        "memory": memory_peak,
    }
    return sides[name]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--utterances", type=int, default=5531)
    parser.add_argument("--states", type=int, default=13, help="hidden states (7 of Whisper base)")
    parser.add_argument("--size", type=int, default=768, help="of a hidden state (512 of Whisper base)")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pooled-share", type=float, default=0.1, help="of the runs, that PyTorch trains on means")
    parser.add_argument("--frames", type=int, default=64, help="utterances whose frames are in memory")
    parser.add_argument("--frame-steps", type=int, default=4, help="steps that PyTorch trains on frames")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prepare-at-once", action="store_true", help="prepare all sides side by side: many cores")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures each side in turn, and the fastest products and additions of the device."""
    names = ("utterances", "states", "size", "folds", "seeds", "pooled_share", "frames", "frame_steps")
    options = {name: getattr(arguments, name) for name in names}
    sides = {name: Process("probe", name, options) for name in ("ours", "matmul", "memory")}
    with tempfile.TemporaryDirectory() as folder:
        torch = {name: Process("probe", name, options, arguments.torch_python) for name in TORCH}
        if variables := mkl.environment(Path(folder)):
            for name in TORCH:
                torch[f"{name}_mkl"] = Process("probe", name, options, arguments.torch_python, variables)
        needed = ("torch", "jax", "flax", "optax", "numpy", "jaxtyping")
        add_other(sides, torch, needed, "sejax is")
        measured = measure_in_turn(sides, arguments.rounds, prepare_at_once=arguments.prepare_at_once)
    ours = measured["ours"]
    possible = measured["matmul"].facts["flops"] / measured["matmul"].median
    bandwidth = measured["memory"].facts["bytes"] / measured["memory"].median
    result: dict[str, Any] = {
        **options,
        "matmul_flops_per_second": possible,
        "memory_bytes_per_second": bandwidth,
        "products_bound": ours.facts["flops"] / possible / ours.median,
        "memory_bound": ours.facts["state_bytes"] / bandwidth / ours.median,
        "sides": {
            name: side.summary() | {"epoch_seconds": side.median / side.facts["share"]}
            for name, side in measured.items()
            if name not in ("matmul", "memory")
        },
    }
    others = {name: measured[name] for name in torch if name in measured}
    result["ours_over"] = {name: ratio(side, ours) / side.facts["share"] for name, side in others.items()}
    return result


def show(result: dict[str, Any]) -> None:
    print(f"an epoch of {result['sides']['ours']['runs']} runs of {result['utterances']} utterances")
    print(f"{'':12}{'s':>10}{'share measured':>16}{'peak GB':>9}{'ours is faster':>16}")
    for name, side in result["sides"].items():
        ratio = f"{result['ours_over'][name]:.2f}" if name in result["ours_over"] else ""
        peak = f"{side['peak_bytes'] / 1e9:.2f}"
        print(f"{name:12}{side['epoch_seconds']:10.1f}{side['share']:16.5f}{peak:>9}{ratio:>16}")
    print(f"products alone would take {result['products_bound']:.2f} of our time at the speed of large products,")
    print(f"parameters, moments and averages {result['memory_bound']:.2f} from memory")
