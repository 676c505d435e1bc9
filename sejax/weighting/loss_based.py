"""Schemes that need only the losses: their weights are known before any backward pass."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, UInt32

from sejax.weighting.core import Scalar, moved, progress, scaled, tilted, transform


class StaticState(NamedTuple):
    """State of `static`."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]


class DynamicState(NamedTuple):
    """State of `dynamic`."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]
    seen: Bool[Array, " task"]  # whether the task has been present yet
    fast: Float[Array, " task"]  # fast moving average of the loss
    slow: Float[Array, " task"]  # slow moving average of the loss


class DwaState(NamedTuple):
    """State of `dwa`. A window is `period` steps."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]
    step: Int[Array, ""]  # number of steps in the current window
    visits: Int[Array, " task"]  # number of these in which the task was present
    mean: Float[Array, " task"]  # mean loss over these visits
    seen: Bool[Array, " task"]  # whether a window with the task is complete
    last: Float[Array, " task"]  # mean loss of the last complete window with the task
    before: Float[Array, " task"]  # mean loss of the complete window with the task before that


class RlwState(NamedTuple):
    """State of `rlw`."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]
    key: UInt32[Array, " word"]  # data of the random key of the next draw


class GeometricState(NamedTuple):
    """State of `geometric`."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]


class StchState(NamedTuple):
    """State of `stch`."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]


def static(prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    """Keeps the weights constant.

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

    def rule(
        state: StaticState, losses: Float[Array, " task"], active: Bool[Array, " task"]
    ) -> tuple[Float[Array, " task"], StaticState]:
        del losses
        return scaled(prior, active), state

    return transform(lambda: StaticState(jnp.zeros_like(prior), jnp.zeros_like(prior)), rule)


def dynamic(
    prior: Float[Array, " task"], *, tau: Scalar = 1.0, fast: Scalar = 0.9, slow: Scalar = 0.99
) -> optax.GradientTransformationExtraArgs:
    r"""Weights the tasks by progress: a task that progresses less gets more. One backward pass suffices.

    With a fast and a slow exponential moving average of each loss,

    .. math::
      r_k = \mathrm{fast}_k / \mathrm{slow}_k, \qquad
      w_k = K \frac{a_k \exp(r_k / \tau)}{\sum_j a_j \exp(r_j / \tau)}

    `r_k` is 1 without progress, below 1 while the loss falls, and above 1 while it rises. As a ratio it does not
    depend on the scale of the loss: a loss in units a hundred times as large has the same weight and a hundred times
    the gradient. `joint` corrects for the scale.

    The paper's equations for its Dynamic Weighting are not public to us. Its abstract says that the scheme adjusts
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

    def init() -> DynamicState:
        return DynamicState(
            weights=jnp.zeros_like(prior),
            head_weights=jnp.zeros_like(prior),
            seen=jnp.zeros(prior.shape, bool),
            fast=jnp.zeros_like(prior),
            slow=jnp.zeros_like(prior),
        )

    def rule(
        state: DynamicState, losses: Float[Array, " task"], active: Bool[Array, " task"]
    ) -> tuple[Float[Array, " task"], DynamicState]:
        new_fast = moved(state.fast, losses, fast, state.seen, active)
        new_slow = moved(state.slow, losses, slow, state.seen, active)
        weights = tilted(prior, progress(new_fast, new_slow) / tau, active)
        return weights, state._replace(seen=state.seen | active, fast=new_fast, slow=new_slow)

    return transform(init, rule)


def dwa(
    prior: Float[Array, " task"], *, period: int | Int[Array, ""] = 100, tau: Scalar = 2.0
) -> optax.GradientTransformationExtraArgs:
    r"""Weights the tasks by how much each loss fell between the last two windows (dynamic weight average).

    A window is `period` steps. With :math:`\bar L_k(t)` the mean loss of window t, the weights in window t are

    .. math::
      r_k = \bar L_k(t - 1) / \bar L_k(t - 2), \qquad
      w_k = K \frac{a_k \exp(r_k / \tau)}{\sum_j a_j \exp(r_j / \tau)}

    and in the first two windows r = 1. With `period` the steps of an epoch and equal priors this is the paper's
    rule. `dynamic` is a relative whose rates change at every step. Neither depends on the scale of the losses.

    The prior multiplies the exponentials: without progress the weights are those of `static`.

    A mean is over the steps of the window in which the task was present. The two means of a task that was absent from
    a whole window are unchanged. The window counts the steps in which any task was present.

    Args:
      prior: `a_k`, the share of each task, not negative.
      period: steps per window, at least 1; the steps of an epoch for the paper's rule.
      tau: temperature. Large: the weights stay at those of `static`; small: the task that lags gets all.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` (not negative) and, optionally,
      `present`.

    Example:
      >>> scheme = dwa(pair(0.5), period=1)
      >>> gradient = jnp.array([[1.0], [1.0]])  # [task, ...]
      >>> state = scheme.init(gradient[0])
      >>> for losses in (jnp.array([1.0, 1.0]), jnp.array([0.5, 1.0]), jnp.array([0.3, 1.0])):
      ...     combined, state = scheme.update(gradient, state, losses=losses)
      >>> bool(state.weights[1] > 1)  # the second task stalls
      True

    Reference:
      Liu et al., `End-to-End Multi-Task Learning with Attention <https://arxiv.org/abs/1803.10704>`_, 2019,
      equation 7
    """

    def init() -> DwaState:
        return DwaState(
            weights=jnp.zeros_like(prior),
            head_weights=jnp.zeros_like(prior),
            step=jnp.zeros((), jnp.int32),
            visits=jnp.zeros(prior.shape, jnp.int32),
            mean=jnp.zeros_like(prior),
            seen=jnp.zeros(prior.shape, bool),
            last=jnp.zeros_like(prior),
            before=jnp.zeros_like(prior),
        )

    def rule(
        state: DwaState, losses: Float[Array, " task"], active: Bool[Array, " task"]
    ) -> tuple[Float[Array, " task"], DwaState]:
        weights = tilted(prior, progress(state.last, state.before) / tau, active)

        step = state.step + jnp.any(active).astype(jnp.int32)
        visits = state.visits + active.astype(jnp.int32)
        share = 1 / jnp.maximum(visits, 1).astype(prior.dtype)
        mean = jnp.where(active, state.mean + share * (losses - state.mean), state.mean)

        full = step >= period
        ends = full & (visits > 0)
        before = jnp.where(state.seen, state.last, mean)  # the first window counts as the one before it: r = 1
        return weights, state._replace(
            step=jnp.where(full, 0, step),
            visits=jnp.where(full, 0, visits),
            mean=jnp.where(full, 0, mean),
            seen=state.seen | ends,
            last=jnp.where(ends, mean, state.last),
            before=jnp.where(ends, before, state.before),
        )

    return transform(init, rule)


def rlw(prior: Float[Array, " task"], *, seed: int | Int[Array, ""] = 0) -> optax.GradientTransformationExtraArgs:
    r"""Draws new weights at every step (random loss weighting): a baseline that any other scheme has to beat.

    .. math:: z_k \sim \mathcal N(0, 1), \qquad w_k = K \frac{a_k \exp z_k}{\sum_j a_j \exp z_j}

    The prior multiplies the exponentials, as if its logarithm were the mean of `z_k`. With equal priors the
    mean of every weight is 1.

    The j-th of the tasks that are present gets the j-th draw: the others are weighted as if an absent task did not
    exist. A step without any task draws nothing.

    Args:
      prior: `a_k`, the share of each task, not negative.
      seed: seed of the draws. Equal seeds give equal weights.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.

    Example:
      >>> scheme = rlw(pair(0.5), seed=1)
      >>> gradient = jnp.array([[1.0], [1.0]])  # [task, ...]
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 2.0]))
      >>> print(combined.round(5), bool(state.weights[0] == state.weights[1]))
      [2.] False

    Reference:
      Lin et al., `Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning
      <https://arxiv.org/abs/2111.10603>`_, 2022
    """

    def init() -> RlwState:
        return RlwState(
            weights=jnp.zeros_like(prior),
            head_weights=jnp.zeros_like(prior),
            key=jax.random.key_data(jax.random.key(seed)),
        )

    def rule(
        state: RlwState, losses: Float[Array, " task"], active: Bool[Array, " task"]
    ) -> tuple[Float[Array, " task"], RlwState]:
        del losses
        following, key = jax.random.split(jax.random.wrap_key_data(state.key))

        def draw(number: Int[Array, ""]) -> Float[Array, ""]:
            return jax.random.normal(jax.random.fold_in(key, number), dtype=prior.dtype)

        draws = jax.vmap(draw)(jnp.cumsum(active.astype(jnp.int32)))
        next_key = jnp.where(jnp.any(active), jax.random.key_data(following), state.key)
        return tilted(prior, draws, active), state._replace(key=next_key)

    return transform(init, rule)


def geometric(prior: Float[Array, " task"], *, epsilon: Scalar = 1e-8) -> optax.GradientTransformationExtraArgs:
    r"""Follows the gradient of the geometric mean of the losses (geometric loss strategy).

    .. math::
      \nabla \prod_k L_k^{a_k} = \Big(\prod_j L_j^{a_j}\Big) \sum_k \frac{a_k}{L_k} \nabla L_k,
      \qquad w_k = K \frac{a_k / L_k}{\sum_j a_j / L_j}

    The prior is the exponent; equal priors give the paper's :math:`(\prod_k L_k)^{1/K}`. The weights are scaled
    to sum to K, unlike the original's: that changes only the size of the whole step, to which Adam is invariant. The
    units of a loss change only that size, too.

    A task whose loss is 0 gets all the weight, as the rule implies.

    Args:
      prior: `a_k`, the share of each task, not negative.
      epsilon: constant added to each loss, above 0.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` (not negative: less than 0 counts as 0)
      and, optionally, `present`.

    Example:
      >>> scheme = geometric(pair(0.5))
      >>> gradient = jnp.array([[1.0], [4.0]])  # [task, ...]
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 4.0]))
      >>> print(combined, state.weights)
      [3.2] [1.6 0.4]

    Reference:
      Chennupati et al., `MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for
      Multi-Task Learning <https://arxiv.org/abs/1904.08492>`_, 2019
    """

    def rule(
        state: GeometricState, losses: Float[Array, " task"], active: Bool[Array, " task"]
    ) -> tuple[Float[Array, " task"], GeometricState]:
        return tilted(prior, -jnp.log(jnp.maximum(losses, 0) + epsilon), active), state

    return transform(lambda: GeometricState(jnp.zeros_like(prior), jnp.zeros_like(prior)), rule)


def stch(
    prior: Float[Array, " task"], *, mu: Scalar = 0.1, ideal: Scalar | Float[Array, " task"] = 0.0
) -> optax.GradientTransformationExtraArgs:
    r"""Follows the gradient of a smooth maximum of the losses (smooth Tchebycheff scalarisation).

    .. math::
      \nabla\, \mu \log \sum_k \exp \frac{a_k (L_k - z_k)}{\mu} = \sum_k a_k p_k \nabla L_k, \quad
      p = \mathrm{softmax}\Big(\frac{a_k (L_k - z_k)}{\mu}\Big), \qquad
      w_k = K \frac{a_k p_k}{\sum_j a_j p_j}

    The prior is the paper's preference, and multiplies each loss: its shares among the tasks present sum to 1.
    A larger share means more weight and, at the optimum, a smaller loss. The weights are scaled to sum to K, unlike
    the original's: that changes only the size of the whole step, to which Adam is invariant.

    This is the paper's closed form with a given ideal point. LibMTL's variant, which takes the logarithm of each
    loss relative to its mean in warm-up epochs, is another rule. The closed form depends on the scale of the losses:
    of losses a hundred times as large it is hardly smoother than the maximum.

    Args:
      prior: `a_k`, the share of each task, not negative.
      mu: smoothing, above 0, in units of a share times a loss. Small: the task of the largest `a_k (L_k - z_k)`
        gets all; large: the weights are those of `static`.
      ideal: `z_k`, the loss that each task would reach alone.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.

    Example:
      >>> scheme = stch(pair(0.5), mu=0.5)
      >>> gradient = jnp.array([[1.0], [1.0]])  # [task, ...]
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 2.0]))
      >>> print([f"{weight:.3f}" for weight in state.weights])
      ['0.538', '1.462']

    Reference:
      Lin et al., `Smooth Tchebycheff Scalarization for Multi-Objective Optimization
      <https://arxiv.org/abs/2402.19078>`_, 2024
    """

    def rule(
        state: StchState, losses: Float[Array, " task"], active: Bool[Array, " task"]
    ) -> tuple[Float[Array, " task"], StchState]:
        number = jnp.maximum(jnp.sum(active.astype(prior.dtype)), 1)
        return tilted(prior, scaled(prior, active) / number * (losses - ideal) / mu, active), state

    return transform(lambda: StchState(jnp.zeros_like(prior), jnp.zeros_like(prior)), rule)
