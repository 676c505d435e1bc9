"""The progress bar of everything that takes minutes."""

import sys
from typing import Any
from weakref import WeakSet

from tqdm import tqdm

_bars: WeakSet[tqdm] = WeakSet()


class _Lines:
    """Standard error, to which each state of a bar is a line of its own."""

    def write(self, text: str) -> None:
        if shown := text.strip("\r\n "):
            print(shown, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Does nothing: every line is flushed."""


_file: Any = None  # None: standard error


def show_lines() -> None:
    """Makes every bar of this process write lines, for a log that others read line by line."""
    global _file
    _file = _Lines()


def progress_bar(total: int, description: str, *, initial: int = 0, leave: bool = False) -> tqdm:
    """Returns a bar on standard error that shows steps, time left and the postfix of whoever advances it.

    Args:
      total: Number of steps.
      description: Text before the bar.
      initial: Steps that are already done.
      leave: Whether the bar stays when it is complete.
    """
    bar = tqdm(
        total=total,
        initial=initial,
        desc=description,
        bar_format="{desc}  [{bar:20}] {n_fmt}/{total_fmt}, {remaining} left{postfix}",
        ascii=" #",
        leave=leave,
        file=_file,
        # A log file needs no animation.
        mininterval=0.1 if sys.stderr.isatty() and _file is None else 30,
    )
    _bars.add(bar)
    return bar


def close_bars() -> None:
    """Ends the line of every bar that is still shown."""
    for bar in list(_bars):
        bar.close()
