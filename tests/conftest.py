"""Every test runs with two CPU devices, strict dtypes, no silent rank promotion, and warnings as errors.

Array shapes in signatures are checked by jaxtyping and beartype (`--jaxtyping-packages` in pyproject.toml).
"""

import contextlib
import io
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

import hypothesis
import jax
import pytest

hypothesis.settings.register_profile("untimed", deadline=None)  # the first example compiles, and machines differ
hypothesis.settings.load_profile("untimed")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def without_programs_of_other_modules() -> None:
    """Each compiled program keeps memory maps, of which a process may have 65530: the next one ends it."""
    jax.clear_caches()


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Features and compiled programs of all the small studies."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, cache_dir: str) -> Path:
    """A trained workdir, with what its training printed beside it: not to be changed."""
    from tiny_study import study_config  # after jaxtyping's hook and the settings above

    from sejax.study import train_and_evaluate

    workdir = tmp_path_factory.mktemp("study") / "workdir"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        train_and_evaluate(study_config(cache_dir), str(workdir))
    workdir.with_name("printed.txt").write_text(printed.getvalue())
    return workdir
