"""history.jsonl: a row per epoch and run, which training appends, and which results and report read."""

import json
import math
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sejax.build import Study
from sejax.engine.program import Program
from sejax.errors import InputError
from sejax.evaluation.results import Outcome
from sejax.evaluation.selection import check_rows, read_history
from sejax.host.wording import count
from sejax.workdir.files import HISTORY


class History:
    """history.jsonl while it is written."""

    def __init__(self, workdir: str, *, runs: Collection[int], epoch: int) -> None:
        """Opens the file for these runs' epochs after `epoch`; it removes later rows, which a killed process left."""
        self._path = Path(workdir, HISTORY)
        kept: list[str] = []
        if self._path.exists():
            rows = read_history(str(self._path))
            kept = [json.dumps(row) + "\n" for row in rows if row["epoch"] <= epoch or row["run"] not in runs]
        self._path.write_text("".join(kept))

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows; floats keep six significant digits, and one that is not finite is null."""
        with self._path.open("a") as file:
            for row in rows:
                short = {k: _short(v) if isinstance(v, float) else v for k, v in row.items()}
                file.write(json.dumps(short, allow_nan=False) + "\n")


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def check_history(workdir: str, study: Study, program: Program, outcome: Outcome) -> None:
    """Checks that history.jsonl has the rows of a program's epochs that its checkpoint has; a note counts missing ones.

    Args:
      outcome: of the runs of the program, in their order.

    Raises:
      InputError: a row is none of this study, or has another score than the checkpoint.
    """
    rows = {(row["run"], row["epoch"]): row for row in _read(workdir, study)}
    path = Path(workdir, HISTORY)
    for place, run in enumerate(program.runs):
        epoch, score = int(outcome.best_epoch[place]), float(outcome.best_score[place])
        row = rows.get((run.number, epoch))
        if row and not np.isclose(math.nan if row["score"] is None else row["score"], score, rtol=1e-5):
            raise InputError(
                f"{path} has the score {row['score']} for run {run.number} in epoch {epoch}, expected the "
                f"{_short(score)} of its checkpoint: it is the history of another training; restore it, or remove it: "
                "only the curves are lost"
            )
    wanted = [(run.number, epoch) for run in program.runs for epoch in range(1, int(outcome.trained.min()) + 1)]
    if missing := [key for key in wanted if key not in rows]:
        number, epoch = missing[0]
        lacks = f"lacks {count(len(missing), 'row')} of {len(wanted)} (the first: epoch {epoch} of run {number})"
        print(f"note: {path} {lacks}: the curves have gaps, and no run is told that diverged there", file=sys.stderr)


def history_of(workdir: str, study: Study, outcome: Outcome) -> list[dict[str, Any]]:
    """Returns the rows of the epochs that the runs have trained.

    Raises:
      InputError: see `check_history`.
    """
    return [row for row in _read(workdir, study) if row["epoch"] <= outcome.trained[row["run"]]]


def _read(workdir: str, study: Study) -> list[dict[str, Any]]:
    path = Path(workdir, HISTORY)
    if not path.exists():
        return []
    rows = read_history(str(path))
    runs = {run.number: (study.folds[run.fold].name, run.setting.name) for run in study.runs}
    check_rows(rows, runs, epochs=study.schedule.epochs, path=str(path))
    return rows
