"""The engines that train the jobs of a study."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sejax.jobs.on_ray import OnRay
from sejax.jobs.serial import Serial

Engine = Serial | OnRay

_ENGINES: Mapping[str, Callable[[], Engine]] = {"serial": Serial, "ray": OnRay}


@contextmanager
def open_engine(name: str) -> Iterator[Engine]:
    """Yields the engine of that name: `config.jobs`. It is opened before jax is used.

    Raises:
      InputError: see `OnRay`.
    """
    engine = _ENGINES[name]()
    try:
        yield engine
    finally:
        engine.close()
