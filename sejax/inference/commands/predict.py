"""Predicts the emotions of audio with a bundle or a published model:

    python -m sejax.predict --model FOLDER_OR_ID PATH...

FOLDER_OR_ID is a bundle (`python -m sejax.export`), or an emotion model of the Hugging Face hub or in its layout
(`sejax.pretrained.heads` lists the layouts). A PATH is an audio file, a folder, a zip archive, a CSV table with the
columns path, start and end (seconds), or - for a list on standard input. Each file, or part of one, is a row:

    file, start, end
    label, confidence            the most probable class, and its probability after temperature scaling
    prob_<class>                 the probabilities of the study, before temperature scaling
    valence, arousal, dominance  in the scale that a note on standard error says
    <dimension>_low, _high       the interval that holds the truth with the probability that the note says
    spread_<output>              the deviation over the runs of an ensemble
    note, error                  what is unusual about a file, or why it cannot be used

A model has the columns of what it predicts. A file that cannot be used is a sentence on standard error and a row, the
others are predicted, and the exit status is 1. With --every there is a row per window over time, for recordings of any
length. With --out a later start continues the table.

With --explain each row, a JSON line, also says what the model looked at: see `sejax.evaluation.explanation`. --page
writes that as an HTML page.
"""

import argparse
import io
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from sejax.errors import InputError
from sejax.inference.choices import EXPLAINED, TABLES
from sejax.inference.commands.loading import add_model_options, load_model
from sejax.inference.commands.running import run, use_compilation_cache

if TYPE_CHECKING:
    from sejax.features.extract import Segment
    from sejax.inference.model import Model
    from sejax.inference.output import Write
    from sejax.inference.records import Record

Item = TypeVar("Item")
FEW = 8  # files that need no progress bar


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if bool(given.paths) == given.microphone:
        parser.error("expected a PATH or --microphone")
    if given.window is not None and given.every is None and not given.microphone:
        parser.error("--window is of --every, which is not given")
    if given.explain is None and given.page is not None:
        parser.error("--page is of --explain, which is not given")
    if given.explain is not None and (given.every is not None or given.microphone or given.format == "csv"):
        parser.error("--explain is of whole utterances, as JSON lines: not with --every, --microphone or --format csv")
    return run(lambda: _predict(given), interrupted="the rows that are written are complete")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sejax.predict", description="Predicts the emotions of audio: a row per file."
    )
    add_model_options(parser)
    parser.add_argument(
        "--abstain", type=float, default=0.0, metavar="P", help="least confidence of a label, else unsure"
    )
    parser.add_argument("--every", type=float, metavar="SECONDS", help="a row per window, so many seconds apart")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="length of a window (default: 3)")
    parser.add_argument("--microphone", action="store_true", help="listen (extra mic), until Ctrl-C")
    parser.add_argument("--format", choices=TABLES, help="csv (default) or jsonl, JSON lines")
    parser.add_argument("--out", metavar="FILE", help="write there, or continue there (default: standard output)")
    parser.add_argument(
        "--explain",
        nargs="?",
        const="class",
        type=_task,
        metavar="TASK",
        help=f"what the model looked at for an output: {', '.join(EXPLAINED)} (default: class)",
    )
    parser.add_argument("--page", metavar="FILE", help="of --explain: also write an HTML page")
    parser.add_argument("--workers", type=int, help="processes that decode (default: one per core)")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="a file, folder, zip archive, CSV table, or -")
    return parser


def _task(word: str) -> str:
    if word not in EXPLAINED:
        known = f"{', '.join(EXPLAINED[:-1])} or {EXPLAINED[-1]}"
        raise argparse.ArgumentTypeError(f"{word!r} is no output, expected {known}; files stand before --explain")
    return word


def _predict(given: argparse.Namespace) -> int:
    """Writes a row per file that can be used and returns the exit status."""
    _check(given)
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # the names of files are bytes, which need not be UTF-8
    use_compilation_cache()
    from sejax.inference.output import continued, format_of, write_to
    from sejax.inference.sources import find_audio

    segments = find_audio(given.paths, sys.stdin)
    model = load_model(given)
    how = format_of(given.out or "", given.format or ("jsonl" if given.explain else None))
    table: AbstractContextManager[tuple[Write, list[Segment]]]
    if given.out:
        table = continued(given.out, model.names, how, _made_by(model, segments, given), segments)
    else:
        table = nullcontext((write_to(sys.stdout, model.names, how), segments))
    status, explained = 0, []
    with table as (write, left):
        if len(left) < len(segments):
            print(f"note: {len(segments) - len(left)} of {len(segments)} are in {given.out} already", file=sys.stderr)
        for record in _records(model, left, given):
            write(record)
            if record.explanation:
                explained.append(record.row(model.names))
            if record.error:
                print(f"error: {record.error}", file=sys.stderr)
                status = 1
    if given.page:
        from sejax.report.explained import write_explanations

        write_explanations(given.page, explained)
    return status


def _made_by(model: "Model", segments: "Sequence[Segment]", given: argparse.Namespace) -> dict[str, Any]:
    """Returns what makes the rows of a table, beside the files: a table is continued with the same alone."""
    return {
        "model": model.digest,
        "runs": given.runs or None,
        "problem_type": given.problem_type,
        "abstain": given.abstain,
        "every": given.every,
        "window": given.window,
        **({"explain": given.explain} if given.explain else {}),
        # Relative names mean other files in another folder.
        "folder": None if all(os.path.isabs(segment.path) for segment in segments) else os.getcwd(),
    }


def _check(given: argparse.Namespace) -> None:
    if not 0 <= given.abstain <= 1:
        raise InputError(f"--abstain is {given.abstain:g}, expected a probability from 0 to 1")
    if given.every is not None and not 0 < given.every < math.inf:
        raise InputError(f"--every is {given.every:g}, expected a number of seconds above 0")
    if given.workers is not None and given.workers < 1:
        raise InputError(f"--workers is {given.workers}, expected 1 or more")


def _records(model: "Model", segments: "Sequence[Segment]", given: argparse.Namespace) -> "Iterator[Record]":
    from sejax.inference.model import WINDOW_SECONDS

    window = WINDOW_SECONDS if given.window is None else given.window
    if given.microphone:
        from sejax.inference.microphone import listen

        yield from listen(model, every=given.every or 0.5, window=window, abstain=given.abstain)
    elif given.explain is not None:
        explained = model.explain(segments, task=given.explain, abstain=given.abstain)
        yield from _with_bar(explained, len(segments))
    elif given.every is not None:
        for segment in _with_bar(segments, len(segments)):
            yield from model.predict_windows(segment, every=given.every, window=window, abstain=given.abstain)
    else:
        found = model.predict_each(segments, abstain=given.abstain, workers=given.workers)
        yield from _with_bar(found, len(segments))


def _with_bar(items: Iterable[Item], total: int) -> Iterator[Item]:
    """Yields the items, and shows how many are done unless rows scroll by on the same terminal."""
    from sejax.host.progress import progress_bar

    if total <= FEW or sys.stdout.isatty():
        yield from items
        return
    with progress_bar(total, "predicting") as bar:
        for item in items:
            yield item
            bar.update()
