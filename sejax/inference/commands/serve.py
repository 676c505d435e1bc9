"""Serves a bundle or a published model as a page, and as a JSON interface beside it (extra `serve`):

    python -m sejax.serve --model FOLDER_OR_ID [--host 127.0.0.1] [--port 8000]

The page takes a file or records, and shows what the model says; GET /openapi.json describes the interface:

    curl --data-binary @a.wav 'http://127.0.0.1:8000/predict?every=0.5'

Nothing that is sent is kept: an upload is a temporary file until it is predicted. Only this machine is answered, unless
--host says otherwise. Ctrl-C and SIGTERM end the server.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sejax.errors import InputError
from sejax.host import stopping
from sejax.inference.commands.loading import add_model_options, load_model
from sejax.inference.commands.running import run, use_compilation_cache
from sejax.inference.serve.limits import Limits

LAST_WORDS = "error: interrupted, nothing that was sent is kept"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    given = _parser().parse_args(arguments)
    return run(lambda: _serve(given), interrupted="nothing that was sent is kept")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sejax.serve", description="Serves a model as a page and as a JSON interface."
    )
    add_model_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)d)")
    limits, own = parser.add_argument_group("limits"), Limits()
    for name, kind, words in (
        ("megabytes", float, "of an upload"),
        ("audio-seconds", float, "of audio"),
        ("requests", int, "that are uploaded, wait or are predicted at once"),
        ("request-seconds", float, "from the end of an upload to the answer"),
        ("upload-seconds", float, "for an upload"),
    ):
        default = getattr(own, name.replace("-", "_"))
        limits.add_argument(f"--max-{name}", type=kind, default=default, metavar="N", help=f"{words} ({default:g})")
    parser.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN", help="other pages that may ask, * for all"
    )
    parser.add_argument(
        "--allow-frame", action="append", default=[], metavar="ORIGIN", help="pages that may show the page in a frame"
    )
    return parser


def _serve(given: argparse.Namespace) -> int:
    limits = Limits(
        megabytes=given.max_megabytes,
        audio_seconds=given.max_audio_seconds,
        requests=given.max_requests,
        request_seconds=given.max_request_seconds,
        upload_seconds=given.max_upload_seconds,
    )
    _check_origins(given.allow_origin, given.allow_frame)
    stopping.listen(lambda: LAST_WORDS)
    try:
        return _serve_until_signal(given, limits)
    except KeyboardInterrupt:
        stopping.end(signal.SIGINT, LAST_WORDS)
    except stopping.Terminated:
        stopping.end(signal.SIGTERM, LAST_WORDS)


def _serve_until_signal(given: argparse.Namespace, limits: Limits) -> int:
    try:
        from sejax.inference.serve.server import bind, make_server
    except ModuleNotFoundError as error:
        raise InputError(
            f"the page cannot be served ({error}), expected starlette and uvicorn: pip install 'sejax[serve]'"
        ) from error
    # A port in use is told before the model is loaded.
    with closing(bind(given.host, given.port)) as listening:
        use_compilation_cache()
        model = load_model(given, notes=sys.stdout)
        name = Path(given.model).resolve().name if Path(given.model).is_dir() else given.model
        server = make_server(
            listening, model, name=name, limits=limits, origins=given.allow_origin, frames=given.allow_frame
        )
        server.run(sockets=[listening])
    return 0


def _check_origins(origins: Sequence[str], frames: Sequence[str]) -> None:
    """Refuses what is no origin: it would stand in a header, or match no page."""
    for option, values in (("--allow-origin", origins), ("--allow-frame", frames)):
        for value in values:
            scheme, separator, host = value.partition("://")
            whole = value == "*" or (scheme in ("http", "https") and separator and host)
            if not whole or not value.isascii() or any(c in value for c in " ;,'\"\r\n") or "/" in host:
                raise InputError(f"{option} is {value!r}, expected an origin such as https://example.org")
