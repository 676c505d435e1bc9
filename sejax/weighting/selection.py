"""Several schemes in one program."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from sejax.weighting.core import gradient_transform


class SelectState(NamedTuple):
    """State of `select`."""

    weights: Float[Array, " task"]  # those of the selected scheme
    head_weights: Float[Array, " task"]  # those of the selected scheme
    states: tuple[Any, ...]  # the state of every scheme


def select(
    schemes: Sequence[optax.GradientTransformationExtraArgs], index: int | Int[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    """Selects one of several schemes by an index, which may be traced.

    The weights of every scheme are computed and one scheme's are used, so that runs of different schemes stack into
    one program. A scheme costs a few numbers per task and, if it needs them, the norms or products of the gradients,
    which is negligible next to a training step.

    Args:
      schemes: schemes of this package, for the same tasks.
      index: index of the selected scheme, from 0.

    Returns:
      A `GradientTransformationExtraArgs` with the `weights` and `head_weights` of the selected scheme.

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

    def init() -> SelectState:
        states = tuple(scheme.init(()) for scheme in schemes)
        weights = jnp.zeros_like(states[0].weights)
        return SelectState(weights=weights, head_weights=jnp.zeros_like(weights), states=states)

    def rule(
        state: SelectState, losses: Float[Array, " task"], active: Bool[Array, " task"], updates: optax.Updates
    ) -> tuple[Float[Array, " task"], Float[Array, " task"], SelectState]:
        states = tuple(
            scheme.update(updates, inner, losses=losses, present=active)[1]
            for scheme, inner in zip(schemes, state.states, strict=True)
        )
        return (
            jax.lax.select_n(which, *(inner.weights for inner in states)),
            jax.lax.select_n(which, *(inner.head_weights for inner in states)),
            state._replace(states=states),
        )

    return gradient_transform(init, rule)
