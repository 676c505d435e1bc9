"""AdamW with a warm-up and a cosine to zero, whose rates may be traced: every run of a stack has its own."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def adamw(
    learning_rate: Float[Array, ""] | float,
    weight_decay: Float[Array, "*parameter"] | float,
    *,
    warmup_steps: int | Int[Array, ""],
    total_steps: int | Int[Array, ""],
    clip_norm: float,
    factors: Float[Array, " parameter"] | None = None,
) -> optax.GradientTransformation:
    """Returns AdamW (Loshchilov & Hutter, 2019) behind a clip of the global gradient norm, for a vector of parameters.

    The schedule has a peak of 1 and multiplies a traced learning rate: optax's schedules refuse traced numbers.

    Args:
      learning_rate: peak learning rate, possibly traced.
      weight_decay: decoupled decay per unit of learning rate, possibly traced; of all parameters, or of each.
      warmup_steps: steps of linear rise from 0, possibly traced.
      total_steps: length of the run, possibly traced; the rate is 0 after it.
      clip_norm: largest global norm of the gradient; 0 or less switches clipping off.
      factors: on the learning rate of each parameter.
    """
    schedule = partial(warmup_and_cosine, warmup_steps=warmup_steps, total_steps=total_steps)
    return optax.chain(
        _clip_by_global_norm(clip_norm) if clip_norm > 0 else optax.identity(),
        optax.scale_by_adam(),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_schedule(schedule),
        optax.scale(-learning_rate),
        optax.identity() if factors is None else optax.stateless(lambda updates, _: updates * factors),
    )


def warmup_and_cosine(
    step: Int[Array, ""] | int, *, warmup_steps: int | Int[Array, ""], total_steps: int | Int[Array, ""]
) -> Float[Array, ""]:
    """Returns the factor of a step: a linear rise from 0 to 1, then half a cosine to 0 (Loshchilov & Hutter, 2017).

    The values are those of `optax.warmup_cosine_decay_schedule`, which takes no traced numbers of steps.
    """
    rise = jnp.maximum(warmup_steps, 1)
    risen = (0.0 - 1.0) * (1 - jnp.clip(step, 0, rise) / rise) + 1.0
    fall = jnp.maximum(total_steps - warmup_steps, 1)
    fallen = 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step - warmup_steps, fall) / fall))
    return jnp.where(step < warmup_steps, risen, fallen)


def _clip_by_global_norm(most: float) -> optax.GradientTransformation:
    """Scales a gradient whose global norm is larger than `most` down to it, as `optax.clip_by_global_norm` does.

    A sum of squares is many sums of 32 terms first, which a CPU adds up side by side. One sum, or longer ones, XLA
    compiles into single additions or windows, which took as long as a matrix product. The barrier keeps it from joining
    the two. The factor is a scalar: the product with it is a part of the pass that follows.
    """

    def square_sum(x: Float[Array, "*parameter"]) -> Float[Array, ""]:
        terms = jnp.pad(jnp.square(x.ravel()), (0, -x.size % 32)).reshape(32, -1)
        return jnp.sum(jax.lax.optimization_barrier(terms.sum(axis=0)))

    def update(updates, params):
        del params
        norm = jnp.sqrt(sum(map(square_sum, jax.tree.leaves(updates))))
        factor = jnp.where(norm < most, 1.0, most / norm)
        return jax.tree.map(lambda u: u * factor, updates)

    return optax.stateless(update)


def is_kernel(params: optax.Params) -> optax.Params:
    """Returns True for every leaf that is a kernel, by its name: kernels decay, biases and norms do not."""

    def named_kernel(path, _):
        return path[-1].key.endswith("kernel")

    return jax.tree_util.tree_map_with_path(named_kernel, params)
