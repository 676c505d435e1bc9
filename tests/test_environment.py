"""Known faults of jax releases that pyproject.toml excludes: a test here fails where one slips in.

Each runs in a process of its own, since such a fault may crash or hang.
"""

import os
import subprocess
import sys

import pytest

# 0.10.2: the last rows come out wrong without a word (jax issue 39103).
MATRIX_VECTOR = """
import jax, jax.numpy as jnp, numpy as np
row = np.arange(32_769, dtype=np.float32)
x = np.stack([row, 0 * row, 0 * row], axis=1)
f = jax.jit(jax.vmap(lambda r: jnp.sum(jnp.square(jnp.eye(3) @ r))))
np.testing.assert_allclose(f(x), row.astype(np.float64) ** 2, rtol=1e-5)
"""

# 0.10.2: a segmentation fault (jax issue 40412).
RANK_SEVEN = """
import jax, jax.numpy as jnp, numpy as np
a, b = np.random.default_rng(0).normal(size=(2, 3, 1, 2, 2, 8, 8, 8)).astype(np.float32)
found = jax.jit(lambda a, b: jnp.sum(a * b, axis=3))(a, b)
np.testing.assert_allclose(found, (a * b).sum(axis=3), rtol=1e-5, atol=1e-6)
"""

# 0.10.0 to 0.10.2: never ends. It is what the orthogonal kernels of stacked LSTMs are drawn with.
STACKED_QR = """
import jax, jax.numpy as jnp, numpy as np
x = np.random.default_rng(0).normal(size=(4, 10, 32, 32)).astype(np.float32)
for q in jax.jit(lambda x: [jax.vmap(lambda m: jnp.linalg.qr(m)[0])(own) for own in x])(x):
    np.testing.assert_allclose(q @ q.transpose(0, 2, 1), np.tile(np.eye(32), (10, 1, 1)), atol=1e-4)
"""

# Importing them takes seconds and a gigabyte, and neither is declared.
NO_OTHER_FRAMEWORK = """
import sys
import sejax.study
assert not {"tensorflow", "torch"} & sys.modules.keys()
"""


@pytest.mark.parametrize(
    "program", [MATRIX_VECTOR, RANK_SEVEN, STACKED_QR, NO_OTHER_FRAMEWORK], ids=["matvec", "rank7", "qr", "imports"]
)
def test_this_environment(program):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
