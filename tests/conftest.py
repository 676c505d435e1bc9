"""Every test runs with two CPU devices, strict dtypes, no silent rank promotion, and warnings as errors.

Array shapes in signatures are checked by jaxtyping and beartype (`--jaxtyping-packages` in pyproject.toml).
"""

import os

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
