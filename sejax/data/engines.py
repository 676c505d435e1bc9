"""What computes the parts of a build at the same time, here or on other machines: a row of `ENGINES` each.

An engine calls one function of every part, wherever it likes and in any order, and returns when all are done. Parts
write files, which the build takes up (see `sejax.data.parts`): an engine carries no features, and may be killed.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sejax.errors import InputError

Do = Callable[[str], None]
"""Computes a part, given its file. It is picklable, and may be called twice for a part."""
Engine = Callable[[Do, Sequence[str]], None]
"""Calls `Do` of all parts."""


def beam(do: Do, parts: Sequence[str], *, options: Sequence[str]) -> None:
    """Runs a pipeline of Apache Beam.

    Args:
      do: called by the pipeline's workers.
      parts: one element each.
      options: of the pipeline, as on a command line: `--runner=FlinkRunner`, ...

    Raises:
      InputError: Beam is not installed, does not know a value of its options, or has lost a process of its own runner.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            f"config.compute is beam, which needs Apache Beam ({error}), expected it to be installed: "
            "pip install 'sejax[beam]'"
        ) from error
    parsed = PipelineOptions(list(options))
    try:
        parsed.get_all_options()
    except SystemExit as error:  # of argparse, which has printed its reason
        raise InputError(
            f"config.beam_options is {tuple(options)}, expected options of Apache Beam's pipelines"
        ) from error
    # Parts that follow each other are not computed by one worker alone.
    with _lost_process_raised(), apache_beam.Pipeline(options=parsed) as pipeline:
        _ = pipeline | apache_beam.Create(parts) | apache_beam.Reshuffle() | apache_beam.Map(do)


@contextmanager
def _lost_process_raised() -> Iterator[None]:
    """Raises that a worker process of Beam's own runner has ended: it says so in a thread, and waits for ever.

    Other runners start lost workers again. Outside the main thread, which alone is interrupted, nothing is done.
    """
    main, outside = threading.main_thread(), threading.excepthook
    lost: list[str] = []

    def note(failed: threading.ExceptHookArgs) -> None:
        if "Worker subprocess exited" not in str(failed.exc_value):
            outside(failed)
        elif not lost:
            lost.append(str(failed.exc_value))
            signal.pthread_kill(main.ident or 0, signal.SIGUSR1)

    def interrupt(number: int, frame: Any) -> None:
        raise InputError(
            f"config.compute is beam, and a worker process of it has ended ({lost[0]}), expected it to compute its "
            "parts: start again, complete parts are kept"
        )

    if threading.current_thread() is not main:
        yield
        return
    before = signal.signal(signal.SIGUSR1, interrupt)
    threading.excepthook = note
    try:
        yield
    finally:
        threading.excepthook = outside
        signal.signal(signal.SIGUSR1, before)


class Row(NamedTuple):
    """One engine. With its options, `run` is an `Engine`."""

    run: Callable[..., None]
    options: str  # the option of a config that holds them


ENGINES: Mapping[str, Row | None] = {
    "processes": None,  # this process and its workers: see `sejax.data.compute`
    "beam": Row(beam, "beam_options"),
}
"""By the value of `config.compute`."""
