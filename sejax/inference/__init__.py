"""From a finished study to a model that predicts: bundles, files, streams.

Example:
  >>> from sejax.inference import Model
  >>> Model.load("my-bundle").predict(["a.wav"])[0].label
  'happy'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sejax.features.extract import Segment
    from sejax.inference.model import Model, Stream
    from sejax.inference.records import Record

__all__ = ["Model", "Record", "Segment", "Stream"]

_MODULES = {"Model": "model", "Stream": "model", "Record": "records", "Segment": "model"}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is used: the commands answer --help without jax."""
    if name in _MODULES:
        return getattr(import_module(f"sejax.inference.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
