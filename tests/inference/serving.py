"""Servers in a thread of the test's process, with a model that needs no training."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvicorn

from sejax.errors import InputError
from sejax.features.extract import Contents, Extraction
from sejax.inference.model import Model
from sejax.inference.records import Names, Outputs
from sejax.inference.scorer import Made, Scorer
from sejax.inference.serve.limits import Limits
from sejax.inference.serve.server import bind, make_server

CARD = """---
tags: [x]
---
# A card <b>that</b> is text

It has `code`, **weight** and [a link](https://example.org), but [no script](javascript:alert).

| a | b |
| --- | --- |
| <img src=x onerror=alert(1)> | 2 |

- one
- two
"""


class Loudness(Scorer):
    """Two runs whose outputs are of the level of the audio alone."""

    digest = "loudness"
    card = CARD
    contents = (Contents("raw", {}, {}, size=1, dtype=np.float32, window=400),)

    def __init__(self, classes: Sequence[str], dimensions: Sequence[str]) -> None:
        self._names = Names(tuple(classes), tuple(dimensions), intervals=bool(dimensions), spread=True)
        self.go = threading.Event()  # it waits for it
        self.go.set()
        self.calls = 0

    @property
    def names(self) -> Names:
        return self._names

    @property
    def notes(self) -> tuple[str, ...]:
        return ("a note",)

    @property
    def scale(self) -> tuple[float, float] | None:
        return (1.0, 5.0) if self._names.dimensions else None

    def score(self, group: Sequence[Made]) -> list[Outputs | InputError]:
        self.calls += 1
        assert self.go.wait(30)
        return [self._one(made[0]) for made in group]

    def _one(self, loaded: Any) -> Outputs | InputError:
        if isinstance(loaded, Extraction):
            return InputError(loaded.error)
        level = float(np.sqrt(np.mean(loaded.samples**2)))
        runs = np.array([[0.9], [1.1]]) * level
        weights = np.exp(runs * np.arange(len(self.names.classes)))
        prob = weights / weights.sum(axis=1, keepdims=True) if self.names.classes else np.zeros((2, 0))
        values = 1 + 4 * runs * np.arange(1, len(self.names.dimensions) + 1) / 3
        return Outputs(prob, prob, values, np.full(len(self.names.dimensions), 0.5), loaded.note)


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    port: int
    scorer: Loudness
    model: Model

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> "Answer":
        """Returns the answer to one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def tree(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of a refusal."""
        (sentence,) = self.tree.values()
        assert "\n" not in sentence and "/tmp" not in sentence
        return sentence


@contextlib.contextmanager
def running(
    classes: Sequence[str] = ("sad", "neutral", "happy"),
    dimensions: Sequence[str] = ("valence", "arousal", "dominance"),
    limits: Limits | None = None,
    **options: Any,
) -> Iterator[Running]:
    """Runs a server in a thread until the end of the block."""
    scorer = Loudness(classes, dimensions)
    model = Model(scorer)
    with contextlib.closing(bind("127.0.0.1", 0)) as listening:
        server = make_server(listening, model, name="loudness", limits=limits, **options)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            _wait_for(server)
            yield Running(listening.getsockname()[1], scorer, model)
        finally:
            scorer.go.set()
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def _wait_for(server: uvicorn.Server) -> None:
    for _ in range(600):
        if server.started:
            return
        threading.Event().wait(0.05)
    raise TimeoutError("the server has not started")
