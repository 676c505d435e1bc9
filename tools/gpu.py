"""Measures what only a GPU shows, in under ten minutes, on a machine that has jax, flax, numpy and little else.

    python tools/gpu.py --out FOLDER

Each part writes its JSON to the folder before the next begins, the most telling first; a part whose JSON is there is
left out. A part that takes too long is stopped; no GPU has said yet what each needs, and `--parts` names those of a
second call. What the machine lacks of optax, absl-py and jaxtyping is installed into `.site` from wheels in `.whl`,
all of them pure Python. PyTorch is measured beside us where it is installed. `--rehearse` takes sizes that a
CPU computes in a few minutes.

The parts: "correctness" compares an epoch of two runs and a pretrained model with the same on this machine's CPU, and
an epoch that is resumed with one that is not; "train" is `bench.py train` at IEMOCAP's size, "ssl" a pretrained base
model, "probe" the study of a frozen probe; "recurrence", "weighting" and "growth" are those of `bench.py`.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

NEEDED = ("optax", "absl", "jaxtyping")
WHEELS = (
    "python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 -d .whl optax==0.2.8 absl-py jaxtyping"
)
SITE, WHL = ROOT / ".site", ROOT / ".whl"
BENCH = str(ROOT / "tools" / "bench.py")
TOLERANCE = 1e-3
"""Of a parameter after an epoch, in units of its array's largest: another order of summation, never another result."""


@dataclass(frozen=True)
class Part:
    """A command that writes a JSON file; `rehearsal` replaces the words of its size."""

    name: str
    seconds: int  # after which it is stopped
    words: Sequence[str]
    size: Sequence[str] = ()
    rehearsal: Sequence[str] = ()


PARTS = (
    Part("correctness", 90, [str(Path(__file__)), "--side", "both"]),
    Part(
        "train",
        230,
        [BENCH, "train", "--prepare-at-once"],
        ["--utterances", "5531", "--rounds", "2"],
        ["--streams", "ssl", "--utterances", "55", "--runs", "2", "--rounds", "1"],
    ),
    Part(
        "recurrence",
        30,
        [BENCH, "recurrence"],
        ["--rounds", "20"],
        ["--frames", "5", "--runs", "2", "--batch", "3", "--rounds", "1"],
    ),
    Part("ssl", 55, [BENCH, "ssl"], ["--rounds", "3"], ["--size", "tiny", "--seconds", "0.3", "--rounds", "1"]),
    Part(
        "lora",
        40,
        [BENCH, "ssl", "--lora", "8"],
        ["--rounds", "3"],
        ["--size", "tiny", "--seconds", "0.3", "--rounds", "1"],
    ),
    Part(
        "weighting",
        40,
        [BENCH, "weighting", "--schemes", "static", "dynamic", "joint", "cagrad"],
        ["--rounds", "3"],
        ["--streams", "ssl", "--runs", "1", "--utterances", "32", "--rounds", "1"],
    ),
    Part(
        "probe",
        75,
        [BENCH, "probe", "--prepare-at-once"],
        ["--rounds", "2"],
        [
            *("--utterances", "55", "--states", "3", "--size", "32", "--folds", "3", "--seeds", "1"),
            *("--frames", "8", "--frame-steps", "1", "--rounds", "1"),
        ],
    ),
    Part(
        "growth",
        35,
        [BENCH, "growth"],
        ["--rounds", "1"],
        ["--streams", "ssl", "--runs", "1", "2", "--utterances", "40", "--seconds", "0.5", "--rounds", "1"],
    ),
)


def run_part(part: Part, out: Path, *, rehearse: bool) -> bool:
    """Runs a part with its processes in a group of their own, and returns whether its JSON is there."""
    file = out / f"{part.name}.json"
    if file.exists():
        print(f"{part.name}: {file} is there", flush=True)
        return True
    words = [sys.executable, *part.words, *(part.rehearsal if rehearse else part.size), "--out", str(file)]
    print(f"{part.name}: at most {part.seconds} s", flush=True)
    began = time.monotonic()
    path = os.pathsep.join(filter(None, [str(SITE), str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, env=environment, start_new_session=True) as process:
        try:
            process.wait(part.seconds * (10 if rehearse else 1))  # a CPU compiles and computes more slowly
        except subprocess.TimeoutExpired:
            print(f"{part.name}: stopped", flush=True)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    print(f"{part.name}: {time.monotonic() - began:.0f} s, status {process.returncode}", flush=True)
    return file.exists()


def compute(out: Path) -> None:
    """Writes what a backend computes, with the products of float32 in float32: arrays by name."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from sejax.pretrained.base import Section
    from tools.benchmarks.random_study import Epoch, Study, random_data
    from tools.benchmarks.ssl import backbone_of

    jax.config.update("jax_default_matmul_precision", "highest")
    study = Study(json.loads(os.environ["SEJAX_STUDY"]), utterances=32)
    epoch = Epoch(study, random_data(study), 2, slots=2)
    start = jax.device_get(epoch.states)
    epoch()
    first = jax.device_get(epoch.states)
    epoch.states = start  # over the host, as from a checkpoint
    epoch()
    again = jax.device_get(epoch.states)
    same = all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first, again)), strict=True))
    arrays = {
        jax.tree_util.keystr(path): x
        for path, x in jax.tree_util.tree_leaves_with_path(epoch.leaves.split(first[0].params))
    }

    model, random = backbone_of("hubert", "tiny").module(Section(dtype=jnp.float32)), np.random.default_rng(0)
    n = jnp.array([8000, 5000], jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 8000)), n)
    params = jax.tree.map(lambda x: jnp.asarray(random.standard_normal(x.shape, np.float32) * np.float32(0.02)), shapes)
    waveform = jnp.asarray(random.standard_normal((2, 8000), np.float32))
    output: Any = jax.jit(model.apply)(params, waveform, n)
    arrays["hubert"] = np.asarray(output.hidden)
    np.savez(out, resumed=same, device=jax.devices()[0].device_kind, **arrays)


def compare(out: Path) -> None:
    """Computes on the CPU and on the device, side by side, and writes how far they are apart."""
    import numpy as np

    from tools.benchmarks.random_study import default_options

    options = default_options(streams=["mfcc", "stf", "mel"], batch_size=8, buckets=1)
    options["model"] |= {"width": 16, "fused": 32}
    with tempfile.TemporaryDirectory() as folder:
        files, processes = {}, []
        for name, variables in {"cpu": {"JAX_PLATFORMS": "cpu"}, "device": {}}.items():
            files[name] = Path(folder) / f"{name}.npz"
            words = [sys.executable, __file__, "--side", "one", "--out", str(files[name])]
            own = {**os.environ, "SEJAX_STUDY": json.dumps(options), **variables}
            processes.append(subprocess.Popen(words, env=own))
        failed = [process.wait() for process in processes]
        if any(failed):
            sys.exit("error: a side of the comparison failed")
        cpu, device = (dict(np.load(file)) for file in files.values())
    apart = {
        name: float(np.abs(device[name] - x).max() / max(np.abs(x).max(), 1e-3))
        for name, x in cpu.items()
        if x.dtype.kind == "f"
    }
    result = {
        "device": str(device["device"]),
        "resumes_exactly": {"cpu": bool(cpu["resumed"]), "device": bool(device["resumed"])},
        "most_apart": max(apart.values()),
        "where": max(apart, key=lambda name: apart[name]),
        "arrays": len(apart),
        "hubert_apart": apart["hubert"],
        "agrees": max(apart.values()) <= TOLERANCE,
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def install() -> None:
    """Installs the wheels that this Python lacks.

    Raises:
      SystemExit: a package is neither installed nor among the wheels.
    """
    if not find_lacking():
        return
    if wheels := sorted(map(str, WHL.glob("*.whl"))):
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--upgrade"]
        subprocess.run([*pip, "--target", str(SITE), *wheels], check=True)
    if lacking := find_lacking():
        found = f"{sys.executable} has no {', '.join(lacking)}, nor has {WHL}"
        sys.exit(f"error: {found}; expected wheels from\n  {WHEELS}")


def find_lacking() -> list[str]:
    """Returns what this Python cannot import, nor finds in `.site`."""
    importlib.invalidate_caches()
    return [name for name in NEEDED if not (importlib.util.find_spec(name) or (SITE / name).exists())]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="in place of all")
    parser.add_argument("--rehearse", action="store_true", help="small sizes, for a CPU")
    parser.add_argument("--side", choices=("one", "both"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.side:
        (compute if arguments.side == "one" else compare)(arguments.out)
        return
    install()
    arguments.out.mkdir(parents=True, exist_ok=True)
    wanted = [part for part in PARTS if part.name in (arguments.parts or [part.name])]
    failed = [part.name for part in wanted if not run_part(part, arguments.out, rehearse=arguments.rehearse)]
    if failed:
        sys.exit(f"error: no result of {', '.join(failed)}")


if __name__ == "__main__":
    main()
