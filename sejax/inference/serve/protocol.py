"""Connections: those that are too many, that send the head of a request too slowly, or that speak no HTTP."""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from sejax.inference.serve.limits import CONNECTIONS, HEADER_SECONDS

_REASONS = {400: "Bad Request", 503: "Service Unavailable"}


class Connection(H11Protocol):
    """uvicorn's connection with the deadline that it lacks, and with its own refusals in JSON."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins a connection, or refuses it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self._refuse(503, f"{CONNECTIONS} connections are open, expected fewer: try again in a minute")
        else:
            self._set_deadline()

    def data_received(self, data: bytes) -> None:
        """Takes bytes; the head of a request has to be complete in time, also that of a second one."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._drop_deadline()
        elif self._deadline is None:
            self._set_deadline()

    def on_response_complete(self) -> None:
        """Ends a request; what still comes of its body has a deadline too."""
        self._drop_deadline()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends a connection."""
        self._drop_deadline()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP."""
        self._refuse(400, "the request cannot be read, expected HTTP/1.1")

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int, sentence: str) -> None:
        self.transport.write(raw_answer(status, {"error": sentence}))
        self.transport.close()


def raw_answer(status: int, tree: Any) -> bytes:
    """Returns a whole answer in bytes, after which the connection is closed."""
    body = json.dumps(tree).encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        "x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
