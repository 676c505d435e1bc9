"""Parameters and outputs of small models, for the tests of layers and models."""

import jax
import jax.numpy as jnp
import numpy as np


def shake(params):
    """Moves every parameter: fresh biases are 0, and a layer then makes 0 of padding by luck."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + jnp.asarray(rng.normal(0, 0.2, p.shape), p.dtype), params)


def wide(x):
    """Returns an array as float32 numpy."""
    return np.asarray(x.astype(jnp.float32))


def shapes(params):
    """Returns the shape of each parameter by its path."""
    return {jax.tree_util.keystr(k, simple=True, separator="/"): v.shape for k, v in jax.tree.leaves_with_path(params)}
