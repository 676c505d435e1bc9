"""The progress bar of everything that takes minutes."""

import sys

from tqdm import tqdm


def progress_bar(total: int, description: str, *, initial: int = 0, leave: bool = False) -> tqdm:
    """Returns a bar on standard error that shows steps, time left and the postfix of whoever advances it.

    Args:
      total: Number of steps.
      description: Text before the bar.
      initial: Steps that are already done.
      leave: Whether the bar stays when it is complete.
    """
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        bar_format="{desc}  [{bar:20}] {n_fmt}/{total_fmt}, {remaining} left{postfix}",
        ascii=" #",
        leave=leave,
        # A log file needs no animation.
        mininterval=0.1 if sys.stderr.isatty() else 30,
    )
