"""Schemes that need only the losses: the weights are known before anything is walked back."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from sejax.weighting.core import Scalar, combine, moved, present_tasks, progress, scaled


class StaticState(NamedTuple):
    """State of `static`."""

    weights: Float[Array, " task"]  # shape=(task,): w_k of the last update, 0 before the first
    head_weights: Float[Array, " task"]  # shape=(task,): the same


class DynamicState(NamedTuple):
    """State of `dynamic`."""

    weights: Float[Array, " task"]  # shape=(task,): w_k of the last update, 0 before the first
    head_weights: Float[Array, " task"]  # shape=(task,): the same
    seen: Bool[Array, " task"]  # shape=(task,): whether the task has been present yet
    fast: Float[Array, " task"]  # shape=(task,): fast moving average of the loss
    slow: Float[Array, " task"]  # shape=(task,): slow moving average of the loss


def static(prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    """Constant weights.

    .. math:: w_k = K a_k

    Args:
      prior: `a_k`, the share of each task, not negative.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.

    Example:
      >>> scheme = static(pair(0.75))
      >>> gradient = jnp.array([[1.0], [1.0]])  # [task, ...]
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 2.0]))
      >>> print(combined, state.weights)
      [2.] [1.5 0.5]

    Reference:
      Caruana, `Multitask Learning <https://doi.org/10.1023/A:1007379606734>`_, 1997
    """

    def init_fn(params: optax.Params) -> StaticState:
        del params
        return StaticState(weights=jnp.zeros_like(prior), head_weights=jnp.zeros_like(prior))

    def update_fn(
        updates: optax.Updates,
        state: StaticState,
        params: optax.Params | None = None,
        *,
        losses: Float[Array, " task"],
        present: Bool[Array, " task"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, StaticState]:
        del state, params, extra_args
        weights = scaled(prior, present_tasks(losses, present))
        return combine(updates, weights), StaticState(weights=weights, head_weights=weights)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def dynamic(
    prior: Float[Array, " task"], *, tau: Scalar = 1.0, fast: Scalar = 0.9, slow: Scalar = 0.99
) -> optax.GradientTransformationExtraArgs:
    r"""Weights by progress: a task that progresses less gets more. One backward pass suffices.

    With a fast and a slow exponential moving average of each loss,

    .. math::
      r_k = \mathrm{fast}_k / \mathrm{slow}_k, \qquad
      w_k = K \frac{a_k \exp(r_k / \tau)}{\sum_j a_j \exp(r_j / \tau)}

    `r_k` is 1 where there is no progress, less than 1 where the loss is falling, more where it is rising. It
    is a ratio, so the rule is blind to scale: a loss in units a hundred times as large has the same weight
    and a hundred times the gradient. `joint` is the scheme that is not.

    The paper's equations for its Dynamic Weighting are not public to us; its abstract says that it adjusts
    the task weights based on optimisation progress. This is our reading of that, a relative of DWA.

    Args:
      prior: `a_k`, the share of each task, not negative.
      tau: temperature. Large: the weights stay at those of `static`; small: the task that lags gets all.
      fast: decay of the fast average per update, in [0, 1).
      slow: decay of the slow average per update, in [0, 1), above `fast`.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` (not negative) and, optionally,
      `present`.

    Example:
      >>> scheme = dynamic(pair(0.5))
      >>> gradient = jnp.array([[1.0], [1.0]])  # [task, ...]
      >>> state = scheme.init(gradient[0])
      >>> for losses in (jnp.array([1.0, 1.0]), jnp.array([0.5, 1.0])):  # the second task stalls
      ...     combined, state = scheme.update(gradient, state, losses=losses)
      >>> bool(state.weights[1] > 1)
      True

    References:
      Bautista and Shin, `Speech Emotion Recognition Model Based on Joint Modeling of Discrete and Dimensional
      Emotion Representation <https://doi.org/10.3390/app15020623>`_, 2025

      Liu et al., `End-to-End Multi-Task Learning with Attention <https://arxiv.org/abs/1803.10704>`_, 2019
    """

    def init_fn(params: optax.Params) -> DynamicState:
        del params
        return DynamicState(
            weights=jnp.zeros_like(prior),
            head_weights=jnp.zeros_like(prior),
            seen=jnp.zeros(prior.shape, dtype=bool),
            fast=jnp.zeros_like(prior),
            slow=jnp.zeros_like(prior),
        )

    def update_fn(
        updates: optax.Updates,
        state: DynamicState,
        params: optax.Params | None = None,
        *,
        losses: Float[Array, " task"],
        present: Bool[Array, " task"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, DynamicState]:
        del params, extra_args
        active = present_tasks(losses, present)
        new_fast = moved(state.fast, losses, fast, state.seen, active)
        new_slow = moved(state.slow, losses, slow, state.seen, active)
        exponent = progress(new_fast, new_slow) / tau
        # Shifted as in any softmax, by the largest exponent that counts.
        counts = active & (prior > 0)
        shift = jnp.max(jnp.where(counts, exponent, -jnp.inf), initial=-jnp.inf)
        weights = scaled(prior * jnp.exp(jnp.where(counts, exponent - shift, 0)), active)
        return combine(updates, weights), DynamicState(
            weights=weights, head_weights=weights, seen=state.seen | active, fast=new_fast, slow=new_slow
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
