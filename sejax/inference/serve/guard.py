"""What holds for every request: which hosts and origins are answered, the headers of answers, a line in the log."""

import contextlib
import sys
import time
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LONGEST_PATH = 80  # characters of a path in the log


class Guard:
    """The outermost layer of the application.

    A page of another site can reach a server on loopback through the browser of its user, under that site's own name
    (DNS rebinding) or its origin: both are refused.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str], origins: Collection[str], frames: Sequence[str]
    ) -> None:
        """Wraps an application.

        Args:
          app: the application.
          hosts: names in the header Host that are answered; none: all.
          origins: of pages that may send requests, beside the own one; "*" is all.
          frames: origins of pages that may show this one in a frame.
        """
        self._app, self._hosts, self._origins = app, hosts, origins
        self._headers = _security_headers(frames)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":  # the start and the end of the server
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            problem = self._problem(Headers(scope=scope))
            app = JSONResponse({"error": problem}, status_code=403) if problem else self._app
            await app(scope, receive, send_guarded)
        finally:
            _log(scope, status, time.monotonic() - began)

    def _problem(self, headers: Headers) -> str:
        """Returns why a request is refused, "" if it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts and _name(host) not in self._hosts:
            return (
                f"the host is {host[:100]!r}, expected {' or '.join(self._hosts)}: the server answers this machine only"
            )
        if origin is None or "*" in self._origins or origin in self._origins:
            return ""
        if origin.partition("://")[2].lower() == host.lower():
            return ""
        return f"the request comes from a page of {origin[:100]!r}, expected the server's own page, or --allow-origin"


def _name(host: str) -> str:
    """Returns the name in a header Host, without its port and the brackets of IPv6."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _security_headers(frames: Sequence[str]) -> dict[str, str]:
    ancestors = " ".join(frames) or "'none'"
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "media-src blob:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors {ancestors}"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "permissions-policy": "microphone=(self), camera=(), geolocation=()",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
    }


def _log(scope: Scope, status: int, seconds: float) -> None:
    """Prints a line for a request: not its query, in which the name of a file may be."""
    path = "".join(c if c.isprintable() else "?" for c in scope["path"])[:_LONGEST_PATH]
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):
        print(f"{now} {scope['method']} {path} {status or '-'} {seconds:.3f} s", file=sys.stderr, flush=True)
