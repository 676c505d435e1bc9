"""Ctrl-C and SIGTERM end a process in one line, whatever it does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PREAMBLE = """
import hashlib, signal, sys, time
from sejax.host import stopping

def ready():
    print("ready", flush=True)

stopping.GRACE_SECONDS = {signal.SIGINT: 0.2, signal.SIGTERM: 0.2}
stopping.listen(lambda: "last words")
try:
    WORK
except KeyboardInterrupt:
    stopping.end(signal.SIGINT, "by Ctrl-C")
except stopping.Terminated:
    stopping.end(signal.SIGTERM, "by SIGTERM")
"""
WAITING = "ready(); time.sleep(60)"
# The main thread is in C, where Python cannot raise anything.
COMPUTING = "ready(); hashlib.pbkdf2_hmac('sha256', b'a', b'b', 100_000_000)"
FINISHING = """
    with stopping.finish_first():
        ready()
        while not stopping.is_requested():
            time.sleep(0.01)
        print("saved", flush=True)
    print("not reached")
"""


@pytest.mark.parametrize(
    ("work", "number", "said", "printed"),
    [
        (WAITING, signal.SIGINT, "by Ctrl-C", ""),
        (WAITING, signal.SIGTERM, "by SIGTERM", ""),
        (COMPUTING, signal.SIGINT, "last words", ""),
        (COMPUTING, signal.SIGTERM, "last words", ""),
        (FINISHING, signal.SIGTERM, "by SIGTERM", "saved\n"),
        (FINISHING, signal.SIGINT, "by Ctrl-C", ""),
    ],
)
def test_a_signal_ends_the_process_in_one_line(work: str, number: signal.Signals, said: str, printed: str):
    code = PREAMBLE.replace("WORK", work.strip())
    root = Path(__file__).parent.parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + number, printed, f"{said}\n")


@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "by Ctrl-C"), (signal.SIGTERM, "by SIGTERM")])
def test_a_signal_within_a_destructor_is_not_lost(number: signal.Signals, said: str):
    work = f"""
    class Dropped:
        def __del__(self):
            signal.raise_signal({int(number)})
    stopping.GRACE_SECONDS = {{}}
    Dropped()
    time.sleep(60)
"""
    code = PREAMBLE.replace("    WORK", work)
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (128 + number, f"{said}\n")
