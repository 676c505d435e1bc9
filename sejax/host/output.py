"""Standard output that takes no more: its reader has ended (`| head`), or its disk is full."""

import os
import sys


def discard_output() -> None:
    """Sends what is printed from now on, and what is still in the buffer, to nowhere.

    Python would complain at its end about what it cannot print.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
