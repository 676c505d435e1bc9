"""Schemes side by side in one program."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


class SelectState(NamedTuple):
    """State of `select`."""

    weights: Float[Array, " task"]  # shape=(task,): of the scheme that was chosen
    head_weights: Float[Array, " task"]  # shape=(task,): of the scheme that was chosen
    states: tuple[Any, ...]  # the state of every scheme


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
