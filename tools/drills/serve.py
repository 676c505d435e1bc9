"""Sends damaged and odd requests to a server of `python -m sejax.serve`, on the network as users and attackers do.

`bytes` is damaged audio of several formats as a body; `form` the same in a form whose bytes are damaged too; `query`
and `head` are healthy audio with odd words in the query and the headers; `path` asks for other paths and methods;
`http` is a request whose bytes are damaged anywhere. A request's name decides it.

Held: records, or a sentence with a status of its own; for `http` also a connection that is closed. Never: a status 500,
a traceback in the log, the folder of an upload in an answer, a server that has ended or does not answer afterwards,
files that stay behind, or memory that has grown by more than `--megabytes` since the first tenth of the requests.
"""

import argparse
import contextlib
import http.client
import json
import math
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import TracebackType

import psutil

from tools.drills.mutations import TOKENS, mutate_bytes
from tools.drills.parsers import audio_bytes
from tools.drills.study import environment, tone
from tools.drills.tally import ROOT, Failure, Tally, add_bounds, last_lines, rerun, tell, try_all

MODEL = ROOT / "tests" / "golden" / "ssl" / "wavlm-classifier"
STATUSES = {200, 400, 403, 404, 405, 408, 413, 415, 422, 431, 503, 504}
BOUNDARY = b"drill-7f3a"
SECONDS = 120.0  # for the server to start, and for an answer
PATIENCE = 2.0  # for an answer to what may be no whole request
METHODS = ("GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "get", "X")
PATHS = (
    "/",
    "/predict",
    "/model",
    "/health",
    "/openapi.json",
    "/static/app.js",
    "/static/../app.py",
    "/%00",
    "//",
    "/é",
)
FORMATS = (
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("FLAC", "PCM_16"),
    ("MP3", "MPEG_LAYER_III"),
    ("OGG", "VORBIS"),
    ("AIFF", "PCM_16"),
)
NAMES = (
    "content-type",
    "content-length",
    "content-encoding",
    "host",
    "origin",
    "expect",
    "transfer-encoding",
    "x",
    "range",
)
VALUES = (
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=x",
    "application/json",
    "audio/wav; codecs=1",
    "gzip",
    "chunked",
    "100-continue",
    "localhost",
    "[::1",
    "evil.example",
    "null",
)


@dataclass(frozen=True)
class Answer:
    """What a server has answered."""

    status: int
    body: bytes


class Server:
    """A server in a process of its own, on a free port of this machine."""

    def __init__(self, model: str, folder: Path, *options: str) -> None:
        """Starts it, and returns when it listens.

        Args:
          model: what it serves.
          folder: for its log and for its temporary files.
          options: further options of the command.
        """
        self.log = folder / "serve.log"
        words = [sys.executable, "-m", "sejax.serve", "--model", model, "--port", "0", *options]
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                words,
                cwd=ROOT,
                env=environment() | {"TMPDIR": str(folder)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            if found := re.search(r"at http://127\.0\.0\.1:(\d+) ", line):
                self.port = int(found[1])
                return
        raise RuntimeError(f"the server has not started: {lines} {self.log.read_text()}")

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def megabytes(self) -> float:
        """Its memory."""
        return psutil.Process(self._process.pid).memory_info().rss / 1e6

    def end(self, name: str) -> int:
        """Sends a signal, and returns the exit status."""
        self._process.send_signal(signal.Signals[name])
        return self._process.wait(60)

    def wait_until_ready(self) -> None:
        """Waits until the model is compiled."""
        end = time.monotonic() + SECONDS
        while not json.loads(self.ask("GET", "/health").body)["ready"]:
            if time.monotonic() > end:
                raise TimeoutError("the server does not become ready")
            time.sleep(0.1)

    def ask(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Returns the answer to a request that has exactly these headers, and Host and Content-Length if they lack."""
        given = {"host": "localhost", "content-length": str(len(body))} | dict(headers or {})
        found = self.send(request_bytes(method, target, given, body), SECONDS)
        if found is None:
            raise ConnectionError(f"the server has not answered {method} {target!r:.100}")
        return found

    def send(self, content: bytes, patience: float) -> Answer | None:
        """Returns the answer to these bytes; None if the connection was closed, or nothing came in time."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=patience) as connection:
            with contextlib.suppress(ConnectionError, TimeoutError):
                connection.sendall(content)
            reply = http.client.HTTPResponse(connection, method="HEAD" if content.startswith(b"HEAD ") else None)
            try:
                reply.begin()
                return Answer(reply.status, reply.read())
            except (http.client.HTTPException, ConnectionError, TimeoutError):
                return None
            finally:
                reply.close()


def request_bytes(method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Returns a request as it is sent."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + body


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=str(MODEL), help="that is served (default: a tiny one of the tests)")
    parser.add_argument("--cases", type=int, default=1000, help="requests (%(default)d)")
    parser.add_argument("--megabytes", type=float, default=100.0, help="that memory may grow by (%(default)g)")
    add_bounds(parser, minutes=30)


def run(arguments: argparse.Namespace, folder: Path, scratch: Path) -> Tally:
    """Sends all requests to one server."""
    with Server(arguments.model, scratch) as server:
        server.wait_until_ready()
        drill = _Drill(server, arguments.model, scratch)
        if arguments.case:
            kind, _, number = arguments.case.partition(":")
            return try_all([Request(kind, int(number))], drill.attempt, jobs=1, minutes=arguments.minutes)
        kinds = list(KINDS)
        first = arguments.seed * 10**9
        cases = [Request(kinds[n % len(kinds)], first + n // len(kinds)) for n in range(arguments.cases)]
        tenth = max(1, len(cases) // 10)
        tally = try_all(cases[:tenth], drill.attempt, jobs=arguments.jobs, minutes=arguments.minutes)
        before = server.megabytes
        tally.merge(try_all(cases[tenth:], drill.attempt, jobs=arguments.jobs, minutes=arguments.minutes))
        after = server.megabytes
        tell(f"the server's memory: {before:.0f} MB after {tenth:,} requests, {after:.0f} MB after {len(cases):,}")
        again = f"python tools/drill.py serve --cases {arguments.cases} --seed {arguments.seed}"
        tally.add("afterwards", drill.afterwards(after - before, arguments.megabytes, again))
        return tally


@dataclass(frozen=True)
class Request:
    """A request: its kind and its number decide it."""

    kind: str
    number: int

    @property
    def name(self) -> str:
        """Kind and number."""
        return f"{self.kind}:{self.number}"


class _Drill:
    """Sends requests to one server and judges its answers."""

    def __init__(self, server: Server, model: str, scratch: Path) -> None:
        self.server, self.model, self.scratch = server, model, scratch
        self.sounds = [
            audio_bytes(tone(number, seconds=0.3), container, subtype)
            for number, (container, subtype) in enumerate(FORMATS)
        ]

    def attempt(self, request: Request) -> Failure | None:
        """Sends a request; returns None if it held."""
        content = KINDS[request.kind](Random(request.name), self.sounds)
        whole = request.kind in ("bytes", "form", "query")
        answer = self.server.send(content, SECONDS if whole else PATIENCE)
        if problem := self._problem(answer, whole):
            return Failure(
                f"{request.name}: {problem}", self._again(request.name), last_lines(self.server.log.read_text())
            )
        return None

    def afterwards(self, grown: float, most: float, again: str) -> Failure | None:
        """Returns what is wrong once everything was sent."""
        time.sleep(1)
        left = [path.name for path in self.scratch.glob("sejax-serve-*/*")]
        problems = {
            "the server has ended": not self.server.alive,
            f"memory has grown by {grown:.0f} MB, expected {most:g} or less": grown > most,
            f"uploads are left: {left[:5]}": bool(left),
            "the log has a traceback": "Traceback" in self.server.log.read_text(),
        }
        found = [problem for problem, there in problems.items() if there]
        return Failure("; ".join(found), again, last_lines(self.server.log.read_text())) if found else None

    def _again(self, name: str) -> str:
        model = "" if self.model == str(MODEL) else f" --model {self.model}"
        return rerun("serve", name) + model

    def _problem(self, answer: Answer | None, whole: bool) -> str:
        """Returns what is wrong about an answer, "" if nothing is."""
        if not self.server.alive:
            return "the server has ended"
        if "Traceback" in self.server.log.read_text():
            return "the log has a traceback"
        if answer is None:
            return "there is no answer" if whole else ""
        if answer.status not in STATUSES:
            return f"the status is {answer.status}"
        if str(self.scratch).encode() in answer.body:
            return f"the answer says where the upload was: {answer.body!r:.300}"
        return _content_problem(answer)


def _content_problem(answer: Answer) -> str:
    if answer.status == 200 and answer.body[:1] != b"{":  # the page, or the answer to HEAD
        return ""
    if answer.status != 200 and not answer.body:
        return ""
    try:
        tree = json.loads(answer.body)
    except ValueError:
        return f"the answer is no JSON: {answer.body!r:.300}"
    if answer.status != 200:
        sentence = tree.get("error")
        good = isinstance(sentence, str) and 10 < len(sentence) < 4000 and sentence.isprintable()
        return "" if good and list(tree) == ["error"] else f"the refusal is no sentence: {tree!r:.300}"
    for row in tree.get("records", ()):
        shares = [value for key, value in row.items() if key.startswith("prob_") and value is not None]
        if not all(0 <= share <= 1 for share in shares) or (shares and not math.isclose(sum(shares), 1, abs_tol=1e-3)):
            return f"a record is insane: {row!r:.300}"
    return ""


def _bytes(random: Random, sounds: Sequence[bytes]) -> bytes:
    body = mutate_bytes(random, random.choice(sounds), sounds)
    query = random.choice(("", "", "?every=0.1&window=0.2", "?every=1", f"?name=x{random.randrange(100)}.wav"))
    return _post(query, body, {})


def _form(random: Random, sounds: Sequence[bytes]) -> bytes:
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' % BOUNDARY
    body = mutate_bytes(random, head + random.choice(sounds) + b"\r\n--%s--\r\n" % BOUNDARY, sounds)
    return _post("", body, {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"})


def _query(random: Random, sounds: Sequence[bytes]) -> bytes:
    words = []
    for _ in range(random.choice((1, 1, 2, 3))):
        key = random.choice(("every", "window", "abstain", "name", "x", random.choice(TOKENS)))
        value = random.choice(("0.5", "1", "1e400", "-1", random.choice(TOKENS), random.choice(TOKENS)))
        words.append(f"{_quoted(random, key)}={_quoted(random, value)}")
    return _post(f"?{'&'.join(words)}", random.choice(sounds), {})


def _head(random: Random, sounds: Sequence[bytes]) -> bytes:
    headers = {random.choice(NAMES): random.choice((*VALUES, *TOKENS)).strip() for _ in range(random.choice((1, 2, 3)))}
    return _post("", random.choice(sounds), headers)


def _path(random: Random, sounds: Sequence[bytes]) -> bytes:
    path = random.choice(PATHS)
    if random.random() < 0.5:
        path += _quoted(random, random.choice(TOKENS))
    body = random.choice((b"", random.choice(sounds)))
    headers = {"host": "localhost", "content-length": str(len(body))}
    return request_bytes(random.choice(METHODS), path, headers, body)


def _http(random: Random, sounds: Sequence[bytes]) -> bytes:
    return mutate_bytes(random, _post("?every=0.1&window=0.2", random.choice(sounds), {}), sounds)


KINDS: Mapping[str, Callable[[Random, Sequence[bytes]], bytes]] = {
    "bytes": _bytes,
    "form": _form,
    "query": _query,
    "head": _head,
    "path": _path,
    "http": _http,
}


def _post(query: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    given = {"host": "localhost", "content-length": str(len(body))} | dict(headers)
    return request_bytes("POST", f"/predict{query}", given, body)


def _quoted(random: Random, text: str) -> str:
    """Returns a text in percent escapes, some of which are wrong."""
    content = text.encode("utf-8", "surrogatepass")[:3000]
    quoted = "".join(chr(byte) if chr(byte).isalnum() else f"%{byte:02x}" for byte in content)
    return quoted + random.choice(("", "", "", "%", "%zz", "%ff"))
