"""Compiled programs of predictions are shared by all tests and by the commands that they start."""

import pytest


@pytest.fixture(autouse=True)
def shared_programs(cache_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cache_dir` sets jax's own cache; commands get it from their environment."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", f"{cache_dir}/xla")
