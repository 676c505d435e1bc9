"""The jobs of a study, which train apart: where each keeps its checkpoints and its log."""

from dataclasses import dataclass
from pathlib import Path

from sejax.engine.program import Program

CHECKPOINTS = "checkpoints"
HISTORY = "history.jsonl"
TENSORBOARD = "tensorboard"
JOBS = "jobs"


@dataclass(frozen=True)
class Job:
    """The runs of a program, or those of one of its folds."""

    workdir: str
    number: int  # of the program, from 1
    of: int  # the number of programs
    fold: int | None = None  # from 0; None: all folds
    alone: bool = False  # whether other jobs write to the workdir meanwhile: this one then has a log of its own

    def __str__(self) -> str:
        fold = "" if self.fold is None else f", fold {self.fold + 1}"
        return f"program {self.number} of {self.of}{fold}"

    def runs_of(self, program: Program) -> Program:
        """Returns the job's part of its program."""
        return program if self.fold is None else program.of_fold(self.fold)

    def checkpoints(self, kind: str = "") -> Path:
        """Returns the folder of the job's checkpoints; `kind` is "refit" or "final" for those of runs that train again.

        A study of one program has no folder for it.
        """
        program = [f"program-{self.number}"] if self.of > 1 else []
        fold = [] if self.fold is None else [f"fold-{self.fold + 1}"]
        return Path(self.workdir, CHECKPOINTS, *filter(None, [kind]), *program, *fold)

    @property
    def folder(self) -> Path:
        """The folder of the log, and of what else is the job's own while it trains."""
        if not self.alone:
            return Path(self.workdir)
        fold = "" if self.fold is None else f"-fold-{self.fold + 1}"
        return Path(self.workdir, JOBS, f"program-{self.number}{fold}")

    @property
    def history(self) -> Path:
        """The log of the epochs."""
        return self.folder / HISTORY

    @property
    def tensorboard(self) -> Path:
        """The folder of the log as TensorBoard reads it."""
        return Path(self.workdir, TENSORBOARD, *([self.folder.name] if self.alone else []))
