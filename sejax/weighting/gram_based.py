"""Schemes whose weights depend only on the Gram matrix of the tasks' gradients, `G_jk = g_j . g_k`.

Each scheme has a rule `(gram, prior) -> weights`, which is its paper's. In the rule the prior sums to 1, and a task
with a prior of 0 has a row and a column of zeros in `gram` and gets 0.

`weights_of` leaves out tasks that are absent, that have no prior, or whose gradient is not finite (or has a squared
norm that is not finite, in float32 a norm above 1e19). It scales the rule's weights to sum to the number of tasks
present, as in every scheme, so that step sizes are comparable. Adam is invariant to that factor.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, UInt32

from sejax.weighting import solvers
from sejax.weighting.core import Scalar, alone, gradient_transform, widest

Rule = Callable[[Float[Array, "task task"], Float[Array, " task"]], Float[Array, " task"]]
"""`(gram, prior) -> weights`."""

# Weights of both signs can sum to nearly 0: their absolute values sum to this multiple of the number of tasks at most.
_LARGEST_TOTAL = 10.0


class GramState(NamedTuple):
    """State of the schemes without memory."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]


class PCGradState(NamedTuple):
    """State of `pcgrad`."""

    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]
    key: UInt32[Array, " 2"]  # random key of the next orders; changes when three tasks or more take part


def pcgrad(prior: Float[Array, " task"], *, seed: int | Int[Array, ""] = 0) -> optax.GradientTransformationExtraArgs:
    r"""Removes from each gradient the component that conflicts with another (gradient surgery).

    Task i's gradient is projected onto the normal plane of every other gradient it conflicts with, one after
    the other in a random order,

    .. math:: h_i \leftarrow h_i - \min(h_i \cdot g_j, 0) \, g_j / |g_j|^2, \qquad g = K \sum_i a_i h_i

    With two tasks the order does not matter and nothing is random. The prior weights the sum. With a uniform prior
    this is the paper's rule. Scaling the weights to sum to K (see the module) changes the length of the step, which
    is part of the paper's method, but not its direction.

    Args:
      prior: `a_k`, the share of each task, not negative.
      seed: seed of the orders.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.

    Example:
      >>> scheme = pcgrad(pair(0.5))
      >>> gradient = jnp.array([[1.0, 0.0], [-1.0, 1.0]])  # [task, ...]: in conflict
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 1.0]))
      >>> bool((gradient @ combined >= 0).all())
      True

    Reference:
      Yu et al., `Gradient Surgery for Multi-Task Learning <https://arxiv.org/abs/2001.06782>`_, 2020
    """

    def init() -> PCGradState:
        return PCGradState(jnp.zeros_like(prior), jnp.zeros_like(prior), key=jax.random.PRNGKey(seed))

    def rule(
        state: PCGradState, losses: Float[Array, " task"], active: Bool[Array, " task"], updates: optax.Updates
    ) -> tuple[Float[Array, " task"], Float[Array, " task"], PCGradState]:
        del losses
        key, order_key = jax.random.split(state.key)
        size = len(prior)
        orders = jax.random.permutation(order_key, jnp.tile(jnp.arange(size), (size, 1)), axis=1, independent=True)
        weights, trains = weights_of(functools.partial(pcgrad_weights, orders=orders), updates, prior, active)
        key = jnp.where(jnp.sum(trains) > 2, key, state.key)
        return weights, trains.astype(prior.dtype), state._replace(key=key)

    return gradient_transform(init, rule)


def pcgrad_weights(
    gram: Float[Array, "task task"], prior: Float[Array, " task"], *, orders: Int[Array, "task order"]
) -> Float[Array, " task"]:
    """Computes the rule of `pcgrad`. Row i of `orders` is the order in which task i's gradient is projected."""
    cosine, norm = solvers.cosines(gram)
    size = len(norm)
    projected = jnp.eye(size, dtype=gram.dtype)  # [i, k]: h_i in unit gradients, h_i = |g_i| sum_k projected_ik u_k
    itself = jnp.arange(size, dtype=orders.dtype)
    for position in range(size):
        other = orders[:, position]
        inner = jnp.sum(projected * cosine[other], axis=1)
        conflict = (inner < 0) & (other != itself)
        at_other = other[:, None] == itself[None, :]
        projected = projected - jnp.where(conflict[:, None] & at_other, inner[:, None], 0)
    return _taking_part(prior) * _mixed(projected, norm, prior)


def cagrad(prior: Float[Array, " task"], *, c: Scalar = 0.5) -> optax.GradientTransformationExtraArgs:
    r"""Follows the direction near the average gradient that is best for the worst-off task (conflict-averse descent).

    .. math::
      g = \arg\max_d \min_k g_k \cdot d \quad \text{with} \quad |d - g_0| \le c |g_0|, \qquad g_0 = \sum_k a_k g_k

    solved exactly through its dual. The prior enters the average gradient. With a uniform prior this is the paper's
    rule. A gradient of 0 counts in the average but not as the worst off: it gains nothing from any direction.
    Scaling the weights to sum to K (see the module) changes the length of the step, which is part of the
    paper's method, but not its direction.

    Args:
      prior: `a_k`, the share of each task, not negative.
      c: radius of the ball relative to the average gradient, in [0, 1): 0 gives the average itself; a larger radius
        is closer to `mgda`.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.

    Example:
      >>> scheme = cagrad(pair(0.5))
      >>> gradient = jnp.array([[1.0, 0.0], [0.0, 4.0]])  # [task, ...]: the first gains little from the average
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 1.0]))
      >>> bool(state.weights[0] > state.weights[1])
      True

    Reference:
      Liu et al., `Conflict-Averse Gradient Descent for Multi-task Learning
      <https://arxiv.org/abs/2110.14048>`_, 2021
    """
    return _by_gram(functools.partial(cagrad_weights, c=c), prior)


def cagrad_weights(
    gram: Float[Array, "task task"], prior: Float[Array, " task"], *, c: Scalar = 0.5
) -> Float[Array, " task"]:
    """Computes the rule of `cagrad`."""
    cosine, norm = solvers.cosines(gram)
    in_units = prior * norm
    average = solvers.product(cosine, in_units)
    length = jnp.sqrt(jnp.maximum(jnp.sum(in_units * average), 0))
    inverse = solvers.inverse_norms(norm)
    unit_average = average / jnp.where(length > 0, length, 1)
    y = solvers.worst_case_direction(cosine, inverse, unit_average, jnp.asarray(c).astype(gram.dtype))
    return prior + length * y / jnp.where(norm > 0, norm, 1)


def imtl_g(prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    r"""Makes the projections of the combined gradient onto every task's gradient equal (impartial learning).

    With the unit gradients :math:`u_k = g_k / |g_k|` and :math:`C_{jk} = u_j \cdot u_k`, in closed form

    .. math:: w_k \propto (C^{-1} 1)_k / |g_k|

    For two tasks the weights are proportional to the inverse of the norms. Weights may be negative, and with three
    tasks or more their sum may be small or negative, where the paper's scaling to a sum of 1 explodes or makes the
    step ascend. Here the sign is always that of descent, and the absolute values sum to 10 K at most. A gradient
    of 0 has no direction to project on: its weight is 0.

    The prior only says whether a task takes part.

    Args:
      prior: above 0 for the tasks that take part.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.

    Example:
      >>> scheme = imtl_g(pair(0.5))
      >>> gradient = jnp.array([[1.0], [4.0]])  # [task, ...]: the second is four times as large
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 1.0]))
      >>> print(combined, state.weights, state.head_weights)
      [3.2] [1.6 0.4] [1. 1.]

    Reference:
      Liu et al., `Towards Impartial Multi-task Learning <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021
    """
    return _by_gram(imtl_g_weights, prior)


def imtl_g_weights(gram: Float[Array, "task task"], prior: Float[Array, " task"]) -> Float[Array, " task"]:
    """Computes the rule of `imtl_g`: weights that sum to 1 or, where the paper's would ascend, to -1."""
    del prior  # the rows of `gram` say whether a task takes part
    cosine, norm = solvers.cosines(gram)
    inverse = solvers.inverse_norms(norm)
    some = (norm > 0).astype(gram.dtype)
    if len(norm) == 2:
        weights = inverse  # C^-1 1 is the same for both
    else:
        # The pseudoinverse divides the weight among parallel gradients, as the inverse does among nearly parallel
        # ones. Where there is an inverse, elimination is more accurate.
        values, vectors = solvers.eigenvectors(cosine)
        kept = values > len(norm) ** 2 * jnp.finfo(gram.dtype).eps
        along = jnp.where(kept, solvers.product(vectors.T, some) / jnp.where(kept, values, 1), 0)
        regular = jnp.sum(kept.astype(gram.dtype)) == jnp.sum(some)
        solution = solvers.solve(cosine, some[:, None])[:, 0]
        weights = inverse * jnp.where(regular, solution, solvers.product(vectors, along))
    total = jnp.abs(jnp.sum(weights))
    return weights / jnp.where(total > 0, total, 1)


def mgda(prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    r"""Follows the shortest convex combination of the gradients, which descends every task (multiple-gradient descent).

    .. math:: w = \arg\min_w \Big| \sum_k w_k g_k \Big|^2 \quad \text{with} \quad w_k \ge 0, \ \sum_k w_k = 1

    in closed form for two tasks and by enumeration of the faces of the simplex for more. It favours small gradients,
    and the combination is 0 where one of them is 0.

    The prior only says whether a task takes part.

    Args:
      prior: above 0 for the tasks that take part.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.

    Example:
      >>> scheme = mgda(pair(0.5))
      >>> gradient = jnp.array([[1.0, 0.0], [0.0, 2.0]])  # [task, ...]
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 1.0]))
      >>> print(combined.round(3), state.weights.round(3))
      [1.6 0.8] [1.6 0.4]

    Reference:
      Sener and Koltun, `Multi-Task Learning as Multi-Objective Optimization
      <https://arxiv.org/abs/1810.04650>`_, 2018
    """
    return _by_gram(mgda_weights, prior)


def mgda_weights(gram: Float[Array, "task task"], prior: Float[Array, " task"]) -> Float[Array, " task"]:
    """Computes the rule of `mgda`: weights that sum to 1."""
    active = prior > 0
    cosine, norm = solvers.cosines(gram)
    smallest = jnp.min(jnp.where(active, norm, jnp.inf))
    if len(norm) == 2:
        # The foot of the perpendicular on the line through both ends, or the nearer end, in units of the larger norm.
        # Both weights come from the formula: that of a large gradient is small, and 1 - w would keep few of its digits.
        unit = jnp.where(active, norm, 1) / jnp.maximum(jnp.max(norm), jnp.finfo(gram.dtype).tiny)
        inner = cosine[0, 1] * unit[0] * unit[1]
        apart = unit[0] * unit[0] + unit[1] * unit[1] - 2 * inner
        foot = (unit * unit - inner)[::-1] / jnp.where(apart > 0, apart, 1)
        weights = jnp.where(apart > 0, jnp.clip(foot, 0, 1), 0.5)
        return jnp.where(active, jnp.where(active.all(), weights, 1), 0)
    # A common coordinate appended to all gradients does not change the minimum on the simplex, and makes the matrix
    # definite unless the gradients are on one line, in one plane, and so on. The minimum of w' G w / 2 - sum w over
    # w >= 0, without the constraint on the sum, is then the same up to a factor.
    inverse = jnp.where(active, jnp.where(norm > smallest, smallest / jnp.where(norm > 0, norm, 1), 1), 0)
    lifted = cosine + inverse[:, None] * inverse[None, :]
    weights = inverse * solvers.nonnegative_minimum(lifted, inverse[:, None])[:, 0]
    total = jnp.sum(weights)
    return weights / jnp.where(total > 0, total, 1)


def aligned_mtl(prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    r"""Replaces the gradients by the nearest orthogonal system (independent component alignment).

    With the eigenvalues :math:`\lambda` and eigenvectors V of G,

    .. math:: w = \sqrt{\lambda_{\min}} \, V \Lambda^{-1/2} V^\top a

    over the eigenvalues that are above their rounding error. Weights may be negative. The prior is the paper's
    preference, whose default is uniform.

    Args:
      prior: `a_k`, the share of each task, not negative.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.

    Example:
      >>> scheme = aligned_mtl(pair(0.5))
      >>> gradient = jnp.array([[1.0, 0.0], [0.0, 4.0]])  # [task, ...]: orthogonal already, but unequal
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 1.0]))
      >>> print(combined, state.weights)
      [1.6 1.6] [1.6 0.4]

    Reference:
      Senushkin et al., `Independent Component Alignment for Multi-Task Learning
      <https://arxiv.org/abs/2305.19000>`_, 2023
    """
    return _by_gram(aligned_mtl_weights, prior)


def aligned_mtl_weights(gram: Float[Array, "task task"], prior: Float[Array, " task"]) -> Float[Array, " task"]:
    """Computes the rule of `aligned_mtl`, with the smallest eigenvalue as the common scale."""
    largest = jnp.max(jnp.diagonal(gram))
    gram = gram / jnp.where(largest > 0, largest, 1)
    values, vectors = solvers.eigenvectors(gram)
    # Rounding changes G_jk by eps n_j n_k, and so the eigenvalue of v by eps (sum |v_k| n_k)^2 at most.
    error = (
        len(prior)
        * jnp.finfo(gram.dtype).eps
        * jnp.square(jnp.sum(jnp.abs(vectors) * jnp.sqrt(jnp.diagonal(gram))[:, None], axis=0))
    )
    kept = values > error
    smallest = jnp.min(jnp.where(kept, values, jnp.inf))
    ratio = jnp.sqrt(jnp.where(kept, smallest / jnp.where(kept, values, 1), 0))
    weights = solvers.product(vectors, ratio * solvers.product(vectors.T, prior))
    return jnp.where(largest > 0, weights, prior)


def nash_mtl(prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    r"""Follows the direction of the largest product of the tasks' gains (Nash bargaining solution).

    .. math:: (G w)_k = 1 / w_k, \qquad w_k > 0

    found by Newton's method on the convex problem of which this is the optimality condition. The solution is invariant
    to the scale of the gradients. For two tasks the weights are proportional to the inverse of the norms, as in
    `imtl_g`. A gradient of 0 has no gain: its weight is 0.

    The prior only says whether a task takes part. Unlike in the paper, the weights are computed anew at every
    step, and their sum is bounded instead of the norm of the combined gradient.

    Args:
      prior: above 0 for the tasks that take part.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.

    Example:
      >>> scheme = nash_mtl(pair(0.5))
      >>> gradient = jnp.array([[1.0, 0.0], [-2.0, 2.0]])  # [task, ...]: in conflict
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 1.0]))
      >>> bool((gradient @ combined > 0).all())
      True

    Reference:
      Navon et al., `Multi-Task Learning as a Bargaining Game <https://arxiv.org/abs/2202.01017>`_, 2022
    """
    return _by_gram(nash_mtl_weights, prior)


def nash_mtl_weights(gram: Float[Array, "task task"], prior: Float[Array, " task"]) -> Float[Array, " task"]:
    """Computes the rule of `nash_mtl`: the solution of `G w = 1 / w` itself, not scaled."""
    del prior  # the rows of `gram` say whether a task takes part
    cosine, norm = solvers.cosines(gram)
    if len(norm) == 2:
        together = jnp.maximum(1 + cosine[0, 1], jnp.finfo(gram.dtype).eps)
        y = jnp.where(norm > 0, 1 / jnp.sqrt(together), 0)
    else:
        y = solvers.bargain(cosine)
    return y / jnp.where(norm > 0, norm, 1)


def upgrad(prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    r"""Averages the gradients after projecting each to where it harms no task (unconflicting projection).

    .. math::
      w = \sum_i a_i v^{(i)}, \qquad v^{(i)} = \arg\min_v v^\top G v \quad \text{with} \quad v \ge e_i

    that is, :math:`\sum_k v_k g_k` is the vector nearest to task i's gradient that has no negative product with
    any task's. Each is found exactly by enumeration of active sets. The prior weights the average. With a uniform
    prior this is the paper's rule. Scaling the weights to sum to K (see the module) changes the length of the step,
    which is part of the paper's method, but not its direction.

    Args:
      prior: `a_k`, the share of each task, not negative.

    Returns:
      A `GradientTransformationExtraArgs` whose `update` takes `losses` and, optionally, `present`.

    Example:
      >>> scheme = upgrad(jnp.array([0.5, 0.25, 0.25]))
      >>> gradient = jnp.array([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]])  # [task, ...]
      >>> combined, state = scheme.update(gradient, scheme.init(gradient[0]), losses=jnp.array([1.0, 1.0, 1.0]))
      >>> bool((gradient @ combined > -1e-6).all())
      True

    Reference:
      Quinton and Rey, `Jacobian Descent for Multi-Objective Optimization <https://arxiv.org/abs/2406.16232>`_, 2024
    """
    return _by_gram(upgrad_weights, prior)


def upgrad_weights(gram: Float[Array, "task task"], prior: Float[Array, " task"]) -> Float[Array, " task"]:
    """Computes the rule of `upgrad`."""
    cosine, norm = solvers.cosines(gram)
    beyond = solvers.nonnegative_minimum(cosine, -cosine)  # column i: v - e_i, in unit gradients
    return _mixed(jnp.eye(len(norm), dtype=gram.dtype) + beyond.T, norm, prior)


def weights_of(
    rule: Rule, updates: optax.Updates, prior: Float[Array, " task"], active: Bool[Array, " task"]
) -> tuple[Float[Array, " task"], Bool[Array, " task"]]:
    """Returns the weights by `rule`, scaled to sum to the number of tasks present, and a mask of those that train."""
    gram = solvers.gram(updates)
    present = active & (jnp.isfinite(jnp.diagonal(gram)) | (prior <= 0))
    trains = present & (prior > 0)
    dtype = widest(gram.dtype, prior.dtype)
    gram = jnp.where(trains[:, None] & trains[None, :], gram, 0).astype(dtype)
    share = jnp.where(trains, prior, 0).astype(dtype)
    share = share / jnp.where(trains.any(), jnp.sum(share), 1)
    raw = jnp.where(trains, rule(gram, share), 0)
    raw = raw / jnp.maximum(jnp.max(jnp.abs(raw)), jnp.finfo(dtype).tiny)  # so that their sum is finite
    total = jnp.maximum(jnp.sum(raw), jnp.sum(jnp.abs(raw)) / _LARGEST_TOTAL)
    number = jnp.sum(present.astype(dtype))
    weights = jnp.where(alone(raw), number, number * raw / jnp.where(total > 0, total, 1))
    return weights.astype(prior.dtype), trains


def _by_gram(gram_rule: Rule, prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    """Makes the transform of a rule that needs only the Gram matrix."""

    def rule(
        state: GramState, losses: Float[Array, " task"], active: Bool[Array, " task"], updates: optax.Updates
    ) -> tuple[Float[Array, " task"], Float[Array, " task"], GramState]:
        del losses
        weights, trains = weights_of(gram_rule, updates, prior, active)
        return weights, trains.astype(prior.dtype), state

    return gradient_transform(lambda: GramState(jnp.zeros_like(prior), jnp.zeros_like(prior)), rule)


def _taking_part(prior: Float[Array, " task"]) -> Float[Array, ""]:
    """Returns the number of tasks that have a prior."""
    return jnp.sum((prior > 0).astype(prior.dtype))


def _mixed(
    projected: Float[Array, "task task"], norm: Float[Array, " task"], prior: Float[Array, " task"]
) -> Float[Array, " task"]:
    """Returns the weights of `sum_i a_i h_i`. Row i of `projected` is `h_i / |g_i|` in unit gradients."""
    ratio = jnp.where(norm[None, :] > 0, norm[:, None] / jnp.where(norm > 0, norm, 1)[None, :], 1)
    return jnp.sum(prior[:, None] * projected * ratio, axis=0)
