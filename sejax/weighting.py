"""Multi-task weighting as optax transforms: from the gradients of the tasks to one gradient.

`updates` is a pytree whose leaves have a leading task axis, `[task, ...]`: the gradient of each task's loss
with respect to that leaf (in sejax, to the fused representation, so that the trunk is walked back once, not
once per task). The update is the same pytree without that axis, `sum_k w_k g_k`. The loss of each task is an
extra argument:

    update(updates, state, params=None, *, losses, present=None) -> (combined, state)

What all schemes share, for K tasks and a prior `a_k >= 0` (scaled here to sum to 1):

- `sum_k w_k = K`, and a task whose prior is 0 has a weight of exactly 0.
- A task is absent from a step if `present` says so or if its loss is not finite. It then has a weight of 0,
  its gradient (NaN, maybe) does not enter the sum (`combine`), its moving averages stand still, and the rule
  is applied to the other tasks alone, whose weights sum to their number. If the tasks present have no prior
  between them, as when all are absent, every weight is 0.
- Moving averages start at the first value seen.
- Every state has `weights` and `head_weights`. A head belongs to one task, and its gradient is its own task's
  times `head_weights[k]`: `w_k` where the scheme weights losses, 1 (0 for a task that is absent or without
  prior) where it weights gradients at the shared representation only.

Prior and hyperparameters may be traced, so that runs of different settings stack under `jax.vmap`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

Scalar = float | Float[Array, ""]

# A task whose gradient is smaller than this, relative to the largest, has no scale to be balanced by.
_SMALLEST_NORM = 1e-6


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


class JointState(NamedTuple):
    """State of `joint`."""

    weights: Float[Array, " task"]  # shape=(task,): w_k of the last update, 0 before the first
    head_weights: Float[Array, " task"]  # shape=(task,): 1 for a task that is present and has a prior, else 0
    seen: Bool[Array, " task"]  # shape=(task,): whether the task has been present yet
    fast: Float[Array, " task"]  # shape=(task,): fast moving average of the loss
    slow: Float[Array, " task"]  # shape=(task,): slow moving average of the loss
    norm: Float[Array, " task"]  # shape=(task,): moving average of the norm of the task's gradient


class SelectState(NamedTuple):
    """State of `select`."""

    weights: Float[Array, " task"]  # shape=(task,): of the scheme that was chosen
    head_weights: Float[Array, " task"]  # shape=(task,): of the scheme that was chosen
    states: tuple[Any, ...]  # the state of every scheme


def pair(alpha: Scalar) -> Float[Array, " 2"]:
    """The prior of two tasks, class and VAD: `[alpha, 1 - alpha]`, with `alpha` in [0, 1]."""
    alpha = jnp.asarray(alpha)
    return jnp.stack([alpha, 1 - alpha])


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
        weights = _scaled(prior, _present(losses, present))
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
        active = _present(losses, present)
        new_fast = _moved(state.fast, losses, fast, state.seen, active)
        new_slow = _moved(state.slow, losses, slow, state.seen, active)
        exponent = _progress(new_fast, new_slow) / tau
        # Shifted as in any softmax, by the largest exponent that counts.
        counts = active & (prior > 0)
        shift = jnp.max(jnp.where(counts, exponent, -jnp.inf), initial=-jnp.inf)
        weights = _scaled(prior * jnp.exp(jnp.where(counts, exponent - shift, 0)), active)
        return combine(updates, weights), DynamicState(
            weights=weights, head_weights=weights, seen=state.seen | active, fast=new_fast, slow=new_slow
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


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
        active = _present(losses, present)
        new_fast = _moved(state.fast, losses, fast, state.seen, active)
        new_slow = _moved(state.slow, losses, slow, state.seen, active)
        norms = _norms(updates).astype(prior.dtype)
        new_norm = _moved(state.norm, norms, norm_decay, state.norm > 0, active & jnp.isfinite(norms))
        counts = active & (prior > 0)
        weights = _scaled(prior * _progress(new_fast, new_slow) / _scales(new_norm, counts), active)
        return combine(updates, weights), JointState(
            weights=weights,
            head_weights=counts.astype(prior.dtype),
            seen=state.seen | active,
            fast=new_fast,
            slow=new_slow,
            norm=new_norm,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def select(
    schemes: Sequence[optax.GradientTransformationExtraArgs], index: int | Int[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    """One of several schemes, chosen by a number that may be traced.

    Every scheme is computed and one is taken, so that runs of different schemes stack into one program. A
    scheme costs a weighted sum of the updates and a few numbers per task: next to a training step, nothing.

    Args:
      schemes: the schemes, for the same tasks.
      index: which of them, from 0.

    Returns:
      A `GradientTransformationExtraArgs` with the `weights` and `head_weights` of the scheme that was chosen.

    Example:
      >>> prior = pair(0.5)
      >>> gradient = jnp.array([[1.0], [4.0]])  # [task, ...]
      >>> def step(index):  # two runs, the first static, the second joint
      ...     scheme = select([static(prior), joint(prior)], index)
      ...     return scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 1.0]))[0]
      >>> print(jax.vmap(step)(jnp.array([0, 1])))
      [[5. ]
       [3.2]]
    """
    which = jnp.asarray(index, dtype=jnp.int32)

    def init_fn(params: optax.Params) -> SelectState:
        states = tuple(scheme.init(params) for scheme in schemes)
        return SelectState(
            weights=jnp.zeros_like(states[0].weights),
            head_weights=jnp.zeros_like(states[0].head_weights),
            states=states,
        )

    def update_fn(
        updates: optax.Updates,
        state: SelectState,
        params: optax.Params | None = None,
        *,
        losses: Float[Array, " task"],
        present: Bool[Array, " task"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SelectState]:
        results = [
            scheme.update(updates, inner, params, losses=losses, present=present, **extra_args)
            for scheme, inner in zip(schemes, state.states, strict=True)
        ]
        combined = jax.tree.map(
            lambda *leaves: jax.lax.select_n(which, *leaves), *(combined for combined, _ in results)
        )
        states = tuple(inner for _, inner in results)
        return combined, SelectState(
            weights=jax.lax.select_n(which, *(inner.weights for inner in states)),
            head_weights=jax.lax.select_n(which, *(inner.head_weights for inner in states)),
            states=states,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def combine(updates: optax.Updates, weights: Float[Array, " task"]) -> optax.Updates:
    """`sum_k w_k g_k` over the leading axis of every leaf.

    A task of weight 0 does not enter, whatever its gradient holds. The sum is done in the wider of the two
    types, and leaves keep their own. It is what every scheme does to `updates`; with `head_weights` it does
    it to the heads.
    """

    def weighted_sum(leaf: Float[Array, "task ..."]) -> Float[Array, "..."]:
        dtype = _widest(leaf.dtype, weights.dtype)
        column = jnp.expand_dims(weights.astype(dtype), tuple(range(1, leaf.ndim)))
        weighted = jnp.where(column > 0, column * leaf.astype(dtype), 0)
        return jnp.sum(weighted, axis=0).astype(leaf.dtype)

    return jax.tree.map(weighted_sum, updates)


def _present(losses: Float[Array, " task"], present: Bool[Array, " task"] | None) -> Bool[Array, " task"]:
    finite = jnp.isfinite(losses)
    return finite if present is None else finite & present


def _scaled(raw: Float[Array, " task"], active: Bool[Array, " task"]) -> Float[Array, " task"]:
    """`raw`, 0 for the tasks that are not active, scaled to sum to the number of those that are."""
    raw = jnp.where(active, raw, 0)
    total = jnp.sum(raw)
    number = jnp.sum(active.astype(raw.dtype))
    return jnp.where(total > 0, number * raw / jnp.where(total > 0, total, 1), 0)


def _moved(
    average: Float[Array, " task"],
    value: Float[Array, " task"],
    decay: Scalar,
    seen: Bool[Array, " task"],
    active: Bool[Array, " task"],
) -> Float[Array, " task"]:
    """The moving average after `value`: at its first value there, unmoved where the task is not active."""
    value = value.astype(average.dtype)
    return jnp.where(active, jnp.where(seen, decay * average + (1 - decay) * value, value), average)


def _progress(fast: Float[Array, " task"], slow: Float[Array, " task"]) -> Float[Array, " task"]:
    """`r_k = fast_k / slow_k`; a loss that has only been 0 makes no progress: r = 1."""
    tiny = jnp.finfo(fast.dtype).tiny
    return (fast + tiny) / (slow + tiny)


def _norms(updates: optax.Updates) -> Float[Array, " task"]:
    """The norm of each task's gradient over all leaves, in float32 at least."""

    def square(leaf: Float[Array, "task ..."]) -> Float[Array, " task"]:
        wide = leaf.astype(_widest(leaf.dtype, jnp.dtype("float32")))
        return jnp.sum(jnp.square(wide), axis=tuple(range(1, leaf.ndim)))

    squares = jax.tree.leaves(jax.tree.map(square, updates))
    dtype = _widest(*(leaf.dtype for leaf in squares))
    return jnp.sqrt(sum((leaf.astype(dtype) for leaf in squares[1:]), start=squares[0].astype(dtype)))


def _scales(norm: Float[Array, " task"], counts: Bool[Array, " task"]) -> Float[Array, " task"]:
    """What each task is divided by: its norm, or the largest norm for a task that has none to speak of."""
    largest = jnp.max(jnp.where(counts, norm, 0), initial=0)
    scale = jnp.where(norm > _SMALLEST_NORM * largest, norm, largest)
    return jnp.where(scale > 0, scale, 1)


def _widest(*dtypes: jnp.dtype) -> jnp.dtype:
    """The floating type of most bits (`jnp.promote_types` refuses to mix them under strict promotion)."""
    return max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)
