"""Schemes whose weights depend on the Gram matrix of the tasks' gradients, `G_jk = g_j . g_k`, alone.

Each is a rule, `(gram, prior) -> weights`, as its paper has it, and a transform around the rule. In a rule the
prior sums to 1; a task with a prior of 0 has a row and a column of zeros in `gram` and gets 0.

The transform leaves out tasks that are absent, that have no prior, or whose gradient is not finite (or has a
square that is not, in float32 that of a norm above 1e19), and scales what the rule gives to sum to the number
of tasks present, as with every scheme, so that step sizes compare. Adam does not see that factor.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, UInt32

from sejax.weighting import solvers
from sejax.weighting.core import Scalar, combine, observed, widest

Rule = Callable[[Float[Array, "task task"], Float[Array, " task"]], Float[Array, " task"]]
"""`(gram, prior) -> weights`."""

# Weights of both signs can sum to nearly 0. They are not scaled up beyond this multiple of the number of tasks.
_LARGEST_TOTAL = 10.0


class GramState(NamedTuple):
    """State of the schemes that remember nothing."""

    weights: Float[Array, " task"]  # shape=(task,): w_k of the last update, 0 before the first
    head_weights: Float[Array, " task"]  # shape=(task,): 1 for a task that takes part, else 0


class PCGradState(NamedTuple):
    """State of `pcgrad`."""

    weights: Float[Array, " task"]  # shape=(task,): w_k of the last update, 0 before the first
    head_weights: Float[Array, " task"]  # shape=(task,): 1 for a task that takes part, else 0
    key: UInt32[Array, " 2"]  # shape=(2,): of the next orders; moves when three tasks or more take part


def pcgrad(prior: Float[Array, " task"], *, seed: int | Int[Array, ""] = 0) -> optax.GradientTransformationExtraArgs:
    r"""Gradient surgery: from each gradient, what conflicts with the others is taken away.

    Task i's gradient is projected onto the normal plane of every other gradient it conflicts with, one after
    the other in a random order,

    .. math:: h_i \leftarrow h_i - \min(h_i \cdot g_j, 0) \, g_j / |g_j|^2, \qquad g = K \sum_i a_i h_i

    With two tasks the order does not matter and nothing is random. The prior weights the sum; a uniform prior
    is the paper's rule. Scaling the weights to sum to K (see the module) changes the length of the step, which
    is part of the paper's method, but not its direction.

    Args:
      prior: `a_k`, the share of each task, not negative.
      seed: of the orders.

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

    def init_fn(params: optax.Params) -> PCGradState:
        del params
        zeros = jnp.zeros_like(prior)
        return PCGradState(weights=zeros, head_weights=zeros, key=jax.random.PRNGKey(seed))

    def update_fn(
        updates: optax.Updates,
        state: PCGradState,
        params: optax.Params | None = None,
        *,
        losses: Float[Array, " task"],
        present: Bool[Array, " task"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PCGradState]:
        del params, extra_args
        key, order_key = jax.random.split(state.key)
        size = len(prior)
        orders = jax.random.permutation(order_key, jnp.tile(jnp.arange(size), (size, 1)), axis=1, independent=True)
        rule = functools.partial(pcgrad_weights, orders=orders)
        weights, active = weights_of(rule, updates, prior, losses, present)
        key = jnp.where(jnp.sum(active) > 2, key, state.key)
        return combine(updates, weights), PCGradState(weights=weights, head_weights=active.astype(prior.dtype), key=key)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def pcgrad_weights(
    gram: Float[Array, "task task"], prior: Float[Array, " task"], *, orders: Int[Array, "task order"]
) -> Float[Array, " task"]:
    """The rule of `pcgrad`; row i of `orders` is the order in which task i meets the tasks."""
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
    r"""Conflict-averse descent: near the average gradient, the direction that serves the worst-off task best.

    .. math::
      g = \arg\max_d \min_k g_k \cdot d \quad \text{with} \quad |d - g_0| \le c |g_0|, \qquad g_0 = \sum_k a_k g_k

    solved exactly through its dual. The prior enters the average gradient; a uniform prior is the paper's
    rule. A gradient of 0 counts in the average but not as the worst off: it gains nothing from any direction.
    Scaling the weights to sum to K (see the module) changes the length of the step, which is part of the
    paper's method, but not its direction.

    Args:
      prior: `a_k`, the share of each task, not negative.
      c: radius of the ball relative to the average gradient, in [0, 1): 0 is the average itself; the larger,
        the nearer to `mgda`.

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
    """The rule of `cagrad`."""
    cosine, norm = solvers.cosines(gram)
    in_units = prior * norm
    average = solvers.product(cosine, in_units)
    length = jnp.sqrt(jnp.maximum(jnp.sum(in_units * average), 0))
    inverse = solvers.inverse_norms(norm)
    unit_average = average / jnp.where(length > 0, length, 1)
    y = solvers.worst_case_direction(cosine, inverse, unit_average, jnp.asarray(c).astype(gram.dtype))
    return prior + length * y / jnp.where(norm > 0, norm, 1)


def imtl_g(prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    r"""Impartial learning: the combined gradient has the same projection onto the gradient of every task.

    With the unit gradients :math:`u_k = g_k / |g_k|` and :math:`C_{jk} = u_j \cdot u_k`, in closed form

    .. math:: w_k \propto (C^{-1} 1)_k / |g_k|

    For two tasks that is the inverse of the norms. Weights may be negative, and with three tasks or more the
    sum of them may be small or negative, where the paper's scaling to a sum of 1 explodes or turns the step
    uphill. The sign here is always the one of descent, and the absolute values sum to 10 K at most. A gradient
    of 0 has no direction to project on: its weight is 0.

    The prior is used only as in (above 0) or out.

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
    """The rule of `imtl_g`: weights that sum to 1 or, where the paper's would ascend, to -1."""
    del prior  # in or out, which the rows of `gram` tell
    cosine, norm = solvers.cosines(gram)
    inverse = solvers.inverse_norms(norm)
    some = (norm > 0).astype(gram.dtype)
    if len(norm) == 2:
        weights = inverse  # C^-1 1 is the same for both
    else:
        # Parallel gradients share what is theirs, as nearly parallel ones do: that is the pseudoinverse. Where
        # there is an inverse, elimination is the more accurate.
        values, vectors = solvers.eigenvectors(cosine)
        kept = values > len(norm) ** 2 * jnp.finfo(gram.dtype).eps
        along = jnp.where(kept, solvers.product(vectors.T, some) / jnp.where(kept, values, 1), 0)
        regular = jnp.sum(kept.astype(gram.dtype)) == jnp.sum(some)
        solution = solvers.solve(cosine, some[:, None])[:, 0]
        weights = inverse * jnp.where(regular, solution, solvers.product(vectors, along))
    total = jnp.abs(jnp.sum(weights))
    return weights / jnp.where(total > 0, total, 1)


def mgda(prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    r"""Multiple-gradient descent: the shortest gradient between those of the tasks, which all of them descend.

    .. math:: w = \arg\min_w \Big| \sum_k w_k g_k \Big|^2 \quad \text{with} \quad w_k \ge 0, \ \sum_k w_k = 1

    in closed form for two tasks and by enumeration of the faces of the simplex for more. It leans to the
    small gradients, and stops where one of them is 0.

    The prior is used only as in (above 0) or out.

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
    """The rule of `mgda`: weights that sum to 1."""
    active = prior > 0
    cosine, norm = solvers.cosines(gram)
    smallest = jnp.min(jnp.where(active, norm, jnp.inf))
    if len(norm) == 2:
        # The foot of the perpendicular on the line through both ends, or the nearer end, in units of the smaller.
        unit = jnp.where(active, norm, 1) / jnp.maximum(jnp.max(norm), jnp.finfo(gram.dtype).tiny)
        inner = cosine[0, 1] * unit[0] * unit[1]
        apart = unit[0] * unit[0] + unit[1] * unit[1] - 2 * inner
        first = jnp.where(apart > 0, (unit[1] * unit[1] - inner) / jnp.where(apart > 0, apart, 1), 0.5)
        first = jnp.clip(first, 0, 1)
        first = jnp.where(active.all(), first, active[0].astype(gram.dtype))
        return jnp.where(active, jnp.stack([first, 1 - first]), 0)
    # A common coordinate appended to all gradients changes no minimum on the simplex, and makes the matrix
    # definite unless gradients lie on one line, plane...; without the constraint of the sum, the minimum of
    # w' G w / 2 - sum w is then the one sought, up to a factor.
    inverse = jnp.where(active, jnp.where(norm > smallest, smallest / jnp.where(norm > 0, norm, 1), 1), 0)
    lifted = cosine + inverse[:, None] * inverse[None, :]
    weights = inverse * solvers.nonnegative_minimum(lifted, inverse[:, None])[:, 0]
    total = jnp.sum(weights)
    return weights / jnp.where(total > 0, total, 1)


def aligned_mtl(prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    r"""Independent component alignment: the gradients are replaced by the nearest orthogonal system.

    With the eigenvalues :math:`\lambda` and eigenvectors V of G,

    .. math:: w = \sqrt{\lambda_{\min}} \, V \Lambda^{-1/2} V^\top a

    over the eigenvalues that are above their rounding error. Weights may be negative. The prior is the paper's
    preference; uniform is its default.

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
    """The rule of `aligned_mtl`, with the smallest eigenvalue as the common scale."""
    largest = jnp.max(jnp.diagonal(gram))
    gram = gram / jnp.where(largest > 0, largest, 1)
    values, vectors = solvers.eigenvectors(gram)
    # Rounding moves G_jk by eps n_j n_k, and so the eigenvalue of v by eps (sum |v_k| n_k)^2 at most.
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
    r"""The Nash bargaining solution: the direction of greatest product of the tasks' gains.

    .. math:: (G w)_k = 1 / w_k, \qquad w_k > 0

    found by Newton's method on the convex problem of which this is the condition. It is blind to the scale of
    the gradients; for two tasks it is the inverse of the norms, as `imtl_g`. A gradient of 0 cannot bargain:
    its weight is 0.

    The prior is used only as in (above 0) or out. (Unlike the paper, the weights are computed anew at every
    step, and the sum of them is bounded instead of the norm of the combined gradient.)

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
    """The rule of `nash_mtl`: the solution of `G w = 1 / w` itself, not scaled."""
    del prior  # in or out, which the rows of `gram` tell
    cosine, norm = solvers.cosines(gram)
    if len(norm) == 2:
        together = jnp.maximum(1 + cosine[0, 1], jnp.finfo(gram.dtype).eps)
        y = jnp.where(norm > 0, 1 / jnp.sqrt(together), 0)
    else:
        y = solvers.bargain(cosine)
    return y / jnp.where(norm > 0, norm, 1)


def upgrad(prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    r"""Unconflicting projection: each gradient is projected to where no task is harmed; then the average.

    .. math::
      w = \sum_i a_i v^{(i)}, \qquad v^{(i)} = \arg\min_v v^\top G v \quad \text{with} \quad v \ge e_i

    that is, :math:`\sum_k v_k g_k` is the vector nearest to task i's gradient that has no negative product with
    any task's. Each is found exactly by enumeration of active sets. The prior weights the average; a uniform
    prior is the paper's rule. Scaling the weights to sum to K (see the module) changes the length of the step,
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
    """The rule of `upgrad`."""
    cosine, norm = solvers.cosines(gram)
    beyond = solvers.nonnegative_minimum(cosine, -cosine)  # column i: v - e_i, in unit gradients
    return _mixed(jnp.eye(len(norm), dtype=gram.dtype) + beyond.T, norm, prior)


def weights_of(
    rule: Rule,
    updates: optax.Updates,
    prior: Float[Array, " task"],
    losses: Float[Array, " task"],
    present: Bool[Array, " task"] | None,
) -> tuple[Float[Array, " task"], Bool[Array, " task"]]:
    """The weights by `rule`, scaled to sum to the number of tasks present, and which tasks take part."""
    gram = solvers.gram(updates)
    _, present = observed(losses, present, prior.dtype)
    present = present & (jnp.isfinite(jnp.diagonal(gram)) | (prior <= 0))
    active = present & (prior > 0)
    dtype = widest(gram.dtype, prior.dtype)
    gram = jnp.where(active[:, None] & active[None, :], gram, 0).astype(dtype)
    share = jnp.where(active, prior, 0).astype(dtype)
    share = share / jnp.where(active.any(), jnp.sum(share), 1)
    raw = jnp.where(active, rule(gram, share), 0)
    raw = raw / jnp.maximum(jnp.max(jnp.abs(raw)), jnp.finfo(dtype).tiny)  # their sum is finite in any case
    total = jnp.maximum(jnp.sum(raw), jnp.sum(jnp.abs(raw)) / _LARGEST_TOTAL)
    weights = jnp.sum(present.astype(dtype)) * raw / jnp.where(total > 0, total, 1)
    return weights.astype(prior.dtype), active


def _by_gram(rule: Rule, prior: Float[Array, " task"]) -> optax.GradientTransformationExtraArgs:
    """The transform around a rule."""

    def init_fn(params: optax.Params) -> GramState:
        del params
        return GramState(weights=jnp.zeros_like(prior), head_weights=jnp.zeros_like(prior))

    def update_fn(
        updates: optax.Updates,
        state: GramState,
        params: optax.Params | None = None,
        *,
        losses: Float[Array, " task"],
        present: Bool[Array, " task"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GramState]:
        del state, params, extra_args
        weights, active = weights_of(rule, updates, prior, losses, present)
        return combine(updates, weights), GramState(weights=weights, head_weights=active.astype(prior.dtype))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _taking_part(prior: Float[Array, " task"]) -> Float[Array, ""]:
    """How many tasks have a prior."""
    return jnp.sum((prior > 0).astype(prior.dtype))


def _mixed(
    projected: Float[Array, "task task"], norm: Float[Array, " task"], prior: Float[Array, " task"]
) -> Float[Array, " task"]:
    """`sum_i a_i h_i` in the gradients themselves; row i of `projected` is `h_i / |g_i|` in unit gradients."""
    ratio = jnp.where(norm[None, :] > 0, norm[:, None] / jnp.where(norm > 0, norm, 1)[None, :], 1)
    return jnp.sum(prior[:, None] * projected * ratio, axis=0)
