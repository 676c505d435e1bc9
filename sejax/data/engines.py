"""What computes the parts of a build at the same time, here or on other machines: a row of `ENGINES` each.

An engine calls one function of every part, wherever it likes and in any order, and returns when all are done. Parts
write files, which the build takes up (see `sejax.data.parts`): an engine carries no features, and may be killed.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

from sejax.errors import InputError
from sejax.host.cluster import Cluster
from sejax.host.progress import progress_bar
from sejax.host.wording import count

_TASKS_PER_DEVICE = 4  # so that none waits long for the last one


@runtime_checkable
class Do(Protocol):
    """Computes a part, given its file. It is picklable, and may be called twice for a part."""

    @property
    def on_accelerator(self) -> bool:
        """Whether a pretrained model computes."""
        ...

    def __call__(self, part: str) -> None: ...


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


def on_ray(do: Do, parts: Sequence[str], *, options: Sequence[str]) -> None:
    """Runs tasks of a Ray cluster, each on an accelerator if a pretrained model computes, else on a core.

    Args:
      do: called by the tasks.
      parts: each task computes several, in a process of its own.
      options: none.

    Raises:
      InputError: see `sejax.host.cluster.Cluster`.
    """
    with closing(Cluster("config.compute")) as cluster:
        tasks = min(len(parts), _TASKS_PER_DEVICE * cluster.width(accelerated=do.on_accelerator))
        platform = cluster.platform if do.on_accelerator else ""
        calls = {f"features {n + 1} of {tasks}": (do, parts[n::tasks], platform) for n in range(tasks)}
        with (
            closing(cluster.run(_do_each, calls, devices=1, accelerated=do.on_accelerator)) as results,
            progress_bar(tasks, f"{count(len(parts), 'part')} of features as tasks of Ray") as bar,
        ):
            for _ in results:
                bar.update()


def _do_each(do: Do, parts: Sequence[str], platform: str) -> None:
    """Computes parts, on the accelerator of this process if it was given one."""
    if platform:
        from sejax.host.accelerators import take  # imports jax, which acoustic features do without

        take(platform, 1)
    for part in parts:
        do(part)


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
    options: str  # the option of a config that holds them; "": it has none


ENGINES: Mapping[str, Row | None] = {
    "processes": None,  # this process and its workers: see `sejax.data.compute`
    "beam": Row(beam, "beam_options"),
    "ray": Row(on_ray, ""),
}
"""By the value of `config.compute`."""
