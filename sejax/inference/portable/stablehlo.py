"""Serialised StableHLO through jax.export, which jax calls without sejax (extra `stablehlo`)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.export
import numpy as np

from sejax.errors import InputError
from sejax.inference.portable.function import Portable

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def require_stablehlo() -> None:
    """Refuses to begin without the package that jax.export serialises with.

    Raises:
      InputError: it is not installed.
    """
    try:
        import flatbuffers
    except ImportError as error:
        raise InputError(
            "--format stablehlo needs flatbuffers, which is not installed, expected the extra: "
            "pip install 'sejax[stablehlo]'"
        ) from error
    del flatbuffers


def write_stablehlo(path: Path, portable: Portable, seconds: float) -> None:
    """Writes the function of a bundle for inputs of so many seconds, with a free batch, for every platform."""
    inputs = portable.inputs(seconds)
    function = jax.jit(partial(portable, names=[each.name for each in inputs]))
    (batch,) = jax.export.symbolic_shape("batch")
    specs = [jax.ShapeDtypeStruct((batch, *each.shape), each.dtype) for each in inputs]
    path.write_bytes(jax.export.export(function, platforms=PLATFORMS)(*specs).serialize())


def run_stablehlo(path: Path, arrays: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
    """Runs a file on arrays, in the order of the inputs, on this process's device."""
    return jax.device_get(jax.export.deserialize(bytearray(path.read_bytes())).call(*arrays.values()))
