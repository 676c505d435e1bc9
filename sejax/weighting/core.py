"""The transform around a scheme's rule, and the functions that several rules share."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

Scalar = float | Float[Array, ""]


@runtime_checkable
class WeightingState(Protocol):
    """A NamedTuple with the fields `weights` and `head_weights`, and whatever else the rule remembers."""

    @property
    def weights(self) -> Float[Array, " task"]:
        """`w_k` of the last update, 0 before the first."""

    @property
    def head_weights(self) -> Float[Array, " task"]:
        """Weights of the heads in the last update, 0 before the first."""

    def _replace(self, *args: Any, **fields: Any) -> Any:
        """Returns the state with other values of the fields."""


State = TypeVar("State", bound=WeightingState)

LossRule = Callable[[State, Float[Array, " task"], Bool[Array, " task"]], tuple[Float[Array, " task"], State]]
"""`rule(state, losses, active) -> weights, state`."""

GradientRule = Callable[
    [State, Float[Array, " task"], Bool[Array, " task"], optax.Updates],
    tuple[Float[Array, " task"], Float[Array, " task"], State],
]
"""`rule(state, losses, active, updates) -> weights, head_weights, state`."""


def transform(init: Callable[[], State], rule: LossRule[State]) -> optax.GradientTransformationExtraArgs:
    """Makes the transform of a rule that needs only the losses. The heads are weighted as the losses are.

    Args:
      init: `init() -> state`, the state before the first update, with `weights` and `head_weights` of 0. Their dtype
        is that of the rule.
      rule: `rule(state, losses, active) -> weights, state`. `losses` and `active` are those of `observed`. The rule
        need not write `weights` and `head_weights` into the state that it returns: the transform does.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.
    """

    def rule_of_losses(
        state: State, losses: Float[Array, " task"], active: Bool[Array, " task"], updates: optax.Updates
    ) -> tuple[Float[Array, " task"], Float[Array, " task"], State]:
        del updates
        weights, state = rule(state, losses, active)
        return weights, weights, state

    return gradient_transform(init, rule_of_losses)


def gradient_transform(init: Callable[[], State], rule: GradientRule[State]) -> optax.GradientTransformationExtraArgs:
    """Makes the transform of a rule that needs the losses and the gradients.

    Args:
      init: as in `transform`.
      rule: `rule(state, losses, active, updates) -> weights, head_weights, state`, otherwise as in `transform`.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.
    """

    def init_fn(params: optax.Params) -> State:
        del params
        return init()

    def update_fn(
        updates: optax.Updates,
        state: State,
        params: optax.Params | None = None,
        *,
        losses: Float[Array, " task"],
        present: Bool[Array, " task"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, State]:
        del params, extra_args
        losses, active = observed(losses, present, state.weights.dtype)
        weights, head_weights, state = rule(state, losses, active, updates)
        return combine(updates, weights), state._replace(weights=weights, head_weights=head_weights)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def pair(alpha: Scalar) -> Float[Array, " 2"]:
    """Returns the prior of two tasks, class and VAD: `[alpha, 1 - alpha]`, with `alpha` in [0, 1]."""
    alpha = jnp.asarray(alpha)
    return jnp.stack([alpha, 1 - alpha])


def combine(updates: optax.Updates, weights: Float[Array, " task"]) -> optax.Updates:
    """Returns `sum_k w_k g_k` over the leading axis of every leaf.

    The gradient of a task of weight 0 does not enter the sum, whatever its values. The sum is computed in the wider
    of the two dtypes, and each leaf keeps its own. Every scheme combines `updates` this way. The caller combines the
    gradients of the heads the same way, with `head_weights`.
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
    """Returns the losses as `dtype`, 0 for absent tasks, and a mask of the tasks that are present.

    A task is absent if `present` says so or if its loss is not finite as `dtype`.
    """
    losses = losses.astype(dtype)
    active = jnp.isfinite(losses)
    if present is not None:
        active = active & present
    return jnp.where(active, losses, 0), active


def scaled(raw: Float[Array, " task"], active: Bool[Array, " task"]) -> Float[Array, " task"]:
    """Scales `raw`, with 0 for tasks that are not active, so that it sums to the number of active tasks."""
    raw = jnp.where(active, raw, 0)
    total = jnp.sum(raw)
    number = jnp.sum(active.astype(raw.dtype))
    return jnp.where(alone(raw), number, jnp.where(total > 0, number * raw / jnp.where(total > 0, total, 1), 0))


def alone(raw: Float[Array, " task"]) -> Bool[Array, " task"]:
    """Returns True at a task that alone has a weight, which is then exactly the number of tasks.

    Dividing by the sum would make it that only where division rounds correctly. XLA divides an array by a number by
    multiplication with the inverse (jaxlib 0.11 on a CPU), and `x / x` is then 0.99999994 for a sixth of all `x`.
    """
    return (raw > 0) & (jnp.sum((raw != 0).astype(jnp.int32)) == 1)


def tilted(
    prior: Float[Array, " task"], exponent: Float[Array, " task"], active: Bool[Array, " task"]
) -> Float[Array, " task"]:
    """Returns `a_k exp(x_k)` of the active tasks, scaled to sum to their number: a softmax tilted by the prior."""
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
    """Returns the moving average after `value`.

    The average of a task that was not `seen` before starts at `value`. That of a task that is not active is unchanged.
    """
    value = value.astype(average.dtype)
    return jnp.where(active, jnp.where(seen, decay * average + (1 - decay) * value, value), average)


def progress(fast: Float[Array, " task"], slow: Float[Array, " task"]) -> Float[Array, " task"]:
    """Returns `r_k = fast_k / slow_k`. A loss that has always been 0 has r = 1, no progress."""
    tiny = jnp.finfo(fast.dtype).tiny
    return (fast + tiny) / (slow + tiny)


def widest(*dtypes: jnp.dtype) -> jnp.dtype:
    """Returns the floating dtype of most bits (`jnp.promote_types` refuses to mix them under strict promotion)."""
    return max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)
