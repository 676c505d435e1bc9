"""Training at IEMOCAP's size (random features, its true durations): all folds in one program, against the same runs
one after the other, each a scanned program too, and against the same network in PyTorch, fold by fold.

A visit is an utterance of the corpus in an epoch of a run, so that visits per second = utterances x runs x epochs /
seconds, whichever of them a side leaves out. Compilation and the peak of memory stand apart. The fraction is that of
what large matrix products reach on the machine, counting the model's own products alone. PyTorch may live in another
environment: `--torch-python` is its interpreter (torch, jax, flax, optax and numpy there). On a CPU that Intel did not
make it is measured as it is installed and once more with MKL told to use AVX-512 (`tools/benchmarks/mkl.py`).
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.benchmarks import mkl
from tools.benchmarks.sides import Facts, Process, Side, has_packages, matmul_peak, measure_in_turn, ratio

STREAMS = ("mfcc", "stf", "mel")


def _study(options: dict[str, Any]) -> Any:
    from tools.benchmarks.random_study import Study

    return Study(streams=tuple(options["streams"]), utterances=options["utterances"])


def stacked_side(options: dict[str, Any]) -> tuple[Callable[[], None], Facts]:
    """All runs in one program: on a CPU one beside the other on every core, on a GPU all beside each other."""
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
    """The same runs one after the other, each on the whole machine."""
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
    """The same folds in PyTorch, each trained on its own utterances."""
    import numpy as np

    import tools.benchmarks.torch_joint as torch_joint
    from tools.benchmarks.random_study import ENCODERS, STRIDE, random_data, random_runs

    study = _study(options)
    data = random_data(study)
    run, facts = torch_joint.make_epoch(
        [bucket._asdict() for bucket in data.buckets],
        data.statistics,
        np.asarray(data.target),
        np.asarray(data.vad),
        np.asarray(random_runs(study, options["runs"]).trained),
        [torch_joint.Stream(name, ENCODERS[name], 1, STRIDE[name]) for name in study.streams],
        study.batch_size,
        0,
        compile_model=options["torch_compile"],
    )
    return run, facts


def side(name: str, options: dict[str, Any]) -> Side:
    """The side of that name."""
    sides = {"stacked": stacked_side, "solo": solo_side, "torch": torch_side}
    return matmul_peak if name == "matmul" else lambda: sides[name](options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", nargs="+", default=STREAMS, help="of mfcc, stf, mel and ssl (768 wide, 50 Hz)")
    parser.add_argument("--utterances", type=int, default=5531)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--slots", type=int, default=0, help="runs side by side; 0: as the program would choose")
    parser.add_argument("--torch-compile", action="store_true", help="PyTorch through torch.compile")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--rounds", type=int, default=3)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """An epoch of all runs on each side in turn, and what the device can do at most."""
    names = ("streams", "utterances", "runs", "slots", "torch_compile")
    options = {name: getattr(arguments, name) for name in names}
    sides = {name: Process("train", name, options) for name in ("stacked", "solo", "matmul")}
    with tempfile.TemporaryDirectory() as folder:
        if has_packages(arguments.torch_python, "torch", "jax"):
            sides["torch"] = Process("train", "torch", options, arguments.torch_python)
            if told := mkl.environment(Path(folder)):
                sides["torch_mkl"] = Process("train", "torch", options, arguments.torch_python, told)
        else:
            print(f"{arguments.torch_python} has no torch: sejax is measured alone", file=sys.stderr)
        measured = measure_in_turn(sides, arguments.rounds)
    visits = arguments.utterances * arguments.runs
    possible = measured["matmul"].facts["flops"] / measured["matmul"].median
    found = {}
    for name, own in measured.items():
        if name == "matmul":
            continue
        found[name] = own.summary() | {"visits_per_second": visits / own.median}
        if flops := own.facts.get("flops"):
            found[name]["fraction_of_matmul"] = flops / own.median / possible
    result: dict[str, Any] = {
        "streams": list(arguments.streams),
        "utterances": arguments.utterances,
        "runs": arguments.runs,
        "matmul_flops_per_second": possible,
        "sides": found,
        "stacked_over_solo": ratio(measured["solo"], measured["stacked"]),
    }
    for name in ("torch", "torch_mkl"):
        if name in measured:
            result[f"stacked_over_{name}"] = ratio(measured[name], measured["stacked"])
    return result


def show(result: dict[str, Any]) -> None:
    print(f"{result['runs']} folds of {result['utterances']} utterances, {' + '.join(result['streams'])}")
    print(f"{'':10}{'visits/s':>10}{'epoch s':>9}{'compile s':>11}{'peak GB':>9}{'of matmul speed':>17}")
    for name, own in result["sides"].items():
        compiled = f"{own['compile_seconds']:.1f}" if "compile_seconds" in own else ""
        fraction = f"{own['fraction_of_matmul']:.2f}" if "fraction_of_matmul" in own else ""
        seconds = result["utterances"] * result["runs"] / own["visits_per_second"]
        print(
            f"{name:10}{own['visits_per_second']:10.0f}{seconds:9.1f}{compiled:>11}{own['peak_bytes'] / 1e9:9.2f}"
            f"{fraction:>17}"
        )
    print(f"stacked {result['stacked_over_solo']:.2f} times as fast as one run after the other")
    told = {"torch": "as installed", "torch_mkl": "whose MKL is told to use AVX-512"}
    for name, how in told.items():
        if found := result.get(f"stacked_over_{name}"):
            print(f"stacked {found:.2f} times as fast as PyTorch {how}, fold by fold")
