"""The routes: the page, predictions, the model, its state."""

import asyncio
import math
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sejax.inference.model import WINDOW_SECONDS, Model
from sejax.inference.records import Record, columns
from sejax.inference.serve.guard import Guard
from sejax.inference.serve.limits import LEAST_EVERY, LONGEST_WINDOW, Limits, Refusal
from sejax.inference.serve.openapi import describe
from sejax.inference.serve.uploads import gone, receive
from sejax.inference.serve.worker import Stopped, Wanted, Worker

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def create_app(
    model: Model,
    *,
    name: str,
    limits: Limits | None = None,
    hosts: Collection[str] = (),
    origins: Sequence[str] = (),
    frames: Sequence[str] = (),
) -> Starlette:
    """Returns the ASGI application of a model, to be served by one process.

    Args:
      model: which nothing else uses.
      name: of the model, which the page shows.
      limits: by default those of the command.
      hosts: names in the header Host that are answered; none: all.
      origins: of other pages that may send requests.
      frames: origins of pages that may show this one in a frame.
    """
    state = _Service(model, name, limits or Limits())
    files = [_file_route(path) for path in sorted(STATIC.iterdir()) if path.suffix in TYPES]
    cors = [Middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"])] if origins else []
    app = Starlette(
        routes=[
            *files,
            Route("/predict", state.predict, methods=["POST"]),
            Route("/model", state.model),
            Route("/health", state.health),
            Route("/openapi.json", state.openapi),
        ],
        middleware=[Middleware(Guard, hosts=hosts, origins=origins, frames=frames), *cors],
        exception_handlers={Refusal: _refused, HTTPException: _no_such_route, 500: _failed},
        lifespan=state.live,
    )
    app.router.redirect_slashes = False
    return app


class _Service:
    """The answers about one model."""

    def __init__(self, model: Model, name: str, limits: Limits) -> None:
        self._names, self._limits = model.names, limits
        self._worker = Worker(model, limits.audio_seconds)
        self._free = threading.BoundedSemaphore(limits.requests)
        self._uploads = ""  # the folder in which they are while they are predicted
        self._model = {
            "name": name,
            "digest": model.digest,
            "sejax": version("sejax"),
            **{key: list(getattr(model.names, key)) for key in ("classes", "dimensions")},
            "intervals": model.names.intervals,
            "spread": model.names.spread,
            "scale": list(model.scale) if model.scale else None,
            "columns": columns(model.names),
            "notes": list(model.notes),
            "card": model.card,
            "limits": {
                "bytes": limits.body_bytes,
                "seconds": limits.audio_seconds,
                "least_every": LEAST_EVERY,
                "longest_window": LONGEST_WINDOW,
            },
        }
        self._openapi = describe(self._model, limits)

    @asynccontextmanager
    async def live(self, app: Starlette) -> AsyncIterator[None]:
        """Holds the worker and the folder of uploads as long as the server lives."""
        with tempfile.TemporaryDirectory(prefix="sejax-serve-", ignore_cleanup_errors=True) as self._uploads:
            self._worker.start()
            yield
            self._worker.end()

    async def predict(self, request: Request) -> Response:
        """Answers with the records of the audio in the body."""
        wanted = read_query(request.query_params.multi_items())
        with ExitStack() as held:
            held.enter_context(self._slot())
            folder = held.enter_context(tempfile.TemporaryDirectory(dir=self._uploads, ignore_cleanup_errors=True))
            path = await receive(request, Path(folder), self._limits, wanted.name)
            stopped = threading.Event()
            future = self._worker.submit(str(path), wanted, stopped)
            # The file and the place in the queue belong to the thread from here on, even if nobody waits any more.
            future.add_done_callback(_closing(held.pop_all()))
        records = await self._wait(request, asyncio.wrap_future(future), stopped)
        return self._answer(records, f"{folder}/", path.name)

    async def model(self, request: Request) -> Response:
        """Answers what the model is."""
        return JSONResponse(self._model)

    async def health(self, request: Request) -> Response:
        """Answers whether requests are answered at once."""
        ready = self._worker.ready
        return JSONResponse({"status": "ready" if ready else "warming up", "ready": ready})

    async def openapi(self, request: Request) -> Response:
        """Answers with the description of this interface."""
        return JSONResponse(self._openapi)

    @contextmanager
    def _slot(self) -> Any:
        """Holds one of the places for requests."""
        if not self._free.acquire(blocking=False):
            sentence = f"{self._limits.requests} requests are being answered, expected fewer: try again in a moment"
            raise Refusal(503, sentence, {"retry-after": "2"})
        try:
            yield
        finally:
            self._free.release()

    async def _wait(
        self, request: Request, predicted: "asyncio.Future[list[Record]]", stopped: threading.Event
    ) -> list[Record]:
        """Waits for records as long as the client does, and as the limits allow."""
        left = asyncio.ensure_future(_disconnected(request))
        waited: set[asyncio.Future[Any]] = {predicted, left}
        try:
            await asyncio.wait(waited, timeout=self._limits.request_seconds, return_when=asyncio.FIRST_COMPLETED)
            if predicted.done():
                return predicted.result()
            if left.done():
                raise gone()
            seconds = self._limits.request_seconds
            raise Refusal(504, f"the prediction has taken more than {seconds:g} s, expected less: try shorter audio")
        except (Stopped, asyncio.CancelledError) as error:
            raise Refusal(503, "the server is ending, expected a later request") from error
        finally:
            stopped.set()
            predicted.cancel()
            left.cancel()

    def _answer(self, records: Sequence[Record], folder: str, name: str) -> Response:
        """Returns the records as rows, in which nothing says where the upload was."""
        if all(record.error for record in records):
            sentence = records[0].error if records else f"{name}: has no window with audio, expected some"
            raise Refusal(422, sentence.replace(folder, ""))
        rows = [record.row(self._names) for record in records]
        for row in rows:
            row["file"] = name
            row["error"] = row["error"] and row["error"].replace(folder, "")
        return JSONResponse({"model": self._model["digest"], "records": rows})


def read_query(items: Sequence[tuple[str, str]]) -> Wanted:
    """Returns what the query of a request asks for.

    Raises:
      Refusal: it has a word twice, or one that is not known or makes no sense.
    """
    given = dict(items)
    unknown = [key for key in given if key not in Wanted._fields]
    if unknown or len(given) < len(items):
        what = f"has {unknown[0][:40]!r}" if unknown else "has a word twice"
        raise Refusal(400, f"the query {what}, expected {', '.join(Wanted._fields)}, each once at most")
    window = _number(given, "window", LEAST_EVERY, LONGEST_WINDOW)
    every = _number(given, "every", LEAST_EVERY, WINDOW_SECONDS if window is None else window)
    if window is not None and every is None:
        raise Refusal(400, "the query has a window and no every, expected both or every alone")
    return Wanted(every, window or WINDOW_SECONDS, _number(given, "abstain", 0.0, 1.0) or 0.0, given.get("name", ""))


def _number(given: dict[str, str], key: str, low: float, high: float) -> float | None:
    if key not in given:
        return None
    try:
        value = float(given[key])
    except ValueError:
        value = math.nan
    if not low <= value <= high:  # also true for NaN
        of = " (the window)" if key == "every" else ""
        raise Refusal(400, f"{key} is {given[key][:40]!r} in the query, expected a number from {low:g} to {high:g}{of}")
    return value


def _closing(held: ExitStack) -> Callable[[Any], None]:
    return lambda _: held.close()


async def _disconnected(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _file_route(path: Path) -> Route:
    content, kind = path.read_bytes(), TYPES[path.suffix]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return Route("/" if path.name == "index.html" else f"/static/{path.name}", answer)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse({"error": error.sentence}, status_code=error.status, headers=error.headers)


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:80]
    if error.status_code == 405:
        sentence = f"{path!r} does not answer {request.method}, expected what /openapi.json says"
    else:
        sentence = f"there is no {path!r}, expected /, /predict, /model, /health or /openapi.json"
    return JSONResponse({"error": sentence}, status_code=error.status_code, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server has failed at this, expected no such request"}, status_code=500)
