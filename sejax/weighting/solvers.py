"""Solvers of small dense problems of the Gram matrix of the tasks' gradients, inside the compiled program.

All are for a handful of tasks: loops over tasks are unrolled, active sets are enumerated, and iterations are
bounded. No solver calls a library, so that everything fuses with a training step and stacks under `jax.vmap`.
A task that does not take part has a row and a column of zeros, and gets 0.

The rules use the matrix of cosines, the Gram matrix of the unit gradients. There, gradients of norms 1 and 1000 are
as well-conditioned as gradients of one norm, and float32 suffices.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from sejax.weighting.core import widest

# The default precision of a product is bfloat16 or tf32 on accelerators.
product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

# Sweeps of the Jacobi method. It converges quadratically; float64 with 6 tasks takes five or six.
_SWEEPS = 8

# Bounds Newton's steps. Opposed gradients reach it: their bargain is at infinity.
_NEWTON_STEPS = 40

# A set of tasks whose conditions are violated by more than this (in cosines) is not the solution.
_LARGEST_VIOLATION = 1e-2


def gram(updates: optax.Updates) -> Float[Array, "task task"]:
    """Returns `G_jk = g_j . g_k` over all leaves `[task, ...]`, in float32 at least.

    A gradient that is not finite affects only its own row and column.
    """

    def leaf_gram(leaf: Float[Array, "task ..."]) -> Float[Array, "task task"]:
        rows = leaf.astype(widest(leaf.dtype, jnp.dtype("float32"))).reshape(leaf.shape[0], -1)
        return product(rows, rows.T)

    grams = [leaf_gram(leaf) for leaf in jax.tree.leaves(updates)]
    dtype = widest(*(leaf.dtype for leaf in grams))
    return functools.reduce(jnp.add, (leaf.astype(dtype) for leaf in grams))


def cosines(gram: Float[Array, "task task"]) -> tuple[Float[Array, "task task"], Float[Array, " task"]]:
    """Returns the cosines between the gradients (rows of zeros where a gradient is 0), and their norms."""
    norm = jnp.sqrt(jnp.diagonal(gram))
    unit = jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0)
    cosine = gram * unit[:, None] * unit[None, :]
    return jnp.where(jnp.eye(len(norm), dtype=bool), (norm > 0).astype(gram.dtype)[:, None], cosine), norm


def inverse_norms(norm: Float[Array, " task"]) -> Float[Array, " task"]:
    """Returns `min_j n_j / n_k` over the norms that are not 0: at most 1, and 0 where the norm is 0."""
    smallest = jnp.min(jnp.where(norm > 0, norm, jnp.inf))
    return jnp.where(norm > 0, smallest / jnp.where(norm > 0, norm, 1), 0)


def solve(matrix: Float[Array, "task task"], right: Float[Array, "task column"]) -> Float[Array, "task column"]:
    """Solves `matrix X = right` for a positive semidefinite matrix, by Gauss-Jordan elimination.

    Such a matrix needs no pivoting. A row that depends on those before it (within rounding) gets 0, so that the result
    is a solution where there is one.
    """
    size = len(matrix)
    smallest = size * jnp.finfo(matrix.dtype).eps * jnp.diagonal(matrix)
    table = jnp.concatenate([matrix, right], axis=1)
    for index in range(size):
        pivot = table[index, index]
        independent = pivot > smallest[index]
        row = jnp.where(independent, table[index] / jnp.where(independent, pivot, 1), 0)
        here = np.arange(size)[:, None] == index
        table = jnp.where(here, row[None, :], table - table[:, index, None] * row[None, :])
    return table[:, size:]


def faces(size: int) -> Bool[Array, "face task"]:
    """Returns every set of tasks but the empty one."""
    return jnp.asarray(list(itertools.product([False, True], repeat=size))[1:])


def nonnegative_minimum(
    matrix: Float[Array, "task task"], linear: Float[Array, "task column"]
) -> Float[Array, "task column"]:
    r"""Returns `argmin x' M x / 2 - b' x` over `x >= 0` for every column `b`, exactly, by enumeration.

    `x` is the solution if and only if `x >= 0`, `M x - b >= 0`, and one of the two is 0 for every task. For each set
    of tasks whose `x` may be above 0 a linear system gives `x`. The set that violates the inequalities least, only by
    rounding, gives the solution.
    """

    def candidate(
        face: Bool[Array, " task"],
    ) -> tuple[Float[Array, "task column"], Float[Array, " column"]]:
        x = solve(jnp.where(face[:, None] & face[None, :], matrix, 0), jnp.where(face[:, None], linear, 0))
        slack = product(matrix, x) - linear
        return x, jnp.max(jnp.maximum(-x, -slack), axis=0)

    every_face = jnp.concatenate([jnp.zeros((1, len(matrix)), bool), faces(len(matrix))])
    x, violation = jax.vmap(candidate)(every_face)
    best = jnp.argmin(violation, axis=0)
    return jnp.maximum(jnp.take_along_axis(x, best[None, None, :], axis=0)[0], 0)


def worst_case_direction(
    cosine: Float[Array, "task task"],
    inverse: Float[Array, " task"],
    average: Float[Array, " task"],
    radius: Float[Array, ""],
) -> Float[Array, " task"]:
    r"""Returns `y` of `e = sum_k y_k u_k`, `y >= 0`, `|e| = radius`, that maximises the smallest `g_k . (g_0 + e)`.

    With the unit gradients :math:`u_k`, :math:`b_k = u_k \cdot g_0` and :math:`r_k = 1 / |g_k|`, the tasks
    that are worst off, S, share one value `t`: :math:`C_S y = t r_S - b_S`, and :math:`y^\top C_S y` equals
    the square of the radius, an equation of second degree in `t`. S is found by enumeration, as in
    `nonnegative_minimum`. No set satisfies the conditions if gradients are opposed within rounding, because every
    direction then improves one at the cost of another. The best of the candidates is returned in that case.

    Args:
      cosine: `C`, the cosines between the gradients.
      inverse: `r`, up to a common factor.
      average: `b`.
      radius: radius of the ball.
    """
    takes_part = inverse > 0

    def candidate(
        face: Bool[Array, " task"],
    ) -> tuple[Float[Array, " task"], Float[Array, ""], Float[Array, ""]]:
        inside = face & takes_part
        right = jnp.where(inside[:, None], jnp.stack([inverse, average], axis=1), 0)
        solution = solve(jnp.where(inside[:, None] & inside[None, :], cosine, 0), right)
        [[rr, rb], [_, bb]] = product(right.T, solution)
        discriminant = rb * rb - rr * (bb - radius * radius)
        exists = (discriminant >= 0) & (rr > 0)
        worst = (rb + jnp.sqrt(jnp.where(exists, discriminant, 0))) / jnp.where(exists, rr, 1)
        y = worst * solution[:, 0] - solution[:, 1]
        gain = average + product(cosine, y)
        shortfall = jnp.where(takes_part, worst * inverse - gain, 0)
        violation = jnp.max(jnp.maximum(-y, shortfall))
        feasible = jnp.maximum(y, 0)
        length = jnp.sqrt(jnp.maximum(feasible @ product(cosine, feasible), jnp.finfo(y.dtype).tiny))
        feasible = feasible * jnp.minimum(radius / length, 1)
        gain = average + product(cosine, feasible)
        smallest = jnp.min(jnp.where(takes_part, gain / jnp.where(takes_part, inverse, 1), jnp.inf))
        return feasible, jnp.where(exists, violation, jnp.inf), smallest

    y, violation, smallest = jax.vmap(candidate)(faces(len(cosine)))
    best = jnp.where(jnp.min(violation) < _LARGEST_VIOLATION, jnp.argmin(violation), jnp.argmax(smallest))
    return y[best]


def bargain(cosine: Float[Array, "task task"]) -> Float[Array, " task"]:
    r"""Returns `y > 0` of `C y = 1 / y` elementwise: the minimum of :math:`y^\top C y / 2 - \sum_k \log y_k`.

    Newton's method is damped by its decrement as for any self-concordant function, so that it converges from any
    start (Nesterov and Nemirovskii, 1994). Opposed gradients have no solution: their `y` grows in the right direction
    until the steps are used up.
    """
    takes_part = jnp.diagonal(cosine) > 0
    matrix = jnp.where(jnp.diag(~takes_part), 1, cosine)
    tolerance = jnp.finfo(matrix.dtype).eps

    def unfinished(carry: tuple[Float[Array, " task"], Float[Array, ""], Array]) -> Array:
        _, decrement, step = carry
        return (decrement > tolerance) & (step < _NEWTON_STEPS)

    def newton(
        carry: tuple[Float[Array, " task"], Float[Array, ""], Array],
    ) -> tuple[Float[Array, " task"], Float[Array, ""], Array]:
        y, _, step = carry
        # In units of y the Hessian is y C y + 1, and the step is relative.
        gradient = y * product(matrix, y) - 1
        relative = solve(matrix * y[:, None] * y[None, :] + jnp.eye(len(y), dtype=y.dtype), gradient[:, None])[:, 0]
        decrement = jnp.sqrt(jnp.maximum(jnp.sum(relative * gradient), 0))
        damping = jnp.where(decrement > 0.25, 1 / (1 + decrement), 1)
        return y * (1 - damping * relative), decrement, step + 1

    start = jnp.ones_like(matrix[0]), jnp.full((), jnp.inf, matrix.dtype), jnp.zeros((), jnp.int32)
    y, _, _ = jax.lax.while_loop(unfinished, newton, start)
    return jnp.where(takes_part, y, 0)


def eigenvectors(
    matrix: Float[Array, "task task"],
) -> tuple[Float[Array, " task"], Float[Array, "task task"]]:
    """Returns the eigenvalues, in no order, and eigenvectors, in columns, of a positive semidefinite matrix.

    This is Jacobi's cyclic method. It finds the eigenvalues that are small because gradients are small to high
    relative accuracy (Demmel and Veselic, 1992). Methods that first make the matrix tridiagonal are accurate only
    relative to the largest eigenvalue.
    """
    size = len(matrix)
    pairs = list(itertools.combinations(range(size), 2))

    def rotated(
        matrix: Float[Array, "task task"], vectors: Float[Array, "task task"], p: int, q: int
    ) -> tuple[Float[Array, "task task"], Float[Array, "task task"]]:
        app, aqq, apq = matrix[p, p], matrix[q, q], matrix[p, q]
        some = apq != 0
        ratio = (aqq - app) / jnp.where(some, 2 * apq, 1)
        tangent = jnp.where(ratio < 0, -1, 1).astype(ratio.dtype) / (jnp.abs(ratio) + jnp.sqrt(1 + ratio * ratio))
        tangent = jnp.where(some, tangent, 0)
        cos = 1 / jnp.sqrt(1 + tangent * tangent)
        sin = tangent * cos
        at_p, at_q = np.arange(size) == p, np.arange(size) == q

        def turned(table: Float[Array, "task task"]) -> Float[Array, "task task"]:  # columns p and q
            new_p = cos * table[:, p] - sin * table[:, q]
            new_q = sin * table[:, p] + cos * table[:, q]
            return jnp.where(at_p[None, :], new_p[:, None], jnp.where(at_q[None, :], new_q[:, None], table))

        matrix = turned(turned(matrix).T)
        diagonal = jnp.where(at_p, app - tangent * apq, jnp.where(at_q, aqq + tangent * apq, jnp.diagonal(matrix)))
        off = (at_p[:, None] & at_q[None, :]) | (at_q[:, None] & at_p[None, :])
        matrix = jnp.where(np.eye(size, dtype=bool), diagonal[:, None], jnp.where(off, 0, matrix))
        return matrix, turned(vectors)

    def sweep(
        _: int | Array, carry: tuple[Float[Array, "task task"], Float[Array, "task task"]]
    ) -> tuple[Float[Array, "task task"], Float[Array, "task task"]]:
        matrix, vectors = carry
        for p, q in pairs:
            matrix, vectors = rotated(matrix, vectors, p, q)
        return matrix, vectors

    identity = jnp.eye(size, dtype=matrix.dtype)
    sweeps = _SWEEPS if size > 2 else 1  # one rotation is exact for two tasks
    matrix, vectors = jax.lax.fori_loop(0, sweeps, sweep, (matrix, identity))
    return jnp.diagonal(matrix), vectors
