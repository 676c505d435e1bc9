"""Schemes that need the norm of every task's gradient at the shared representation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from sejax.weighting.core import Scalar, gradient_transform, moved, progress, scaled, widest

# A gradient whose norm is not above this multiple of the largest counts as 0: it has no scale to balance.
_SMALLEST_NORM = 1e-6


class JointState(NamedTuple):
    """State of `joint`."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]
    seen: Bool[Array, " task"]  # whether the task has been present yet
    fast: Float[Array, " task"]  # fast moving average of the loss
    slow: Float[Array, " task"]  # slow moving average of the loss
    norm: Float[Array, " task"]  # moving average of the norm of the task's gradient


def joint(
    prior: Float[Array, " task"], *, fast: Scalar = 0.9, slow: Scalar = 0.99, norm_decay: Scalar = 0.9
) -> optax.GradientTransformationExtraArgs:
    r"""Weights the tasks by progress and by the norm of each task's gradient at the shared representation.

    With :math:`r_k` as in `dynamic` and :math:`n_k` the moving average of the norm of task k's gradient (over
    all leaves),

    .. math:: w_k = K \frac{a_k r_k / n_k}{\sum_j a_j r_j / n_j}

    so that each task contributes its share to the gradient of the shared layers, `w_k n_k` proportional to `a_k r_k`,
    whatever the scale of its loss. Heads get their own task's gradient unchanged (`head_weights` is 1).

    A task whose `n_k` is not above 1e-6 of the largest contributes nothing, and there is nothing to balance: for
    example, while the kernel of its head is still 0, as initialised. Dividing by that norm would give the task all the
    weight, so the largest norm is used instead. The average starts at the first norm above 0, and a norm that is not
    finite does not enter it.

    The paper's equations for its Joint Weighting are not public to us. Its abstract says that the scheme ensures
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
      <https://arxiv.org/abs/1711.02257>`_, 2018 (related: it learns its weights, and `joint` computes them)
    """

    def init() -> JointState:
        return JointState(
            weights=jnp.zeros_like(prior),
            head_weights=jnp.zeros_like(prior),
            seen=jnp.zeros(prior.shape, bool),
            fast=jnp.zeros_like(prior),
            slow=jnp.zeros_like(prior),
            norm=jnp.zeros_like(prior),
        )

    def rule(
        state: JointState, losses: Float[Array, " task"], active: Bool[Array, " task"], updates: optax.Updates
    ) -> tuple[Float[Array, " task"], Float[Array, " task"], JointState]:
        new_fast = moved(state.fast, losses, fast, state.seen, active)
        new_slow = moved(state.slow, losses, slow, state.seen, active)
        norms = task_norms(updates).astype(prior.dtype)
        new_norm = moved(state.norm, norms, norm_decay, state.norm > 0, active & jnp.isfinite(norms))
        counts = active & (prior > 0)
        weights = scaled(prior * progress(new_fast, new_slow) / scales(new_norm, counts), active)
        state = state._replace(seen=state.seen | active, fast=new_fast, slow=new_slow, norm=new_norm)
        return weights, counts.astype(prior.dtype), state

    return gradient_transform(init, rule)


class GradNormState(NamedTuple):
    """State of `gradnorm`."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]
    learned: Float[Array, " task"]  # learned multiple of the prior, 1 at the start
    initial: Float[Array, " task"]  # first loss above 0; 0 until there is one


def gradnorm(
    prior: Float[Array, " task"], *, learning_rate: Scalar = 0.025, asymmetry: Scalar = 1.5
) -> optax.GradientTransformationExtraArgs:
    r"""Learns the weights so that the tasks train at similar rates.

    With the norms :math:`n_k` of the gradients at the shared representation (over all leaves), each task's weighted
    norm is to equal its share of the average, and more the less its loss has fallen:

    .. math::
      N_k = w_k n_k, \qquad
      r_k = \frac{L_k / L_k(0)}{\mathrm{mean}_j \, L_j / L_j(0)}, \qquad
      L_{\mathrm{grad}} = \sum_k \left| N_k - K a_k r_k^\alpha \, \mathrm{mean}_j N_j \right|

    The targets, products of prior, rate and mean, are treated as constants, and after each step of gradient descent
    the weights are scaled to sum to K. They start at the prior. With a uniform prior this is the paper's rule.

    As in other implementations the descent is on :math:`\log w`, so that weights stay positive. Here
    :math:`L_{\mathrm{grad}}` is divided by the mean of :math:`N_j`, so that the size of a step, at most
    `K learning_rate`, does not depend on the units of the losses:

    .. math:: \log w_k \leftarrow \log w_k - \eta \, \mathrm{sign}(N_k - \mathrm{target}_k) N_k / \mathrm{mean}_j N_j

    The weight of a task whose norm is not above 1e-6 of the largest is not learned in that step (see `joint`). A loss
    that has always been 0 has made no progress.

    Args:
      prior: `a_k`, the share of each task, not negative.
      learning_rate: `eta`, the learning rate of the logarithms of the weights.
      asymmetry: `alpha`, the strength by which a task that lags gets more; 0 balances only the norms.

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

    def init() -> GradNormState:
        return GradNormState(
            weights=jnp.zeros_like(prior),
            head_weights=jnp.zeros_like(prior),
            learned=jnp.ones_like(prior),
            initial=jnp.zeros_like(prior),
        )

    def rule(
        state: GradNormState, losses: Float[Array, " task"], active: Bool[Array, " task"], updates: optax.Updates
    ) -> tuple[Float[Array, " task"], Float[Array, " task"], GradNormState]:
        norms = task_norms(updates).astype(prior.dtype)
        present = active & (jnp.isfinite(norms) | (prior <= 0))
        trains = present & (prior > 0)
        losses = jnp.where(trains, losses, 0)
        initial = jnp.where(state.initial > 0, state.initial, losses)
        weights = scaled(prior * state.learned, present)

        pushes = trains & (norms > _SMALLEST_NORM * jnp.max(jnp.where(trains, norms, 0), initial=0))
        push = weights * jnp.where(pushes, norms, 0)  # N_k
        mean = mean_of(push, pushes)
        rate = jnp.where(initial > 0, losses / jnp.where(initial > 0, initial, 1), 1)
        rate = rate / mean_of(rate, trains)
        target = prior / mean_of(prior, trains) * jnp.power(rate, asymmetry) * mean
        slope = ((push > target).astype(prior.dtype) - (push < target).astype(prior.dtype)) * push
        step = learning_rate * slope / jnp.where(mean > 0, mean, 1)
        learned = state.learned * jnp.exp(jnp.where(pushes, -step, 0)).astype(prior.dtype)
        learned = learned * (mean_of(prior * state.learned, trains) / mean_of(prior * learned, trains))
        learned = jnp.where(trains & jnp.isfinite(learned), learned, state.learned)
        return weights, trains.astype(prior.dtype), state._replace(learned=learned, initial=initial)

    return gradient_transform(init, rule)


def mean_of(values: Float[Array, " task"], tasks: Bool[Array, " task"]) -> Float[Array, ""]:
    """Returns the mean over `tasks`, as a divisor: 1 where the mean is 0 or there are no tasks."""
    total = jnp.sum(jnp.where(tasks, values, 0))
    return jnp.where(total > 0, total / jnp.maximum(jnp.sum(tasks.astype(values.dtype)), 1), 1)


def task_norms(updates: optax.Updates) -> Float[Array, " task"]:
    """Returns the norm of each task's gradient over all leaves, in float32 at least."""

    def square(leaf: Float[Array, "task ..."]) -> Float[Array, " task"]:
        wide = leaf.astype(widest(leaf.dtype, jnp.dtype("float32")))
        return jnp.sum(jnp.square(wide), axis=tuple(range(1, leaf.ndim)))

    squares = jax.tree.leaves(jax.tree.map(square, updates))
    dtype = widest(*(leaf.dtype for leaf in squares))
    return jnp.sqrt(sum((leaf.astype(dtype) for leaf in squares[1:]), start=squares[0].astype(dtype)))


def scales(norm: Float[Array, " task"], counts: Bool[Array, " task"]) -> Float[Array, " task"]:
    """Returns each task's divisor: its norm, or the largest norm if its own counts as 0."""
    largest = jnp.max(jnp.where(counts, norm, 0), initial=0)
    scale = jnp.where(norm > _SMALLEST_NORM * largest, norm, largest)
    return jnp.where(scale > 0, scale, 1)
