"""Attention within a stream, between two streams, and over time into one vector."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sejax.models.layers import Dropout


class Attention(nn.Module):
    """Multi-head scaled dot-product attention of `query` frames over `memory` frames.

    The keys have no bias: a key bias shifts all scores of a query alike, softmax removes it, and its
    gradient is rounding noise that Adam would turn into steps.
    """

    features: int
    heads: int

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "batch time_q feature"],
        memory: Float[Array, "batch time_m feature_m"],
        memory_mask: Bool[Array, "batch time_m"],
    ) -> Float[Array, "batch time_q {self.features}"]:
        shape = (self.heads, self.features // self.heads)
        q = nn.DenseGeneral(shape, name="query")(query)
        k = nn.DenseGeneral(shape, use_bias=False, name="key")(memory)
        v = nn.DenseGeneral(shape, name="value")(memory)
        y = jax.nn.dot_product_attention(q, k, v, mask=memory_mask[:, None, None, :])
        return nn.DenseGeneral(self.features, axis=(-2, -1), name="out")(y)


class Block(nn.Module):
    """A pre-norm Transformer block: attention, then a feed-forward layer, each with a residual."""

    features: int
    heads: int
    feed_forward: int = 2  # width of the hidden layer, in units of `features`

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], rate: Float[Array, ""]
    ) -> Float[Array, "batch time feature"]:
        y = nn.LayerNorm()(x)
        x = x + Dropout()(Attention(self.features, self.heads, name="attention")(y, y, mask), rate)
        y = nn.Dense(self.feed_forward * self.features)(nn.LayerNorm()(x))
        y = nn.Dense(self.features)(Dropout()(nn.gelu(y), rate))
        return x + Dropout()(y, rate)


class CoAttention(nn.Module):
    """What one stream finds in another: its frames attend over the other's frames (Zou et al., 2022)."""

    features: int
    heads: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time feature"],
        other: Float[Array, "batch time_o feature"],
        other_mask: Bool[Array, "batch time_o"],
        rate: Float[Array, ""],
    ) -> Float[Array, "batch time feature"]:
        y = Attention(self.features, self.heads, name="attention")(x, other, other_mask)
        return Dropout()(y, rate)


class AttentivePooling(nn.Module):
    """Attentive statistics pooling (Okabe et al., 2018): the weighted mean and deviation over valid frames."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch feature_out"]:
        score = nn.Dense(1, use_bias=False)(jnp.tanh(nn.Dense(x.shape[-1])(x)))[..., 0]
        weight = _over_frames(score, mask)
        mean = (weight * x).sum(axis=1)
        variance = (weight * (x - mean[:, None]) ** 2).sum(axis=1)
        return jnp.concatenate([mean, jnp.sqrt(variance + 1e-5)], axis=-1)


class GuidedPooling(nn.Module):
    """The mean of a stream's valid frames, weighted by what other streams say (Zou et al., 2022).

    The co-attention of CA-MSER: their pooled vectors, side by side, give the query by which each frame is
    weighed. (Its weights belong to positions in clips of one length; a query serves clips of any length.)
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time feature"],
        mask: Bool[Array, "batch time"],
        others: Float[Array, "batch _feature_o"],
    ) -> Float[Array, "batch feature"]:
        query = nn.Dense(x.shape[-1], name="query")(others)
        key = nn.Dense(x.shape[-1], use_bias=False, name="key")(x)
        score = jnp.einsum("btf,bf->bt", key, query) / jnp.sqrt(jnp.asarray(x.shape[-1], x.dtype))
        return (_over_frames(score, mask) * x).sum(axis=1)


def _over_frames(score: Float[Array, "batch time"], mask: Bool[Array, "batch time"]) -> Float[Array, "batch time 1"]:
    """Softmax over the valid frames."""
    return jax.nn.softmax(jnp.where(mask, score, -jnp.inf), axis=-1)[..., None]
