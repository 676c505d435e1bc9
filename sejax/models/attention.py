"""Attention within a stream, between two streams, and over time into one vector.

`dtype` is what products are computed in. Every softmax, and in pooling also scores and sums, are float32.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
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

    `jax.nn.dot_product_attention`; on the CPU `_attend`, which takes a third of its time there, and less memory.
    """
    if jax.default_backend() == "cpu" if by_hand is None else by_hand:
        q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        scale = jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
        return _attend(q * scale, k, v, mask).transpose(0, 2, 1, 3)
    with jax.numpy_dtype_promotion("standard"):  # its logits and softmax are float32
        return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :])


@jax.custom_vjp
def _attend(
    q: Float[Array, "batch head time_q feature"],
    k: Float[Array, "batch head time_m feature"],
    v: Float[Array, "batch head time_m feature"],
    mask: Bool[Array, "batch time_m"],
) -> Float[Array, "batch head time_q feature"]:
    """Attention of scaled queries, a few utterances after the other, so that a block's weights stay in the cache.

    The weights `[time_q, time_m]` are not kept for the way back but computed again from their sums (as in
    FlashAttention; Dao et al., 2022): memory grows with the length, not with its square. Every product is written
    so that only narrow arrays are transposed, and what else is done to wide ones is one pass each.
    """
    return _attend_forward(q, k, v, mask)[0]


CACHE_BYTES = 2**20
"""Of the attention weights of a block, at most: about what a core's cache holds."""


def _attend_forward(q, k, v, mask):
    def forward(q, k, v, mask):
        # A feature of -1e9 where the mask is off leaves the masking to the product.
        beyond = jnp.where(mask, 0.0, -1e9).astype(k.dtype)[..., None]
        q, k = jnp.concatenate([q, jnp.ones_like(q[..., :1])], axis=-1), jnp.concatenate([k, beyond], axis=-1)
        score = jnp.einsum("gqf,gmf->gqm", q, k, preferred_element_type=jnp.float32)
        most = score.max(axis=-1, keepdims=True)
        weight = jnp.exp(score - most)
        total = weight.sum(axis=-1, keepdims=True)
        y = jnp.einsum("gqm,gmf->gqf", weight.astype(v.dtype), v, preferred_element_type=jnp.float32) / total
        return y.astype(v.dtype), most + jnp.log(total)

    heads_mask = jnp.broadcast_to(mask[:, None], k.shape[:3])
    y, log_total = _in_blocks(forward, q, k, v, heads_mask)
    return y, (q, k, v, heads_mask, y, log_total)


def _attend_backward(kept, dy):
    def backward(q, k, v, mask, y, log_total, dy):
        # Without the barriers XLA turns the narrow transpositions into wide ones.
        q_t, dy_t = lax.optimization_barrier((q.swapaxes(1, 2), dy.swapaxes(1, 2)))
        score = jnp.einsum("gqf,gmf->gqm", q, k, preferred_element_type=jnp.float32)
        weight = jnp.exp(jnp.where(mask[:, None], score, -1e9) - log_total)
        dv_t = jnp.einsum("gfq,gqm->gfm", dy_t, weight.astype(v.dtype))
        shift = (dy.astype(jnp.float32) * y.astype(jnp.float32)).sum(axis=-1, keepdims=True)
        dweight = jnp.einsum("gqf,gmf->gqm", dy, v, preferred_element_type=jnp.float32)
        dscore = (weight * (dweight - shift)).astype(v.dtype)
        dq = jnp.einsum("gqm,gmf->gqf", dscore, k)
        dk_t, dv_t = lax.optimization_barrier((jnp.einsum("gfq,gqm->gfm", q_t, dscore), dv_t))
        return dq, dk_t.swapaxes(1, 2), dv_t.swapaxes(1, 2)

    return *_in_blocks(backward, *kept, dy), None


_attend.defvjp(_attend_forward, _attend_backward)


def _in_blocks(f, q, k, *more):
    """`f` of arrays `[utterance x head, ...]`, on as many utterances of `[batch, head, ...]` as the cache holds."""
    batch, heads, time_q, _ = q.shape
    fit = max(1, CACHE_BYTES // (4 * heads * time_q * k.shape[2]))
    size = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= fit)
    blocks = [x.reshape(batch // size, size * heads, *x.shape[2:]) for x in (q, k, *more)]
    found = lax.map(lambda block: _with_runs_merged(f)(*block), blocks)
    return tuple(x.reshape(batch, heads, *x.shape[2:]) for x in found)


def _with_runs_merged(f):
    """`f` of arrays `[utterance x head, ...]`; vmapped over runs, it sees those of all runs on that same axis.

    With an axis more, be it of size 1, XLA on a CPU does not know the reductions again that it is fast at.
    """
    merged = jax.custom_batching.custom_vmap(f)

    @merged.def_vmap
    def over_runs(runs, batched, *arrays):
        own = [x if b else jnp.broadcast_to(x, (runs, *x.shape)) for x, b in zip(arrays, batched, strict=True)]
        found = merged(*(x.reshape(-1, *x.shape[2:]) for x in own))
        return tuple(x.reshape(runs, -1, *x.shape[1:]) for x in found), (True,) * len(found)

    return merged


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
