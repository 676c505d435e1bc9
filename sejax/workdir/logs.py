"""What a run leaves while it trains: history.jsonl, TensorBoard scalars, and a progress bar."""

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sejax.engine.runs import RunKey
from sejax.progress import progress_bar
from sejax.protocols.folds import Fold

_IDENTITY = ("epoch", "run", "fold", "seed", "setting")


class Logs:
    """All that is said of a program's epochs."""

    def __init__(self, workdir: str, *, runs: Collection[int], epochs: int, done: int, tensorboard: bool) -> None:
        self._history = History(workdir, runs=runs, epoch=done)
        self._board = TensorBoard(workdir) if tensorboard else None
        self._progress = Progress(epochs=epochs, done=done, runs=len(runs))

    def write(self, epoch: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes an epoch's rows of history.jsonl."""
        self._history.write(rows)
        self._progress.update(rows)
        if self._board:
            self._board.write(epoch, rows)

    def close(self) -> None:
        self._progress.close()
        if self._board:
            self._board.close()


class History:
    """history.jsonl: a row per epoch and run."""

    def __init__(self, workdir: str, *, runs: Collection[int], epoch: int) -> None:
        """Opens the file for these runs' epochs after `epoch`; rows of later ones, from a killed process, go."""
        self._path = Path(workdir) / "history.jsonl"
        kept: list[str] = []
        if self._path.exists():
            # A torn last line has no newline: it belongs to an epoch that is trained again.
            whole = (line for line in self._path.read_text().splitlines(keepends=True) if line.endswith("\n"))
            rows = ((line, json.loads(line)) for line in whole)
            kept = [line for line, row in rows if row["epoch"] <= epoch or row["run"] not in runs]
        self._path.write_text("".join(kept))

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows; floats keep six significant digits."""
        with self._path.open("a") as file:
            for row in rows:
                short = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
                file.write(json.dumps(short) + "\n")


class TensorBoard:
    """Scalars per setting, averaged over its folds and seeds, under `<workdir>/tensorboard`."""

    def __init__(self, workdir: str) -> None:
        self._writer = _summary_writer()(str(Path(workdir) / "tensorboard"), flush_secs=10)

    def write(self, epoch: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds one epoch's rows of history.jsonl."""
        by_setting: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            by_setting.setdefault(row["setting"], []).append(row)
        for setting, own in by_setting.items():
            for name in sorted(set().union(*own) - set(_IDENTITY)):
                self._writer.add_scalar(f"{name}/{setting.replace(' ', '_')}", _mean(own, name), epoch)

    def close(self) -> None:
        self._writer.close()


def _summary_writer() -> Any:
    """tensorboardX imports torch where it is installed, in seconds and for nothing: it is not found here."""
    hidden = sys.modules.setdefault("torch", None) is None  # type: ignore[arg-type]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


class Progress:
    """A bar over epochs that shows the means over runs of loss, UA and CCC on validation, and the time left."""

    def __init__(self, *, epochs: int, done: int, runs: int) -> None:
        self._bar = progress_bar(
            epochs, f"training {runs} run{'s' * (runs != 1)}  {epochs} epochs", initial=done, leave=True
        )

    def update(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Advances by one epoch, given that epoch's rows of history.jsonl."""
        shown = {"loss_class": "loss", "loss_vad": "1-ccc", "val_ua": "val UA", "val_ccc_mean": "val CCC"}
        means = {label: _mean(rows, name) for name, label in shown.items() if any(name in row for row in rows)}
        self._bar.set_postfix_str(", ".join(f"{label} {value:.3f}" for label, value in means.items()))
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Over the rows that have it: a run that is not trained on a task has no scores of it."""
    values = [row[name] for row in rows if name in row]
    return sum(values) / len(values)


def history_rows(
    epoch: int,
    runs: Sequence[RunKey],
    folds: Sequence[Fold],
    losses: Mapping[str, Float[np.ndarray, "run task"]],
    validation: Sequence[Mapping[str, float]],
    tasks: Mapping[str, int],
) -> list[dict[str, Any]]:
    """The rows of history.jsonl for one epoch.

    Args:
      losses: by prefix ("loss", "weight", ...), a number per run and task.
      tasks: the tasks that the corpus has labels for, and their places; the others leave no columns.
    """
    rows = []
    for place, (run, own) in enumerate(zip(runs, validation, strict=True)):
        row: dict[str, Any] = {
            "epoch": epoch,
            "run": run.number,
            "fold": folds[run.fold].name,
            "seed": run.seed,
            "setting": run.setting.name,
        }
        for prefix, values in losses.items():
            row |= {f"{prefix}_{t}": float(values[place, task]) for t, task in tasks.items()}
        rows.append({**row, **own})
    return rows
