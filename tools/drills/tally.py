"""Tries cases and counts which held: what all drills share."""

import argparse
import datetime
import os
import platform
import random
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "soundfile", "safetensors")
TAIL = 12  # lines of output that a failure shows


class Case(Protocol):
    """What a drill tries: its name reruns it alone, its kind is what results are counted by."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...


AnyCase = TypeVar("AnyCase", bound=Case)


@dataclass(frozen=True)
class Failure:
    """A case that did not hold: what was seen, the command that tries it again, and the last lines of output."""

    what: str
    rerun: str
    output: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """The counts of a drill."""

    tried: Counter[str] = field(default_factory=Counter)  # by kind
    held: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, kind: str, failure: Failure | None = None, *, tries: int = 1) -> None:
        """Counts tries of one kind, of which at most one failed, and shows the failure at once."""
        self.tried[kind] += tries
        self.held[kind] += tries - (failure is not None)
        if failure:
            self.failures.append(failure)
            tell(f"FAILED {failure.what}\n  again: {failure.rerun}")
            for line in failure.output:
                tell(f"  | {line}")

    def merge(self, other: "Tally") -> None:
        """Adds the counts and failures of another part of the drill."""
        self.tried += other.tried
        self.held += other.held
        self.failures += other.failures

    def result(self) -> dict[str, Any]:
        """Returns the counts as JSON values."""
        return {
            "tried": self.tried.total(),
            "held": self.held.total(),
            "failed": len(self.failures),
            "kinds": {kind: {"tried": n, "held": self.held[kind]} for kind, n in sorted(self.tried.items())},
            "failures": [asdict(failure) for failure in self.failures],
        }


def add_bounds(parser: argparse.ArgumentParser, *, minutes: float) -> None:
    """Adds the options that bound every drill."""
    parser.add_argument("--seed", type=int, default=0, help="decides everything that is drawn")
    parser.add_argument("--minutes", type=float, default=minutes, help="no case begins after so many (%(default)g)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases side by side (%(default)d)")
    parser.add_argument("--case", help="tries this case alone, by the name that a failure shows")


def choose(cases: Sequence[AnyCase], arguments: argparse.Namespace) -> list[AnyCase]:
    """Returns the case that `--case` names, or `--cases` of them, drawn by the seed and in their order."""
    if arguments.case is not None:
        named = [case for case in cases if case.name == arguments.case]
        if not named:
            sys.exit(f"error: there is no case {arguments.case!r}, expected one such as {cases[0].name!r}")
        return named
    if arguments.cases is None or arguments.cases >= len(cases):
        return list(cases)
    chosen = random.Random(arguments.seed).sample(range(len(cases)), arguments.cases)
    return [cases[place] for place in sorted(chosen)]


def try_all(
    cases: Iterable[AnyCase], attempt: Callable[[AnyCase], Failure | None], *, jobs: int, minutes: float
) -> Tally:
    """Tries the cases, `jobs` at a time; `attempt` returns None for one that held.

    No case begins after `minutes`. An exception of `attempt` is a fault of the drill, and ends it.
    """
    tally, end = Tally(), time.monotonic() + 60 * minutes
    pending: dict[Future[Failure | None], AnyCase] = {}

    def collect() -> None:
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            tally.add(pending.pop(future).kind, future.result())
            if tally.tried.total() % 20 == 0:
                tell(f"{tally.held.total():,} of {tally.tried.total():,} held")

    with ThreadPoolExecutor(jobs) as pool:
        for case in cases:
            while len(pending) >= jobs:
                collect()
            if time.monotonic() > end:
                break
            pending[pool.submit(attempt, case)] = case
        while pending:
            collect()
    return tally


def rerun(drill: str, case: str) -> str:
    """Returns the command that tries one case again."""
    return f"python tools/drill.py {drill} --case {shlex.quote(case)}"


def last_lines(*outputs: str) -> list[str]:
    """Returns the last lines of what a process printed, those of its progress bar left out."""
    lines = [line.rpartition("\r")[2][:300] for output in outputs for line in output.splitlines() if line.strip()]
    return lines[-TAIL:]


def tell(line: str) -> None:
    """Prints to standard error what is known so far, so that a drill that is cut short still says something."""
    print(line, file=sys.stderr, flush=True)


def show(result: dict[str, Any]) -> None:
    """Prints the counts by kind."""
    width = max((len(kind) for kind in result["kinds"]), default=0)
    for kind, counts in result["kinds"].items():
        print(f"{kind:{width}}  held {counts['held']:6,} of {counts['tried']:6,}")
    print(
        f"{result['drill']}: tried {result['tried']:,}, held {result['held']:,}, failed {result['failed']:,} "
        f"in {result['seconds']:.0f} s"
    )


def circumstances() -> dict[str, Any]:
    """Returns date, machine, versions and the revision of the source."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "git": revision or None,
    }


def _cpu() -> str:
    """Returns the name of the processor, as Linux says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
