"""Attention within a stream, between two streams, and over time into one vector.

`dtype` is what products are computed in. Every softmax, and in pooling also scores and sums, are float32.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sejax.models.layers import Dense, Dropout, LayerNorm


class Attention(nn.Module):
    """Multi-head scaled dot-product attention of `query` frames over `memory` frames.

    The keys have no bias: a key bias shifts all scores of a query alike, softmax removes it, and its
    gradient is rounding noise that Adam would turn into steps.
    """

    features: int
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "batch time_q feature"],
        memory: Float[Array, "batch time_m feature_m"],
        memory_mask: Bool[Array, "batch time_m"],
    ) -> Float[Array, "batch time_q {self.features}"]:
        shape = (self.heads, self.features // self.heads)
        q = Dense(shape, dtype=self.dtype, name="query")(query)
        k = Dense(shape, use_bias=False, dtype=self.dtype, name="key")(memory)
        v = Dense(shape, dtype=self.dtype, name="value")(memory)
        y = attend(q, k, v, memory_mask)
        return Dense(self.features, axis=(-2, -1), dtype=self.dtype, name="out")(y)


def attend(
    q: Float[Array, "batch time_q head feature"],
    k: Float[Array, "batch time_m head feature"],
    v: Float[Array, "batch time_m head feature"],
    mask: Bool[Array, "batch time_m"],
    *,
    by_hand: bool | None = None,
) -> Float[Array, "batch time_q head feature"]:
    """Scaled dot-product attention over the valid frames of the memory.

    `jax.nn.dot_product_attention`; on the CPU `_attend`, which takes half its time there.
    """
    if jax.default_backend() == "cpu" if by_hand is None else by_hand:
        q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        scale = jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
        return _attend(q * scale, k, v, mask[:, None, None, :]).transpose(0, 2, 1, 3)
    with jax.numpy_dtype_promotion("standard"):  # its logits and softmax are float32
        return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :])


@jax.custom_vjp
def _attend(
    q: Float[Array, "batch head time_q feature"],
    k: Float[Array, "batch head time_m feature"],
    v: Float[Array, "batch head time_m feature"],
    mask: Bool[Array, "batch 1 1 time_m"],
) -> Float[Array, "batch head time_q feature"]:
    """Attention of scaled queries.

    XLA's derivative transposes the weights `[time_q, time_m]` and their gradient in memory. Here every product
    is written so that only the narrow arrays are transposed, and the division by the sum of the weights is done
    on those too: the wide arrays are passed over seven times instead of fifteen.
    """
    return _attend_forward(q, k, v, mask)[0]


def _attend_forward(q, k, v, mask):
    score = jnp.where(mask, jnp.einsum("bnqf,bnmf->bnqm", q, k, preferred_element_type=jnp.float32), -1e9)
    weight = jnp.exp(score - score.max(axis=-1, keepdims=True))
    total = weight.sum(axis=-1, keepdims=True)
    weight = weight.astype(v.dtype)
    y = jnp.einsum("bnqm,bnmf->bnqf", weight, v, preferred_element_type=jnp.float32) / total
    return y.astype(v.dtype), (q, k, v, weight, total, y)


def _attend_backward(kept, dy):
    q, k, v, weight, total, y = kept
    dy = dy.astype(jnp.float32) / total
    shift = (dy * y).sum(axis=-1, keepdims=True)
    dy = dy.astype(v.dtype)
    dv = jnp.einsum("bnfq,bnqm->bnfm", dy.swapaxes(2, 3), weight).swapaxes(2, 3)
    dweight = jnp.einsum("bnqf,bnfm->bnqm", dy, v.swapaxes(2, 3), preferred_element_type=jnp.float32)
    dscore = (weight.astype(jnp.float32) * (dweight - shift)).astype(v.dtype)
    dq = jnp.einsum("bnqm,bnmf->bnqf", dscore, k)
    dk = jnp.einsum("bnfq,bnqm->bnfm", q.swapaxes(2, 3), dscore).swapaxes(2, 3)
    return dq, dk, dv, None


_attend.defvjp(_attend_forward, _attend_backward)


class Block(nn.Module):
    """A pre-norm Transformer block: attention, then a feed-forward layer, each with a residual."""

    features: int
    heads: int
    feed_forward: int = 2  # width of the hidden layer, in units of `features`
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], rate: Float[Array, ""]
    ) -> Float[Array, "batch time feature"]:
        y = LayerNorm(dtype=self.dtype)(x)
        x = x + Dropout()(Attention(self.features, self.heads, self.dtype, name="attention")(y, y, mask), rate)
        y = Dense(self.feed_forward * self.features, dtype=self.dtype)(LayerNorm(dtype=self.dtype)(x))
        y = Dense(self.features, dtype=self.dtype)(Dropout()(nn.gelu(y), rate))
        return x + Dropout()(y, rate)


class CoAttention(nn.Module):
    """What one stream finds in another: its frames attend over the other's frames (Zou et al., 2022)."""

    features: int
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time feature"],
        other: Float[Array, "batch time_o feature"],
        other_mask: Bool[Array, "batch time_o"],
        rate: Float[Array, ""],
    ) -> Float[Array, "batch time feature"]:
        y = Attention(self.features, self.heads, self.dtype, name="attention")(x, other, other_mask)
        return Dropout()(y, rate)


class AttentivePooling(nn.Module):
    """Attentive statistics pooling (Okabe et al., 2018): the weighted mean and deviation over valid frames."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch feature_out"]:
        score = Dense(1, use_bias=False)(jnp.tanh(Dense(x.shape[-1], dtype=self.dtype)(x)))[..., 0]
        weight, x = _over_frames(score, mask), x.astype(jnp.float32)
        mean = (weight * x).sum(axis=1)
        variance = (weight * (x - mean[:, None]) ** 2).sum(axis=1)
        return jnp.concatenate([mean, jnp.sqrt(variance + 1e-5)], axis=-1)


class GuidedPooling(nn.Module):
    """The mean of a stream's valid frames, weighted by what other streams say (Zou et al., 2022).

    The co-attention of CA-MSER: their pooled vectors, side by side, give the query by which each frame is
    weighed. (Its weights belong to positions in clips of one length; a query serves clips of any length.)
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time feature"],
        mask: Bool[Array, "batch time"],
        others: Float[Array, "batch _feature_o"],
    ) -> Float[Array, "batch feature"]:
        query = Dense(x.shape[-1], dtype=self.dtype, name="query")(others)
        key = Dense(x.shape[-1], use_bias=False, dtype=self.dtype, name="key")(x)
        x, key, query = (y.astype(jnp.float32) for y in (x, key, query))
        score = jnp.einsum("btf,bf->bt", key, query) / jnp.sqrt(jnp.asarray(x.shape[-1], x.dtype))
        return (_over_frames(score, mask) * x).sum(axis=1)


def _over_frames(score: Float[Array, "batch time"], mask: Bool[Array, "batch time"]) -> Float[Array, "batch time 1"]:
    """Softmax over the valid frames."""
    return jax.nn.softmax(jnp.where(mask, score, -jnp.inf), axis=-1)[..., None]
