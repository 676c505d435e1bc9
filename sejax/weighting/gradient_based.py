"""Schemes that need the gradient of every task at the shared representation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from sejax.weighting.core import Scalar, combine, moved, present_tasks, progress, scaled, widest

# A task whose gradient is smaller than this, relative to the largest, has no scale to be balanced by.
_SMALLEST_NORM = 1e-6


class JointState(NamedTuple):
    """State of `joint`."""

    weights: Float[Array, " task"]  # shape=(task,): w_k of the last update, 0 before the first
    head_weights: Float[Array, " task"]  # shape=(task,): 1 for a task that is present and has a prior, else 0
    seen: Bool[Array, " task"]  # shape=(task,): whether the task has been present yet
    fast: Float[Array, " task"]  # shape=(task,): fast moving average of the loss
    slow: Float[Array, " task"]  # shape=(task,): slow moving average of the loss
    norm: Float[Array, " task"]  # shape=(task,): moving average of the norm of the task's gradient


def joint(
    prior: Float[Array, " task"], *, fast: Scalar = 0.9, slow: Scalar = 0.99, norm_decay: Scalar = 0.9
) -> optax.GradientTransformationExtraArgs:
    r"""Weights by progress and by the size of each task's gradient at the shared representation.

    With :math:`r_k` as in `dynamic` and :math:`n_k` the moving average of the norm of task k's gradient (over
    all leaves),

    .. math:: w_k = K \frac{a_k r_k / n_k}{\sum_j a_j r_j / n_j}

    so that each task pushes the shared layers with its share, `w_k n_k` proportional to `a_k r_k`, whatever
    its scale. Heads get their own task's gradient as it is (`head_weights` is 1).

    A task whose `n_k` is not above 1e-6 of the largest pushes nothing and has no scale to balance: think of a
    head whose kernel starts at zero. Dividing by its norm would give it all the weight and take the others'
    away, so the largest norm stands in for its own until it has one. The average starts at the first norm
    above 0, and a norm that is not finite does not enter it.

    The paper's equations for its Joint Weighting are not public to us; its abstract says that it ensures
    balanced emotion representation during backpropagation. This is our reading of that.

    Args:
      prior: `a_k`, the share of each task, not negative.
      fast: decay of the fast average of the loss per update, in [0, 1).
      slow: decay of the slow average of the loss per update, in [0, 1), above `fast`.
      norm_decay: decay of the average of the gradient's norm per update, in [0, 1).

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` (not negative) and, optionally,
      `present`.

    Example:
      >>> scheme = joint(pair(0.5))
      >>> gradient = jnp.array([[1.0], [4.0]])  # [task, ...]: the second is four times as large
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 1.0]))
      >>> print(combined, state.weights, state.head_weights)
      [3.2] [1.6 0.4] [1. 1.]

    References:
      Bautista and Shin, `Speech Emotion Recognition Model Based on Joint Modeling of Discrete and Dimensional
      Emotion Representation <https://doi.org/10.3390/app15020623>`_, 2025

      Chen et al., `GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks
      <https://arxiv.org/abs/1711.02257>`_, 2018 (the relative: it learns its weights, this computes them)
    """

    def init_fn(params: optax.Params) -> JointState:
        del params
        return JointState(
            weights=jnp.zeros_like(prior),
            head_weights=jnp.zeros_like(prior),
            seen=jnp.zeros(prior.shape, dtype=bool),
            fast=jnp.zeros_like(prior),
            slow=jnp.zeros_like(prior),
            norm=jnp.zeros_like(prior),
        )

    def update_fn(
        updates: optax.Updates,
        state: JointState,
        params: optax.Params | None = None,
        *,
        losses: Float[Array, " task"],
        present: Bool[Array, " task"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, JointState]:
        del params, extra_args
        active = present_tasks(losses, present)
        new_fast = moved(state.fast, losses, fast, state.seen, active)
        new_slow = moved(state.slow, losses, slow, state.seen, active)
        norms = task_norms(updates).astype(prior.dtype)
        new_norm = moved(state.norm, norms, norm_decay, state.norm > 0, active & jnp.isfinite(norms))
        counts = active & (prior > 0)
        weights = scaled(prior * progress(new_fast, new_slow) / scales(new_norm, counts), active)
        return combine(updates, weights), JointState(
            weights=weights,
            head_weights=counts.astype(prior.dtype),
            seen=state.seen | active,
            fast=new_fast,
            slow=new_slow,
            norm=new_norm,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def task_norms(updates: optax.Updates) -> Float[Array, " task"]:
    """The norm of each task's gradient over all leaves, in float32 at least."""

    def square(leaf: Float[Array, "task ..."]) -> Float[Array, " task"]:
        wide = leaf.astype(widest(leaf.dtype, jnp.dtype("float32")))
        return jnp.sum(jnp.square(wide), axis=tuple(range(1, leaf.ndim)))

    squares = jax.tree.leaves(jax.tree.map(square, updates))
    dtype = widest(*(leaf.dtype for leaf in squares))
    return jnp.sqrt(sum((leaf.astype(dtype) for leaf in squares[1:]), start=squares[0].astype(dtype)))


def scales(norm: Float[Array, " task"], counts: Bool[Array, " task"]) -> Float[Array, " task"]:
    """What each task is divided by: its norm, or the largest norm for a task that has none to speak of."""
    largest = jnp.max(jnp.where(counts, norm, 0), initial=0)
    scale = jnp.where(norm > _SMALLEST_NORM * largest, norm, largest)
    return jnp.where(scale > 0, scale, 1)
