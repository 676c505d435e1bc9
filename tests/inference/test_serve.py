"""The JSON interface of a served model: what it answers, what it refuses, and what it leaves behind."""

import http.client
import io
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from serving import Running, running
from tiny_study import GOLDEN_SSL, ROOT, environment

from sejax.features.extract import Segment
from sejax.inference.commands.serve import main
from sejax.inference.serve import protocol, uploads
from sejax.inference.serve.limits import Limits
from sejax.inference.serve.server import bind, make_server
from tools.drills.serve import Server

RATE = 16_000


def audio(seconds: float = 1.0, rate: int = RATE, container: str = "WAV") -> bytes:
    """A tone that grows."""
    time_ = np.arange(int(seconds * rate)) / rate
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.6 * time_ / seconds * np.sin(1400 * time_), rate, format=container)
    return buffer.getvalue()


def form(content: bytes, *, field: str = "file", name: str = 'filename="a b.wav"', boundary: str = "xyz") -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; {name}\r\nContent-Type: audio/wav\r\n\r\n'
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode()


FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running() as served:
        yield served


@pytest.fixture
def uploads_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where servers that start in this test keep what is sent."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_in(folder: Path) -> list[str]:
    """What is left of uploads, once a job that still runs has had a moment."""
    for _ in range(100):
        if not (left := [str(path) for path in folder.rglob("*") if not path.name.startswith("sejax-serve-")]):
            break
        time.sleep(0.05)
    return left


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_the_rows_are_those_of_the_model(container: str, server: Running, tmp_path: Path):
    path = tmp_path / "x"
    path.write_bytes(audio(2.5, 22_050, container))
    answer = server.ask("POST", "/predict?name=x", path.read_bytes())
    assert answer.status == 200
    (expected,) = [record.row(server.model.names) for record in server.model.predict([path])]
    assert answer.tree == {"model": "loudness", "records": [expected | {"file": "x"}]}
    assert server.ask("POST", "/predict?every=0.5&window=1&name=x&abstain=0.99", path.read_bytes()).tree["records"] == [
        record.row(server.model.names) | {"file": "x"}
        for record in server.model.predict_windows(Segment(str(path), None, None), every=0.5, window=1.0, abstain=0.99)
    ]


def test_a_form_is_as_good(server: Running):
    raw = server.ask("POST", "/predict?name=a b.wav".replace(" ", "%20"), audio())
    sent = server.ask("POST", "/predict", form(audio()), FORM)
    assert (sent.status, sent.tree) == (200, raw.tree)
    assert sent.tree["records"][0]["file"] == "a b.wav"


def test_a_form_whose_audio_looks_like_its_end(server: Running):
    samples = np.frombuffer(b"\r\n--xy\r\n--xyA\r\n\r\n" * 500, np.int16)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    raw = server.ask("POST", "/predict?name=a%20b.wav", buffer.getvalue())
    assert server.ask("POST", "/predict", form(buffer.getvalue()), FORM).tree == raw.tree


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\my voice.wav", "my voice.wav"),
        ("a.zip::b.wav", "a.zip__b.wav"),
        ("\x00\n\u202e", "upload"),
        ("..", "upload"),
        ("", "upload"),
        ("é" * 500, "é" * 60),
        ("body", "body"),
    ],
)
def test_names_are_only_names(name: str, shown: str, server: Running):
    quoted = "".join(f"%{byte:02x}" for byte in name.encode())
    answer = server.ask("POST", f"/predict?name={quoted}", audio())
    assert (answer.status, answer.tree["records"][0]["file"]) == (200, shown)
    refused = server.ask("POST", f"/predict?name={quoted}", bytes(1000))
    assert refused.status == 422 and refused.error.startswith(f"{shown}: ")


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


REFUSED: dict[str, tuple[str, Callable[[], bytes], dict[str, str], int, str]] = {
    "nothing": ("", lambda: b"", {}, 400, "the body is empty, expected audio"),
    "no audio": ("", lambda: b"hello", {}, 422, "is a text"),
    "half a file": ("", lambda: cut(audio()), {}, 422, "truncated"),
    "silence": ("", lambda: audio(1)[:44] + bytes(2 * RATE), {}, 422, "silen"),
    "every": ("?every=0", audio, {}, 400, "every is '0' in the query, expected a number from 0.1 to 3"),
    "no number": ("?every=nan", audio, {}, 400, "every is 'nan'"),
    "a window alone": ("?window=2", audio, {}, 400, "a window and no every"),
    "a long window": ("?every=1&window=1e9", audio, {}, 400, "window is '1e9'"),
    "every over the window": ("?every=2&window=1", audio, {}, 400, "expected a number from 0.1 to 1 (the window)"),
    "abstain": ("?abstain=2", audio, {}, 400, "abstain is '2'"),
    "another word": ("?evry=1", audio, {}, 400, "the query has 'evry', expected every, window, abstain, name"),
    "a word twice": ("?every=1&every=1", audio, {}, 400, "has a word twice"),
    "JSON": ("", lambda: b"{}", {"Content-Type": "application/json"}, 415, "'application/json', expected audio"),
    "gzip": ("", audio, {"Content-Encoding": "gzip"}, 415, "encoded as 'gzip'"),
    "no boundary": ("", audio, {"Content-Type": "multipart/form-data"}, 400, "no boundary"),
    "no form": ("", audio, FORM, 400, "does not have the boundary"),
    "half a form": ("", lambda: cut(form(audio())), FORM, 400, "ends in the middle"),
    "another field": ("", lambda: form(audio(), field="audio"), FORM, 400, "fields ['note', 'audio'], expected 'file'"),
    "an empty field": ("", lambda: form(b""), FORM, 400, "'file' of the form is empty"),
    "too long": ("", lambda: audio(12), {}, 422, "lasts 12 s, expected an utterance of 10 s or less"),
    "too long, over time": ("?every=1", lambda: audio(12), {}, 422, "lasts 12 s, expected a recording of 10 s or less"),
    "too large": ("", lambda: bytes(500_001), {}, 413, "more than 0.5 MB"),
    "too large a form": ("", lambda: form(bytes(500_001)), FORM, 413, "more than 0.5 MB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_a_sentence(case: str, uploads_folder: Path):
    query, body, headers, status, words = REFUSED[case]
    with running(limits=Limits(megabytes=0.5, audio_seconds=10.0)) as served:
        answer = served.ask("POST", f"/predict{query}", body(), headers)
        assert (answer.status, words in answer.error) == (status, True), answer.body
        assert left_in(uploads_folder) == []
        assert served.ask("POST", "/predict", audio()).status == 200
    assert list(uploads_folder.iterdir()) == []


def test_a_body_of_no_stated_length_is_counted(uploads_folder: Path):
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(20):
            sent += 1
            yield bytes(100_000)

    with running(limits=Limits(megabytes=0.5)) as served:
        assert served.ask("POST", "/predict", pieces()).status == 413
        # Its length alone refuses it: nothing is sent.
        with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)) as connection:
            connection.putrequest("POST", "/predict")
            connection.putheader("Content-Length", "600000")
            connection.endheaders()
            assert connection.getresponse().status == 413
    assert left_in(uploads_folder) == []


def test_twenty_megabytes(server: Running):
    content = audio(208, 48_000)
    assert 19e6 < len(content) < 20e6
    answer = server.ask("POST", "/predict", content)
    assert (answer.status, len(answer.tree["records"])) == (200, 1)


def test_a_place_is_free_or_it_is_a_sentence():
    with running(limits=Limits(requests=2)) as served, ThreadPoolExecutor(10) as pool:
        served.scorer.go.clear()
        asked = [pool.submit(served.ask, "POST", "/predict", audio()) for _ in range(10)]
        while sum(each.done() for each in asked) < 8:
            time.sleep(0.01)
        served.scorer.go.set()
        answers = [each.result() for each in asked]
        assert sorted(answer.status for answer in answers) == [200] * 2 + [503] * 8
        refused = next(answer for answer in answers if answer.status == 503)
        assert refused.error.startswith("2 requests are being answered") and refused.headers["retry-after"] == "2"
        assert served.ask("POST", "/predict", audio()).status == 200


def test_ten_at_once_by_default(server: Running):
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: server.ask("POST", "/predict", audio()), range(10)))
    assert [answer.status for answer in answers] == [200] * 10


def test_a_slow_prediction_is_answered_and_ends(uploads_folder: Path):
    with running(limits=Limits(request_seconds=0.4, requests=1)) as served:
        wait_until_ready(served)
        served.scorer.go.clear()
        began, calls = time.monotonic(), served.scorer.calls
        answer = served.ask("POST", "/predict?every=0.1&window=0.5", audio(9))
        assert (answer.status, "more than 0.4 s" in answer.error) == (504, True)
        assert time.monotonic() - began < 5
        assert served.ask("POST", "/predict", audio()).status == 503  # its thread still computes
        served.scorer.go.set()
        assert left_in(uploads_folder) == []
        assert served.scorer.calls - calls == 1  # of 6 groups of windows
        # Its place is free once its thread has ended.
        while served.ask("POST", "/predict", audio()).status == 503 and time.monotonic() - began < 30:
            time.sleep(0.01)
        assert served.ask("POST", "/predict", audio()).status == 200


def wait_until_ready(served: Running) -> None:
    """Waits for all that is compiled ahead."""
    while not served.ask("GET", "/health").tree["ready"]:
        time.sleep(0.01)
    calls = -1
    while calls != served.scorer.calls:
        calls = served.scorer.calls
        time.sleep(0.1)


def test_a_client_that_leaves_is_not_worked_for(uploads_folder: Path):
    with running(limits=Limits(requests=2)) as served:
        wait_until_ready(served)
        served.scorer.go.clear()
        calls = served.scorer.calls
        for _ in range(2):
            with closing(http.client.HTTPConnection("127.0.0.1", served.port)) as connection:
                connection.request("POST", "/predict", audio())
                time.sleep(0.2)
        time.sleep(0.2)
        served.scorer.go.set()
        assert left_in(uploads_folder) == []
        assert served.scorer.calls - calls == 1  # the other one was taken out of the queue


@pytest.mark.parametrize("sent", [b"", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-A: "])
def test_the_head_of_a_request_has_to_come(sent: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.4)
    with running() as served, socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(sent)
        with suppress(ConnectionResetError):
            assert connection.recv(1000) == b""
        assert served.ask("GET", "/health").status == 200


def test_a_body_that_dribbles_is_cut_off(monkeypatch: pytest.MonkeyPatch, uploads_folder: Path):
    monkeypatch.setattr(uploads, "IDLE_SECONDS", 0.3)
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    with running(limits=Limits(upload_seconds=1.0)) as served:
        for pause, words in ((10, b"nothing of the upload has come"), (0.1, b"the upload has taken more than 1 s")):
            with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
                connection.sendall(head)
                connection.settimeout(pause)
                answer = b""
                while not answer:
                    try:
                        answer = connection.recv(4000)
                    except TimeoutError:
                        connection.sendall(b"x")
                connection.settimeout(10)
                with suppress(ConnectionResetError):
                    while piece := connection.recv(4000):
                        answer += piece
                assert answer.startswith(b"HTTP/1.1 408") and words in answer
        assert left_in(uploads_folder) == []


def test_what_is_no_http(server: Running):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert b"HTTP/1.1 400 Bad Request" in (found := connection.recv(1000)) and b'{"error": "the request' in found


def test_too_many_connections(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "CONNECTIONS", 3)
    with running() as served:
        held = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(3)]
        time.sleep(0.1)
        assert served.ask("GET", "/health").error.startswith("3 connections are open")
        for each in held:
            each.close()
        time.sleep(0.1)
        assert served.ask("GET", "/health").status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://good.example"}, 200),
    ],
)
def test_other_sites_are_not_answered(headers: dict[str, str], status: int):
    with running(origins=["https://good.example"]) as served:
        answer = served.ask("POST", "/predict", audio(), headers)
        assert answer.status == status and (status == 200 or "expected" in answer.error)
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == ("https://good.example" if "good" in str(headers) else None)


def test_every_answer_is_guarded(server: Running):
    for path in ("/", "/static/app.js", "/model", "/nothing", "/predict"):
        headers = server.ask("GET", path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert "access-control-allow-origin" not in headers
    with running(frames=["https://huggingface.co"]) as served:
        policy = served.ask("GET", "/").headers["content-security-policy"]
        assert policy.endswith("frame-ancestors https://huggingface.co")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/static/%00", 404),
        ("GET", "/health/", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/model", 405),
    ],
)
def test_other_paths_are_a_sentence(method: str, path: str, status: int, server: Running):
    answer = server.ask(method, path)
    assert answer.status == status and "expected" in answer.error


def test_the_page_needs_nothing_from_elsewhere(server: Running):
    page = server.ask("GET", "/").body.decode()
    found = set(re.findall(r'(?:src|href)="(static/[^"]+)"', page))
    assert {"static/app.js", "static/style.css"} <= found
    for path in found:
        assert server.ask("GET", f"/{path}").status == 200
    for path in (ROOT / "sejax/inference/serve/static").iterdir():
        text = path.read_text()
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text
        assert set(re.findall(r"https?://[\w.-]+", text)) <= {"http://www.w3.org", "http://127.0.0.1"}, path


def test_the_interface_describes_itself(server: Running):
    described = server.ask("GET", "/openapi.json").tree
    schemas = described["components"]["schemas"]
    text = json.dumps(described)
    assert described["openapi"].startswith("3.1") and set(re.findall(r"#/components/schemas/(\w+)", text)) == set(
        schemas
    )
    predict = described["paths"]["/predict"]["post"]
    assert {parameter["name"] for parameter in predict["parameters"]} == {"every", "window", "abstain", "name"}
    assert {str(status) for *_, status, _ in REFUSED.values()} | {"403", "408", "503", "504"} <= set(
        predict["responses"]
    )
    answers = {
        "Answer": server.ask("POST", "/predict?every=0.5", audio()).tree,
        "Model": server.ask("GET", "/model").tree,
        "Health": server.ask("GET", "/health").tree,
        "Error": server.ask("POST", "/predict").tree,
    }
    answers["Record"] = answers["Answer"]["records"][0]
    for name, tree in answers.items():
        assert list(tree) == schemas[name]["required"] == list(schemas[name]["properties"]), name
        for key, value in tree.items():
            kinds = schemas[name]["properties"][key].get("type")
            assert kinds is None or json_type(value) in kinds, (name, key, value)
    assert answers["Model"]["columns"] == list(answers["Record"])
    assert answers["Model"]["scale"] == [1, 5] and answers["Model"]["card"].startswith("---")


def json_type(value: Any) -> str:
    types = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
    return types.get(type(value), "null")


def test_another_address_is_said_aloud(capsys: pytest.CaptureFixture[str], server: Running):
    with closing(bind("0.0.0.0", 0)) as listening:
        make_server(listening, server.model, name="x")
        assert capsys.readouterr().err.startswith("warning: 0.0.0.0 can be reached from other machines")
        with pytest.raises(ValueError, match=r"port \d+ of 127\.0\.0\.1 cannot be used \(Address already in use\)"):
            bind("127.0.0.1", server.port)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "70000"], "--port is 70000, expected a number from 0"),
        (["--host", "no.such.host.invalid"], "--host is 'no.such.host.invalid'"),
        (["--max-megabytes", "0"], "--max-megabytes is 0.0, expected a number from 0.001"),
        (["--max-requests", "0"], "--max-requests is 0, expected a whole number"),
        (["--max-audio-seconds", "nan"], "--max-audio-seconds is nan"),
        (["--allow-origin", "example.org"], "--allow-origin is 'example.org', expected an origin"),
        (["--allow-frame", "https://a; script-src *"], "--allow-frame is"),
        ([], "expected starlette and uvicorn: pip install 'sejax[serve]'"),
    ],
)
def test_options_are_checked(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sejax.host.stopping.listen", lambda last_words: None)  # signals of the tests' process
    if not options:
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        monkeypatch.delitem(sys.modules, "sejax.inference.serve.server")
    assert main(["--model", "x", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


@pytest.mark.parametrize(("signal", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_command_serves_until_a_signal(signal: str, status: int, tmp_path: Path):
    with Server(str(GOLDEN_SSL / "wavlm-classifier"), tmp_path, "--max-requests", "3") as served:
        served.wait_until_ready()
        answer = served.ask("POST", "/predict?name=secret.wav", audio())
        assert answer.status == 200 and json.loads(answer.body)["records"][0]["label"]
        assert [path.name for path in tmp_path.glob("sejax-serve-*")]
        assert served.end(signal) == status
    lines = served.log.read_text().splitlines()
    assert lines[-1] == "error: interrupted, nothing that was sent is kept"
    assert re.fullmatch(r"[\d-]+ [\d:]+ POST /predict 200 [\d.]+ s", lines[-2])
    assert "secret" not in served.log.read_text()
    assert not list(tmp_path.glob("sejax-serve-*"))


def test_help_starts_neither_jax_nor_a_server():
    program = (
        "import runpy, sys; sys.modules['jax'] = sys.modules['uvicorn'] = None; sys.argv[1:] = ['--help']; "
        "runpy.run_module('sejax.serve', run_name='__main__')"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "--allow-origin" in found.stdout
