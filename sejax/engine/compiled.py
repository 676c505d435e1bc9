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
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding, Sharding
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
far as LLVM can, which takes a quarter of the time of compilation and makes no step faster. XLA_FLAGS go before."""

_SETTINGS = ("XLA_", "LIBTPU_", "PJRT_")  # how the names of environment variables begin
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
    def devices(self) -> list[jax.Device]:
        """The devices that the program runs on."""
        shardings = [x.sharding for x in jax.tree.leaves(self.arguments) if getattr(x, "sharding", None) is not None]
        widest = max(shardings, key=lambda sharding: len(sharding.device_set), default=None)
        if isinstance(widest, NamedSharding):
            return list(widest.mesh.devices.flat)
        return list(widest.device_set) if widest is not None else jax.devices()[:1]

    @property
    def key(self) -> str | None:
        """What determines the program, as a digest; None if that cannot be written down."""
        leaves, structure = jax.tree.flatten(self.arguments)
        of_arrays = [(np.shape(x), str(x.dtype), _place(getattr(x, "sharding", None))) for x in leaves]
        static = {name: _place(x) if isinstance(x, Sharding) else x for name, x in self.static.items()}
        function = f"{self.function.__module__}.{self.function.__qualname__}"
        written = repr((function, static, structure, of_arrays, _surroundings()))
        # The address of an object says nothing of it, and an array is not written in full.
        return None if " at 0x" in written or "..." in written else hashlib.sha256(written.encode()).hexdigest()


def compile_side_by_side(programs: Mapping[Any, Wanted]) -> dict[Any, Compiled]:
    """Returns programs as they were compiled before, or compiles them. While one is compiled, the next is traced."""
    paths = [_path(wanted) for wanted in programs.values()]  # settings may be those of this thread
    with ThreadPoolExecutor(max(1, len(programs))) as pool:
        there = list(pool.map(_load, programs.values(), paths))
        with _aside_of_jax() if any(paths) and not all(there) else nullcontext():
            results = [
                found or pool.submit(_compile, wanted.lower(), path)
                for wanted, path, found in zip(programs.values(), paths, there, strict=True)
            ]
            every = [result.result() if isinstance(result, Future) else result for result in results]
    return dict(zip(programs, every, strict=True))


@contextmanager
def _aside_of_jax() -> Iterator[None]:
    """Leaves out jax's own cache: a program that was read from there is not whole when it is written again."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # which otherwise stays as it was at its first use
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def call(function: Any, *arguments: Any, **static: Any) -> Any:
    """Calls a function of `jax.jit`, which is compiled as `compile_side_by_side` does, once for each key."""
    wanted = Wanted(function, arguments, static)
    if (key := wanted.key) is None:
        return function(*arguments, **static)
    if key not in _CALLED:
        _CALLED.update(compile_side_by_side({key: wanted}))
    return _CALLED[key](*arguments)


_CALLED: dict[str, Compiled] = {}


def _compile(lowered: Lowered, path: Path | None) -> Compiled:
    compiled = lowered.compile(compiler_options=_options())
    if path is not None and not _calls_out(lowered):
        _keep(path, zlib.compress(pickle.dumps(serialize_executable.serialize(compiled)), 1))
    return compiled


def _keep(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; a folder that cannot be written costs the next process time, no more."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(content)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def _calls_out(lowered: Lowered) -> bool:
    """Returns whether a program calls functions, as those of LAPACK, that jax makes known when it traces them."""
    called = set(re.findall(r"custom_call @([\w.$]+)", lowered.as_text()))
    return bool(called - {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"})


def _load(wanted: Wanted, path: Path | None) -> Compiled | None:
    """Returns a program that was compiled before, if there is one that can be read."""
    if path is None or not path.exists():
        return None
    # A file that is cut off or damaged is compiled and written again.
    with suppress(Exception):
        payload, inputs, outputs = pickle.loads(zlib.decompress(path.read_bytes()))
        devices = wanted.devices
        return serialize_executable.deserialize_and_load(payload, inputs, outputs, execution_devices=devices)
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


@cache
def _libraries() -> list[tuple[str, str]]:
    """Returns the versions of the libraries."""
    return [(name, importlib.metadata.version(name)) for name in _LIBRARIES]


@cache
def _processor() -> str:
    """Returns what the processor can do."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return ""


def _surroundings() -> tuple[Any, ...]:
    """Returns what determines every program: code, libraries, devices, settings."""
    device = jax.devices()[0]
    processor = _processor() if device.platform == "cpu" else ""
    return (
        _code(),
        _libraries(),
        platform.python_version(),
        (device.platform, device.device_kind, device.client.platform_version, len(jax.devices())),
        (platform.machine(), processor, len(os.sched_getaffinity(0))),
        sorted((name, value) for name, value in os.environ.items() if name.startswith(_SETTINGS)),
        # As they are in a context, where they may differ from `jax.config.values`.
        sorted((name, str(getattr(jax.config, name, None))) for name in jax.config.values if "_dir" not in name),
        _options(),
    )


def _options() -> dict[str, Any]:
    """Returns the options of the backend that XLA_FLAGS leave open."""
    flags = os.environ.get("XLA_FLAGS", "")
    options = COMPILER_OPTIONS.get(jax.default_backend(), {})
    return {name: value for name, value in options.items() if f"--{name}=" not in flags}
