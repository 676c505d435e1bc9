"""A server from its address to its end."""

import contextlib
import ipaddress
import socket
import sys
from collections.abc import Sequence

import uvicorn

from sejax.errors import InputError
from sejax.inference.model import Model
from sejax.inference.serve.app import create_app
from sejax.inference.serve.guard import LOOPBACK
from sejax.inference.serve.limits import Limits
from sejax.inference.serve.protocol import Connection

GRACE_SECONDS = 2  # for open requests, when the server ends
KEEP_SECONDS = 30  # a connection waits so long for its next request


def serve(
    model: Model,
    *,
    name: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    origins: Sequence[str] = (),
    frames: Sequence[str] = (),
) -> None:
    """Serves a model until Ctrl-C, which raises KeyboardInterrupt as everywhere.

    Args:
      model: which nothing else uses.
      name: of the model, which the page shows.
      host: address or name of this machine; other machines reach any but a loopback one.
      port: 0 takes a free one.
      limits: by default those of the command.
      origins: of other pages that may send requests.
      frames: origins of pages that may show the page in a frame.

    Raises:
      InputError: the address cannot be used.
    """
    with contextlib.closing(bind(host, port)) as listening:
        server = make_server(listening, model, name=name, limits=limits, origins=origins, frames=frames)
        server.run(sockets=[listening])


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket that holds an address, and is closed to requests until a server runs with it.

    Raises:
      InputError: the address cannot be used.
    """
    if not 0 <= port <= 65_535:
        raise InputError(f"--port is {port}, expected a number from 0 (any that is free) to 65,535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host is {host!r} ({error}), expected an address of this machine") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise InputError(f"port {port} of {host} cannot be used ({reason}), expected a free one (--port)") from error
    return listening


def make_server(
    listening: socket.socket,
    model: Model,
    *,
    name: str,
    limits: Limits | None = None,
    origins: Sequence[str] = (),
    frames: Sequence[str] = (),
) -> uvicorn.Server:
    """Returns a server that has not begun; see `serve`.

    Args:
      listening: what `bind` returned, and what its `run` is given too.
      model: see `serve`.
      name: see `serve`.
      limits: see `serve`.
      origins: see `serve`.
      frames: see `serve`.
    """
    host, port = listening.getsockname()[:2]
    loopback = ipaddress.ip_address(host).is_loopback
    if not loopback:
        print(
            f"warning: {host} can be reached from other machines: whoever reaches it can use the model, and what they "
            "send is not encrypted",
            file=sys.stderr,
        )
    app = create_app(
        model, name=name, limits=limits, hosts=LOOPBACK if loopback else (), origins=origins, frames=frames
    )
    config = uvicorn.Config(
        app,
        loop="asyncio",  # also where uvloop is installed
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # the guard has a line for each request
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    shown = f"[{host}]" if ":" in host else host
    return _Server(config, f"serving {name} at http://{shown}:{port} (Ctrl-C ends it)")


class _Server(uvicorn.Server):
    """A server that says where it is once it answers."""

    def __init__(self, config: uvicorn.Config, first_words: str) -> None:
        super().__init__(config)
        self._first_words = first_words

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self._first_words, flush=True)
