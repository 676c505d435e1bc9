"""Speed and memory, as ratios of things that are measured in turn on one machine.

    python tools/bench.py ssl [--torch-python PYTHON] [--out FILE.json]
    python tools/bench.py weighting [--tasks 4] [--gradients-at parameters] [--out FILE.json]

`ssl`: hidden states of a pretrained model (random weights) of utterances of mixed lengths, here and by transformers'
PyTorch model on the same cores. Each side is a process of its own, so that each has its own peak of memory, and waits
while the other computes. PyTorch may live in another environment: `--torch-python` is its interpreter (torch and
transformers there); without PyTorch this side is measured alone. On a GPU both compute in bfloat16.

`weighting`: an epoch of stacked runs of the joint model (MFCC, STF and mel, four seconds, batches of 32) under every
weighting scheme, as a ratio to the same under constant weights, all in turn in one process.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SAMPLING_RATE = 16_000
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "do_stable_layer_norm": True,
        "feat_extract_norm": "layer",
        "conv_bias": True,
    },
}
CLASSES = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}


def make_batches(seconds: Sequence[float], batch_seconds: float) -> list[list[int]]:
    """Samples of each utterance, in batches of similar length whose padded audio is at most `batch_seconds`."""
    batches: list[list[int]] = []
    for duration in sorted(seconds, reverse=True):
        if not batches or (len(batches[-1]) + 1) * batches[-1][0] > batch_seconds * SAMPLING_RATE:
            batches.append([])
        batches[-1].append(int(duration * SAMPLING_RATE))
    return batches


# -------------------------------------------------------------------------------------------- ssl: the sides


def architecture_of(family: str, size: str) -> Any:
    """What transformers' configuration class of the family has by default, in that size."""
    sys.path.insert(0, str(ROOT))
    from sejax.ssl.modules import Architecture

    options = SIZES[size]
    large = size == "large"
    return Architecture(
        family=family,
        conv_dim=(512,) * 7,
        conv_kernel=(10, 3, 3, 3, 3, 2, 2),
        conv_stride=(5, 2, 2, 2, 2, 2, 2),
        conv_bias=large,
        conv_norm="layer" if large else "group",
        conv_activation="gelu",
        hidden=options["hidden_size"],
        layers=options["num_hidden_layers"],
        heads=options["num_attention_heads"],
        intermediate=options["intermediate_size"],
        activation="gelu",
        position_width=128,
        position_groups=16,
        pre_norm=large,
        eps=1e-5,
        projection_norm=True,
        buckets=320 if family == "wavlm" else 0,
        max_distance=800 if family == "wavlm" else 0,
    )


def jax_side(family: str, size: str, batches: Sequence[Sequence[int]]) -> tuple[Callable[[], None], dict[str, Any]]:
    """All batches once through `SSLModel`, hidden states left on the device; and facts about the device."""
    sys.path.insert(0, str(ROOT))
    import jax
    import jax.numpy as jnp
    import numpy as np

    from sejax.ssl.modules import SSLModel

    architecture = architecture_of(family, size)
    model = SSLModel(architecture, jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32)
    lengths = jnp.array([8000], jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8000)), lengths)
    random = np.random.default_rng(0)
    # Made as a checkpoint is read, array by array: a program that draws them all would need memory of its own.
    params = jax.tree.map(lambda x: jnp.asarray(random.standard_normal(x.shape, np.float32) * np.float32(0.02)), shapes)

    @jax.jit
    def compute(params: Any, x: Any, n: Any) -> Any:
        output: Any = model.apply(params, x, n)
        return output.hidden

    inputs = [(jnp.asarray(_noise(batch), jnp.float32), jnp.asarray(np.array(batch), jnp.int32)) for batch in batches]

    def run() -> None:
        for x, n in inputs:
            jax.block_until_ready(compute(params, x, n))

    facts = {"device": jax.devices()[0].device_kind, "dtype": str(jnp.dtype(model.dtype))}
    return run, facts | {"flops": sum(matmul_flops(architecture, len(batch), batch[0]) for batch in batches)}


def matmul_flops(architecture: Any, rows: int, samples: int) -> float:
    """Of the convolutions' and matrices' products alone, two per multiplication, padding included.

    XLA's own count is of no use: it counts the body of the scan over layers once.
    """
    a, flops, time, channels = architecture, 0, samples, 1
    for features, width, stride in zip(a.conv_dim, a.conv_kernel, a.conv_stride, strict=True):
        time = (time - width) // stride + 1
        flops += time * width * channels * features
        channels = features
    flops += time * a.hidden * (channels + a.position_width * a.hidden // a.position_groups)
    flops += a.layers * time * a.hidden * (4 * a.hidden + 2 * a.intermediate + 2 * time)
    return 2.0 * rows * flops


def matmul_side(*_: Any) -> tuple[Callable[[], None], dict[str, Any]]:
    """Large square matrix products, in the same type: what the device can do at most."""
    import jax
    import jax.numpy as jnp

    gpu = jax.default_backend() == "gpu"
    n, times = (8192, 20) if gpu else (2048, 8)
    x = jnp.ones((n, n), jnp.bfloat16 if gpu else jnp.float32)
    multiply = jax.jit(lambda a, b: a @ b)

    def run() -> None:
        for _ in range(times):
            multiply(x, x).block_until_ready()

    return run, {"flops": 2.0 * n**3 * times}


def torch_side(family: str, size: str, batches: Sequence[Sequence[int]]) -> tuple[Callable[[], None], dict[str, Any]]:
    """The same through transformers' model with its attention mask."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    name = CLASSES[family]
    config = getattr(transformers, f"{name}Config")(**SIZES[size])
    gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    model = getattr(transformers, f"{name}Model")(config).eval().to(device, dtype)
    inputs = []
    for batch in batches:
        mask = torch.arange(batch[0])[None] < torch.tensor(batch)[:, None]
        inputs.append((torch.tensor(_noise(batch), dtype=dtype, device=device), mask.long().to(device)))

    def run() -> None:
        with torch.inference_mode():
            for x, mask in inputs:
                model(x, attention_mask=mask, output_hidden_states=True)
            if gpu:
                torch.cuda.synchronize()

    return run, {"device": torch.cuda.get_device_name() if gpu else "cpu", "dtype": str(dtype)}


def _noise(batch: Sequence[int]) -> Any:
    import numpy as np

    waveform = np.random.default_rng(0).standard_normal((len(batch), batch[0])).astype(np.float32)
    for row, samples in enumerate(batch):
        waveform[row, samples:] = 0
    return waveform


SIDES = {"jax": jax_side, "torch": torch_side, "matmul": matmul_side}


def serve(side: str, family: str, size: str, batches: Sequence[Sequence[int]]) -> None:
    """In a process of its own: says what it is, then for every line read computes all once and says how long."""
    began = time.perf_counter()
    run, facts = SIDES[side](family, size, batches)
    run()
    facts["first_seconds"] = time.perf_counter() - began
    packages = ("torch", "transformers", "numpy") if side == "torch" else ("jax", "flax", "numpy")
    facts["versions"] = {name: _version(name) for name in packages} | {"python": platform.python_version()}
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        run()
        print(json.dumps({"seconds": time.perf_counter() - began, "peak_bytes": _peak_bytes(side)}), flush=True)


def _peak_bytes(side: str) -> int:
    """The most memory that was in use so far: the device's where that is a GPU, else this process's."""
    if side == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
    else:
        import jax

        if found := jax.local_devices()[0].memory_stats():
            return found["peak_bytes_in_use"]
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# --------------------------------------------------------------------------------------- ssl: the comparison


def bench_ssl(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn, `rounds` times."""
    batches = make_batches(arguments.seconds, arguments.batch_seconds)
    pythons = {"jax": sys.executable, "matmul": sys.executable}
    if _has_torch(arguments.torch_python):
        pythons["torch"] = arguments.torch_python
    else:
        print(f"{arguments.torch_python} has no torch and transformers: sejax is measured alone", file=sys.stderr)
    # On a GPU the processes share its memory. On a CPU the peak is of what a side uses, not of what the C library's
    # many arenas keep.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "MALLOC_ARENA_MAX": "1"}
    words = ["--family", arguments.family, "--size", arguments.size, "--batches", json.dumps(batches)]
    processes, facts = {}, {}
    took: dict[str, list[float]] = {side: [] for side in pythons}
    peak: dict[str, int] = {}
    try:
        for side, python in pythons.items():
            command = [python, str(Path(__file__).resolve()), "serve", side, *words]
            processes[side] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            facts[side] = _answer(processes[side])
        for _ in range(arguments.rounds):
            for side, process in processes.items():
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
                found = _answer(process)
                took[side].append(found["seconds"])
                peak[side] = found["peak_bytes"]
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    audio = sum(sum(batch) for batch in batches) / SAMPLING_RATE
    sides = {}
    median = {side: statistics.median(seconds) for side, seconds in took.items()}
    for side in ("jax", "torch"):
        if side in pythons:
            sides[side] = facts[side] | {
                "seconds": [round(s, 4) for s in took[side]],
                "audio_seconds_per_second": audio / median[side],
                "peak_bytes": peak[side],
            }
    achieved, possible = (facts[side]["flops"] / median[side] for side in ("jax", "matmul"))
    sides["jax"] |= {"flops_per_second": achieved, "fraction_of_matmul": achieved / possible}
    result: dict[str, Any] = {
        "what": "ssl",
        "model": f"{arguments.family}-{arguments.size}, random weights",
        "batches_samples": batches,
        "audio_seconds": audio,
        "sides": sides,
    }
    if "torch" in sides:
        result["speed_over_torch"] = median["torch"] / median["jax"]
        result["peak_memory_over_torch"] = peak["jax"] / peak["torch"]
    return result


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"a side ended with status {process.wait()} before it answered")
    return json.loads(line)


def _has_torch(python: str) -> bool:
    probe = "import importlib.util as u, sys; sys.exit(not (u.find_spec('torch') and u.find_spec('transformers')))"
    return subprocess.run([python, "-c", probe], check=False).returncode == 0


def print_ssl(result: dict[str, Any]) -> None:
    print(f"{result['model']}, {result['audio_seconds']:.0f} s of audio in {len(result['batches_samples'])} batches")
    print(f"{'':8}{'audio s / s':>12}{'peak GB':>9}{'first run s':>13}{'of matmul speed':>17}")
    for side, found in result["sides"].items():
        fraction = found.get("fraction_of_matmul")
        print(
            f"{side:8}{found['audio_seconds_per_second']:12.1f}{found['peak_bytes'] / 1e9:9.2f}"
            f"{found['first_seconds']:13.1f}{'' if fraction is None else f'{fraction:17.2f}'}"
        )
    if "speed_over_torch" in result:
        print(f"speed {result['speed_over_torch']:.2f} of PyTorch's, memory {result['peak_memory_over_torch']:.2f}")


# ------------------------------------------------------------------------------------------------- weighting


def bench_weighting(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an epoch under each scheme, `rounds` times in turn."""
    sys.path.insert(0, str(ROOT))
    import jax

    from sejax.weighting import GRADIENT_BASED, SCHEMES

    epochs = {}
    compile_seconds = {}
    for scheme in dict.fromkeys(("static", *(arguments.schemes or SCHEMES))):
        began = time.perf_counter()
        epochs[scheme] = _epoch(scheme, arguments)
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
        "what": "weighting",
        "tasks": arguments.tasks,
        "gradients_at": arguments.gradients_at,
        "runs": arguments.runs,
        "device": jax.devices()[0].device_kind,
        "versions": {name: _version(name) for name in ("jax", "flax", "optax")},
        "schemes": {
            scheme: {
                "kind": "gradients" if scheme in GRADIENT_BASED else "losses",
                "over_static": over_static[scheme],
                "seconds": [round(s, 4) for s in took[scheme]],
                "compile_seconds": compile_seconds[scheme],
            }
            for scheme in epochs
        },
    }


def _epoch(scheme: str, arguments: argparse.Namespace) -> Callable[[], None]:
    """A compiled epoch of runs of random features; every call continues where the last one ended."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from sejax import program
    from sejax.data.load import Stream, assemble, epoch_order
    from sejax.models.joint import JointModel, StreamSpec
    from sejax.step import Frozen, HParams, Recipe, Run, Scale

    n_runs, n, frames = arguments.runs, arguments.utterances, 400
    encoders = {"mfcc": ("lstm", 40), "stf": ("transformer", 34), "mel": ("conv", 64)}
    random = np.random.default_rng(0)
    streams = {
        name: Stream(
            [[random.standard_normal((frames, size), np.float32) for _ in range(n)]],
            random.standard_normal((n, 1, 2 * size), np.float32),
        )
        for name, (_, size) in encoders.items()
    }
    data, _ = assemble(
        streams,
        encoded=tuple(streams),
        target=np.eye(4, dtype=np.float32)[np.arange(n) % 4],
        vad=random.uniform(-1, 1, (n, 3)).astype(np.float32),
        n_buckets=1,
        min_rows=1,
        max_seconds=0.0,
        hop_seconds=dict.fromkeys(streams, 0.01),
    )
    order = epoch_order(
        [bucket.utterance for bucket in data.buckets],
        visited=np.ones(n, bool),
        seeds=[0],
        epoch=1,
        batch_size=32,
        views=1,
    )

    def column(value: float) -> Any:
        return np.full((1, n_runs), value, np.float32)

    def scale(size: int) -> Scale:
        return Scale(np.zeros((1, n_runs, size), np.float32), np.ones((1, n_runs, size), np.float32))

    runs = Run(
        HParams(
            learning_rate=column(1e-3),
            weight_decay=column(1e-2),
            dropout=column(0.3),
            statistics_dropout=column(0.3),
            label_smoothing=column(0.1),
            alpha=column(0.5),
            tau=column(1.0),
            weighting=np.zeros((1, n_runs), np.int32),
        ),
        np.ones((1, n_runs, n), bool),
        np.ones((1, n_runs, 4), np.float32),
        {name: scale(size) for name, (_, size) in encoders.items()},
        {name: scale(2 * size) for name, (_, size) in encoders.items()},
    )
    specs = tuple(StreamSpec(name, encoder, 1, 4) for name, (encoder, _) in encoders.items())
    model = JointModel(
        specs,
        classes=4,
        dimensions=3,
        width=64,
        fused=256,
        heads=4,
        self_attention=True,
        co_attention=True,
        statistics=True,
    )
    recipe = Recipe(
        total_steps=1000,
        warmup_steps=0,
        clip_norm=1.0,
        vad_loss="ccc",
        averaging=0.99,
        time_masks=2,
        time_mask_frames=20,
        feature_masks=2,
        feature_mask_share=0.15,
        tasks=("class", "vad") if arguments.tasks == 2 else ("class", "valence", "arousal", "dominance"),
        schemes=(scheme,),
        gradients_at=arguments.gradients_at,
        epoch_steps=n // 32,
    )
    data, runs, order = jax.device_put((data, runs, order))
    seed = jnp.zeros(1, jnp.int32)
    state = [program.init_runs(runs, data, Frozen({}, {}), {}, seed, model=model, recipe=recipe)]

    def epoch() -> None:
        state[0], _ = program.train_epoch(
            state[0], runs, data, Frozen({}, {}), order, seed, seed, jnp.int32(1), model=model, recipe=recipe
        )
        jax.block_until_ready(state[0])

    return epoch


def print_weighting(result: dict[str, Any]) -> None:
    print(f"{result['tasks']} tasks, {result['runs']} runs, gradients at the {result['gradients_at']}")
    print(f"{'':14}{'needs':>10}{'epoch s':>9}{'of static':>11}{'first run s':>13}")
    for scheme, found in result["schemes"].items():
        print(
            f"{scheme:14}{found['kind']:>10}{statistics.median(found['seconds']):9.3f}"
            f"{found['over_static']:11.3f}{found['compile_seconds']:13.1f}"
        )


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    ssl = commands.add_parser("ssl", help="hidden states of a pretrained model, against PyTorch")
    side = commands.add_parser("serve", help="one side of a comparison (started by the other commands)")
    for command in (ssl, side):
        command.add_argument("--family", choices=CLASSES, default="hubert")
        command.add_argument("--size", choices=SIZES, default="base")
    lengths = [2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0]
    ssl.add_argument("--seconds", type=float, nargs="+", default=lengths, help="durations of the utterances")
    ssl.add_argument("--batch-seconds", type=float, default=16.0, help="padded audio in a batch")
    ssl.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch and transformers")
    side.add_argument("side", choices=SIDES)
    side.add_argument("--batches", type=json.loads, required=True)
    weighting = commands.add_parser("weighting", help="an epoch under every weighting scheme, against constant weights")
    weighting.add_argument("--tasks", type=int, choices=(2, 4), default=2)
    weighting.add_argument("--gradients-at", choices=("representation", "parameters"), default="representation")
    weighting.add_argument("--runs", type=int, default=4, help="runs that are stacked")
    weighting.add_argument("--utterances", type=int, default=128)
    weighting.add_argument("--schemes", nargs="+", help="beside static; all of them if left out")
    for command, rounds in ((ssl, 5), (weighting, 9)):
        command.add_argument("--rounds", type=int, default=rounds)
        command.add_argument("--out", type=Path, help="JSON file for the result")
    arguments = parser.parse_args(words)
    if arguments.command == "serve":
        serve(arguments.side, arguments.family, arguments.size, arguments.batches)
        return
    bench, show = {"ssl": (bench_ssl, print_ssl), "weighting": (bench_weighting, print_weighting)}[arguments.command]
    result = bench(arguments) | {
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    show(result)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
