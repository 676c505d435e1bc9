"""Training at IEMOCAP's size: random features, IEMOCAP's durations.

All folds in one program are compared with the same runs one after the other, each a scanned program too, and with the
same network in PyTorch, fold by fold.

A visit is an utterance of the corpus in an epoch of a run: visits per second = utterances x runs x epochs / seconds,
also where a fold does not train on all utterances. Compilation and the peak of memory are reported separately. The
fraction relates the model's own matrix products to the speed that large matrix products reach on the machine. PyTorch
may be installed in another environment: `--torch-python` is its interpreter (with torch, jax, flax, optax, numpy and
jaxtyping). On a CPU that is not Intel's, PyTorch is measured as installed and again with an MKL that is told to use
AVX-512 (`tools/benchmarks/mkl.py`).
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.benchmarks import mkl
from tools.benchmarks.sides import Facts, Process, Side, add_other, matmul_peak, measure_in_turn, ratio

STREAMS = ("mfcc", "stf", "mel")


def _study(options: dict[str, Any]) -> Any:
    from tools.benchmarks.random_study import Study

    return Study(options["study"], utterances=options["utterances"])


def stacked_side(options: dict[str, Any]) -> tuple[Callable[[], None], Facts]:
    """Prepares all runs in one program: side by side one per core on a CPU, all of them on a GPU."""
    import os

    import jax

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    from tools.benchmarks.random_study import Epoch, random_data

    study, n_runs = _study(options), options["runs"]
    devices = len(jax.local_devices())
    slots = options["slots"] or (devices if jax.default_backend() == "cpu" else n_runs)
    epoch = Epoch(study, random_data(study), n_runs, slots=slots, devices=devices)
    return epoch, _facts(epoch, devices=devices, slots=slots)


def solo_side(options: dict[str, Any]) -> tuple[Callable[[], None], Facts]:
    """Prepares the same runs one after the other, each on the whole machine."""
    from tools.benchmarks.random_study import Epoch, random_data

    study = _study(options)
    epoch = Epoch(study, random_data(study), options["runs"], slots=1, solo=True)
    return epoch, _facts(epoch, devices=1, slots=1)


def _facts(epoch: Any, **more: int) -> Facts:
    import jax

    return {
        "device": jax.devices()[0].device_kind,
        "compile_seconds": epoch.compile_seconds,
        "steps_per_run": epoch.steps,
        "flops": epoch.flops,
        **more,
    }


def torch_side(options: dict[str, Any]) -> tuple[Callable[[], None], Facts]:
    """Prepares the same folds in PyTorch, each trained on its own utterances."""
    from tools.benchmarks.random_study import random_data, random_runs
    from tools.benchmarks.torch_joint.model import Network, Stream
    from tools.benchmarks.torch_joint.training import Folds, Recipe

    study = _study(options)
    model = study.options["model"]
    streams = tuple(Stream(name, s.encoder, s.layers, s.stride) for name, s in study.streams.items())
    folds = Folds(
        random_data(study),
        random_runs(study, options["runs"]).trained,
        Network(streams, model["width"], model["fused"], model["heads"]),
        Recipe.of(study.options),
        batch_size=study.options["batch_size"],
        seed=0,
        compile_model=options["torch_compile"],
    )
    return folds.train_epoch, folds.facts


def side(name: str, options: dict[str, Any]) -> Side:
    """Returns the side of that name."""
    sides = {"stacked": stacked_side, "solo": solo_side, "torch": torch_side}
    return matmul_peak if name == "matmul" else lambda: sides[name](options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", nargs="+", default=STREAMS, help="of mfcc, stf, mel and ssl (768 wide, 50 Hz)")
    parser.add_argument("--utterances", type=int, default=5531)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--slots", type=int, default=0, help="runs side by side; 0: one per core on a CPU, else all")
    parser.add_argument("--torch-compile", action="store_true", help="PyTorch through torch.compile")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prepare-at-once", action="store_true", help="compile all sides side by side: many cores")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures an epoch of all runs on each side in turn, and the fastest matrix products of the device."""
    from tools.benchmarks.random_study import default_options

    options = {name: getattr(arguments, name) for name in ("utterances", "runs", "slots", "torch_compile")}
    options["study"] = default_options(streams=arguments.streams)
    sides = {name: Process("train", name, options) for name in ("stacked", "solo", "matmul")}
    with tempfile.TemporaryDirectory() as folder:
        torch = {"torch": Process("train", "torch", options, arguments.torch_python)}
        if variables := mkl.environment(Path(folder)):
            torch["torch_mkl"] = Process("train", "torch", options, arguments.torch_python, variables)
        add_other(sides, torch, ("torch", "jax", "flax", "optax", "numpy", "jaxtyping"), "sejax is")
        measured = measure_in_turn(sides, arguments.rounds, prepare_at_once=arguments.prepare_at_once)
    visits = arguments.utterances * arguments.runs
    possible = measured["matmul"].facts["flops"] / measured["matmul"].median
    summaries = {}
    for name, side in measured.items():
        if name == "matmul":
            continue
        summaries[name] = side.summary() | {"visits_per_second": visits / side.median}
        if flops := side.facts.get("flops"):
            summaries[name]["fraction_of_matmul"] = flops / side.median / possible
    result: dict[str, Any] = {
        "streams": list(arguments.streams),
        "utterances": arguments.utterances,
        "runs": arguments.runs,
        "prepared_at_once": arguments.prepare_at_once,
        "matmul_flops_per_second": possible,
        "sides": summaries,
        "stacked_over_solo": ratio(measured["solo"], measured["stacked"]),
    }
    for name in ("torch", "torch_mkl"):
        if name in measured:
            result[f"stacked_over_{name}"] = ratio(measured[name], measured["stacked"])
    return result


def show(result: dict[str, Any]) -> None:
    print(f"{result['runs']} folds of {result['utterances']} utterances, {' + '.join(result['streams'])}")
    print(f"{'':10}{'visits/s':>10}{'epoch s':>9}{'compile s':>11}{'peak GB':>9}{'of matmul speed':>17}")
    for name, side in result["sides"].items():
        compiled = f"{side['compile_seconds']:.1f}" if "compile_seconds" in side else ""
        fraction = f"{side['fraction_of_matmul']:.2f}" if "fraction_of_matmul" in side else ""
        seconds = result["utterances"] * result["runs"] / side["visits_per_second"]
        print(
            f"{name:10}{side['visits_per_second']:10.0f}{seconds:9.1f}{compiled:>11}{side['peak_bytes'] / 1e9:9.2f}"
            f"{fraction:>17}"
        )
    print(f"stacked {result['stacked_over_solo']:.2f} times as fast as one run after the other")
    variants = {"torch": "as installed", "torch_mkl": "whose MKL is told to use AVX-512"}
    for name, variant in variants.items():
        if speed := result.get(f"stacked_over_{name}"):
            print(f"stacked {speed:.2f} times as fast as PyTorch {variant}, fold by fold")
