"""Schemes that need only the losses and learn their weights, by gradient steps of their own."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from sejax.weighting.core import Scalar, combine, observed, tilted

_ADAM = optax.scale_by_adam()
# A loss many times what its log-scale says: the scale follows in steps, and one loss cannot carry it off.
_LARGEST_GRADIENT = 10.0
# Losses from 5e-5 to 2e4 have a scale: one that is always 0 must not take a weight without limit.
_LARGEST_LOG_SCALE = 10.0


class UncertaintyState(NamedTuple):
    """State of `uncertainty`."""

    weights: Float[Array, " task"]  # shape=(task,): w_k of the last update, 0 before the first
    head_weights: Float[Array, " task"]  # shape=(task,): the same
    log_variance: Float[Array, " task"]  # shape=(task,): s_k after the last update, 0 before the first


class ImtlLState(NamedTuple):
    """State of `imtl_l`."""

    weights: Float[Array, " task"]  # shape=(task,): w_k of the last update, 0 before the first
    head_weights: Float[Array, " task"]  # shape=(task,): the same
    log_scale: Float[Array, " task"]  # shape=(task,): s_k after the last update, 0 before the first


class FamoState(NamedTuple):
    """State of `famo`."""

    weights: Float[Array, " task"]  # shape=(task,): w_k of the last update, 0 before the first
    head_weights: Float[Array, " task"]  # shape=(task,): the same
    seen: Bool[Array, " task"]  # shape=(task,): whether the task has been present yet
    log_loss: Float[Array, " task"]  # shape=(task,): logarithm of the last loss seen, above its minimum
    logits: Float[Array, " task"]  # shape=(task,): xi_k, used in the last update
    adam: optax.ScaleByAdamState  # each leaf of shape=(task,): Adam for xi_k


def uncertainty(prior: Float[Array, " task"], *, learning_rate: Scalar = 0.01) -> optax.GradientTransformationExtraArgs:
    r"""Homoscedastic uncertainty: the variance of each task is learned and divides its loss.

    .. math::
      \min_s \sum_k e^{-s_k} L_k + s_k, \qquad
      w_k = K \frac{a_k e^{-s_k}}{\sum_j a_j e^{-s_j}}

    The log-variances `s_k` are not parameters of the model: they are in this state, and after each update
    they take a step of gradient descent along :math:`1 - e^{-s_k} L_k`. They follow the logarithm of the loss,
    so the weights go to :math:`a_k / L_k` and a loss in units a hundred times as large has, in the end, the
    same push. The curvature there is 1 whatever the scale, so plain descent needs no Adam, whose second moment
    would remember the first steps of a large loss long after its scale is found.

    The prior multiplies a task's whole term (a factor of the loss alone would be learned away): it weights the
    task's gradient and leaves its log-variance as it is. The weights are scaled to sum to K, where the
    original's are not: that changes the size of the whole step only, which Adam does not see. `s_k` follows
    the rule that is not scaled.

    The paper's term for regression is half of this one, and its term for classification, :math:`e^{-s} L + s / 2`,
    is that half with `s` shifted by log 2: both lead to the same weights. Two limits are ours: a gradient
    counts as 10 at most, and `s_k` stays within -10 and 10.

    Args:
      prior: `a_k`, the share of each task, not negative.
      learning_rate: of `s_k`, in (0, 1). Near the loss it follows as a moving average of decay
        `1 - learning_rate` does; down to a much smaller one it goes by `learning_rate` per step.

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

    return _by_log_scale(UncertaintyState, -1.0, prior, learning_rate)


def imtl_l(prior: Float[Array, " task"], *, learning_rate: Scalar = 0.01) -> optax.GradientTransformationExtraArgs:
    r"""Impartial multi-task learning, the part for losses: a learned factor brings every loss to 1.

    .. math::
      \min_s \sum_k e^{s_k} L_k - s_k, \qquad
      w_k = K \frac{a_k e^{s_k}}{\sum_j a_j e^{s_j}}

    The log-scales `s_k` are in this state, and after each update they take a step of gradient descent along
    :math:`e^{s_k} L_k - 1`. With `s_k` of the opposite sign this is `uncertainty`, weight for weight: the papers
    come to one rule from two sides.

    Prior, scale of the weights and limits are as in `uncertainty`: the prior multiplies a task's whole term
    and leaves `s_k` as it is; that the weights sum to K, where the original's do not, changes the size of the
    whole step only.

    Args:
      prior: `a_k`, the share of each task, not negative.
      learning_rate: of `s_k`, in (0, 1). Near the loss it follows as a moving average of decay
        `1 - learning_rate` does; down to a much smaller one it goes by `learning_rate` per step.

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

    return _by_log_scale(ImtlLState, 1.0, prior, learning_rate)


def famo(
    prior: Float[Array, " task"],
    *,
    learning_rate: Scalar = 0.025,
    gamma: Scalar = 0.01,
    minimum: Scalar | Float[Array, " task"] = 0.0,
    epsilon: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    r"""Fast adaptive multi-task optimisation: the task whose log-loss falls least gets more.

    With :math:`D_k = L_k - \mathrm{minimum}_k + \epsilon` and :math:`\xi` learned,

    .. math::
      z_k = \frac{a_k e^{\xi_k}}{\sum_j a_j e^{\xi_j}}, \qquad w_k = K \frac{z_k / D_k}{\sum_j z_j / D_j}

    so that the step is one on :math:`\sum_k z_k \log D_k`. With :math:`\delta_k` the fall of :math:`\log D_k`,
    :math:`\xi` takes a step of Adam along :math:`J^T \delta + \gamma \xi`, `J` the Jacobian of `z`.

    The official algorithm takes :math:`\delta` on one batch, by evaluating it again after the step. Here it
    is from each loss to that of the following step, another batch: no second evaluation, and the noise of
    batches in :math:`\delta`. So `xi` learns at the start of an update, before it is used.

    The prior multiplies the exponentials: `z` starts there, and the decay draws it back there. The original's
    weights sum to 1 and these to K, nothing else. A fall from a loss of 0 or to it is that from or to
    `epsilon`. A task that was away has fallen since it was last seen; one that is seen for the first time has
    no fall yet, and the others learn without it.

    Args:
      prior: `a_k`, the share of each task, not negative.
      learning_rate: of Adam for `xi`.
      gamma: decay of `xi`, added to its gradient.
      minimum: the least that each loss can be; a loss below counts as that.
      epsilon: added to each difference, above 0.

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

    def init_fn(params: optax.Params) -> FamoState:
        del params
        return FamoState(
            weights=jnp.zeros_like(prior),
            head_weights=jnp.zeros_like(prior),
            seen=jnp.zeros(prior.shape, bool),
            log_loss=jnp.zeros_like(prior),
            logits=jnp.zeros_like(prior),
            adam=adam_init(prior),
        )

    def update_fn(
        updates: optax.Updates,
        state: FamoState,
        params: optax.Params | None = None,
        *,
        losses: Float[Array, " task"],
        present: Bool[Array, " task"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, FamoState]:
        del params, extra_args
        losses, active = observed(losses, present, prior.dtype)
        largest = jnp.finfo(prior.dtype).max
        log_loss = jnp.log(jnp.clip(losses - minimum, 0, largest) + epsilon)

        learns = active & state.seen
        fall = jnp.where(learns, state.log_loss - log_loss, 0)
        share = tilted(prior, state.logits, learns) / jnp.maximum(jnp.sum(learns.astype(prior.dtype)), 1)
        gradient = share * (fall - jnp.sum(share * fall)) + gamma * state.logits
        logits, adam = adam_step(state.logits, gradient, state.adam, learning_rate, learns)

        weights = tilted(prior, logits - log_loss, active)
        return combine(updates, weights), FamoState(
            weights=weights,
            head_weights=weights,
            seen=state.seen | active,
            log_loss=jnp.where(active, log_loss, state.log_loss),
            logits=logits,
            adam=adam,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _by_log_scale(
    state_of: type[UncertaintyState] | type[ImtlLState],
    sign: float,
    prior: Float[Array, " task"],
    learning_rate: Scalar,
) -> optax.GradientTransformationExtraArgs:
    """The rule of `uncertainty` and of `imtl_l`: what the state holds last is the log-scale times `sign`."""

    def init_fn(params: optax.Params) -> UncertaintyState | ImtlLState:
        del params
        zeros = jnp.zeros_like(prior)
        return state_of(zeros, zeros, zeros)

    def update_fn(
        updates: optax.Updates,
        state: UncertaintyState | ImtlLState,
        params: optax.Params | None = None,
        *,
        losses: Float[Array, " task"],
        present: Bool[Array, " task"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, UncertaintyState | ImtlLState]:
        del params, extra_args
        *_, learned = state
        losses, active = observed(losses, present, prior.dtype)
        weights = tilted(prior, sign * learned, active)
        gradient = sign * (jnp.exp(sign * learned) * losses - 1)
        return combine(updates, weights), state_of(
            weights, weights, descended(learned, gradient, learning_rate, active)
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def descended(
    values: Float[Array, " task"], gradient: Float[Array, " task"], learning_rate: Scalar, active: Bool[Array, " task"]
) -> Float[Array, " task"]:
    """Log-scales after a step of gradient descent for the tasks that are active, within the limits."""
    gradient = jnp.clip(gradient, -_LARGEST_GRADIENT, _LARGEST_GRADIENT)
    stepped = jnp.clip(values - learning_rate * gradient, -_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE)
    return jnp.where(active, stepped, values)


def adam_init(prior: Float[Array, " task"]) -> optax.ScaleByAdamState:
    """Adam for one number per task, each with its own count of steps."""
    return jax.vmap(_ADAM.init)(jnp.zeros_like(prior))


def adam_step(
    values: Float[Array, " task"],
    gradient: Float[Array, " task"],
    state: optax.ScaleByAdamState,
    learning_rate: Scalar,
    active: Bool[Array, " task"],
) -> tuple[Float[Array, " task"], optax.ScaleByAdamState]:
    """A step of Adam for the tasks that are active; of the others neither value nor moments move."""
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer counters
        direction, stepped = jax.vmap(lambda slope, inner: _ADAM.update(slope, inner))(gradient, state)
    return jax.tree.map(
        lambda new, old: jnp.where(active, new, old), (values - learning_rate * direction, stepped), (values, state)
    )
