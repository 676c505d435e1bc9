"""The backend that a function is traced for: some layers have another form on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_TRACED_FOR: ContextVar[str] = ContextVar("traced_for", default="")


def on_cpu() -> bool:
    """Returns whether what is traced now is for a CPU."""
    return (_TRACED_FOR.get() or jax.default_backend()) == "cpu"


@contextmanager
def traced_for(backend: str) -> Iterator[None]:
    """Makes what is traced inside that of another backend ("cpu", "gpu", "tpu"), whether or not it is here.

    A function with `jax.jit` around it that was traced outside before stays as it is, and one that is traced inside
    stays so outside.
    """
    token = _TRACED_FOR.set(backend)
    try:
        yield
    finally:
        _TRACED_FOR.reset(token)
