"""Runs the sides of a benchmark in turn, each in its own process.

A process of its own gives a side its own peak of memory, its own devices and, if needed, its own Python. It waits while
another side computes, so a slower machine slows all sides alike.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parent.parent / "bench.py"

Facts = dict[str, Any]
Side = Callable[[], tuple[Callable[[], None], Facts]]
"""Prepares a side; returns the function that is timed, and facts to report."""


@dataclass(frozen=True)
class Process:
    """A side's command: an interpreter runs `bench.py serve <benchmark> <side> <options as JSON>`."""

    benchmark: str
    side: str
    options: Mapping[str, Any]
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[str]:
        """Starts the side, which prints its facts and then waits."""
        words = [self.python, str(BENCH), "serve", self.benchmark, self.side, json.dumps(self.options)]
        # The processes share the memory of a GPU. On a CPU, one arena keeps the C library from inflating the peak.
        variables = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "MALLOC_ARENA_MAX": "1", **self.environment}
        return subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
        )


@dataclass
class Measured:
    """The measurements of a side. The fact `first_seconds` covers preparation, compilation and the first run."""

    facts: Facts
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)

    def summary(self) -> Facts:
        """Returns the facts with the seconds and the peak of memory."""
        seconds = [round(s, 4) for s in self.seconds]
        return {**self.facts, "seconds": seconds, "peak_bytes": self.peak_bytes}


def measure_in_turn(sides: Mapping[str, Process], rounds: int, *, prepare_at_once: bool = False) -> dict[str, Measured]:
    """Measures all sides `rounds` times, one after the other.

    Args:
      prepare_at_once: whether the sides are prepared side by side, and so compiled: sooner on a machine with many
        cores, but the times of preparation then say less.
    """
    processes: dict[str, subprocess.Popen[str]] = {}
    measured: dict[str, Measured] = {}
    try:
        if prepare_at_once:
            processes |= {name: side.start() for name, side in sides.items()}
        for name, side in sides.items():
            if not prepare_at_once:
                processes[name] = side.start()
            measured[name] = Measured(_answer(name, processes[name]))
            _tell(f"{name}: prepared and run once in {measured[name].facts['first_seconds']:.1f} s")
        for _ in range(rounds):
            for name, process in processes.items():
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
                answer = _answer(name, process)
                measured[name].seconds.append(answer["seconds"])
                measured[name].peak_bytes = answer["peak_bytes"]
                _tell(f"{name}: {answer['seconds']:.3f} s")
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return measured


def _tell(line: str) -> None:
    """Prints what is known so far, so that a measurement that is cut short still says something."""
    print(line, file=sys.stderr, flush=True)


def ratio(slow: Measured, fast: Measured) -> float:
    """Returns how many times faster the second side is: the median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))


def _answer(name: str, process: subprocess.Popen[str]) -> Facts:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"the side {name} ended with status {process.wait()} before it answered")
    return json.loads(line)


def serve(side: Side) -> None:
    """Serves a side in its own process: prints its facts, then times one call for every line read."""
    _end_with_parent()
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


def _end_with_parent() -> None:
    """Ends this process, whatever it computes, as soon as the one that started it has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _peak_bytes() -> int:
    """Returns the peak of memory so far: of the device if it is a GPU, else of this process."""
    # transformers imports torch: only a side that computes with it has initialised its GPU.
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        return sys.modules["torch"].cuda.max_memory_allocated()
    if "jax" in sys.modules and (memory := sys.modules["jax"].local_devices()[0].memory_stats()):
        return memory["peak_bytes_in_use"]
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions() -> dict[str, str | None]:
    """Returns the versions of Python and of the packages that this process has imported."""
    names = ("jax", "flax", "optax", "numpy", "scipy", "torch", "transformers", "librosa", "pyAudioAnalysis")
    return {"python": platform.python_version()} | {name: _version(name) for name in names if name in sys.modules}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def add_other(sides: dict[str, Process], others: Mapping[str, Process], packages: Sequence[str], alone: str) -> None:
    """Adds sides of another environment, or says what it lacks.

    Args:
      packages: that the sides import.
      alone: what is then measured alone.
    """
    python = next(iter(others.values())).python
    probe = "import importlib.util as u, sys; print(*(name for name in sys.argv[1:] if not u.find_spec(name)))"
    try:
        done = subprocess.run([python, "-c", probe, *packages], check=False, capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"{python} does not run: {error.strerror}")
    if done.returncode:
        sys.exit(f"{python} does not run: {done.stderr.strip()}")
    if lacking := done.stdout.split():
        print(f"{python} has no {', '.join(lacking)}: {alone} measured alone", file=sys.stderr)
    else:
        sides |= others


def matmul_peak() -> tuple[Callable[[], None], Facts]:
    """Prepares large square matrix products, the upper bound of the device: bfloat16 on a GPU, else float32."""
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
