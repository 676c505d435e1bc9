"""Ctrl-C and SIGTERM: a process that ends soon, in one line, at a moment that loses nothing.

Ctrl-C raises KeyboardInterrupt, as everywhere in Python. SIGTERM raises `Terminated`, or within `finish_first` waits
until the work there asks `is_requested`. While the main thread waits for compiled code, Python cannot raise anything: a
thread then ends the process after a few seconds. That is safe at any moment, because every file is written whole.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from sejax.host.progress import close_bars

# Clusters kill a process 30 seconds after SIGTERM or later.
GRACE_SECONDS = {signal.SIGINT: 5.0, signal.SIGTERM: 20.0}


class Terminated(BaseException):
    """SIGTERM has asked the process to end."""


_SIGNALS = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}

_requested = threading.Event()
_finishing = threading.Event()


def listen(last_words: Callable[[], str]) -> None:
    """Makes the process answer to Ctrl-C and SIGTERM; called once, in the main thread.

    Args:
      last_words: Returns the line that tells what is saved; called when the process ends.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.unraisablehook = partial(_send_again, sys.unraisablehook)
    # The system writes here at once, also while the main thread computes.
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_after_grace, args=(reading, writing, last_words), daemon=True).start()


def is_requested() -> bool:
    """Returns whether SIGTERM has asked the process to end."""
    return _requested.is_set()


@contextlib.contextmanager
def finish_first() -> Iterator[None]:
    """Defers SIGTERM to the end of the block, whose work asks `is_requested` from time to time and ends if it is.

    Raises:
      Terminated: at the end of the block, if SIGTERM came within it.
    """
    _finishing.set()
    try:
        yield
    finally:
        _finishing.clear()
    if is_requested():
        raise Terminated


def end(number: signal.Signals, last_words: str) -> NoReturn:
    """Prints the line and ends the process, with 128 and the number of the signal as its status.

    Nothing else is awaited: threads that still write leave a temporary file at most.
    """
    close_bars()
    print(last_words, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(128 + number)


def _terminate(number: int, frame: FrameType | None) -> None:
    _requested.set()
    if not _finishing.is_set():
        raise Terminated


def _send_again(otherwise: Callable[[Any], object], lost: Any) -> None:
    """Sends a signal again whose exception Python has dropped, because it came within a destructor or gc callback."""
    number = _SIGNALS.get(lost.exc_type)
    if number is None:
        otherwise(lost)
    else:
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()


def _end_after_grace(reading: socket.socket, writing: socket.socket, last_words: Callable[[], str]) -> None:
    """Waits for a signal, then for the main thread to end the process by itself, and ends it otherwise.

    Both sockets are arguments so that they live as long as the thread.
    """
    while True:
        for number in reading.recv(16):
            if number in GRACE_SECONDS:
                threading.Event().wait(GRACE_SECONDS[signal.Signals(number)])
                end(signal.Signals(number), last_words())
