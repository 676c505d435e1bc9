"""A study that takes seconds, as the command that a user starts, and what its end says."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from tools.drills.tally import ROOT, tell

RESULTS = ("predictions.csv", "runs.csv", "metrics.json", "history.jsonl")
"""The files of a workdir that have to be the same bytes as those of an undisturbed study."""

EPOCHS = 6
SECONDS = 900.0  # after which a process counts as hanging; it takes about 5 on idle cores
IDLE_SECONDS = 90.0  # likewise, if it has not computed meanwhile
LINES = 15  # of standard error: more than a sentence and a few notes

OPTIONS = (
    "--config=configs/joint.py:table,mfcc",
    "--config.workers=1",
    "--config.devices=1",
    "--config.buckets=1",
    "--config.model.encoder.mfcc=linear",
    "--config.model.stride=8",
    "--config.model.width=8",
    "--config.model.heads=2",
    "--config.model.fused=8",
    "--config.model.self_attention=False",
    "--config.model.co_attention=False",
    f"--config.epochs={EPOCHS}",
    "--config.batch_size=4",
    "--config.checkpoint_every=1",
    "--config.tensorboard=False",
    "--config.bootstrap=20",
)
"""A table corpus, one small encoder, a checkpoint per epoch."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A process that has ended: its status (negative: by that signal; None: it was killed because it hung)."""

    status: int | None
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Reference:
    """A corpus, and the undisturbed study of it that others are compared with."""

    folder: Path
    seconds: float  # of its process, which had to compute features and to compile

    @property
    def table(self) -> Path:
        """The corpus."""
        return self.folder / "corpus" / "table.csv"

    @property
    def cache(self) -> Path:
        """The features and the compiled programs."""
        return self.folder / "cache"

    @property
    def workdir(self) -> Path:
        """The finished study."""
        return self.folder / "workdir"


def command(workdir: Path, *options: str, table: Path, cache: Path) -> list[str]:
    """Returns the command line of the study. Options that come later win."""
    places = (f"--workdir={workdir}", f"--config.data_dir={table}", f"--config.cache_dir={cache}")
    return [sys.executable, "-m", "sejax.main", *OPTIONS, *places, *options]


def environment() -> dict[str, str]:
    """Returns the variables of the command: on the CPU, and every compiled program is kept."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def run(words: Sequence[str], *, seconds: float = SECONDS) -> Finished:
    """Runs a command to its end; it is killed after so many seconds, or if it waits for too long."""
    began = time.monotonic()
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    status: int | None = None
    computed, last = 0.0, began  # seconds of computing, and when they last grew
    while status is None:
        try:
            out, err = process.communicate(timeout=5)
            status = process.returncode
        except subprocess.TimeoutExpired:
            now, before = time.monotonic(), computed
            computed = _seconds_of_computing(process.pid)
            last = now if computed > before + 0.1 else last
            if now - began > seconds or now - last > IDLE_SECONDS:
                process.kill()
                out, err = process.communicate()
                break
    return Finished(status, out, err, time.monotonic() - began)


def _seconds_of_computing(pid: int) -> float:
    """Returns the time that a process and its children have computed."""
    try:
        process = psutil.Process(pid)
        return sum(each.cpu_times().user for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0.0


def complaint(finished: Finished) -> str:
    """Returns what is wrong with how a process ended, "" for results and for a refusal in one sentence."""
    errors = sentences(finished)
    lines = [line for line in finished.err.splitlines() if line.strip()]
    if finished.status is None:
        return f"hangs: killed after {finished.seconds:.0f} s"
    if finished.status < 0:
        return f"died of signal {-finished.status}"
    if "Traceback (most recent call last)" in finished.err + finished.out:
        return f"a traceback of {len(lines)} lines, status {finished.status}"
    if finished.status == 0 and errors:
        return "status 0 beside an error"
    if finished.status != 0 and (len(errors) != 1 or len(lines) > LINES):
        return (
            f"{len(errors)} sentences and {len(lines)} lines of error, expected one sentence; status {finished.status}"
        )
    if finished.status not in (0, 1, 2):
        return f"status {finished.status}, expected 0, 1 or 2"
    return ""


def sentences(finished: Finished) -> list[str]:
    """Returns the sentences with which a command refused."""
    return [line for line in finished.err.splitlines() if line.startswith("error: ")]


def different(workdir: Path, reference: Path) -> list[str]:
    """Returns the names of the results that are not the same bytes as those of the reference."""
    return [name for name in RESULTS if _bytes(workdir / name) != _bytes(reference / name)]


def results_problem(workdir: Path) -> str:
    """Returns what is insane about the results of a study, "" if nothing is: JSON of finite numbers, probabilities."""
    try:
        metrics = json.loads((workdir / "metrics.json").read_text(), parse_constant=_refuse)
        for line in (workdir / "history.jsonl").read_text().splitlines():
            json.loads(line, parse_constant=_refuse)
        with (workdir / "predictions.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        return f"results cannot be read: {error}"
    if not rows or not metrics["settings"]:
        return "no results"
    for row in rows:
        numbers = {name: float(cell) for name, cell in row.items() if cell and name.startswith(("prob_", "pred_"))}
        if not all(map(math.isfinite, numbers.values())):
            return f"predictions that are not finite: {row['id']}"
        shares = [value for name, value in numbers.items() if name.startswith("prob_")]
        if shares and abs(sum(shares) - 1) > 1e-3:
            return f"probabilities of {row['id']} sum to {sum(shares):g}"
    return ""


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def prepare(folder: Path) -> Reference:
    """Writes the corpus and trains the reference, unless an earlier call has done so in this folder."""
    reference = Reference(folder, 0.0)
    times = folder / "seconds.txt"
    if not times.exists():
        shutil.rmtree(folder, ignore_errors=True)
        write_corpus(reference.table, tones())
        tell("the reference: an undisturbed study")
        finished = run(command(reference.workdir, table=reference.table, cache=reference.cache))
        if finished.status != 0:
            sys.exit(f"error: the undisturbed study ended with status {finished.status}\n{finished.err[-2000:]}")
        times.write_text(f"{finished.seconds:.3f}\n")
    return Reference(folder, float(times.read_text()))


def copy_of(reference: Reference, folder: Path, *, corpus: bool = False, cache: bool = False) -> Reference:
    """Returns a finished study of its own in `folder`; corpus and cache are those of the reference unless copied."""
    copied = Reference(folder, reference.seconds)
    folder.mkdir(parents=True)
    shutil.copytree(reference.workdir, copied.workdir)
    for source, target, wanted in (
        (reference.table.parent, copied.table.parent, corpus),
        (reference.cache, copied.cache, cache),
    ):
        if wanted:
            shutil.copytree(source, target)
        else:
            target.symlink_to(source.resolve(), target_is_directory=True)
    return copied


def tones(speakers: int = 4, utterances: int = 4) -> list[Row]:
    """Returns the rows of a corpus of synthetic tones: two classes, all dimensions."""
    return [
        {
            "path": f"s{speaker}_{number}.wav",
            "speaker": f"s{speaker}",
            "label": ("angry", "sad")[number % 2],
            "valence": 1 + (number + speaker) % 5,
            "arousal": 1 + (2 * number + speaker) % 5,
            "dominance": 1 + (number * speaker) % 5,
        }
        for speaker in range(speakers)
        for number in range(utterances)
    ]


def write_corpus(table: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the table, and a tone for each path in it that does not exist yet."""
    write_table(table, rows)
    for number, row in enumerate(rows):
        path = table.parent / str(row["path"])
        if not path.exists():
            write_tone(path, number)


def write_table(table: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows; their columns are those of the first."""
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_tone(path: Path, number: int, *, seconds: float = 0.4, rate: int = 16_000) -> None:
    """Writes a noisy tone whose pitch depends on the number, in the format of the suffix."""
    soundfile.write(path, tone(number, seconds=seconds, rate=rate), rate)


def tone(number: int, *, seconds: float = 0.4, rate: int = 16_000) -> np.ndarray:
    """Returns the samples of a noisy tone."""
    time_ = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(number).standard_normal(len(time_))
    return 0.3 * np.sin(2 * math.pi * (100 + 23 * number) * time_) + 0.02 * noise
