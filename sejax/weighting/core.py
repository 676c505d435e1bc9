"""What the schemes are made of: combining gradients, presence, moving averages."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

Scalar = float | Float[Array, ""]


def pair(alpha: Scalar) -> Float[Array, " 2"]:
    """The prior of two tasks, class and VAD: `[alpha, 1 - alpha]`, with `alpha` in [0, 1]."""
    alpha = jnp.asarray(alpha)
    return jnp.stack([alpha, 1 - alpha])


def combine(updates: optax.Updates, weights: Float[Array, " task"]) -> optax.Updates:
    """`sum_k w_k g_k` over the leading axis of every leaf.

    A task of weight 0 does not enter, whatever its gradient holds. The sum is done in the wider of the two
    types, and leaves keep their own. It is what every scheme does to `updates`; with `head_weights` it does
    it to the heads.
    """

    def weighted_sum(leaf: Float[Array, "task ..."]) -> Float[Array, "..."]:
        dtype = widest(leaf.dtype, weights.dtype)
        column = jnp.expand_dims(weights.astype(dtype), tuple(range(1, leaf.ndim)))
        weighted = jnp.where(column != 0, column * leaf.astype(dtype), 0)
        return jnp.sum(weighted, axis=0).astype(leaf.dtype)

    return jax.tree.map(weighted_sum, updates)


def observed(
    losses: Float[Array, " task"], present: Bool[Array, " task"] | None, dtype: jnp.dtype
) -> tuple[Float[Array, " task"], Bool[Array, " task"]]:
    """The losses in the type of the state, 0 for the tasks that are absent, and which tasks are not.

    A loss too large for that type is not finite there, and its task is absent.
    """
    losses = losses.astype(dtype)
    active = jnp.isfinite(losses)
    if present is not None:
        active = active & present
    return jnp.where(active, losses, 0), active


def scaled(raw: Float[Array, " task"], active: Bool[Array, " task"]) -> Float[Array, " task"]:
    """`raw`, 0 for the tasks that are not active, scaled to sum to the number of those that are."""
    raw = jnp.where(active, raw, 0)
    total = jnp.sum(raw)
    number = jnp.sum(active.astype(raw.dtype))
    return jnp.where(total > 0, number * raw / jnp.where(total > 0, total, 1), 0)


def tilted(
    prior: Float[Array, " task"], exponent: Float[Array, " task"], active: Bool[Array, " task"]
) -> Float[Array, " task"]:
    """`a_k exp(x_k)` of the active tasks, scaled to sum to their number: their softmax, tilted by the prior."""
    limit = jnp.finfo(exponent.dtype).max / 4  # the difference of two exponents stays finite
    exponent = jnp.clip(exponent, -limit, limit)
    # Shifted as in any softmax, by the largest exponent that counts.
    counts = active & (prior > 0)
    shift = jnp.max(jnp.where(counts, exponent, -jnp.inf), initial=-jnp.inf)
    return scaled(prior * jnp.exp(jnp.where(counts, exponent - shift, 0)), active)


def moved(
    average: Float[Array, " task"],
    value: Float[Array, " task"],
    decay: Scalar,
    seen: Bool[Array, " task"],
    active: Bool[Array, " task"],
) -> Float[Array, " task"]:
    """The moving average after `value`: at its first value there, unmoved where the task is not active."""
    value = value.astype(average.dtype)
    return jnp.where(active, jnp.where(seen, decay * average + (1 - decay) * value, value), average)


def progress(fast: Float[Array, " task"], slow: Float[Array, " task"]) -> Float[Array, " task"]:
    """`r_k = fast_k / slow_k`; a loss that has only been 0 makes no progress: r = 1."""
    tiny = jnp.finfo(fast.dtype).tiny
    return (fast + tiny) / (slow + tiny)


def widest(*dtypes: jnp.dtype) -> jnp.dtype:
    """The floating type of most bits (`jnp.promote_types` refuses to mix them under strict promotion)."""
    return max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)
