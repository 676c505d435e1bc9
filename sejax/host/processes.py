"""Ordered maps, a bounded number of jobs ahead: over threads, and over worker processes.

The processes start fast, share the cores and end with their parent.

joblib's loky does not replace it: its workers were still running 20 s after their parent was killed.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

# Chunks for each process that are begun or wait: results that nobody has taken yet fill memory.
CHUNKS_AHEAD = 4

# On two cores, two processes whose BLAS uses both are half as fast as one.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def map_in_processes(
    function: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int, chunk: int
) -> Generator[Result, None, None]:
    """Yields `function(job)` of every job, in order, computed by new processes, a few chunks ahead.

    An exception in `function` is raised here. Closing the generator, or Ctrl-C, drops the jobs that have not begun; the
    processes then end within the time of one chunk. When this process is killed they end by themselves.

    Args:
      function: Picklable.
      jobs: Picklable arguments of `function`.
      workers: Number of processes.
      chunk: Number of jobs that a process takes at a time.
    """
    executor = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    waiting = iter(jobs)
    chunks = iter(lambda: list(itertools.islice(waiting, chunk)), [])

    def submit(chunk_of_jobs: list[Job]) -> Future[list[Result]]:
        with _environment_of_workers():  # any of them may start a process
            return executor.submit(_each, function, chunk_of_jobs)

    try:
        for results in _in_order(submit, chunks, ahead=workers * CHUNKS_AHEAD - 1):
            yield from results
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def map_in_threads(
    function: Callable[[Job], Result], jobs: Iterable[Job], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Yields `function(job)` of every job, in order, computed by threads of this process, some of them ahead."""
    with ThreadPoolExecutor(threads) as executor:
        try:
            yield from _in_order(lambda job: executor.submit(function, job), jobs, ahead=ahead)
        finally:
            executor.shutdown(cancel_futures=True)


def _in_order(
    submit: Callable[[Job], Future[Result]], jobs: Iterable[Job], *, ahead: int
) -> Generator[Result, None, None]:
    """Yields the results of jobs in order; so many more are submitted than are taken."""
    pending: deque[Future[Result]] = deque()
    for job in jobs:
        pending.append(submit(job))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _each(function: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
    return [function(job) for job in jobs]


@contextlib.contextmanager
def _environment_of_workers() -> Iterator[None]:
    """Sets what processes that are started inside inherit: environment, main module and signal mask."""
    main_module = sys.modules["__main__"]
    outside = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    # A new process imports the main module again, with everything that a training program imports: it is given an
    # empty one instead.
    sys.modules["__main__"] = types.ModuleType("__main__")
    # Ctrl-C reaches every process of the terminal; only the parent answers it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        sys.modules["__main__"] = main_module
        for name, value in outside.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        # Last: a Ctrl-C that has waited is raised here.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end_with_parent() -> None:
    """Makes a worker exit as soon as its parent has ended, for whatever reason."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
