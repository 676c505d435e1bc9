"""Layers that encoders and pretrained models share. None depends on values beyond an utterance's end.

A layer's `dtype` is that of its products and of its output. Parameters and sums outside products are float32.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

LAYER_WEIGHTS = "layer_weights"
"""The name of the scores among the parameters of a `LayerMix`."""


def mask_frames(
    x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"]
) -> Float[Array, "batch time feature"]:
    """Returns `x` with zeros in every frame outside the mask, NaN included."""
    return jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))


class Dense(nn.Module):
    """A linear map over the axes `axis`."""

    features: int | tuple[int, ...]
    axis: int | tuple[int, ...] = -1
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        product = nn.DenseGeneral(self.features, axis=self.axis, use_bias=False, dtype=self.dtype)
        nn.share_scope(self, product)
        y = product(x)
        if not self.use_bias:
            return y
        shape = self.features if isinstance(self.features, tuple) else (self.features,)
        return add_bias(y, self.param("bias", nn.initializers.zeros, shape))


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
        keep = random_24_bits(self.make_rng("dropout"), x.shape) >= (rate * 2**24).astype(jnp.int32)
        # A rate of 1 keeps nothing; the floor prevents 0/0 there.
        return jnp.where(keep, x / jnp.maximum(1.0 - rate, 1e-6).astype(x.dtype), jnp.zeros((), x.dtype))


def random_24_bits(key: Key[Array, ""], shape: tuple[int, ...]) -> Int[Array, "..."]:
    """Returns random integers below 2^24: hashes of each element's number with the key.

    The hash is lowbias32 (Wellons, Hash prospector, 2018), with the key's second word mixed in between its rounds.
    Threefry, the generator of jax.random, has ten times the arithmetic: on a CPU a quarter of a training step.
    """
    low, high = jax.random.key_data(key)
    h = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) ^ low
    h = (h ^ (h >> 16)) * jnp.uint32(0x21F0AAAD)
    h = (h ^ (h >> 15) ^ high) * jnp.uint32(0xD35A2D97)
    return ((h ^ (h >> 15)) >> 8).astype(jnp.int32)


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
        weight = jax.nn.softmax(score).reshape(*[1] * (states.ndim - 2), -1, 1)
        return (states * weight).sum(axis=-2)  # not a matrix product: this fuses with the computation of x


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
        unfold = jax.default_backend() == "cpu" if self.unfold is None else self.unfold
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if unfold:
            n_out = -(-x.shape[1] // self.stride)
            padded = jnp.pad(x, ((0, 0), (left, right + self.stride), (0, 0)))
            last = (n_out - 1) * self.stride + 1
            shifts = [padded[:, i : i + last : self.stride] for i in range(self.width)]
            y = jnp.concatenate(shifts, axis=-1) @ kernel.reshape(-1, self.features)
        else:
            y = lax.conv_general_dilated(
                x, kernel, (self.stride,), [(left, right)], dimension_numbers=("NWC", "WIO", "NWC")
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
        gates = (x.astype(self.dtype) @ w_in.astype(self.dtype)).reshape(*x.shape[:2], 2, 4 * h)
        gates = add_bias(gates, bias)
        # [time, direction, batch, gate], the second direction from the end to the start
        gates = jnp.stack([gates[:, :, 0], gates[:, ::-1, 1]], axis=2).transpose(1, 2, 0, 3)
        valid = jnp.stack([mask, mask[:, ::-1]], axis=1).transpose(2, 1, 0)[..., None]

        def advance(carry, inputs):
            cell, out = carry
            gate, keep = inputs
            # The cast is inside: the gradient of the weights is then summed over time in float32.
            recurrent = jnp.einsum("dbh,dhg->dbg", out, w_rec.astype(self.dtype))
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
