"""Devices that are given to a process are taken, or refused: nothing falls back to the CPU."""

import subprocess
import sys

from tiny_study import ROOT, environment

TAKE = """
from sejax.host import accelerators
try:
    print(accelerators.take({platform!r}, {n}))
except accelerators.DeviceTaken as error:
    print("taken:", error)
"""


def _take(platform: str, n: int) -> str:
    words = [sys.executable, "-c", TAKE.format(platform=platform, n=n)]
    return subprocess.run(
        words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120, check=True
    ).stdout.strip()


def test_an_accelerator_that_is_not_there_is_no_reason_to_take_the_cpu():
    said = _take("cuda", 1)
    assert said.startswith("taken: 1 cuda device cannot be taken ("), said
    assert said.endswith("expected devices that no other process uses, and jax with their plugin")


def test_so_many_cores_are_taken_as_are_given():
    assert _take("cpu", 1) == "[CpuDevice(id=0)]"
    assert _take("cpu", 3) == "taken: there are 2 cpu devices, expected the 3 that this process was given"
