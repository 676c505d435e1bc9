"""Checkpoints of the stacked state (orbax): written in the background, whole or not at all, with checksums."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from sejax.engine import devices
from sejax.errors import InputError
from sejax.host import stopping
from sejax.host.disk import disk_problem
from sejax.host.wording import count, first_line

CHECKSUMS = "checksums.json"  # in the folder of an epoch: study, epoch, and the digest of each other file there
DAMAGED = "damaged"  # beside the epochs: those that a start has found damaged
_TIMES = "_CHECKPOINT_METADATA"  # JSON, and the only file that orbax changes after the checksums are made
_WRITING = ".orbax-checkpoint-tmp"  # ends the name of an epoch's folder until it is complete


class Checkpoints:
    """Checkpoints of one program, one per saved epoch; the two newest are kept.

    Saving returns once the arrays are copied; they are written in the background into a temporary folder that
    is renamed when complete, so a process killed in mid-save leaves the epoch before.
    """

    def __init__(self, folder: str | Path, *, study: str) -> None:
        """Opens the folder, which need not exist. Wrong checkpoints in it are only noticed by `latest`.

        Args:
          folder: one for each program.
          study: a digest of everything that the program is trained on; its checkpoints are those of no other.
        """
        self.folder = Path(folder).absolute()
        self._study = study
        self._wrong = devices.leader_first(lambda: _wrong_epochs(self.folder, study), "checkpoints verified")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            enable_async_checkpointing=True,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        # Named, the handler also reads the shapes of what another process has saved.
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_handlers=ocp.StandardCheckpointHandler()
        )

    def latest(self, *, evaluate: bool = False) -> int:
        """Returns the newest complete epoch, 0 if there is none.

        Newer checkpoints that are damaged or not of this epoch and study are put aside with a note: training repeats
        their epochs, to the same bytes.

        Args:
          evaluate: whether the checkpoint is evaluated. It must exist then, and be the newest that was saved.

        Raises:
          InputError: no checkpoint is whole although some were saved; or one must exist and there is none, or it is
            damaged.
        """
        whole = [epoch for epoch in self._manager.all_steps() if epoch not in self._wrong]
        newest = max(whole, default=0)
        lost = sorted(epoch for epoch in self._wrong if epoch > newest)
        if not lost:
            if evaluate and not newest:
                raise InputError(f"{self.folder} has no checkpoint, expected one to evaluate: train first")
            return newest
        problems = "; ".join(f"{self.folder / str(epoch)} {self._wrong[epoch]}" for epoch in lost)
        if not newest:
            raise InputError(
                f"{problems}, expected a whole checkpoint of this study to continue from; restore it, or remove "
                f"{self.folder} to train from the start"
            )
        if evaluate:
            raise InputError(
                f"{problems}, expected a whole checkpoint of this study to evaluate; --mode train continues after "
                f"epoch {newest}, to the same numbers"
            )
        if devices.leads():
            self._put_aside(lost)
            moved = f"moved to {self.folder / DAMAGED}, continuing after epoch {newest}"
            print(f"note: {problems}; {moved}", file=sys.stderr)
        devices.wait_for_all("damaged checkpoints put aside")
        self._manager.reload()
        return newest

    def save(self, epoch: int, state: Any) -> None:
        """Begins to write the state after `epoch`.

        Raises:
          InputError: the disk refuses this checkpoint or the one before.
        """
        try:
            self._manager.save(epoch, args=ocp.args.StandardSave(state))
        except Exception as error:
            raise self._not_written(error) from error

    def restore(self, epoch: int, like: Any) -> Any:
        """Returns the state after `epoch`, each array placed as its counterpart in `like`.

        Raises:
          InputError: the checkpoint holds other arrays than the model of this config has, or cannot be read.
        """
        try:
            saved = _shapes(self._manager.item_metadata(epoch).tree)
            self._check_shapes(epoch, saved, _shapes(like))
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
            return self._manager.restore(epoch, args=ocp.args.StandardRestore(abstract))
        except InputError:
            raise
        # Every parser of orbax and tensorstore has errors of its own for a damaged file.
        except Exception as error:
            raise InputError(
                f"{self.folder / str(epoch)} cannot be read as a checkpoint ({first_line(error)}), expected the files "
                "that training has written; remove it, and training continues from the epoch before"
            ) from error

    def _check_shapes(
        self, epoch: int, saved: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]
    ) -> None:
        wrong = sorted(name for name in saved.keys() | expected.keys() if saved.get(name) != expected.get(name))
        apart = {name for name in expected if any(other.startswith(f"{name}/") for other in saved)}
        if apart:
            raise InputError(
                f"{self.folder / str(epoch)} is a checkpoint of an older sejax (each array of {min(apart)} is apart "
                "there), expected a vector of all; finish the study with that version, or take another --workdir"
            )
        if wrong:
            first = wrong[0]
            raise InputError(
                f"{self.folder / str(epoch)} is a checkpoint of another model: {len(wrong)} arrays differ, the "
                f"first {first} is {saved.get(first, 'absent')} there and {expected.get(first, 'absent')} in "
                "this config; use the config it was trained with, or another --workdir"
            )

    @contextmanager
    def before_sigterm(self) -> Iterator[None]:
        """Defers SIGTERM to the end of the block, when everything is written; the block ends if `asked_to_end`.

        Raises:
          InputError: the disk refuses the last checkpoint.
        """
        with stopping.finish_first():
            yield
            self._wait()

    def asked_to_end(self) -> bool:
        """Returns whether SIGTERM has come, so that the epoch that is done is the last to be saved."""
        return stopping.is_requested()

    def close(self) -> None:
        """Waits until everything is written, and ends the threads that write.

        Raises:
          InputError: the disk refuses the last checkpoint.
        """
        self._wait()
        self._manager.close()

    def _wait(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._not_written(error) from error

    def _write_checksums(self) -> None:
        """Writes the checksums of the epoch that is being written, just before its folder gets its name."""
        if devices.leads():
            for folder in self.folder.glob(f"*{_WRITING}*"):
                epoch = int(folder.name.partition(_WRITING)[0])
                tree = {"study": self._study, "epoch": epoch, "files": _digests(folder)}
                (folder / CHECKSUMS).write_text(json.dumps(tree, indent=1))

    def _put_aside(self, epochs: Sequence[int]) -> None:
        aside = self.folder / DAMAGED
        aside.mkdir(exist_ok=True)
        for epoch in epochs:
            number = sum(1 for name in os.listdir(aside) if name.split("-")[0] == str(epoch))
            os.rename(self.folder / str(epoch), aside / (f"{epoch}-{number}" if number else str(epoch)))

    def _not_written(self, error: Exception) -> Exception:
        """Returns the sentence for a checkpoint that the disk refuses, any other error as it is."""
        if problem := disk_problem(error):
            return InputError(
                f"{self.folder}: the checkpoint cannot be written ({problem}); the checkpoints before it are whole, "
                "and the same command continues from them"
            )
        return error


def saved_epochs(folder: Path) -> list[int]:
    """Returns the epochs that a folder of checkpoints has entries of, whole or not."""
    names = os.listdir(folder) if folder.is_dir() else []
    return [int(name) for name in names if re.fullmatch("[1-9][0-9]*", name)]  # orbax writes no 007


def _wrong_epochs(folder: Path, study: str) -> dict[int, str]:
    """Returns what is wrong with each checkpoint of a folder that is not as it was written, by its epoch."""
    return {
        epoch: problem
        for epoch in saved_epochs(folder)
        if (problem := _problem(folder / str(epoch), epoch=epoch, study=study))
    }


def _problem(checkpoint: Path, *, epoch: int, study: str) -> str:
    """Returns what is wrong with a checkpoint, "" if nothing is."""
    if not checkpoint.is_dir():
        return "is no folder"
    checksums = checkpoint / CHECKSUMS
    if not checksums.exists():
        # Written by an older version: `restore` reads it, or says that it cannot.
        return "" if (checkpoint / _TIMES).exists() else f"is no checkpoint (has no {_TIMES})"
    try:
        tree = dict(json.loads(checksums.read_text()))
        # An older version wrote the files' digests alone.
        expected = dict(tree.get("files", tree))
        digests = _digests(checkpoint)
        json.loads((checkpoint / _TIMES).read_text())
    except (OSError, ValueError, TypeError) as error:
        return f"is damaged (cannot be verified: {first_line(error)})"
    absent = sorted(expected.keys() - digests.keys())
    if absent:
        return f"is damaged (lacks {len(absent)} of {count(len(expected), 'file')}, such as {absent[0]})"
    changed = sorted(name for name in expected if digests[name] != expected[name])
    if changed:
        return f"is damaged ({len(changed)} of its {count(len(expected), 'file')} changed, such as {changed[0]})"
    if "files" in tree and tree.get("study") != study:
        return "belongs to another study"
    if "files" in tree and tree.get("epoch") != epoch:
        return f"is the checkpoint of epoch {tree.get('epoch')}"
    return ""


def _digests(folder: Path) -> dict[str, str]:
    """Returns the blake2b of every file below a checkpoint's folder that has a checksum, by its path there."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (CHECKSUMS, _TIMES):
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return digests


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def hide_late_complaints() -> None:
    """Suppresses what tensorstore prints about arrays of a refused checkpoint that nobody waits for any more."""
    sys.unraisablehook = partial(_unless_late, sys.unraisablehook)


def _unless_late(otherwise: Callable[[Any], object], lost: Any) -> None:
    if not (isinstance(lost.exc_value, RuntimeError) and str(lost.exc_value) == "Event loop is closed"):
        otherwise(lost)
