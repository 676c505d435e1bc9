"""Schemes that need the gradient of every task at the shared representation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from sejax.weighting.core import Scalar, combine, moved, observed, progress, scaled, widest

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
        losses, active = observed(losses, present, prior.dtype)
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


class GradNormState(NamedTuple):
    """State of `gradnorm`."""

    weights: Float[Array, " task"]  # shape=(task,): w_k of the last update, 0 before the first
    head_weights: Float[Array, " task"]  # shape=(task,): 1 for a task that takes part, else 0
    learned: Float[Array, " task"]  # shape=(task,): the multiple of the prior that has been learned, from 1
    initial: Float[Array, " task"]  # shape=(task,): the first loss above 0, 0 until there is one


def gradnorm(
    prior: Float[Array, " task"], *, learning_rate: Scalar = 0.025, asymmetry: Scalar = 1.5
) -> optax.GradientTransformationExtraArgs:
    r"""Weights that are learned, so that the tasks train at similar rates.

    With the norms :math:`n_k` of the gradients at the shared representation (over all leaves), each task is to
    push by its share of the average push, and by more the less its loss has fallen:

    .. math::
      N_k = w_k n_k, \qquad
      r_k = \frac{L_k / L_k(0)}{\mathrm{mean}_j \, L_j / L_j(0)}, \qquad
      L_{\mathrm{grad}} = \sum_k \left| N_k - K a_k r_k^\alpha \, \mathrm{mean}_j N_j \right|

    The targets, products of prior, rate and mean, are held constant, and after each step of gradient descent
    the weights are scaled to sum to K. They start at the prior; uniform, it is the paper's rule.

    As in other implementations the descent is on :math:`\log w`, so that weights stay positive, and here on
    :math:`L_{\mathrm{grad}}` relative to the mean of :math:`N_j`, so that the speed of it, at most
    `K learning_rate` per step, does not depend on the units of the losses:

    .. math:: \log w_k \leftarrow \log w_k - \eta \, \mathrm{sign}(N_k - \mathrm{target}_k) N_k / \mathrm{mean}_j N_j

    A task whose norm is not above 1e-6 of the largest has nothing to balance (see `joint`): its weight is not
    learned until it has. A loss that has only been 0 has made no progress.

    Args:
      prior: `a_k`, the share of each task, not negative.
      learning_rate: `eta`, of the logarithms of the weights.
      asymmetry: `alpha`, how strongly a task that lags is pulled back; 0 balances the norms alone.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` (not negative) and, optionally,
      `present`.

    Example:
      >>> scheme = gradnorm(pair(0.5))
      >>> gradient = jnp.array([[1.0], [4.0]])  # [task, ...]: the second is four times as large
      >>> state = scheme.init(gradient[0])
      >>> for _ in range(100):
      ...     combined, state = scheme.update(gradient, state, losses=jnp.array([1.0, 1.0]))
      >>> print(state.weights.round(1))
      [1.6 0.4]

    Reference:
      Chen et al., `GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks
      <https://arxiv.org/abs/1711.02257>`_, 2018
    """

    def init_fn(params: optax.Params) -> GradNormState:
        del params
        zeros = jnp.zeros_like(prior)
        return GradNormState(weights=zeros, head_weights=zeros, learned=jnp.ones_like(prior), initial=zeros)

    def update_fn(
        updates: optax.Updates,
        state: GradNormState,
        params: optax.Params | None = None,
        *,
        losses: Float[Array, " task"],
        present: Bool[Array, " task"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GradNormState]:
        del params, extra_args
        norms = task_norms(updates).astype(prior.dtype)
        losses, present = observed(losses, present, prior.dtype)
        present = present & (jnp.isfinite(norms) | (prior <= 0))
        active = present & (prior > 0)
        losses = jnp.where(active, losses, 0)
        initial = jnp.where(state.initial > 0, state.initial, losses)
        weights = scaled(prior * state.learned, present)

        pushes = active & (norms > _SMALLEST_NORM * jnp.max(jnp.where(active, norms, 0), initial=0))
        push = weights * jnp.where(pushes, norms, 0)
        mean = mean_of(push, pushes)
        rate = jnp.where(initial > 0, losses / jnp.where(initial > 0, initial, 1), 1)
        rate = rate / mean_of(rate, active)
        target = prior / mean_of(prior, active) * jnp.power(rate, asymmetry) * mean
        slope = ((push > target).astype(prior.dtype) - (push < target).astype(prior.dtype)) * push
        step = learning_rate * slope / jnp.where(mean > 0, mean, 1)
        learned = state.learned * jnp.exp(jnp.where(pushes, -step, 0)).astype(prior.dtype)
        learned = learned * (mean_of(prior * state.learned, active) / mean_of(prior * learned, active))
        return combine(updates, weights), GradNormState(
            weights=weights,
            head_weights=active.astype(prior.dtype),
            learned=jnp.where(active & jnp.isfinite(learned), learned, state.learned),
            initial=initial,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def mean_of(values: Float[Array, " task"], tasks: Bool[Array, " task"]) -> Float[Array, ""]:
    """The mean over some of the tasks; 1 where that is 0, or there are none, for it is divided by."""
    total = jnp.sum(jnp.where(tasks, values, 0))
    return jnp.where(total > 0, total / jnp.maximum(jnp.sum(tasks.astype(values.dtype)), 1), 1)


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
