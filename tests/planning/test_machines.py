"""The table of devices, devices of files, and the time of a kernel."""

import dataclasses
import json
from pathlib import Path

import pytest

from sejax.errors import InputError
from sejax.planning.forecast import limits_of
from sejax.planning.kernels import Kernel, Work
from sejax.planning.machines import MACHINES, Machine, find_machine

OWN = Machine(
    backend="gpu",
    memory=1e9,
    products=100.0,
    narrow_products=200.0,
    arithmetic=50.0,
    bandwidth=10.0,
    launch=2.0,
    measured=False,
    source="nobody",
)


def kernel(**changes) -> Kernel:
    return Kernel("dot_general", 1, 0.0, False, 0.0, 0)._replace(**changes)


def test_a_kernel_takes_the_longest_of_its_limits_as_often_as_it_runs():
    work = Work(
        (
            kernel(times=3),  # 3 launches of 2 s
            kernel(products=1000.0),  # 10 s
            kernel(products=1000.0, narrow=True),  # 5 s
            kernel(bytes=40, products=100.0),  # 4 s of bytes
            kernel(operations=500.0, times=2),  # 10 s each
        ),
        0,
    )
    assert limits_of(work, OWN) == {"launches": 6.0, "products": 15.0, "bytes": 4.0, "arithmetic": 20.0}


def test_a_rate_that_nobody_knows_never_counts():
    unknown = dataclasses.replace(OWN, launch=None, arithmetic=None)
    assert unknown.unknown == ["arithmetic", "launch"]
    assert limits_of(Work((kernel(operations=1e9, bytes=1),), 0), unknown) == {"bytes": 0.1}


def test_every_row_says_where_it_is_from():
    for machine in MACHINES.values():
        assert "published" in machine.source or machine.measured
        assert machine.measured == ("calibrated" in machine.source)


def test_a_device_of_a_file(tmp_path: Path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(dataclasses.asdict(OWN)))
    assert find_machine(str(path)) == OWN


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("gtx", {}, "--device is 'gtx', expected one of cpu, h200, .* or a JSON file"),
        ("", {"bandwidth": 0}, "bandwidth is 0, expected a number above 0"),
        ("", {"backend": "npu"}, "backend is 'npu', expected cpu, gpu or tpu"),
        ("", {"memory": None}, "memory is None, expected a number above 0"),
        ("", {"speed": 1}, "has .*speed, expected a JSON object with arithmetic, backend"),
    ],
)
def test_what_is_no_device_is_a_sentence(tmp_path: Path, name: str, change: dict, words: str):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**dataclasses.asdict(OWN), **change}))
    with pytest.raises(InputError, match=words):
        find_machine(name or str(path))
