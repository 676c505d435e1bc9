"""ONNX through jax2onnx, run by onnxruntime (extra `onnx`)."""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from jax.extend.core import jaxpr_as_fun

from sejax.errors import InputError
from sejax.inference.portable.function import Portable

OPSET = 26  # the first with the operator BitCast, which Whisper's spectrogram needs
LARGEST_BYTES = 2**31 - 1  # of a file: protobuf's limit


def require_onnx() -> None:
    """Refuses to begin without the extra.

    Raises:
      InputError: a package is not installed.
    """
    try:
        with _quiet():
            import jax2onnx
            import onnxruntime
    except ImportError as error:
        raise InputError(
            f"--format onnx needs {error.name}, which is not installed, expected the extra: pip install 'sejax[onnx]'"
        ) from error
    del jax2onnx, onnxruntime


def write_onnx(path: Path, portable: Portable, seconds: float) -> None:
    """Writes the function of a bundle for inputs of so many seconds, with a free batch.

    Raises:
      InputError: it is larger than an ONNX file can be.
    """
    import jax2onnx

    inputs = portable.inputs(seconds)
    function = partial(portable, names=[each.name for each in inputs])

    def each_utterance(*arrays: Any) -> Any:
        # jax2onnx lowers a free axis in few operations: it is that of the loop alone, around a batch of one.
        return jax.lax.map(lambda row: [x[0] for x in function(*(x[None] for x in row))], arrays)

    (batch,) = jax.export.symbolic_shape("batch")
    specs = [jax.ShapeDtypeStruct((batch, *each.shape), each.dtype) for each in inputs]
    # jax2onnx replaces functions of jax and flax while it traces; some of them fail under vmap and in scans.
    traced = jaxpr_as_fun(jax.make_jaxpr(each_utterance)(*specs))
    with _quiet():
        model = jax2onnx.to_onnx(
            traced,
            specs,
            opset=OPSET,
            input_names=[each.name for each in inputs],
            output_names=[each.name for each in portable.outputs],
        )
        _drop_unused(model.graph)
        size = model.ByteSize()
        if size > LARGEST_BYTES:
            raise InputError(f"{path}: needs {size / 1e9:.1f} GB, expected at most 2 GB, which an ONNX file can have")
        path.write_bytes(model.SerializeToString())


def run_onnx(path: Path, arrays: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
    """Runs a file on arrays, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of shapes that it cannot tell ahead
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(arrays))


def _drop_unused(graph: Any) -> set[str]:
    """Removes constants that nothing reads, of which onnxruntime warns one by one; returns the names that are read."""
    read = {output.name for output in graph.output}
    for node in graph.node:
        read.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.output:
                    read |= _drop_unused(inner)
    kept = [constant for constant in graph.initializer if constant.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return read


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences jax2onnx, which prints while it traces and logs each plugin that this jax has nothing for."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
