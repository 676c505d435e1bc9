"""Compiled programs. Later processes find them in a folder, and neither trace nor compile them again.

jax's own cache holds what XLA has compiled, but a function has to be traced to be found there, which takes seconds for
each length bucket. Here a program is found by what determines it: the code of sejax and of its libraries, the static
arguments, the shapes of the others, the devices, and the settings of jax and XLA.
"""

import hashlib
import importlib.metadata
import os
import pickle
import platform
import re
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable
from jax.stages import Compiled, Lowered

COMPILER_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {
        "xla_cpu_prefer_vector_width": 512,
        "xla_cpu_enable_concurrency_optimized_scheduler": False,
        "xla_backend_optimization_level": 1,
    }
}
"""By backend. XLA by itself takes vectors half as wide: an epoch is then 6 to 10 % slower on a CPU with AVX-512. And it
orders operations for many threads, not for the cache: a step of one run is then 6 % slower. It optimizes each kernel as
far as LLVM can, which takes a quarter of the time of compilation and makes no step faster."""

_SETTINGS = ("XLA_", "JAX_", "LIBTPU_", "TF_", "PJRT_", "CUDA_")
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


@dataclass(frozen=True)
class Wanted:
    """A program that is to be compiled."""

    function: Any  # of `jax.jit`
    arguments: tuple[Any, ...]  # arrays, or their shapes and shardings
    static: Mapping[str, Any]

    def lower(self) -> Lowered:
        """Traces the function."""
        return self.function.lower(*self.arguments, **self.static)

    @property
    def key(self) -> str | None:
        """What determines the program, as a digest; None if that cannot be written down."""
        leaves, structure = jax.tree.flatten(self.arguments)
        of_arrays = [(np.shape(x), str(x.dtype), _place(getattr(x, "sharding", None))) for x in leaves]
        static = {name: _place(x) if isinstance(x, jax.sharding.Sharding) else x for name, x in self.static.items()}
        function = f"{self.function.__module__}.{self.function.__qualname__}"
        written = repr((function, static, structure, of_arrays, _surroundings()))
        # The address of an object says nothing of it, and an array is not written in full.
        return None if " at 0x" in written or "..." in written else hashlib.sha256(written.encode()).hexdigest()


def compile_side_by_side(programs: Mapping[Any, Wanted]) -> dict[Any, Compiled]:
    """Returns programs as they were compiled before, or compiles them. While one is compiled, the next is traced."""
    with ThreadPoolExecutor(max(1, len(programs))) as pool:
        there = dict(zip(programs, pool.map(_load, programs.values()), strict=True))
        jobs = {
            name: pool.submit(_compile, wanted, wanted.lower())
            for name, wanted in programs.items()
            if there[name] is None
        }
    return {name: there[name] or jobs[name].result() for name in programs}


def call(function: Any, *arguments: Any, **static: Any) -> Any:
    """Calls a function of `jax.jit`, which is compiled as `compile_side_by_side` does, once for each key."""
    wanted = Wanted(function, arguments, static)
    if (key := wanted.key) is None:
        return function(*arguments, **static)
    if key not in _CALLED:
        _CALLED.update(compile_side_by_side({key: wanted}))
    return _CALLED[key](*arguments)


_CALLED: dict[str, Compiled] = {}


def _compile(wanted: Wanted, lowered: Lowered) -> Compiled:
    compiled = lowered.compile(compiler_options=COMPILER_OPTIONS.get(jax.default_backend()))
    if (path := _path(wanted)) is not None and not _calls_out(lowered):
        payload, inputs, outputs = serialize_executable.serialize(compiled)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        unfinished.write_bytes(zlib.compress(pickle.dumps((payload, inputs, outputs)), 1))
        unfinished.replace(path)
    return compiled


def _calls_out(lowered: Lowered) -> bool:
    """Returns whether a program calls functions, as those of LAPACK, that jax makes known when it traces them."""
    called = set(re.findall(r"custom_call @([\w.$]+)", lowered.as_text()))
    return bool(called - {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"})


def _load(wanted: Wanted) -> Compiled | None:
    """Returns a program that was compiled before, if there is one that can be read."""
    if (path := _path(wanted)) is None or not path.exists():
        return None
    # A file that another version wrote, or that is cut off, is compiled and written again.
    with suppress(Exception):
        return serialize_executable.deserialize_and_load(*pickle.loads(zlib.decompress(path.read_bytes())))
    return None


def _path(wanted: Wanted) -> Path | None:
    """Returns the file of a program, in the folder of jax's cache; None if there is none."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    if not folder or jax.process_count() > 1 or (key := wanted.key) is None:
        return None
    return Path(folder, "programs", key)


def _place(sharding: Any) -> Any:
    """Returns what tells shardings apart, as text."""
    return repr(sharding), [device.id for device in sorted(sharding.device_set, key=lambda x: x.id)] if sharding else []


@cache
def _code() -> str:
    """Returns a digest of the code of sejax."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _surroundings() -> tuple[Any, ...]:
    """Returns what determines every program: code, libraries, devices, settings."""
    device = jax.devices()[0]
    processor = ""
    if device.platform == "cpu":
        with suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            processor = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return (
        _code(),
        [(name, importlib.metadata.version(name)) for name in _LIBRARIES],
        platform.python_version(),
        (device.platform, device.device_kind, device.client.platform_version, len(jax.devices())),
        (platform.machine(), processor, len(os.sched_getaffinity(0))),
        sorted((name, value) for name, value in os.environ.items() if name.startswith(_SETTINGS)),
        sorted((name, str(value)) for name, value in jax.config.values.items() if not name.endswith("_dir")),
        COMPILER_OPTIONS.get(device.platform),
    )
