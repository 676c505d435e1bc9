"""Every test runs with two CPU devices, strict dtypes, no silent rank promotion, and warnings as errors.

Array shapes in signatures are checked by jaxtyping and beartype (`--jaxtyping-packages` in pyproject.toml).
"""

import contextlib
import io
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
# Most of the tests' time is compilation, which takes a quarter less without LLVM's optimisations; the commands of
# .ci/run compile as users do. A flag that is set outside comes last and wins.
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"
)
# Commands that tests start inherit these. The size limit makes jax lock the cache, which all workers share.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(4 << 30)
# numba's cache has no lock. Workers that compile one of librosa's functions for different types at once can store one's
# code under the other's types, which ends every later process that calls it with a segmentation fault.
os.environ["NUMBA_CACHE_DIR"] = str(
    Path(__file__).parents[1] / ".pytest_cache" / "numba" / os.environ.get("PYTEST_XDIST_WORKER", "alone")
)

import hypothesis
import jax
import pytest
from filelock import FileLock

hypothesis.settings.register_profile("untimed", deadline=None)  # the first example compiles, and machines differ
hypothesis.settings.load_profile("untimed")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def without_programs_of_other_modules() -> None:
    """Drops compiled programs: each keeps memory maps, and a process with more than 65,530 of them is killed."""
    jax.clear_caches()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a session share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def cache_dir(shared_folder: Path) -> str:
    """The features and the compiled programs of all small studies; programs of other tests are kept there too."""
    folder = shared_folder / "cache"
    folder.mkdir(exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))  # as a study does
    return str(folder)


@pytest.fixture(scope="session")
def study(shared_folder: Path, cache_dir: str) -> Path:
    """A trained workdir, with the output of its training in printed.txt beside it. Tests must not change it."""
    from tiny_study import study_config  # after jaxtyping's hook and the settings above

    from sejax.study import train_and_evaluate

    workdir = shared_folder / "study" / "workdir"
    finished = workdir.with_name("printed.txt")
    with FileLock(shared_folder / "study.lock"):
        if not finished.exists():
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                train_and_evaluate(study_config(cache_dir), str(workdir))
            finished.write_text(printed.getvalue())
    return workdir
