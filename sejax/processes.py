"""An ordered map over worker processes that start fast, share the cores and end with their parent."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

# Two processes whose BLAS takes both cores are half as fast as one.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def map_in_processes(
    function: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int, chunk: int
) -> Iterator[Result]:
    """Yield `function(job)` for every job, in order, computed by `workers` new processes.

    They take `chunk` jobs at a time. `function` must be picklable. An exception in it is raised here.
    Closing the iterator, or Ctrl-C, drops what has not begun; the processes then end within the time of one
    chunk. When this process is killed they end by themselves.
    """
    executor = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    try:
        with _environment_of_workers():
            # All processes are started by the submissions in here.
            results = executor.map(function, jobs, chunksize=chunk)
        yield from results
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _environment_of_workers() -> Iterator[None]:
    """What processes started in here inherit."""
    main_module = sys.modules["__main__"]
    outside = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    # A new process imports the main module again, and with it all that a training program imports: show it an
    # empty one.
    sys.modules["__main__"] = types.ModuleType("__main__")
    # Ctrl-C reaches every process of the terminal; only the parent shall answer it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        sys.modules["__main__"] = main_module
        for name, value in outside.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end_with_parent() -> None:
    """In a worker: exit as soon as the parent is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
