"""Layers that encoders and pretrained models share. None depends on values beyond an utterance's end.

A layer's `dtype` is that of its products' factors and of its output. Parameters, their gradients and all sums are
float32.
"""

import math
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sejax.nn.backend import on_cpu

LAYER_WEIGHTS = "layer_weights"
"""The name of the scores among the parameters of a `LayerMix`."""


def valid_frames(lengths: Int[Array, " batch"], time: int) -> Bool[Array, "batch {time}"]:
    """Returns which of so many frames (or samples) belong to each utterance: its first ones."""
    return jnp.arange(time, dtype=lengths.dtype)[None] < lengths[:, None]


def mask_frames(
    x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"]
) -> Float[Array, "batch time feature"]:
    """Returns `x` with zeros in every frame outside the mask, NaN included."""
    return jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(subscripts: str, x: Float[Array, "..."], kernel: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes an einsum in the dtype of `x`, whose sums are float32, and so is the kernel's gradient.

    The dtype of a sum is stated, since XLA is free to add the terms of a bfloat16 product in bfloat16, and does so on a
    CPU (jaxlib 0.11, in some layouts). Such a sum stops growing after a few hundred terms: a kernel then gets half of
    its gradient over the frames of a batch.

    Args:
      subscripts: as of `jnp.einsum`, with two operands. Each letter stands in two of the three terms or in all.
      x: the layer's input.
      kernel: float32.

    Returns:
      The product, in the dtype of `x`.
    """
    y = jnp.einsum(subscripts, x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)
    return y.astype(x.dtype)


def _product_forward(subscripts, x, kernel):
    return product(subscripts, x, kernel), (x, kernel)


def _product_backward(subscripts, kept, dy):
    x, kernel = kept
    of_x, of_kernel, of_y = re.split(",|->", subscripts)
    dx = jnp.einsum(f"{of_y},{of_kernel}->{of_x}", dy, kernel.astype(x.dtype), preferred_element_type=jnp.float32)
    dkernel = jnp.einsum(f"{of_x},{of_y}->{of_kernel}", x, dy, preferred_element_type=jnp.float32)
    return dx.astype(x.dtype), dkernel


product.defvjp(_product_forward, _product_backward)


class Dense(nn.Module):
    """A linear map over the last axes, those in `axis`."""

    features: int | tuple[int, ...]
    axis: int | tuple[int, ...] = -1
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        features = self.features if isinstance(self.features, tuple) else (self.features,)
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        inputs = x.shape[-len(axes) :]
        kernel = self.param("kernel", _flat_lecun_normal, inputs, features)
        kept, summed, new = "abcdef"[: x.ndim - len(axes)], "uvw"[: len(axes)], "xyz"[: len(features)]
        y = product(f"{kept}{summed},{summed}{new}->{kept}{new}", x.astype(self.dtype), kernel)
        return add_bias(y, self.param("bias", nn.initializers.zeros, features)) if self.use_bias else y


def _flat_lecun_normal(key, inputs: tuple[int, ...], features: tuple[int, ...]):
    """Returns the kernel of a linear map, whose variance is 1 over the product of `inputs`."""
    flat = nn.initializers.lecun_normal()(key, (math.prod(inputs), math.prod(features)))
    return flat.reshape(inputs + features)


def add_bias(y: Float[Array, "..."], bias: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `y + bias` in the dtype of `y`, added in float32.

    The bias's gradient is then a float32 sum. A bfloat16 sum over the frames of a batch stops growing after a few
    hundred terms (flax's Dense loses half of such a gradient).
    """
    bias = bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
    return (y.astype(jnp.float32) + bias).astype(y.dtype)


class LayerNorm(nn.Module):
    """A layer norm over features; its moments and the gradients of its parameters are summed in float32."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> Float[Array, "*batch feature"]:
        norm = nn.LayerNorm(dtype=jnp.float32)
        nn.share_scope(self, norm)
        return norm(x.astype(jnp.float32)).astype(self.dtype)


class Dropout(nn.Module):
    """Dropout whose rate may be a traced scalar, so that one program serves runs with different rates.

    `flax.linen.Dropout` branches on its rate and so needs a Python number. The key comes from the random stream
    "dropout"; without it the layer is the identity.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "..."], rate: Float[Array, ""]) -> Float[Array, "..."]:
        if not self.has_rng("dropout"):
            return x
        bits = jax.random.bits(self.make_rng("dropout"), x.shape)
        keep = (bits >> 8).astype(jnp.int32) >= (rate * 2**24).astype(jnp.int32)
        # A rate of 1 keeps nothing; the floor prevents 0/0 there.
        return jnp.where(keep, x / jnp.maximum(1.0 - rate, 1e-6).astype(x.dtype), jnp.zeros((), x.dtype))


class LayerMix(nn.Module):
    """A mixture of a pretrained model's hidden states by learned softmax weights (SUPERB; Yang et al., 2021).

    The input has the states side by side on its last axis, so `layers` times as many features as the output. All
    weights are equal at first.
    """

    layers: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> Float[Array, "*batch feature_out"]:
        score = self.param(LAYER_WEIGHTS, nn.initializers.zeros, (self.layers,))
        states = x.reshape(*x.shape[:-1], self.layers, -1)
        weight = jax.nn.softmax(score)
        if x.ndim == 2:
            # Statistics: a product for each utterance, whose gradient is one too. Runs that share a batch read it once.
            weight = jnp.broadcast_to(weight[None], states.shape[:2])
            return jnp.einsum("bl,blf->bf", weight, states)
        weight = weight.reshape(*[1] * (x.ndim - 1), -1, 1)
        return (states * weight).sum(axis=-2)  # frames, which are many: this fuses with the computation of x


class Conv(nn.Module):
    """A one-dimensional convolution over time, zero-padded to keep frames aligned.

    Output frame t is centred on input frame `stride * t` for every padded length, so padding a batch further changes no
    frame. On the CPU it runs as shifted slices and one matrix product: XLA's convolution is 30 to 60 times slower there
    inside a scan. The parameters are the same in both forms.
    """

    features: int
    width: int
    stride: int = 1
    unfold: bool | None = None  # None: by backend
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time feature"]) -> Float[Array, "batch time_out {self.features}"]:
        left = (self.width - 1) // 2
        right = self.width - 1 - left
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(in_axis=(0, 1)), (self.width, x.shape[-1], self.features)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        unfold = on_cpu() if self.unfold is None else self.unfold
        x = x.astype(self.dtype)
        if unfold:
            n_out = -(-x.shape[1] // self.stride)
            padded = jnp.pad(x, ((0, 0), (left, right + self.stride), (0, 0)))
            last = (n_out - 1) * self.stride + 1
            shifts = [padded[:, i : i + last : self.stride] for i in range(self.width)]
            y = product("btk,kf->btf", jnp.concatenate(shifts, axis=-1), kernel.reshape(-1, self.features))
        else:
            y = lax.conv_general_dilated(
                x, kernel.astype(self.dtype), (self.stride,), [(left, right)], dimension_numbers=("NWC", "WIO", "NWC")
            )
        return add_bias(y, bias)


def stack_frames(
    x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], n: int
) -> tuple[Float[Array, "batch time_out feature_out"], Bool[Array, "batch time_out"]]:
    """Returns a sequence `n` times shorter, in which `n` consecutive frames are concatenated to one."""
    extra = -x.shape[1] % n
    x = jnp.pad(mask_frames(x, mask), ((0, 0), (0, extra), (0, 0)))
    mask = jnp.pad(mask, ((0, 0), (0, extra)))
    # Not a reshape: fused with the computation of x, it keeps XLA from vectorising that loop on the CPU.
    return jnp.concatenate([x[:, i::n] for i in range(n)], axis=-1), mask[:, ::n]


class LSTM(nn.Module):
    """A bidirectional LSTM (Hochreiter & Schmidhuber, 1997; forget bias 1) whose state does not change on padding.

    The input products of all frames are one matrix product before the recurrence. Both directions advance in one scan,
    the backward one over the reversed sequence, which begins with the padding. The cell is float32.
    """

    features: int  # per direction
    unroll: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time feature_out"]:
        h = self.features
        w_in = self.param("input_kernel", nn.initializers.lecun_normal(), (x.shape[-1], 8 * h))
        w_rec = self.param("recurrent_kernel", nn.initializers.orthogonal(column_axis=-1), (2, h, 4 * h))
        bias = self.param("bias", _forget_gate_open, (2, 4 * h))
        gates = product("btf,fg->btg", x.astype(self.dtype), w_in).reshape(*x.shape[:2], 2, 4 * h)
        gates = add_bias(gates, bias)
        # [time, direction, batch, gate], the second direction from the end to the start
        gates = jnp.stack([gates[:, :, 0], gates[:, ::-1, 1]], axis=2).transpose(1, 2, 0, 3)
        valid = jnp.stack([mask, mask[:, ::-1]], axis=1).transpose(2, 1, 0)[..., None]

        def advance(carry, inputs):
            cell, out = carry
            gate, keep = inputs
            recurrent = product("dbh,dhg->dbg", out, w_rec)
            i, f, g, o = jnp.split(gate.astype(jnp.float32) + recurrent.astype(jnp.float32), 4, axis=-1)
            new_cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
            new_out = (nn.sigmoid(o) * jnp.tanh(new_cell)).astype(self.dtype)
            carry = jnp.where(keep, new_cell, cell), jnp.where(keep, new_out, out)
            return carry, carry[1]

        start = (jnp.zeros((2, x.shape[0], h), jnp.float32), jnp.zeros((2, x.shape[0], h), self.dtype))
        _, out = lax.scan(advance, start, (gates, valid), unroll=self.unroll)
        forward, backward = out[:, 0], out[::-1, 1]
        return jnp.concatenate([forward, backward], axis=-1).transpose(1, 0, 2)


def _forget_gate_open(key, shape, dtype=jnp.float32):
    """Returns biases of 1 at the forget gate and 0 elsewhere (Jozefowicz et al., 2015)."""
    return jnp.zeros(shape, dtype).at[:, shape[1] // 4 : shape[1] // 2].set(1.0)


def sinusoids(time: int, features: int) -> Float[Array, "{time} {features}"]:
    """Returns fixed position codes (Vaswani et al., 2017)."""
    rate = jnp.exp(jnp.arange(0, features, 2, dtype=jnp.float32) * (-jnp.log(10_000.0) / features))
    angle = jnp.arange(time, dtype=jnp.float32)[:, None] * rate[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)[:, :features]
