"""The recurrence of an LSTM in one kernel of a GPU, beside XLA's loop over frames: a candidate, not yet used by sejax.

Compiled for an H200, a training step of the default model launches some 900 kernels, and the loop of its LSTM 37 more
for every two frames: more than all the rest. The candidate walks over all frames in one kernel, forward and backward,
with the state in registers. Both compute outputs and gradients of stacked runs; the JSON says how far they are apart
and what each takes. On a CPU the kernel is interpreted, so that only its values mean something there.
"""

import argparse
import statistics
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Float

from tools.benchmarks.sides import versions

ROWS = 16
"""Utterances that a kernel's program advances together: the fewest that tensor cores take."""


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def in_one_kernel(
    gates: Float[Array, "batch time 2 4 feature"],
    mask: Bool[Array, "batch time"],
    kernel: Float[Array, "2 feature gate"],
    interpret: bool,
) -> Float[Array, "batch time 2 feature"]:
    """Computes both directions of an LSTM, whose state does not change on padding.

    Args:
      gates: what the input adds to the gates (input, forget, cell, output) in either direction.
      mask: valid frames.
      kernel: from an output to the four gates of the next frame, side by side.
      interpret: whether the kernel runs as plain jax operations, on any device.

    Returns:
      The outputs in the dtype of `gates`. The second direction goes from the end to the start.
    """
    return _forward(gates, mask, kernel, interpret)[0]


def _forward(gates, mask, kernel, interpret):
    rows, width = gates.shape[0], gates.shape[-1]
    padded = _padded(gates, mask, kernel)
    of_gates, of_mask, of_kernel, of_frames = _blocks(padded[0])
    shape = (*padded[0].shape[:3], padded[0].shape[-1])
    out, cell = _call(
        _walk_forward,
        padded,
        [of_gates, of_mask, of_kernel],
        [(of_frames, shape, gates.dtype), (of_frames, shape, jnp.float32)],
        interpret,
    )
    return out[:rows, ..., :width], (padded, out, cell, kernel)


def _backward(interpret, kept, d_out):
    (gates, mask, by_gate), out, cell, kernel = kept
    rows, _, _, width = d_out.shape
    d_out = jnp.pad(d_out, [(0, of - n) for of, n in zip(out.shape, d_out.shape, strict=True)])
    of_gates, of_mask, of_kernel, of_frames = _blocks(gates)
    (d_gates,) = _call(
        _walk_backward,
        (gates, mask, by_gate, by_gate.swapaxes(-1, -2), out, cell, d_out),
        [of_gates, of_mask, of_kernel, of_kernel, of_frames, of_frames, of_frames],
        [(of_gates, gates.shape, gates.dtype)],
        interpret,
    )
    # The gradient of the kernel is one product over all frames.
    start = jnp.zeros_like(out[:, :1, :1])
    before = [jnp.concatenate([start, out[:, :-1, :1]], axis=1), jnp.concatenate([out[:, 1:, 1:], start], axis=1)]
    d_kernel = jnp.einsum(
        "btdh,btdkg->dhkg", jnp.concatenate(before, axis=2), d_gates, preferred_element_type=jnp.float32
    )
    d_kernel = d_kernel[:, :width, :, :width].reshape(kernel.shape).astype(kernel.dtype)
    return d_gates[:rows, ..., :width], None, d_kernel


in_one_kernel.defvjp(_forward, _backward)


def _padded(gates, mask, kernel):
    """Pads to a multiple of `ROWS` utterances and to a power of 2 features; the padding stays zero."""
    width = gates.shape[-1]
    more, wider = -gates.shape[0] % ROWS, max(16, 1 << (width - 1).bit_length()) - width
    by_gate = kernel.reshape(2, width, 4, width).transpose(0, 2, 1, 3)
    return (
        jnp.pad(gates, [(0, more), (0, 0), (0, 0), (0, 0), (0, wider)]),
        jnp.pad(mask.astype(jnp.int32), [(0, more), (0, 0)]),
        jnp.pad(by_gate, [(0, 0), (0, 0), (0, wider), (0, wider)]).astype(gates.dtype),
    )


def _blocks(gates):
    """Returns the part of a program, of one direction and `ROWS` utterances: gates, mask, kernel, values of frames."""
    _, time, _, _, width = gates.shape
    return (
        pl.BlockSpec((ROWS, time, None, 4, width), lambda d, b: (b, 0, d, 0, 0)),
        pl.BlockSpec((ROWS, time), lambda d, b: (b, 0)),
        pl.BlockSpec((None, 4, width, width), lambda d, b: (d, 0, 0, 0)),
        pl.BlockSpec((ROWS, time, None, width), lambda d, b: (b, 0, d, 0)),
    )


def _call(walk, arrays, blocks, outputs, interpret: bool):
    time = arrays[1].shape[1]
    return pl.pallas_call(
        partial(walk, time),
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in outputs],
        grid=(2, arrays[0].shape[0] // ROWS),
        in_specs=blocks,
        out_specs=[block for block, _, _ in outputs],
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name=walk.__name__.strip("_"),
    )(*arrays)


def _walk_forward(time, gates_ref, mask_ref, kernel_ref, out_ref, cell_ref):
    """Computes outputs and cells of one direction."""
    kernel = [kernel_ref[k] for k in range(4)]
    place = _places(time)

    def load(t):
        at = place(jnp.minimum(t, time - 1))
        return [gates_ref[:, at, k] for k in range(4)], mask_ref[:, at]

    def advance(t, carry):
        cell, out, (gate, valid) = carry
        following = load(t + 1)  # on its way while this frame is computed
        i, f, g, o = _activated(gate, out, kernel)
        keep = (valid > 0)[:, None]
        cell = jnp.where(keep, f * cell + i * g, cell)
        out = jnp.where(keep, (o * jnp.tanh(cell)).astype(out.dtype), out)
        out_ref[:, place(t)] = out
        cell_ref[:, place(t)] = cell
        return cell, out, following

    shape = (ROWS, kernel[0].shape[0])
    jax.lax.fori_loop(0, time, advance, (jnp.zeros(shape, jnp.float32), jnp.zeros(shape, out_ref.dtype), load(0)))


def _walk_backward(time, gates_ref, mask_ref, kernel_ref, transposed_ref, out_ref, cell_ref, d_out_ref, d_gates_ref):
    """Computes the gradient of one direction's gates, from the last frame to the first; gates are computed again."""
    kernel, transposed = ([ref[k] for k in range(4)] for ref in (kernel_ref, transposed_ref))
    place = _places(time)

    def load(step):
        t = jnp.maximum(time - 1 - step, 0)
        at, before = place(t), place(jnp.maximum(t - 1, 0))
        first = t == 0
        out, cell = (jnp.where(first, jnp.zeros((), ref.dtype), ref[:, before]) for ref in (out_ref, cell_ref))
        return [gates_ref[:, at, k] for k in range(4)], mask_ref[:, at], out, cell, cell_ref[:, at], d_out_ref[:, at]

    def retreat(step, carry):
        d_cell, d_later, (gate, valid, out, cell, new_cell, d_out) = carry
        following = load(step + 1)
        i, f, g, o = _activated(gate, out, kernel)
        keep = (valid > 0)[:, None]
        d_out = d_out.astype(jnp.float32) + d_later
        squashed = jnp.tanh(new_cell)
        d_new = d_cell + d_out * o * (1.0 - squashed * squashed)
        by_gate = [
            d_new * g * i * (1.0 - i),
            d_new * cell * f * (1.0 - f),
            d_new * i * (1.0 - g * g),
            d_out * squashed * o * (1.0 - o),
        ]
        by_gate = [jnp.where(keep, d, 0.0).astype(gate[0].dtype) for d in by_gate]
        at = place(time - 1 - step)
        for k, d in enumerate(by_gate):
            d_gates_ref[:, at, k] = d
        through = [jnp.dot(d, w, preferred_element_type=jnp.float32) for d, w in zip(by_gate, transposed, strict=True)]
        d_before = through[0] + through[1] + through[2] + through[3]
        return jnp.where(keep, d_new * f, d_cell), jnp.where(keep, d_before, d_out), following

    zero = jnp.zeros((ROWS, kernel[0].shape[0]), jnp.float32)
    jax.lax.fori_loop(0, time, retreat, (zero, zero, load(0)))


def _places(time: int):
    """Returns a function from the number of a frame in this program's direction to its place in time."""
    reverse = pl.program_id(0) == 1
    return lambda t: jnp.where(reverse, time - 1 - t, t)


def _activated(gate, out, kernel):
    """Returns the gates of a frame."""
    i, f, g, o = (
        x.astype(jnp.float32) + jnp.dot(out, w, preferred_element_type=jnp.float32)
        for x, w in zip(gate, kernel, strict=True)
    )
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def scanned(
    gates: Float[Array, "batch time 2 4 feature"],
    mask: Bool[Array, "batch time"],
    kernel: Float[Array, "2 feature gate"],
) -> Float[Array, "batch time 2 feature"]:
    """Computes the same as a loop of XLA's, as `sejax.nn.layers.LSTM` does."""
    batch, time_steps, _, _, width = gates.shape
    flat = gates.reshape(batch, time_steps, 2, 4 * width)
    flat = jnp.stack([flat[:, :, 0], flat[:, ::-1, 1]], axis=2).transpose(1, 2, 0, 3)
    valid = jnp.stack([mask, mask[:, ::-1]], axis=1).transpose(2, 1, 0)[..., None]

    def advance(carry, inputs):
        cell, out = carry
        gate, keep = inputs
        i, f, g, o = jnp.split(gate + jnp.einsum("dbh,dhg->dbg", out, kernel), 4, axis=-1)
        new_cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        carry = jnp.where(keep, new_cell, cell), jnp.where(keep, jax.nn.sigmoid(o) * jnp.tanh(new_cell), out)
        return carry, carry[1]

    zero = jnp.zeros((2, batch, width), gates.dtype)
    _, out = jax.lax.scan(advance, (zero, zero), (flat, valid), unroll=2)
    return jnp.stack([out[:, 0], out[::-1, 1]], axis=2).transpose(1, 0, 2, 3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, nargs="+", default=[118, 376], help="of 40 ms: 4.7 s and 15 s")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--features", type=int, default=32, help="per direction")
    parser.add_argument("--rounds", type=int, default=20)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures outputs and gradients of both, in turn, at every size."""
    interpret = jax.default_backend() == "cpu"
    sides = {"loop": scanned, "kernel": partial(in_one_kernel, interpret=interpret)}
    points = []
    for runs in arguments.runs:
        for frames in arguments.frames:
            inputs = _random_inputs(runs, arguments.batch, frames, arguments.features)
            computed, seconds = {}, dict[str, list[float]]((name, []) for name in sides)
            functions = {name: _with_gradients(side) for name, side in sides.items()}
            for name, function in functions.items():
                computed[name] = jax.block_until_ready(function(*inputs))
            for _ in range(arguments.rounds):
                for name, function in functions.items():
                    began = time.perf_counter()
                    jax.block_until_ready(function(*inputs))
                    seconds[name].append(time.perf_counter() - began)
            of = {name: statistics.median(taken) for name, taken in seconds.items()}
            points.append(
                {
                    "runs": runs,
                    "frames": frames,
                    "milliseconds": {name: 1e3 * median for name, median in of.items()},
                    "loop_over_kernel": of["loop"] / of["kernel"],
                    "most_apart": _apart(computed["kernel"], computed["loop"]),
                }
            )
    device = jax.devices()[0].device_kind
    return {"device": device, "interpreted": interpret, "versions": versions(), "points": points}


def _random_inputs(runs: int, batch: int, frames: int, width: int) -> tuple[Any, ...]:
    random = np.random.default_rng(0)

    def normal(scale: float, *shape: int):
        return jnp.asarray(scale * random.standard_normal((runs, *shape)), jnp.float32)

    lengths = random.integers(1, frames + 1, (runs, batch))
    return (
        normal(1.0, batch, frames, 2, 4, width),
        jnp.arange(frames) < lengths[..., None],
        normal(width**-0.5, 2, width, 4 * width),
        normal(1.0, batch, frames, 2, width),
    )


def _with_gradients(side: Any) -> Any:
    """Returns the outputs of stacked runs and their gradients, given those of the outputs."""

    def of_run(gates, mask, kernel, d_out):
        out, backward = jax.vjp(lambda gates, kernel: side(gates, mask, kernel), gates, kernel)
        return out, *backward(d_out)

    return jax.jit(jax.vmap(of_run))


def _apart(ours: Any, theirs: Any) -> float:
    """Returns the largest difference in units of the largest value of its array."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs)


def show(result: dict[str, Any]) -> None:
    print(f"{'runs':>5}{'frames':>8}{'loop ms':>10}{'kernel ms':>11}{'ratio':>7}{'apart':>10}")
    for point in result["points"]:
        loop, kernel = (point["milliseconds"][name] for name in ("loop", "kernel"))
        print(
            f"{point['runs']:5}{point['frames']:8}{loop:10.2f}{kernel:11.2f}{point['loop_over_kernel']:7.1f}"
            f"{point['most_apart']:10.1e}"
        )
