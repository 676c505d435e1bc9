"""From the body of a request to a file that is read as audio.

The body is the audio itself, or a form (multipart/form-data) whose field `file` holds it.
"""

import asyncio
import mmap
import re
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request

from sejax.inference.serve.limits import IDLE_SECONDS, Limits, Refusal

FIELD = "file"
UNNAMED = "upload"
_BODY = "body"  # the name of the file of a body that is a form
_RAW = re.compile(r"(audio|video)/.+|application/(octet-stream|ogg|x-www-form-urlencoded)|")  # curl's default too
_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""", re.IGNORECASE)
_PARAMETER = re.compile(r'[;\s](name|filename)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_HEAD_BYTES = 8192  # of a part of a form
_NAME_CHARACTERS = 60  # which are 240 bytes at most
_PIECE = 1 << 20


async def receive(request: Request, folder: Path, limits: Limits, name: str) -> Path:
    """Writes the audio of a request into an empty folder.

    Args:
      request: whose body has not been read.
      folder: an empty one.
      limits: of its bytes and of the time that it takes.
      name: of the audio, unless a form says it.

    Returns:
      The file. Its name is the one that the client gave, as far as a file can have it.

    Raises:
      Refusal: the body is too large, too slow, empty, of another kind, or no form.
    """
    boundary = _check_head(request.headers, limits)
    path = folder / (_BODY if boundary else file_name(name))
    try:
        async with asyncio.timeout(limits.upload_seconds):
            await _write(request, path, limits)
    except TimeoutError as error:
        sentence = f"the upload has taken more than {limits.upload_seconds:g} s, expected less: try a smaller file"
        raise Refusal(408, sentence, {"connection": "close"}) from error
    if not path.stat().st_size:
        raise Refusal(400, "the body is empty, expected audio")
    return await asyncio.to_thread(_take_from_form, path, boundary) if boundary else path


def file_name(name: str) -> str:
    """Returns what the client calls a file, as the name of a file: without folders, in characters that can be shown."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(c if c != ":" else "_" for c in last if c.isprintable()).strip(". ")
    return kept[:_NAME_CHARACTERS] or UNNAMED


def _check_head(headers: Mapping[str, str], limits: Limits) -> bytes:
    """Refuses a body by the head of its request; returns the boundary of a form, b"" for raw audio."""
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > limits.body_bytes:
        raise _too_large(limits)
    if (encoding := headers.get("content-encoding", "identity")) != "identity":
        raise Refusal(415, f"the body is encoded as {encoding[:100]!r}, expected audio as it is")
    kind = headers.get("content-type", "")
    mime = kind.partition(";")[0].strip().lower()
    if mime == "multipart/form-data":
        if not (found := _BOUNDARY.search(kind)):
            raise Refusal(400, "the form has no boundary in its Content-Type, expected one")
        return (found[1] or found[2]).encode("latin-1", "replace")
    if not _RAW.fullmatch(mime):
        raise Refusal(
            415, f"the body is {mime[:100]!r}, expected audio/*, application/octet-stream or multipart/form-data"
        )
    return b""


async def _write(request: Request, path: Path, limits: Limits) -> None:
    """Writes a body to a file and counts its bytes, whatever its head said of them."""
    written, more = 0, True
    with path.open("wb") as file:
        while more:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    message = await request.receive()
            except TimeoutError as error:
                sentence = f"nothing of the upload has come for {IDLE_SECONDS:g} s, expected its next bytes"
                raise Refusal(408, sentence, {"connection": "close"}) from error
            if message["type"] == "http.disconnect":
                raise gone()
            piece, more = message.get("body", b""), message.get("more_body", False)
            written += len(piece)
            if written > limits.body_bytes:
                raise _too_large(limits)
            file.write(piece)


def gone() -> Refusal:
    """Returns the end of a request whose client waits no more; the status is that of nginx."""
    return Refusal(499, "the client has closed the connection")


def _too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"the upload has more than {limits.megabytes:g} MB, expected that or less")


def _take_from_form(body: Path, boundary: bytes) -> Path:
    """Writes the field of a form to a file beside that of its body, and removes the body's.

    Raises:
      Refusal: it is no form (RFC 7578), or has no such field or no audio in it.
    """
    with body.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as form:
        name, begin, end = _find_field(form, boundary)
        path = body.with_name(file_name(name))
        if path == body:
            path = body.with_name(UNNAMED)
        with path.open("wb") as part:
            for place in range(begin, end, _PIECE):
                part.write(form[place : min(place + _PIECE, end)])
    body.unlink()
    return path


def _find_field(form: mmap.mmap, boundary: bytes) -> tuple[str, int, int]:
    """Returns the file name of the field, and where its content begins and ends."""
    delimiter = b"\r\n--" + boundary
    place = 0 if form[: len(delimiter) - 2] == delimiter[2:] else form.find(delimiter) + 2
    if place == 1:
        raise Refusal(400, "the form does not have the boundary of its Content-Type, expected it before each part")
    begin = place + len(delimiter) - 2
    names = []
    while form[begin : begin + 2] != b"--":
        head_end = form.find(b"\r\n\r\n", begin, begin + _HEAD_BYTES)
        end = form.find(delimiter, head_end + 4) if head_end >= 0 else -1
        if end < 0:
            raise Refusal(400, "the form ends in the middle of a part, expected a whole one")
        head = form[begin:head_end].decode("utf-8", "replace")
        found = {key.lower(): quoted or plain for key, quoted, plain in _PARAMETER.findall(head)}
        if found.get("name") == FIELD:
            if end == head_end + 4:
                raise Refusal(400, f"the field {FIELD!r} of the form is empty, expected audio")
            return found.get("filename", ""), head_end + 4, end
        names.append(found.get("name", "")[:40])
        begin = end + len(delimiter)
    raise Refusal(400, f"the form has the fields {names[:5]}, expected {FIELD!r}")
