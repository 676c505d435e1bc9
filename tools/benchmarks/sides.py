"""Things that are compared: each in a process of its own, all computing in turn on one machine.

A side of its own process has its own peak of memory, its own devices and, if need be, its own Python; it waits
while another computes, so that what slows the machine slows all of them.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parent.parent / "bench.py"

Facts = dict[str, Any]
Side = Callable[[], tuple[Callable[[], None], Facts]]
"""Makes ready: gives what is timed, and what there is to say about it."""


@dataclass(frozen=True)
class Process:
    """How a side is started: `bench.py serve <benchmark> <side> <options as JSON>`, by an interpreter."""

    benchmark: str
    side: str
    options: Mapping[str, Any]
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[str]:
        words = [self.python, str(BENCH), "serve", self.benchmark, self.side, json.dumps(self.options)]
        # On a GPU the processes share its memory. On a CPU the peak is of what a side uses, not of what the C
        # library's many arenas keep.
        own = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "MALLOC_ARENA_MAX": "1", **self.environment}
        return subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **own}
        )


@dataclass
class Measured:
    """What came of a side. `first_seconds` holds making ready, compilation and the first run."""

    facts: Facts
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def summary(self) -> Facts:
        seconds = [round(s, 4) for s in self.seconds]
        return {**self.facts, "seconds": seconds, "peak_bytes": self.peak_bytes}


def measure_in_turn(sides: Mapping[str, Process], rounds: int) -> dict[str, Measured]:
    """All sides `rounds` times, one after the other."""
    processes: dict[str, subprocess.Popen[str]] = {}
    measured: dict[str, Measured] = {}
    try:
        for name, side in sides.items():
            processes[name] = side.start()
            measured[name] = Measured(_answer(name, processes[name]))
        for _ in range(rounds):
            for name, process in processes.items():
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
                found = _answer(name, process)
                measured[name].seconds.append(found["seconds"])
                measured[name].peak_bytes = found["peak_bytes"]
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return measured


def ratio(slow: Measured, fast: Measured) -> float:
    """How many times faster the second is: the median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))


def _answer(name: str, process: subprocess.Popen[str]) -> Facts:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"the side {name} ended with status {process.wait()} before it answered")
    return json.loads(line)


def serve(side: Side) -> None:
    """In a process of its own: says what it is, then for every line read computes once and says how long."""
    began = time.perf_counter()
    run, facts = side()
    run()
    facts["first_seconds"] = time.perf_counter() - began
    facts["versions"] = versions()
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        run()
        print(json.dumps({"seconds": time.perf_counter() - began, "peak_bytes": _peak_bytes()}), flush=True)


def _peak_bytes() -> int:
    """The most memory that was in use so far: the device's where that is a GPU, else this process's."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return sys.modules["torch"].cuda.max_memory_allocated()
    if "jax" in sys.modules and (found := sys.modules["jax"].local_devices()[0].memory_stats()):
        return found["peak_bytes_in_use"]
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions() -> dict[str, str | None]:
    """Of Python and of what this process has imported."""
    names = ("jax", "flax", "optax", "numpy", "scipy", "torch", "transformers", "librosa", "pyAudioAnalysis")
    return {"python": platform.python_version()} | {name: _version(name) for name in names if name in sys.modules}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def has_packages(python: str, *packages: str) -> bool:
    """Whether an interpreter can import them."""
    probe = "import importlib.util as u, sys; sys.exit(not all(u.find_spec(name) for name in sys.argv[1:]))"
    return subprocess.run([python, "-c", probe, *packages], check=False).returncode == 0


def matmul_peak() -> tuple[Callable[[], None], Facts]:
    """Large square matrix products: what the device can do at most. In bfloat16 on a GPU, else float32."""
    import jax
    import jax.numpy as jnp

    gpu = jax.default_backend() == "gpu"
    n, times = (8192, 20) if gpu else (2048, 8)
    x = jnp.ones((n, n), jnp.bfloat16 if gpu else jnp.float32)
    multiply = jax.jit(lambda a, b: a @ b)

    def run() -> None:
        for _ in range(times):
            multiply(x, x).block_until_ready()

    return run, {"flops": 2.0 * n**3 * times, "device": jax.devices()[0].device_kind}
