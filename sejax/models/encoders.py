"""Encoders of streams, from frames to fewer frames of the model's width.

An encoder is one class and one row of `ENCODERS`. It is built with `width`, `layers`, `stride` and `dtype` (of the
layers). It takes `(x [batch, time, feature], mask [batch, time], rate [])`, where `rate` is the dropout rate, and
returns `(y [batch, time', width], mask [batch, time'])` with `time' = ceil(time / stride)`.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sejax.nn.attention import Block
from sejax.nn.layers import LSTM, Conv, Dense, Dropout, LayerNorm, mask_frames, sinusoids, stack_frames


class RecurrentEncoder(nn.Module):
    """A linear map of `stride` frames side by side, then bidirectional LSTM layers."""

    width: int
    layers: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], rate: Float[Array, ""]
    ) -> tuple[Float[Array, "batch time_out {self.width}"], Bool[Array, "batch time_out"]]:
        x, mask = stack_frames(x, mask, self.stride)
        x = Dense(self.width, dtype=self.dtype)(x)
        for _ in range(self.layers):
            y = LSTM(self.width // 2, dtype=self.dtype)(LayerNorm(dtype=self.dtype)(x), mask)
            x = x + Dropout()(y, rate)
        return LayerNorm(dtype=self.dtype)(x), mask


class TransformerEncoder(nn.Module):
    """A linear map of `stride` frames side by side with fixed position codes, then pre-norm Transformer blocks."""

    width: int
    layers: int
    stride: int
    heads: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], rate: Float[Array, ""]
    ) -> tuple[Float[Array, "batch time_out {self.width}"], Bool[Array, "batch time_out"]]:
        x, mask = stack_frames(x, mask, self.stride)
        x = Dense(self.width, dtype=self.dtype)(x)
        x = x + sinusoids(x.shape[1], self.width).astype(x.dtype)[None]
        for _ in range(self.layers):
            x = Block(self.width, self.heads, dtype=self.dtype)(x, mask, rate)
        return LayerNorm(dtype=self.dtype)(x), mask


class ConvEncoder(nn.Module):
    """A linear map of `stride` frames side by side (a convolution of that stride), then residual convolutions.

    Normalisation is per frame (layer norm), never across utterances: no statistic of another speaker, held out or not,
    enters an utterance's prediction.
    """

    width: int
    layers: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], rate: Float[Array, ""]
    ) -> tuple[Float[Array, "batch time_out {self.width}"], Bool[Array, "batch time_out"]]:
        x, mask = stack_frames(x, mask, self.stride)
        x = nn.gelu(Dense(self.width, dtype=self.dtype)(x))
        for _ in range(self.layers):
            y = Conv(self.width, width=5, dtype=self.dtype)(mask_frames(LayerNorm(dtype=self.dtype)(x), mask))
            x = x + Dropout()(nn.gelu(y), rate)
        return LayerNorm(dtype=self.dtype)(x), mask


class LinearEncoder(nn.Module):
    """A linear map of `stride` frames side by side, for features that already contain their context."""

    width: int
    layers: int  # unused: there is one map
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], rate: Float[Array, ""]
    ) -> tuple[Float[Array, "batch time_out {self.width}"], Bool[Array, "batch time_out"]]:
        x, mask = stack_frames(x, mask, self.stride)
        return LayerNorm(dtype=self.dtype)(Dense(self.width, dtype=self.dtype)(Dropout()(x, rate))), mask


ENCODERS = {
    "lstm": RecurrentEncoder,
    "transformer": TransformerEncoder,
    "conv": ConvEncoder,
    "linear": LinearEncoder,
}
"""The encoders that `config.model.encoder.<stream>` may name."""
