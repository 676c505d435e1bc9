"""The devices that a study can be planned for, as a table of what was measured on them or published about them.

A kernel takes the longest of four times: that of its launch, of its matrix products, of its other arithmetic and of the
bytes that it moves. Each has a rate here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from sejax.errors import InputError, shown
from sejax.host.json_files import read_json
from sejax.planning.kernels import Kernel


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One device. A rate that nobody knows is None: times are then at least so long."""

    backend: Literal["cpu", "gpu", "tpu"]
    memory: float  # bytes that jax takes of it: of a GPU, three quarters
    products: float  # of float32 as jax computes them, operations per second
    narrow_products: float  # of 16 bits
    arithmetic: float | None  # other operations per second
    bandwidth: float  # bytes per second
    launch: float | None  # seconds from a kernel's begin to the next one's, at least
    threads: float = 1.0  # speed of an operation that has two cores of a CPU, relative to one
    measured: bool  # whether a study's time was measured on it
    source: str  # where the numbers are from

    def times(self, kernel: Kernel) -> dict[str, float]:
        """Returns the seconds of each of a kernel's limits, of which the longest counts."""
        rate = self.narrow_products if kernel.narrow else self.products
        return {
            "launches": self.launch or 0.0,
            "products": kernel.products / rate,
            "arithmetic": kernel.operations / self.arithmetic if self.arithmetic else 0.0,
            "bytes": kernel.bytes / self.bandwidth,
        }

    @property
    def unknown(self) -> list[str]:
        """The names of the rates that nobody knows."""
        return [name for name in ("arithmetic", "launch") if getattr(self, name) is None]


_H200_LAUNCH, _H200_SHARE = 1.4e-6, 0.6
_AS_H200 = (
    "published rates of products and arithmetic (NVIDIA's data sheet, without sparsity); a kernel's launch, and the "
    f"share of the published bandwidth that kernels reach ({_H200_SHARE:g}), are those measured on an H200"
)


def _nvidia(*, memory: float, tf32: float, bfloat16: float, float32: float, bandwidth: float, **words: Any) -> Machine:
    """Returns a GPU by its published numbers, in the units of NVIDIA's data sheets: GB, TFLOP/s, GB/s."""
    return Machine(
        backend="gpu",
        memory=0.75 * memory * 1e9,
        products=tf32 * 1e12,
        narrow_products=bfloat16 * 1e12,
        arithmetic=float32 * 1e12,
        bandwidth=_H200_SHARE * bandwidth * 1e9,
        launch=_H200_LAUNCH,
        **{"measured": False, "source": _AS_H200, **words},
    )


MACHINES: Mapping[str, Machine] = {
    "cpu": Machine(
        backend="cpu",
        memory=12e9,
        products=220e9,
        narrow_products=220e9,
        arithmetic=23.2e9,
        bandwidth=17.2e9,
        launch=0.2e-6,
        threads=1.53,
        measured=True,
        source="a core of an AMD CPU with AVX-512 and 12 GB of memory: large products measured, arithmetic, bytes and "
        "threads calibrated on three trainings",
    ),
    "h200": _nvidia(
        memory=141.0,
        tf32=494.7,
        bfloat16=989.4,
        float32=66.9,
        bandwidth=4800.0,
        measured=True,
        source="launch and share of the published bandwidth calibrated on two trainings; other rates published",
    ),
    "h100": _nvidia(memory=80.0, tf32=494.7, bfloat16=989.4, float32=66.9, bandwidth=3350.0),
    "a100": _nvidia(memory=80.0, tf32=156.0, bfloat16=312.0, float32=19.5, bandwidth=2039.0),
    "l40s": _nvidia(memory=48.0, tf32=183.0, bfloat16=362.0, float32=91.6, bandwidth=864.0),
    "tpu-v5e": Machine(
        backend="tpu",
        memory=16e9,
        products=197e12,
        narrow_products=197e12,
        arithmetic=None,
        bandwidth=819e9,
        launch=None,
        measured=False,
        source="published (Google's page of the TPU v5e); its float32 products are of bfloat16 factors",
    ),
}


def find_machine(name: str) -> Machine:
    """Returns a machine of the table, or one that a JSON file describes.

    Raises:
      InputError: no such machine, or a file that does not describe one.
    """
    if name in MACHINES:
        return MACHINES[name]
    if name.endswith(".json"):
        return read_machine(Path(name).expanduser())
    raise InputError(f"--device is {name!r}, expected one of {', '.join(MACHINES)}, or a JSON file with its rates")


def read_machine(path: Path) -> Machine:
    """Reads a machine from a JSON object that has the fields of `Machine`.

    Raises:
      InputError: the file cannot be read, or a field is missing, unknown or wrong.
    """
    tree = read_json(path, "a JSON object that describes a device")
    names = {field.name for field in fields(Machine)}
    required = names - {"threads"}
    if not isinstance(tree, dict) or not required <= tree.keys() <= names:
        found = ", ".join(tree) if isinstance(tree, dict) else shown(tree)
        raise InputError(f"{path}: has {found or 'nothing'}, expected a JSON object with {', '.join(sorted(names))}")
    for name, value in tree.items():
        if expected := _mistake(name, value):
            raise InputError(f"{path}: {name} is {shown(value)}, expected {expected}")
    # JSON knows no difference between 1 and 1.0.
    values: dict[str, Any] = {name: float(x) if type(x) is int else x for name, x in tree.items()}
    return Machine(**values)


def _mistake(name: str, value: Any) -> str:
    """Returns what is expected of a field; empty if it is right."""
    if name == "backend":
        return "" if value in ("cpu", "gpu", "tpu") else "cpu, gpu or tpu"
    if name == "measured":
        return "" if isinstance(value, bool) else "true or false"
    if name == "source":
        return "" if isinstance(value, str) else "text"
    if value is None and name in ("arithmetic", "launch"):
        return ""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "" if is_number and 0 < value < math.inf else "a number above 0"
