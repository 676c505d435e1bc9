"""Attention on a CPU, in blocks that fit into its cache."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


@jax.custom_vjp
def attend_on_cpu(
    q: Float[Array, "batch head time_q feature"],
    k: Float[Array, "batch head time_m feature"],
    v: Float[Array, "batch head time_m feature"],
    mask: Bool[Array, "batch time_m"],
) -> Float[Array, "batch head time_q feature"]:
    """Computes attention of scaled queries in blocks of a few utterances, so that a block's weights stay in the cache.

    The weights `[time_q, time_m]` are not stored for the backward pass but computed again from their sums (as in
    FlashAttention; Dao et al., 2022): memory grows with the length, not with its square. The products are written so
    that only narrow arrays are transposed and every other operation on a wide array is a single pass.
    """
    return _attend_forward(q, k, v, mask)[0]


CACHE_BYTES = 2**20
"""The largest size of a block's attention weights: about the size of a core's cache."""
LONG_BYTES = 2**22
"""Likewise of a block of queries: smaller blocks are slower, for their products are too narrow."""
SMALL_SCORE = 40.0
"""Scores of at most this size are exponentiated as they are: e^40 times any length is far from the ends of float32."""


def _attend_forward(q, k, v, mask):
    def forward(q, k, v, mask):
        # An additional feature, -1e9 outside the mask, makes the product apply the mask.
        beyond = jnp.where(mask, 0.0, -1e9).astype(k.dtype)[..., None]
        q, k = jnp.concatenate([q, jnp.ones_like(q[..., :1])], axis=-1), jnp.concatenate([k, beyond], axis=-1)
        score = jnp.einsum("gqf,gmf->gqm", q, k, preferred_element_type=jnp.float32)
        most = score.max(axis=-1, keepdims=True)
        weight = jnp.exp(score - most)
        total = weight.sum(axis=-1, keepdims=True)
        y = jnp.einsum("gqm,gmf->gqf", weight.astype(v.dtype), v, preferred_element_type=jnp.float32) / total
        return y.astype(v.dtype), most + jnp.log(total)

    heads_mask = jnp.broadcast_to(mask[:, None], k.shape[:3])
    if _fitting(q, k):
        y, log_total = _in_blocks(forward, q, k, v, heads_mask)
    else:
        y, log_total = _long_forward(q, k, v, heads_mask)
    return y, (q, k, v, heads_mask, y, log_total)


def _attend_backward(kept, dy):
    def backward(q, k, v, mask, y, log_total, dy):
        # Without the barriers XLA turns the narrow transpositions into wide ones.
        q_t, dy_t = lax.optimization_barrier((q.swapaxes(1, 2), dy.swapaxes(1, 2)))
        score = jnp.einsum("gqf,gmf->gqm", q, k, preferred_element_type=jnp.float32)
        weight = jnp.exp(jnp.where(mask[:, None], score, -1e9) - log_total)
        dv_t = jnp.einsum("gfq,gqm->gfm", dy_t, weight.astype(v.dtype), preferred_element_type=jnp.float32)
        shift = (dy.astype(jnp.float32) * y.astype(jnp.float32)).sum(axis=-1, keepdims=True)
        dweight = jnp.einsum("gqf,gmf->gqm", dy, v, preferred_element_type=jnp.float32)
        dscore = (weight * (dweight - shift)).astype(v.dtype)
        dq = jnp.einsum("gqm,gmf->gqf", dscore, k, preferred_element_type=jnp.float32)
        dk_t = jnp.einsum("gfq,gqm->gfm", q_t, dscore, preferred_element_type=jnp.float32)
        dk_t, dv_t = lax.optimization_barrier((dk_t.astype(k.dtype), dv_t.astype(v.dtype)))
        return dq.astype(q.dtype), dk_t.swapaxes(1, 2), dv_t.swapaxes(1, 2)

    return *_in_blocks(backward, *kept, dy), None


def _fitting(q, k) -> int:
    """Returns the number of utterances whose attention weights, of all heads, fit into the cache together."""
    return CACHE_BYTES // (4 * q.shape[1] * q.shape[2] * k.shape[2])


def _in_blocks(f, q, k, *more):
    """Calls `f`, of arrays `[utterance x head, ...]`, on blocks of `[batch, head, ...]` that fit into the cache.

    A head of one utterance is the smallest block.
    """
    batch, heads = q.shape[:2]
    fit = _fitting(q, k)
    size = heads * max(n for n in range(1, batch + 1) if batch % n == 0 and n <= fit) if fit else 1
    blocks = [x.reshape(batch * heads // size, size, *x.shape[2:]) for x in (q, k, *more)]
    outputs = lax.map(lambda block: _with_runs_merged(f)(*block), blocks)
    return tuple(x.reshape(batch, heads, *x.shape[2:]) for x in outputs)


def _long_forward(q, k, v, mask):
    """Computes the same of utterances that do not fit into the cache, in blocks of some queries of one head."""

    def forward(q, k_t, v):
        score = jnp.einsum("gqf,gfm->gqm", q, k_t, preferred_element_type=jnp.float32)
        # No score is larger than the longest query times the longest key; where that is small, which it is in most
        # heads of trained models, a pass over the scores is saved.
        longest = [(x.astype(jnp.float32) ** 2).sum(axis=axis).max() for x, axis in ((q, 2), (k_t, 1))]
        most = lax.cond(
            longest[0] * longest[1] <= SMALL_SCORE**2,
            lambda score: jnp.zeros_like(score[..., :1]),
            lambda score: score.max(axis=-1, keepdims=True),
            score,
        )
        weight = jnp.exp(score - most)
        y = jnp.einsum("gqm,gmf->gqf", weight.astype(v.dtype), v, preferred_element_type=jnp.float32)
        y, total = y[..., :-1], jnp.maximum(y[..., -1:], jnp.finfo(jnp.float32).tiny)
        return (y / total).astype(v.dtype), most + jnp.log(total)

    batch, heads, time_q, _ = q.shape
    number = -(-4 * time_q * k.shape[2] // LONG_BYTES)
    size = -(-time_q // number)
    q = jnp.pad(q, ((0, 0), (0, 0), (0, number * size - time_q), (0, 0)))
    # An additional feature of ones makes the second product sum the weights too. Frames outside the mask add zeros, and
    # have a key of a frame inside, which leaves the largest score as it is: no pass over the weights is for the mask.
    v = jnp.where(mask[..., None], jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1), 0)
    inside = jnp.take_along_axis(k, mask.argmax(axis=-1)[..., None, None], axis=2)
    k_t = jnp.where(mask[..., None], k, inside).swapaxes(2, 3)
    k_t, v = (x.reshape(batch * heads, 1, *x.shape[2:]) for x in (k_t, v))

    def of_head(arrays):
        blocks, *others = arrays
        return lax.map(lambda block: _with_runs_merged(forward)(block, *others), blocks)

    outputs = lax.map(of_head, (q.reshape(batch * heads, number, 1, size, -1), k_t, v))
    return tuple(x.reshape(batch, heads, number * size, -1)[:, :, :time_q] for x in outputs)


def _with_runs_merged(f):
    """Returns `f`, a function of arrays `[utterance x head, ...]`, which under vmap gets all runs on that same axis.

    With one more axis, even of size 1, XLA on a CPU does not recognise the reductions that it has fast code for.
    """
    merged = jax.custom_batching.custom_vmap(f)

    @merged.def_vmap
    def over_runs(runs, batched, *arrays):
        of_runs = [x if b else jnp.broadcast_to(x, (runs, *x.shape)) for x, b in zip(arrays, batched, strict=True)]
        outputs = merged(*(x.reshape(-1, *x.shape[2:]) for x in of_runs))
        return tuple(x.reshape(runs, -1, *x.shape[1:]) for x in outputs), (True,) * len(outputs)

    return merged


attend_on_cpu.defvjp(_attend_forward, _attend_backward)
