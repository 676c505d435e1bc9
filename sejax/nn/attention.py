"""Attention within a stream, between two streams, and over time into one vector.

`dtype` is that of the products. Every softmax is float32, and so are the scores and sums of pooling.

Where flax's collection `INTERMEDIATES` is mutable, each of these layers leaves there what it attends to: `WEIGHTS`, a
weight for each frame of the memory, of sum 1 over its valid frames.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sejax.nn.backend import on_cpu
from sejax.nn.cpu_attention import attend_on_cpu
from sejax.nn.layers import Dense, Dropout, LayerNorm

INTERMEDIATES = "intermediates"
WEIGHTS = "attention_weights"
_BY_HAND: ContextVar[bool | None] = ContextVar("by_hand", default=None)


@contextmanager
def attention_of_jax() -> Iterator[None]:
    """Makes `attend` jax's own attention in what is traced inside: other compilers and devices know its operations.

    A function that was traced outside before, with `jax.jit` around it, stays as it is.
    """
    token = _BY_HAND.set(False)
    try:
        yield
    finally:
        _BY_HAND.reset(token)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention of `query` frames over `memory` frames.

    The keys have no bias. A key bias shifts all scores of a query alike and softmax removes it; its gradient is
    rounding noise that Adam would turn into steps.
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
        query_mask: Bool[Array, "batch time_q"],
    ) -> Float[Array, "batch time_q {self.features}"]:
        shape = (self.heads, self.features // self.heads)
        q = Dense(shape, dtype=self.dtype, name="query")(query)
        k = Dense(shape, use_bias=False, dtype=self.dtype, name="key")(memory)
        v = Dense(shape, dtype=self.dtype, name="value")(memory)
        y = attend(q, k, v, memory_mask)
        if self.is_mutable_collection(INTERMEDIATES):
            self.sow(INTERMEDIATES, WEIGHTS, attended(*jax.lax.stop_gradient((q, k)), memory_mask, query_mask))
        return Dense(self.features, axis=(-2, -1), dtype=self.dtype, name="out")(y)


def attend(
    q: Float[Array, "batch time_q head feature"],
    k: Float[Array, "batch time_m head feature"],
    v: Float[Array, "batch time_m head feature"],
    mask: Bool[Array, "batch time_m"],
    *,
    by_hand: bool | None = None,
) -> Float[Array, "batch time_q head feature"]:
    """Computes scaled dot-product attention over the valid frames of the memory.

    It is `jax.nn.dot_product_attention`, or on the CPU `attend_on_cpu`, which needs a third of the time and less
    memory.

    Args:
      q: queries.
      k: keys.
      v: values.
      mask: valid frames of the memory.
      by_hand: whether `attend_on_cpu` is used; None decides by the backend, unless `attention_of_jax` is around.
    """
    by_hand = _BY_HAND.get() if by_hand is None else by_hand
    if on_cpu() if by_hand is None else by_hand:
        q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        scale = jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
        return attend_on_cpu(q * scale, k, v, mask).transpose(0, 2, 1, 3)
    with jax.numpy_dtype_promotion("standard"):  # its logits and softmax are float32
        return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :])


def attended(
    q: Float[Array, "batch time_q head feature"],
    k: Float[Array, "batch time_m head feature"],
    memory_mask: Bool[Array, "batch time_m"],
    query_mask: Bool[Array, "batch time_q"],
) -> Float[Array, "batch time_m"]:
    """Returns how much the valid queries attend to each frame of the memory: the mean over them and over the heads.

    The output of `attend` is linear in the values, with the attention weights as its coefficients: these are read from
    its derivative, whichever way it is computed, and no weight `[time_q, time_m]` is kept.
    """
    share = query_mask.astype(jnp.float32)
    share = share / jnp.maximum(share.sum(axis=1, keepdims=True), 1.0)
    of_first_feature = jnp.zeros_like(q).at[..., 0].set((share / float(q.shape[2])).astype(q.dtype)[..., None])
    _, backward = jax.vjp(lambda v: attend(q, k, v, memory_mask), jnp.zeros_like(k))
    (weights,) = backward(of_first_feature)
    return weights[..., 0].astype(jnp.float32).sum(axis=-1)


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
        x = x + Dropout()(Attention(self.features, self.heads, self.dtype, name="attention")(y, y, mask, mask), rate)
        y = Dense(self.feed_forward * self.features, dtype=self.dtype)(LayerNorm(dtype=self.dtype)(x))
        y = Dense(self.features, dtype=self.dtype)(Dropout()(nn.gelu(y), rate))
        return x + Dropout()(y, rate)


class CoAttention(nn.Module):
    """Attention of one stream's frames over another's (Zou et al., 2022)."""

    features: int
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time feature"],
        mask: Bool[Array, "batch time"],
        other: Float[Array, "batch time_o feature"],
        other_mask: Bool[Array, "batch time_o"],
        rate: Float[Array, ""],
    ) -> Float[Array, "batch time feature"]:
        y = Attention(self.features, self.heads, self.dtype, name="attention")(x, other, other_mask, mask)
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
        self.sow(INTERMEDIATES, WEIGHTS, weight[..., 0])
        mean = (weight * x).sum(axis=1)
        variance = (weight * (x - mean[:, None]) ** 2).sum(axis=1)
        return jnp.concatenate([mean, jnp.sqrt(variance + 1e-5)], axis=-1)


class GuidedPooling(nn.Module):
    """The mean of a stream's valid frames, weighted by a query from other streams (Zou et al., 2022).

    This is the co-attention of CA-MSER: the pooled vectors of the others, side by side, give the query that weights
    each frame. (In CA-MSER the weights belong to positions in clips of one length; a query serves clips of any length.)
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
        weight = _over_frames(score, mask)
        self.sow(INTERMEDIATES, WEIGHTS, weight[..., 0])
        return (weight * x).sum(axis=1)


def _over_frames(score: Float[Array, "batch time"], mask: Bool[Array, "batch time"]) -> Float[Array, "batch time 1"]:
    """Computes the softmax over the valid frames."""
    return jax.nn.softmax(jnp.where(mask, score, -jnp.inf), axis=-1)[..., None]
