"""Kills the workers of a study whose jobs are tasks of Ray, at any moment of its life.

A case is one study, `--config.jobs=ray` on a cluster of this machine. Up to three times, at moments drawn from its
life, one of the processes that work for it then gets SIGKILL: one that imports, plans, trains or tests.

Held: the study ends by itself, with the bytes of predictions.csv, runs.csv, metrics.json and history.jsonl of an
undisturbed study of a single process.
"""

import argparse
import contextlib
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tools.drills.study import SECONDS, Finished, Reference, command, complaint, different, environment, prepare
from tools.drills.tally import ROOT, Failure, Tally, add_bounds, choose, last_lines, rerun, try_all

MOST = 3  # kills of a study: a job is begun four times
LONGEST = 4.0  # lives of the undisturbed study, within which all kills fall: Ray and its processes have to start


@dataclass(frozen=True)
class Case:
    """A study and its kills, drawn by a seed."""

    number: int
    seed: int

    @property
    def name(self) -> str:
        """By which the case is tried again."""
        return str(self.number)

    kind = "SIGKILL of workers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, default=20, help="studies (%(default)d)")
    add_bounds(parser, minutes=60)


def run(arguments: argparse.Namespace, folder: Path, scratch: Path) -> Tally:
    """Tries the cases, each on a cluster of its own."""
    reference = prepare(folder)
    cases = choose([Case(number, arguments.seed) for number in range(arguments.cases)], arguments)

    def attempt(case: Case) -> Failure | None:
        return _attempt(case, reference, scratch / f"study-{case.number}")

    return try_all(cases, attempt, jobs=arguments.jobs, minutes=arguments.minutes)


def _attempt(case: Case, reference: Reference, folder: Path) -> Failure | None:
    drawn = random.Random(f"{case.seed}:{case.number}")
    moments = sorted(drawn.uniform(0, LONGEST * reference.seconds) for _ in range(drawn.randint(1, MOST)))
    folder.mkdir(parents=True)
    words = command(folder / "workdir", "--config.jobs=ray", table=reference.table, cache=reference.cache)
    began, kills = time.monotonic(), []
    with (folder / "out.txt").open("w") as out, (folder / "err.txt").open("w") as err:
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment() | {"RAY_ADDRESS": "local"}, stdout=out, stderr=err
        )
        try:
            for moment in moments:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0, began + moment - time.monotonic()))
                if workers := list(_workers(process.pid)):
                    worker, name = drawn.choice(workers)
                    with contextlib.suppress(psutil.Error):
                        worker.kill()
                        kills.append(f"{name} after {moment:.2f} s")
            status: int | None = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            process.kill()
            process.wait()
    said, complained = ((folder / name).read_text(errors="replace") for name in ("out.txt", "err.txt"))
    finished = Finished(status, said, "", time.monotonic() - began)
    names = different(folder / "workdir", reference.workdir)
    problem = complaint(finished) or (f"the end differs in {', '.join(names)}" if names else "")
    shutil.rmtree(folder)
    if not problem:
        return None
    what = f"study {case.number} (seed {case.seed}): {problem}; kills: {', '.join(kills) or 'none'}"
    return Failure(what, f"{rerun('jobs', case.name)} --seed {case.seed}", last_lines(said, complained))


def _workers(driver: int) -> Iterator[tuple[psutil.Process, str]]:
    """Yields the processes that do a job of a study, with the names that Ray gives them."""
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.Error, IndexError):
                name = process.cmdline()[0]
                if name.startswith("ray::program"):
                    yield process, name.removeprefix("ray::").strip()
