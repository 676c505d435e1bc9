"""A model behind a page and a JSON interface (extra `serve`: starlette and uvicorn).

Example:
  >>> from sejax.inference import Model
  >>> from sejax.inference.serve import serve
  >>> serve(Model.load("my-bundle"), name="my-bundle", host="127.0.0.1", port=8000)

protocol  connections: those that are too many, too slow or no HTTP
guard     every request: hosts, origins, headers of every answer, a line in the log
uploads   from a body to a file
worker    the one thread that calls the model
app       the routes
openapi   their description
server    address, start and end
static    the page
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sejax.inference.serve.app import create_app
    from sejax.inference.serve.limits import Limits
    from sejax.inference.serve.server import serve

__all__ = ["Limits", "create_app", "serve"]

_MODULES = {"Limits": "limits", "create_app": "app", "serve": "server"}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is used: the command answers --help without starlette and jax."""
    if name in _MODULES:
        return getattr(import_module(f"sejax.inference.serve.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
