"""Gives damaged bytes and odd values to every parser, many thousand times.

The parsers are those of `tools/drills/parsers.py`: tables, IEMOCAP's texts, EmoDB's archive, audio of all containers,
pretrained checkpoints, history.jsonl, predictions.csv, options of the command line. An input is a healthy one after bit
flips, cuts, splices, repeated chunks, extreme lengths, odd characters or values; its number decides it, and
`--case table:1234` tries it again.

Held: InputError with one line, or a sane result as the parser's docstring says. Failed: any other exception, a process
that dies, that takes longer than `--seconds` for one input, or needs more than `--megabytes`.
"""

import argparse
import itertools
import math
import multiprocessing
import os
import random
import resource
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from sejax.errors import InputError
from tools.drills.parsers import PARSERS, Parser, sentence_problem
from tools.drills.tally import TAIL, Failure, Tally, rerun, tell

STRIDE = 10**9  # between the first numbers of two seeds
CHUNK = 4000  # cases that a process tries
SHOWN = 5  # failures of one parser that are alike and are told; the others are counted

Found = tuple[int, str, list[str]]  # a case, what was wrong, the last lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, default=200_000, help="inputs of all parsers (%(default)d)")
    parser.add_argument("--parsers", nargs="+", choices=PARSERS, default=list(PARSERS))
    parser.add_argument("--seconds", type=float, default=20.0, help="limit of one input (%(default)g)")
    parser.add_argument("--megabytes", type=int, default=1024, help="limit of memory beyond the start (%(default)d)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30, help="no chunk begins after so many (%(default)g)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes side by side (%(default)d)")
    parser.add_argument("--case", help="tries this input alone, such as table:1234; it is left in --folder")


def run(arguments: argparse.Namespace, folder: Path, scratch: Path) -> Tally:
    """Tries the inputs of all parsers, in processes that may die."""
    end = time.monotonic() + 60 * arguments.minutes
    tally, guard = Tally(), threading.Lock()
    alike: Counter[tuple[str, str]] = Counter()
    chunks = [_one(arguments.case)] if arguments.case else _chunks(arguments)

    def attempt(chunk: tuple[str, Sequence[int]]) -> None:
        name, numbers = chunk
        if time.monotonic() > end:
            return
        # The limit of one input bounds a chunk too, but only in theory; its end is that of the drill.
        tried, found = Watched(name, arguments, folder).run(numbers, end)
        with guard:
            tally.add(name, tries=tried - len(found))
            for number, what, lines in found:
                failure = Failure(f"{name}:{number}: {what}", rerun("fuzz", f"{name}:{number}"), lines)
                kind = lines[-1].partition(":")[0] if lines else what.partition(":")[0]
                alike[name, kind] += 1
                if alike[name, kind] <= SHOWN:
                    tally.add(name, failure)
                else:
                    tally.tried[name] += 1
                    tally.failures.append(failure)
            tell(f"{name}: {tally.held[name]:,} of {tally.tried[name]:,} held")

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for future in [pool.submit(attempt, chunk) for chunk in chunks]:
            future.result()
    return tally


def _one(case: str) -> tuple[str, Sequence[int]]:
    name, _, number = case.partition(":")
    if name not in PARSERS or not number.isdigit():
        raise SystemExit(f"error: --case is {case!r}, expected a parser and a number such as table:1234")
    return name, [int(number)]


def _chunks(arguments: argparse.Namespace) -> list[tuple[str, Sequence[int]]]:
    """Returns the cases of all parsers in chunks, those of the parsers in turn."""
    shares = {name: PARSERS[name].share for name in arguments.parsers}
    first, by_parser = arguments.seed * STRIDE, []
    for name, share in shares.items():
        count = math.ceil(arguments.cases * share / sum(shares.values()))
        ends = range(first, first + count, CHUNK)
        by_parser.append([(name, range(begin, min(begin + CHUNK, first + count))) for begin in ends])
    in_turn = itertools.zip_longest(*by_parser)
    return [chunk for turn in in_turn for chunk in turn if chunk is not None]


class Watched:
    """A parser in a process of its own, which is ended if it hangs and replaced if it dies."""

    def __init__(self, name: str, arguments: argparse.Namespace, folder: Path) -> None:
        self.name, self.arguments, self.folder = name, arguments, folder
        self.context = multiprocessing.get_context("spawn")

    def run(self, numbers: Sequence[int], end: float) -> tuple[int, list[Found]]:
        """Tries the cases; returns how many were tried, and those that did not hold."""
        found: list[Found] = []
        left = list(numbers)
        while left and time.monotonic() < end:
            current, began = self.context.Value("q", -1), self.context.Value("d", math.inf)
            receiver, sender = self.context.Pipe(duplex=False)
            where = str(self.folder) if self.arguments.case else None
            process = self.context.Process(
                target=_work, args=(self.name, left, self.arguments.megabytes, where, current, began, sender)
            )
            process.start()
            sender.close()
            problem = self._watch(process, began, receiver, found, end)
            if problem is None:
                return len(numbers), found
            if current.value < 0:
                raise RuntimeError(f"the process of the parser {self.name} ended before its first case: {problem}")
            place = left.index(current.value)
            if problem:
                found.append((current.value, problem, []))
                place += 1
            left = left[place:]
        return len(numbers) - len(left), found

    def _watch(
        self,
        process: multiprocessing.process.BaseProcess,
        began: "Synchronized[float]",
        receiver: Connection,
        found: list[Found],
        end: float,
    ) -> str | None:
        """Collects what a process finds; returns None if it is done, "" if the time is over, else how it ended."""
        try:
            while True:
                if receiver.poll(0.5):
                    message = receiver.recv()
                    if message is None:
                        return None
                    found.append(message)
                elif time.monotonic() - began.value > self.arguments.seconds:
                    return f"takes longer than {self.arguments.seconds:g} s"
                elif time.monotonic() > end:
                    return ""
        except EOFError:
            process.join()
            return f"the process died with status {process.exitcode}"
        finally:
            receiver.close()
            process.kill()
            process.join()


def _work(
    name: str,
    numbers: Sequence[int],
    megabytes: int,
    where: str | None,
    current: "Synchronized[int]",
    began: "Synchronized[float]",
    sender: Connection,
) -> None:
    """Tries the cases in this process, and sends those that did not hold."""
    # What codecs print from C is not of interest.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        folder = Path(where or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        parser = PARSERS[name](folder)
        # What is imported late belongs to the start.
        try_case(parser, name, -1)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
        for number in numbers:
            current.value, began.value = number, time.monotonic()
            if result := try_case(parser, name, number):
                sender.send((number, *result))
    sender.send(None)


def try_case(parser: Parser, name: str, number: int) -> tuple[str, list[str]] | None:
    """Tries one input; returns None if it held, else what was wrong and the last lines of the traceback."""
    try:
        problem = parser.attempt(random.Random(f"{name}:{number}"))
    except InputError as error:
        problem = sentence_problem(str(error))
    except Exception as error:
        lines = [line for part in traceback.format_exception(error) for line in part.splitlines()]
        return f"{type(error).__name__}: {error!s:.200}", lines[-TAIL:]
    return (problem, []) if problem else None
