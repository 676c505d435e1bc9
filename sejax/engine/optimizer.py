"""AdamW with a warm-up and a cosine to zero, whose rates may be traced: every run of a stack has its own."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array, Float


def adamw(
    learning_rate: Float[Array, ""] | float,
    weight_decay: Float[Array, ""] | float,
    *,
    warmup_steps: int,
    total_steps: int,
    clip_norm: float,
    factors: Callable[[optax.Params], Any] | None = None,
) -> optax.GradientTransformation:
    """Returns AdamW (Loshchilov & Hutter, 2019) behind a clip of the global gradient norm.

    The schedule has a peak of 1 and multiplies a traced learning rate: optax's schedules refuse a traced
    peak. Only kernels decay, not biases and norms.

    Args:
      learning_rate: peak learning rate, possibly traced.
      weight_decay: decoupled decay per unit of learning rate, possibly traced.
      warmup_steps: steps of linear rise from 0.
      total_steps: length of the run; the rate is 0 after it.
      clip_norm: largest global norm of the gradient; 0 or less switches clipping off.
      factors: gives, for the parameters, the factor on the learning rate of each.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps, max(total_steps, warmup_steps + 1))
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm > 0 else optax.identity(),
        optax.scale_by_adam(),
        optax.add_decayed_weights(weight_decay, mask=is_kernel),
        optax.scale_by_schedule(schedule),
        optax.scale(-learning_rate),
        optax.identity() if factors is None else _scale_by(factors),
    )


def _scale_by(factors: Callable[[optax.Params], Any]) -> optax.GradientTransformation:
    def update(updates, params):
        return jax.tree.map(lambda u, f: u * f, updates, factors(params))

    return optax.stateless(update)


def is_kernel(params: optax.Params) -> optax.Params:
    """Returns True for every leaf that is a kernel, by its name."""

    def named_kernel(path, _):
        return path[-1].key.endswith("kernel")

    return jax.tree_util.tree_map_with_path(named_kernel, params)
