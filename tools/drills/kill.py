"""Ends a study again and again, at any moment of its life, and starts it anew until it is complete.

A chain is one study. Each of its processes is a real `python -m sejax.main`, which gets SIGKILL, SIGTERM or SIGINT
(Ctrl-C) at a moment drawn from its whole life: after so many seconds, or as soon as something has appeared in, or
vanished from, workdir or cache for the n-th time. Some chains begin without features or without compiled programs.
Kills are counted, not chains.

Held: the end of the chain has the same bytes of predictions.csv, runs.csv, metrics.json and history.jsonl as an
undisturbed study. SIGTERM ends with status 143, Ctrl-C with 130, both within a minute and without a traceback; before
the program has begun, the interpreter's own end is accepted.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.drills.study import (
    LINES,
    SECONDS,
    Finished,
    Reference,
    command,
    different,
    environment,
    prepare,
    sentences,
)
from tools.drills.tally import ROOT, Failure, Tally, add_bounds, last_lines, rerun, tell

MOST = 25  # kills of a chain; then it is left alone
LAST_CHANGE = 40  # a kill waits for one of so many changes of the files
SECONDS_TO_ANSWER = 60.0
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
STATUS = {"SIGTERM": 128 + signal.SIGTERM, "SIGINT": 128 + signal.SIGINT}
# What a study prints at the end of an act, and what it does until then.
ACTS = (
    ("report: ", "after the report"),
    ("compiled in", "while it trains and tests"),
    (" runs = ", "while it compiles"),
    ("", "while it imports and reads"),
)


@dataclass(frozen=True)
class Blow:
    """A signal and its moment: after so many seconds, or once the files have changed so many times."""

    signal: str
    seconds: float
    changes: int  # 0: the seconds decide

    def __str__(self) -> str:
        return f"{self.signal} at {f'change {self.changes}' if self.changes else f'{self.seconds:.2f} s'}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=200, help="processes that are ended (%(default)d)")
    parser.add_argument(
        "--signals", nargs="+", choices=SIGNALS, default=[*["SIGKILL"] * 8, "SIGTERM", "SIGINT"], help="drawn from"
    )
    add_bounds(parser, minutes=60)


def run(arguments: argparse.Namespace, folder: Path, scratch: Path) -> Tally:
    """Runs chains until so many processes were ended."""
    reference, tally, guard = prepare(folder), Tally(), threading.Lock()
    budget = Budget(arguments.kills, arguments.minutes, reference.seconds)
    numbers = iter(range(1 << 30)) if arguments.case is None else iter([int(arguments.case)])

    def chains() -> None:
        while not budget.is_spent():
            with guard:
                number = next(numbers, None)
            if number is None:
                return
            chain = Chain(number, arguments, reference, scratch / f"chain-{number}", budget)
            chain.run()
            with guard:
                for kind, failure in chain.tries:
                    tally.add(kind, failure)
                tell(f"chain {number}: {len(chain.blows)} kills; {tally.tried.total()} in all")

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for future in [pool.submit(chains) for _ in range(arguments.jobs)]:
            future.result()
    return tally


class Budget:
    """What chains share: the kills that are left, and how long a process was seen to live."""

    def __init__(self, kills: int, minutes: float, life: float) -> None:
        self.kills, self.life = kills, life
        self._end, self._guard = time.monotonic() + 60 * minutes, threading.Lock()

    def is_spent(self) -> bool:
        """Returns whether no kill is left, or no time."""
        return self.kills <= 0 or time.monotonic() > self._end

    def take(self) -> bool:
        """Takes one kill; returns whether there was one."""
        with self._guard:
            taken = not self.is_spent()
            self.kills -= taken
            return taken

    def give_back(self, lived: float) -> None:
        """Gives a kill back that met nobody: the process had ended after so many seconds."""
        with self._guard:
            self.kills += 1
            self.life = lived


class Chain:
    """One study that is ended and started again until it is complete."""

    def __init__(
        self, number: int, arguments: argparse.Namespace, reference: Reference, folder: Path, budget: Budget
    ) -> None:
        self.number, self.reference, self.folder, self.budget = number, reference, folder, budget
        self.random = random.Random(f"{arguments.seed}:{number}")
        self.signals, self.seed = arguments.signals, arguments.seed
        self.blows: list[Blow] = []
        self.tries: list[tuple[str, Failure | None]] = []  # of each blow: the signal and what it interrupted

    def run(self) -> None:
        """Runs the study to its end, which counts as a part of the last kill, and fills `tries`."""
        finished = self._run()
        if finished.status != 0:
            problem = f"a start ended with status {finished.status}"
        elif names := different(self.folder / "workdir", self.reference.workdir):
            problem = f"the end differs in {', '.join(names)}"
        else:
            problem = ""
        shutil.rmtree(self.folder)
        if problem:
            kind = self.tries.pop()[0] if self.tries and self.tries[-1][1] is None else "after other failures"
            self.tries.append((kind, self._failure(problem, finished)))

    def _run(self) -> Finished:
        """Starts and ends the study until a process ends by itself, which it returns."""
        self.folder.mkdir(parents=True)
        cache = self._cache()
        words = command(self.folder / "workdir", table=self.reference.table, cache=cache)
        while True:
            blow = self._draw() if len(self.blows) < MOST and self.budget.take() else None
            finished, struck = self._start(words, blow)
            if blow and struck:
                self.blows.append(blow)
                what = f"{blow.signal} {_act(finished.out)}"
                problem = _wrong_end(blow, finished)
                self.tries.append((what, self._failure(f"{what}: {problem}", finished) if problem else None))
                if finished.status != 0:
                    continue
            elif blow:
                self.budget.give_back(finished.seconds)
            return finished

    def _cache(self) -> Path:
        """Returns the chain's own cache, in which features or compiled programs may be missing."""
        cache = self.folder / "cache"
        cache.mkdir()
        if self.random.random() < 0.5:
            shutil.copytree(self.reference.cache / "acoustic_features", cache / "acoustic_features")
        if self.random.random() < 0.85:
            shutil.copytree(self.reference.cache / "xla", cache / "xla")
        return cache

    def _draw(self) -> Blow:
        changes = self.random.randint(1, LAST_CHANGE) if self.random.random() < 0.5 else 0
        pause = 0.02 if changes else self.budget.life
        return Blow(self.random.choice(self.signals), self.random.uniform(0, pause), changes)

    def _start(self, words: Sequence[str], blow: Blow | None) -> tuple[Finished, bool]:
        """Runs a process until it ends or is struck; returns whether it was struck."""
        began, struck = time.monotonic(), False
        with (self.folder / "out.txt").open("w") as out, (self.folder / "err.txt").open("w") as err:
            process = subprocess.Popen(words, cwd=ROOT, env=environment(), stdout=out, stderr=err)
            try:
                if blow:
                    self._wait_for(process, blow)
                    struck = process.poll() is None
                    process.send_signal(SIGNALS[blow.signal])
                process.wait(SECONDS_TO_ANSWER if struck else SECONDS)
                status: int | None = process.returncode
            except subprocess.TimeoutExpired:
                status = None
            finally:
                process.kill()
                process.wait()
        said, complained = ((self.folder / name).read_text(errors="replace") for name in ("out.txt", "err.txt"))
        return Finished(status, said, complained, time.monotonic() - began), struck

    def _wait_for(self, process: subprocess.Popen, blow: Blow) -> None:
        """Waits for the moment of the blow, or the end of the process."""
        end, changes, seen = time.monotonic() + SECONDS, 0, self._files()
        while blow.changes and process.poll() is None and changes < blow.changes and time.monotonic() < end:
            time.sleep(0.002)
            files = self._files()
            changes += files != seen
            seen = files
        try:
            process.wait(blow.seconds)
        except subprocess.TimeoutExpired:
            return

    def _files(self) -> set[str]:
        places = (self.folder / "workdir", self.folder / "cache")
        return {os.path.join(above, name) for place in places for above, _, names in os.walk(place) for name in names}

    def _failure(self, what: str, finished: Finished) -> Failure:
        blows = ", ".join(map(str, self.blows)) or "none"
        return Failure(
            f"chain {self.number} (seed {self.seed}): {what}; kills: {blows}",
            f"{rerun('kill', str(self.number))} --seed {self.seed} --folder FOLDER",
            last_lines(finished.out, finished.err),
        )


def _act(out: str) -> str:
    return next(act for line, act in ACTS if line in out)


def _wrong_end(blow: Blow, finished: Finished) -> str:
    """Returns what is wrong with how a process answered a signal, "" if nothing is."""
    number = SIGNALS[blow.signal]
    if finished.status is None:
        return f"goes on for more than {SECONDS_TO_ANSWER:.0f} s"
    if blow.signal == "SIGKILL" or finished.status == 0:
        return ""
    lines = [line for line in finished.err.splitlines() if line.strip()]
    own = "sejax" + os.sep in finished.err  # a file of ours in a traceback
    if "Traceback" in finished.err and own:
        return f"a traceback, {len(lines)} lines of error"
    begun = _act(finished.out) != ACTS[-1][1]
    # The interpreter's own beginning and end are not ours to guard; a shell shows the same status.
    if finished.status == -number and (not begun or "report: " in finished.out):
        return ""
    if "Traceback" in finished.err and not begun:  # of the interpreter, before sejax was there
        return ""
    if finished.status != STATUS[blow.signal]:
        return f"status {finished.status}, expected {STATUS[blow.signal]}"
    if len(lines) > LINES or len(sentences(finished)) > 1:
        return f"{len(lines)} lines of error, expected one"
    return ""
