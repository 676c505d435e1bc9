"""How many runs are stacked, and what the plan says of it."""

from types import SimpleNamespace

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sejax.engine.plan import free_memory, largest_stack, used_devices
from sejax.engine.runs import Setting, enumerate_runs, even_slots
from sejax.errors import InputError

SETTING = Setting("static", {"weighting": "static"})


def even_for(n_runs: int, devices: int):
    runs = enumerate_runs(n_runs, [SETTING], [0])
    return lambda *, most: even_slots(runs, most=most, devices=devices)


@given(
    n_runs=st.integers(1, 300),
    devices=st.integers(1, 8),
    fixed=st.integers(0, 10**9),
    per_run=st.integers(1, 10**8),
    bend=st.floats(0.8, 1.2),
    free=st.integers(1, 10**10),
)
def test_the_stack_fits_and_is_found_in_few_compilations(n_runs, devices, fixed, per_run, bend, free):
    """Bytes that grow with the runs, not quite as a straight line."""
    even, compiled = even_for(n_runs, devices), []

    def needs(slots: int) -> int:
        compiled.append(slots)
        return fixed + int(per_run * slots**bend)

    slots = largest_stack(even, free, needs)
    assert slots == compiled[-1]
    assert compiled == sorted(set(compiled), reverse=True)
    assert needs(slots) <= free or slots == even(most=1)
    assert slots % devices == 0
    assert len(compiled) - 1 <= 12


def test_the_stack_is_the_largest_where_bytes_grow_straight():
    even = even_for(200, 1)
    # 10 + 2 n <= 100: 45 fit; 200 runs are then 5 chunks of 40.
    assert largest_stack(even, 100, lambda slots: 10 + 2 * slots) == 40
    assert largest_stack(even, 10_000, lambda slots: 10 + 2 * slots) == 200
    assert largest_stack(even, 5, lambda slots: 10 + 2 * slots) == 1


def test_devices_without_runs_are_not_used(monkeypatch: pytest.MonkeyPatch):
    runs, devices = enumerate_runs(2, [SETTING], [0, 1]), jax.local_devices()[:2] * 2
    assert len(used_devices(runs, devices, slots=0)) == 2
    assert len(used_devices(runs, devices[:1], slots=0)) == 1
    assert len(used_devices(runs, devices, slots=3)) == 1  # a checkpoint of one device
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(InputError, match="3 processes share 2 runs of a seed on 2 devices, which leaves none to proc"):
        used_devices(runs, devices, slots=0)


def test_free_memory_of_cores_is_shared(monkeypatch: pytest.MonkeyPatch):
    devices = jax.local_devices()[:2]
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10**6))
    assert free_memory(devices) == 500_000
