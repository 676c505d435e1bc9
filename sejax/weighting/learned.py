"""Schemes that need only the losses and learn their weights by gradient descent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from sejax.weighting.core import Scalar, tilted, transform

_ADAM = optax.scale_by_adam()
# Bounds the step after a loss far above what its log-scale implies, so that no single loss ruins the scale.
_LARGEST_GRADIENT = 10.0
# Scales fit losses from 5e-5 to 2e4. Without a bound, the weight of a loss that is always 0 would grow without limit.
_LARGEST_LOG_SCALE = 10.0


class UncertaintyState(NamedTuple):
    """State of `uncertainty`."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]
    log_variance: Float[Array, " task"]  # s_k after the last update, 0 before the first


class ImtlLState(NamedTuple):
    """State of `imtl_l`."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]
    log_scale: Float[Array, " task"]  # s_k after the last update, 0 before the first


class FamoState(NamedTuple):
    """State of `famo`."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]
    seen: Bool[Array, " task"]  # whether the task has been present yet
    log_loss: Float[Array, " task"]  # logarithm of the last loss of the task, counted from its minimum
    logits: Float[Array, " task"]  # xi_k of the last update
    adam: optax.ScaleByAdamState  # Adam for xi_k, each leaf [task]


def uncertainty(prior: Float[Array, " task"], *, learning_rate: Scalar = 0.01) -> optax.GradientTransformationExtraArgs:
    r"""Divides each loss by a variance that is learned (homoscedastic uncertainty).

    .. math::
      \min_s \sum_k e^{-s_k} L_k + s_k, \qquad
      w_k = K \frac{a_k e^{-s_k}}{\sum_j a_j e^{-s_j}}

    The log-variances `s_k` are not parameters of the model. They are part of this state, and after each update they
    take a step of gradient descent along :math:`1 - e^{-s_k} L_k`. They follow the logarithm of the loss, so the
    weights converge to :math:`a_k / L_k`: a loss in units a hundred times as large has, in the end, the same
    influence. The curvature at the minimum is 1 whatever the scale, so plain gradient descent suffices. The second
    moment of Adam would remember the first steps of a large loss long after its scale is found.

    The prior multiplies a task's whole term (`s_k` would compensate for a factor of the loss alone): it weights the
    task's gradient and does not change its log-variance. The weights are scaled to sum to K, unlike the original's:
    that changes only the size of the whole step, to which Adam is invariant. `s_k` follows the rule without that
    scaling.

    The paper's term for regression is half of this one, and its term for classification, :math:`e^{-s} L + s / 2`,
    is that half with `s` shifted by log 2: both lead to the same weights. Two limits are ours: a gradient
    counts as 10 at most, and `s_k` stays within -10 and 10.

    Args:
      prior: `a_k`, the share of each task, not negative.
      learning_rate: learning rate of `s_k`, in (0, 1). `s_k` follows the logarithm of the loss as a moving average of
        decay `1 - learning_rate` does; it falls to that of a much smaller loss by `learning_rate` per step.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` (not negative) and, optionally,
      `present`.

    Example:
      >>> scheme = uncertainty(pair(0.5))
      >>> gradient = jnp.array([[1.0], [1.0]])  # [task, ...]
      >>> state = scheme.init(gradient[0])
      >>> for _ in range(2000):
      ...     combined, state = jax.jit(scheme.update)(gradient, state, losses=jnp.array([0.5, 2.0]))
      >>> print(state.weights.round(3))
      [1.6 0.4]

    Reference:
      Kendall et al., `Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics
      <https://arxiv.org/abs/1705.07115>`_, 2018
    """

    def init() -> UncertaintyState:
        return UncertaintyState(jnp.zeros_like(prior), jnp.zeros_like(prior), log_variance=jnp.zeros_like(prior))

    def rule(
        state: UncertaintyState, losses: Float[Array, " task"], active: Bool[Array, " task"]
    ) -> tuple[Float[Array, " task"], UncertaintyState]:
        log_scale = -state.log_variance
        stepped = log_scale_step(log_scale, losses, learning_rate, active)
        return tilted(prior, log_scale, active), state._replace(log_variance=-stepped)

    return transform(init, rule)


def imtl_l(prior: Float[Array, " task"], *, learning_rate: Scalar = 0.01) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies each loss by a factor that is learned and brings it to 1 (the loss part of impartial learning).

    .. math::
      \min_s \sum_k e^{s_k} L_k - s_k, \qquad
      w_k = K \frac{a_k e^{s_k}}{\sum_j a_j e^{s_j}}

    The log-scales `s_k` are part of this state, and after each update they take a step of gradient descent along
    :math:`e^{s_k} L_k - 1`. With the opposite sign of `s_k` the rule is that of `uncertainty`, weight for weight.

    Prior, scale of the weights and limits are as in `uncertainty`: the prior multiplies a task's whole term
    and does not change `s_k`; the weights sum to K, unlike the original's, which changes only the size of the
    whole step.

    Args:
      prior: `a_k`, the share of each task, not negative.
      learning_rate: learning rate of `s_k`, in (0, 1). `s_k` follows the logarithm of the loss as a moving average of
        decay `1 - learning_rate` does; it falls to that of a much smaller loss by `learning_rate` per step.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` (not negative) and, optionally,
      `present`.

    Example:
      >>> scheme = imtl_l(pair(0.5))
      >>> gradient = jnp.array([[1.0], [1.0]])  # [task, ...]
      >>> state = scheme.init(gradient[0])
      >>> for _ in range(2000):
      ...     combined, state = jax.jit(scheme.update)(gradient, state, losses=jnp.array([0.5, 2.0]))
      >>> print(jnp.exp(state.log_scale).round(3))
      [2.  0.5]

    Reference:
      Liu et al., `Towards Impartial Multi-task Learning <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021
    """

    def init() -> ImtlLState:
        return ImtlLState(jnp.zeros_like(prior), jnp.zeros_like(prior), log_scale=jnp.zeros_like(prior))

    def rule(
        state: ImtlLState, losses: Float[Array, " task"], active: Bool[Array, " task"]
    ) -> tuple[Float[Array, " task"], ImtlLState]:
        stepped = log_scale_step(state.log_scale, losses, learning_rate, active)
        return tilted(prior, state.log_scale, active), state._replace(log_scale=stepped)

    return transform(init, rule)


def famo(
    prior: Float[Array, " task"],
    *,
    learning_rate: Scalar = 0.025,
    gamma: Scalar = 0.01,
    minimum: Scalar | Float[Array, " task"] = 0.0,
    epsilon: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    r"""Gives more weight to the task whose log-loss falls least (fast adaptive multi-task optimisation).

    With :math:`D_k = L_k - \mathrm{minimum}_k + \epsilon` and :math:`\xi` learned,

    .. math::
      z_k = \frac{a_k e^{\xi_k}}{\sum_j a_j e^{\xi_j}}, \qquad w_k = K \frac{z_k / D_k}{\sum_j z_j / D_j}

    so that the update is a step on :math:`\sum_k z_k \log D_k`. With :math:`\delta_k` the fall of :math:`\log D_k`,
    :math:`\xi` takes a step of Adam along :math:`J^T \delta + \gamma \xi`, where `J` is the Jacobian of `z`.

    The official algorithm computes :math:`\delta` on one batch, which it evaluates again after the step. Here
    :math:`\delta` is the difference between the losses of consecutive steps, that is, of two batches: it needs no
    second evaluation, but contains the noise of batches. So `xi` learns at the start of an update, before it is used.

    The prior multiplies the exponentials: `z` starts at the prior, and the decay pulls it back there. The weights
    sum to K instead of 1, the only other difference. A fall from or to a loss of 0 counts as one from or to
    `epsilon`. The fall of a task that was absent is counted from its last loss. A task that is present for the first
    time has no fall yet, and the others learn without it.

    Args:
      prior: `a_k`, the share of each task, not negative.
      learning_rate: learning rate of Adam for `xi`.
      gamma: decay of `xi`, added to its gradient.
      minimum: smallest possible value of each loss; a smaller loss counts as this.
      epsilon: constant added to each difference, above 0.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.

    Example:
      >>> scheme = famo(pair(0.5))
      >>> gradient = jnp.array([[1.0], [1.0]])  # [task, ...]
      >>> state = scheme.init(gradient[0])
      >>> for losses in (jnp.array([1.0, 1.0]), jnp.array([0.5, 1.0])):  # the second task stalls
      ...     combined, state = scheme.update(gradient, state, losses=losses)
      >>> print(state.logits.round(3))
      [-0.025  0.025]

    Reference:
      Liu et al., `FAMO: Fast Adaptive Multitask Optimization <https://arxiv.org/abs/2306.03792>`_, 2023
    """

    def init() -> FamoState:
        return FamoState(
            weights=jnp.zeros_like(prior),
            head_weights=jnp.zeros_like(prior),
            seen=jnp.zeros(prior.shape, bool),
            log_loss=jnp.zeros_like(prior),
            logits=jnp.zeros_like(prior),
            adam=adam_init(prior),
        )

    def rule(
        state: FamoState, losses: Float[Array, " task"], active: Bool[Array, " task"]
    ) -> tuple[Float[Array, " task"], FamoState]:
        largest = jnp.finfo(prior.dtype).max
        log_loss = jnp.log(jnp.clip(losses - minimum, 0, largest) + epsilon)

        learns = active & state.seen
        fall = jnp.where(learns, state.log_loss - log_loss, 0)
        share = tilted(prior, state.logits, learns) / jnp.maximum(jnp.sum(learns.astype(prior.dtype)), 1)
        gradient = share * (fall - jnp.sum(share * fall)) + gamma * state.logits
        logits, adam = adam_step(state.logits, gradient, state.adam, learning_rate, learns)

        return tilted(prior, logits - log_loss, active), state._replace(
            seen=state.seen | active,
            log_loss=jnp.where(active, log_loss, state.log_loss),
            logits=logits,
            adam=adam,
        )

    return transform(init, rule)


def log_scale_step(
    log_scale: Float[Array, " task"], losses: Float[Array, " task"], learning_rate: Scalar, active: Bool[Array, " task"]
) -> Float[Array, " task"]:
    """Returns the log-scales `s` after a step along `exp(s) L - 1` for the active tasks, within the limits."""
    gradient = jnp.clip(jnp.exp(log_scale) * losses - 1, -_LARGEST_GRADIENT, _LARGEST_GRADIENT)
    stepped = jnp.clip(log_scale - learning_rate * gradient, -_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE)
    return jnp.where(active, stepped, log_scale)


def adam_init(prior: Float[Array, " task"]) -> optax.ScaleByAdamState:
    """Returns the state of Adam for one number per task, each with its own count of steps."""
    return jax.vmap(_ADAM.init)(jnp.zeros_like(prior))


def adam_step(
    values: Float[Array, " task"],
    gradient: Float[Array, " task"],
    state: optax.ScaleByAdamState,
    learning_rate: Scalar,
    active: Bool[Array, " task"],
) -> tuple[Float[Array, " task"], optax.ScaleByAdamState]:
    """Takes a step of Adam for the active tasks. Values and moments of the others are unchanged."""
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer counters
        direction, stepped = jax.vmap(lambda slope, inner: _ADAM.update(slope, inner))(gradient, state)
    return jax.tree.map(
        lambda new, old: jnp.where(active, new, old), (values - learning_rate * direction, stepped), (values, state)
    )
