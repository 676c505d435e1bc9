"""The log of a job: history.jsonl, TensorBoard scalars, a progress bar, and what is read of the history later."""

import json
import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from sejax.build import Study
from sejax.engine.epoch import EpochMetrics
from sejax.engine.feed import Outcome
from sejax.engine.losses import VAD_LOSSES
from sejax.engine.program import Program
from sejax.engine.tasks import Task
from sejax.errors import InputError
from sejax.evaluation.selection import check_rows, read_history
from sejax.host.atomic import atomic_write
from sejax.host.progress import progress_bar
from sejax.host.wording import count
from sejax.workdir.job import HISTORY, JOBS, Job

_IDENTITY = ("epoch", "run", "fold", "seed", "setting")


class Logs:
    """The log of one job, from the epoch after `done` on."""

    def __init__(self, job: Job, study: Study, program: Program, done: int) -> None:
        self._runs, self._folds, self._tasks = program.runs, study.folds, program.labelled_tasks
        self._learnable = program.learnable
        self._history = History(job.history, runs={run.number for run in program.runs}, epoch=done)
        self._board = TensorBoard(job.tensorboard) if study.schedule.tensorboard else None
        self._progress = Progress(
            self._tasks,
            vad_loss=program.network.recipe.vad_loss,
            epochs=study.schedule.epochs,
            done=done,
            runs=len(program.runs),
        )

    def write(
        self,
        epoch: int,
        metrics: EpochMetrics,
        validation: Sequence[Mapping[str, float]],
        training: Bool[np.ndarray, " run"],
    ) -> None:
        """Takes an epoch's training metrics `[run, task]` (numpy) and validation metrics of every run that trains."""
        every = self._rows(epoch, metrics, validation)
        rows = [row for row, trains in zip(every, training.tolist(), strict=True) if trains]
        self._history.write(rows)
        self._progress.update(rows)
        if self._board:
            self._board.write(epoch, rows)

    def close(self) -> None:
        """Ends the progress bar and flushes the TensorBoard scalars."""
        self._progress.close()
        if self._board:
            self._board.close()

    def _rows(
        self, epoch: int, metrics: EpochMetrics, validation: Sequence[Mapping[str, float]]
    ) -> list[dict[str, Any]]:
        """Returns the rows of history.jsonl; tasks that a run has no labels for have no columns."""
        rows = []
        for place, (run, scores) in enumerate(zip(self._runs, validation, strict=True)):
            identity = (epoch, run.number, self._folds[run.fold].name, run.seed, run.setting.name)
            row: dict[str, Any] = dict(zip(_IDENTITY, identity, strict=True))
            for prefix, values in metrics._asdict().items():
                row |= {
                    f"{prefix}_{task.name}": float(values[place, k])
                    for task, k in self._tasks.items()
                    if self._learnable[place].has(task)
                }
            rows.append({**row, **scores})
        return rows


class History:
    """history.jsonl while it is written: a row per epoch and run."""

    def __init__(self, path: Path, *, runs: Collection[int], epoch: int) -> None:
        """Opens the file for these runs' epochs after `epoch`; it removes later rows, which a killed process left."""
        self._path = path
        rows = read_history(str(path)) if path.exists() else []
        _write(path, [row for row in rows if row["epoch"] <= epoch or row["run"] not in runs])

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows; floats keep six significant digits, and one that is not finite is null."""
        with self._path.open("a") as file:
            for row in rows:
                short = {k: _short(v) if isinstance(v, float) else v for k, v in row.items()}
                file.write(json.dumps(short, allow_nan=False) + "\n")


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def check_history(path: Path, study: Study, program: Program, outcome: Outcome) -> None:
    """Checks that history.jsonl has the rows of a program's epochs that its checkpoint has; a note counts missing ones.

    Args:
      outcome: of the runs of the program, in their order.

    Raises:
      InputError: a row is none of this study, or has another score than the checkpoint.
    """
    rows = {(row["run"], row["epoch"]): row for row in _read(path, study)}
    for place, run in enumerate(program.runs):
        epoch, score = int(outcome.best_epoch[place]), float(outcome.best_score[place])
        row = rows.get((run.number, epoch))
        if row and not np.isclose(math.nan if row["score"] is None else row["score"], score, rtol=1e-5):
            raise InputError(
                f"{path} has the score {row['score']} for run {run.number} in epoch {epoch}, expected the "
                f"{_short(score)} of its checkpoint: it is the history of another training; restore it, or remove it: "
                "only the curves are lost"
            )
    runs = zip(program.runs, outcome.trained.tolist(), strict=True)
    wanted = [(run.number, epoch) for run, trained in runs for epoch in range(1, trained + 1)]
    if missing := [key for key in wanted if key not in rows]:
        number, epoch = missing[0]
        lacks = f"lacks {count(len(missing), 'row')} of {len(wanted)} (the first: epoch {epoch} of run {number})"
        print(f"note: {path} {lacks}: the curves have gaps, and no run is told that diverged there", file=sys.stderr)


def divide_history(workdir: str, study: Study, jobs: Iterable[Job]) -> None:
    """Gives each job that trains apart the rows of its runs, as its own history.

    Raises:
      InputError: a row is none of this study.
    """
    rows = _read(Path(workdir, HISTORY), study)
    for job in jobs:
        runs = {run.number for run in job.runs_of(study.programs[job.number - 1]).runs}
        job.folder.mkdir(parents=True, exist_ok=True)
        _write(job.history, [row for row in rows if row["run"] in runs])


def unite_history(workdir: str, study: Study) -> None:
    """Puts the rows of jobs that train apart, if there are any, into history.jsonl, in the order of a single process.

    Raises:
      InputError: a row is none of this study.
    """
    own = sorted(Path(workdir, JOBS).glob(f"*/{HISTORY}"))
    if not own:
        return
    paths = (Path(workdir, HISTORY), *own)  # of a row that two have the job's own is the later one
    rows = {(row["run"], row["epoch"]): row for path in paths for row in _read(path, study)}
    program_of = {run.number: number for number, program in enumerate(study.programs) for run in program.runs}
    _write(paths[0], sorted(rows.values(), key=lambda row: (program_of[row["run"]], row["epoch"], row["run"])))
    for path in own:
        path.unlink()


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with atomic_write(path) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def history_of(workdir: str, study: Study, outcome: Outcome) -> list[dict[str, Any]]:
    """Returns the rows of the epochs that the runs have trained.

    Raises:
      InputError: see `check_history`.
    """
    return [row for row in _read(Path(workdir, HISTORY), study) if row["epoch"] <= outcome.trained[row["run"]]]


def _read(path: Path, study: Study) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = read_history(str(path))
    runs = {run.number: (study.folds[run.fold].name, run.setting.name) for run in study.runs}
    check_rows(rows, runs, epochs=study.schedule.epochs, path=str(path))
    return rows


class TensorBoard:
    """Scalars per setting, averaged over its folds and seeds."""

    def __init__(self, folder: Path) -> None:
        self._writer = _summary_writer()(str(folder), flush_secs=10)

    def write(self, epoch: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds one epoch's rows of history.jsonl."""
        by_setting: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            by_setting.setdefault(row["setting"], []).append(row)
        for setting, rows_of_setting in by_setting.items():
            for name in sorted(set().union(*rows_of_setting) - set(_IDENTITY)):
                self._writer.add_scalar(f"{name}/{setting.replace(' ', '_')}", _mean(rows_of_setting, name), epoch)

    def close(self) -> None:
        """Flushes the scalars."""
        self._writer.close()


def _summary_writer() -> Any:
    """Imports tensorboardX with torch hidden: it would import torch if installed, which takes seconds for nothing."""
    hidden = sys.modules.setdefault("torch", None) is None  # type: ignore[arg-type]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


def again_bar(kind: str, epochs: int, runs: int, done: int) -> Any:
    """Returns the bar of the epochs of runs that train again; `kind` is "refit" or "final"."""
    return progress_bar(
        epochs, f"training {count(runs, f'{kind} run')}  {count(epochs, 'epoch')}", initial=done, leave=True
    )


class Progress:
    """A bar over epochs with the means over runs of the losses, of UA and CCC on validation, and the time left."""

    def __init__(self, tasks: Collection[Task], *, vad_loss: str, epochs: int, done: int, runs: int) -> None:
        self._shown = {f"loss_{task.name}": _loss_title(task, vad_loss) for task in tasks}
        self._shown |= {"val_ua": "val UA", "val_ccc_mean": "val CCC"}
        self._bar = progress_bar(
            epochs, f"training {count(runs, 'run')}  {count(epochs, 'epoch')}", initial=done, leave=True
        )

    def update(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Advances by one epoch, given that epoch's rows of history.jsonl."""
        means = {title: _mean(rows, name) for name, title in self._shown.items() if any(name in row for row in rows)}
        shown = [f"{title} {value:.3f}" for title, value in means.items()]
        if diverged := sum(not math.isfinite(row["score"]) for row in rows):
            shown.append(f"{count(diverged, 'run')} diverged")
        self._bar.set_postfix_str(", ".join(shown), refresh=False)  # `update` shows it, unless it just has
        self._bar.update()

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def _loss_title(task: Task, vad_loss: str) -> str:
    """Returns the bar's name for a task's loss: `class loss`, `VAD 1-CCC`, `valence MSE`."""
    return f"{task.title} {VAD_LOSSES[vad_loss].title if task.kind == 'vad' else 'loss'}"


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Returns the mean over the rows that have the number, NaN if none has.

    A run has no scores of a task that it does not train, and no finite ones once it has diverged.
    """
    values = [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
    return sum(values) / len(values) if values else math.nan
