"""Damages every file of a finished study in every way, and starts it again.

Checkpoints (the newest, and both), the feature cache, compiled programs, and the tables of the workdir: each file
deleted, emptied, cut, with bits flipped, overwritten, of another shape, replaced by a folder; folders emptied and
beside strangers; files that may not be read, where the user is not root. Then the study is continued
(`--mode train`), or only evaluated.

Held: exit status 0 with the same bytes of all results as an undisturbed study; or exit status 1 with exactly one
sentence and no traceback. Where history.jsonl is damaged it may differ, and metrics.json with it, if a line on the
terminal says so; and an evaluation without the newest checkpoint, if the table says that epochs are missing. Never: a
hang, or other numbers without a word.
"""

import argparse
import functools
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.drills.study import (
    EPOCHS,
    Finished,
    Reference,
    command,
    complaint,
    copy_of,
    different,
    prepare,
)
from tools.drills.study import run as run_command
from tools.drills.tally import Failure, Tally, add_bounds, choose, last_lines, rerun, try_all

TABLES = (
    "config.json",
    "plan.json",
    "runs.csv",
    "history.jsonl",
    "predictions.csv",
    "data.json",
    "metrics.json",
    "parameters.txt",
    "report.html",
)
MODES = ("train", "evaluate")


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flip(place: float) -> Callable[[bytes], bytes]:
    """Returns the damage of one flipped bit, at this share of the file."""

    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        if changed:
            changed[min(int(place * len(changed)), len(changed) - 1)] ^= 0x10
        return bytes(changed)

    return flip


def _middle(replace: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Returns the damage of a replaced line in the middle."""

    def damage(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        place = len(lines) // 2
        return b"".join([*lines[:place], *(replace(line) for line in lines[place : place + 1]), *lines[place + 1 :]])

    return damage


def _without_first_key(content: bytes) -> bytes:
    try:
        tree = json.loads(content)
    except ValueError:
        return content[1:]
    if isinstance(tree, dict):
        tree.pop(next(iter(tree)))
    elif isinstance(tree, list):
        tree = [dict(list(entry.items())[1:]) if isinstance(entry, dict) else entry for entry in tree]
    return json.dumps(tree).encode()


CONTENT: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "cut": _cut,
    "without its last byte": lambda content: content[:-1],
    "a bit flipped at the start": _flip(0.0),
    "a bit flipped in the middle": _flip(0.5),
    "a bit flipped at the end": _flip(1.0),
    "zeros": lambda content: bytes(len(content)),
    "longer": lambda content: content + content[: 1 << 10],
}
TEXT: dict[str, Callable[[bytes], bytes]] = {
    "emptied": CONTENT["emptied"],
    "cut": CONTENT["cut"],
    "without its last byte": CONTENT["without its last byte"],
    "NULs": CONTENT["zeros"],
    "a NUL in it": _middle(lambda line: line[:3] + b"\0" + line[4:]),
    "no UTF-8": _middle(lambda line: b"\xff\xfe" + line),
    "a broken line": _middle(lambda line: line[: len(line) // 2] + b"\n"),
    "a line twice": _middle(lambda line: line + line),
    "without a line": _middle(lambda line: b""),
    "a list": lambda content: b"[]\n",
    "an empty object": lambda content: b"{}\n",
    "null": lambda content: b"null\n",
    "a number": lambda content: b"3\n",
    "a list of texts": lambda content: b'["a", "b"]\n',
    "without its first key": _without_first_key,
    "in Windows' ends of lines": lambda content: content.replace(b"\n", b"\r\n"),
}


def _unlink(path: Path) -> None:
    path.unlink()


def _become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _become_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _without_folders(path: Path) -> None:
    for inner in path.iterdir():
        if inner.is_dir():
            shutil.rmtree(inner)


def _without_files(path: Path) -> None:
    for inner in path.rglob("*"):
        if inner.is_file():
            inner.unlink()


def _empty_files(path: Path) -> None:
    for inner in path.rglob("*"):
        if inner.is_file():
            inner.write_bytes(b"")


def _with_strangers(path: Path) -> None:
    (path / "stray folder").mkdir()
    (path / "stray.txt").write_text("stray")


def _forbid(path: Path) -> None:
    path.chmod(0)


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _of_files(contents: dict[str, Callable[[bytes], bytes]]) -> dict[str, Callable[[Path], None]]:
    """Returns all damages of a file; root may read whatever it likes."""
    forbidden = {} if os.geteuid() == 0 else {"may not be read": _forbid}
    changes = {what: functools.partial(_rewrite, change=change) for what, change in contents.items()}
    return {"is gone": _unlink, "is a folder": _become_folder, **forbidden, **changes}


FILE = _of_files(CONTENT)
TABLE = _of_files(TEXT)
FOLDER: dict[str, Callable[[Path], None]] = {
    "is gone": shutil.rmtree,
    "is empty": _empty,
    "is a file": _become_file,
    "has no folders": _without_folders,
    "has no files": _without_files,
    "has empty files": _empty_files,
    "has strangers": _with_strangers,
}


@dataclass(frozen=True)
class Damage:
    """A change of a copy of a finished study, and the command that follows.

    Args:
      kind: a part of the study.
      what: what happens to it.
      mode: of `MODES`.
      paths: files and folders below the folder of the study.
      change: is done to each of them.
      options: of the command.
      refused: whether a refusal alone holds.
    """

    kind: str
    what: str
    mode: str
    paths: tuple[str, ...]
    change: Callable[[Path], None]
    options: tuple[str, ...] = ()
    refused: bool = False

    @property
    def name(self) -> str:
        """The part of the study, what happened to it, and the mode."""
        return f"{self.kind}: {self.what}, {self.mode}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, help="so many cases, drawn by the seed; else all")
    add_bounds(parser, minutes=90)


def run(arguments: argparse.Namespace, folder: Path, scratch: Path) -> Tally:
    """Tries all damages, or those that were chosen."""
    reference = prepare(folder)
    cases = choose(list(damages(reference)), arguments)
    drill = _Drill(reference, scratch)
    return try_all(cases, drill.attempt, jobs=arguments.jobs, minutes=arguments.minutes)


def damages(reference: Reference) -> Iterator[Damage]:
    """Yields all damages of a study. Their names do not depend on what orbax, TFDS and XLA call their files."""
    yield from _of_checkpoints(reference)
    yield from _of_strangers()
    yield from _of_caches(reference)
    yield from _of_tables()


def _of_checkpoints(reference: Reference) -> Iterator[Damage]:
    newest, before = (f"workdir/checkpoints/{epoch}" for epoch in (EPOCHS, EPOCHS - 1))
    older = _labelled(reference, before)
    for label, path in _labelled(reference, newest).items():
        for what, change in FILE.items():
            for mode in MODES:
                yield Damage("the newest checkpoint", f"{label} {what}", mode, (path,), change)
            if label in older:
                yield Damage("both checkpoints", f"{label} {what}", "train", (path, older[label]), change)
    for what, change in FOLDER.items():
        for inner in ("", "/default", "/default/d"):
            for mode in MODES:
                where = f"folder {inner[1:] or 'itself'} {what}"
                yield Damage("the newest checkpoint", where, mode, (newest + inner,), change)
        for mode in MODES:
            yield Damage("both checkpoints", f"folders {what}", mode, (newest, before), change)
            yield Damage("all checkpoints", f"folder {what}", mode, ("workdir/checkpoints",), change)


def _of_strangers() -> Iterator[Damage]:
    """Yields files and folders beside the checkpoints which look a little like one."""

    def folder(path: Path) -> None:
        path.mkdir()

    def copy(path: Path) -> None:
        shutil.copytree(path.parent / str(EPOCHS - 1), path)

    def file(path: Path) -> None:
        path.write_text("stray")

    later, changes = EPOCHS + 1, {"an empty folder": folder, "a copy of an older one": copy, "a file": file}
    for name in (f"{later}", f"{later}.orbax-checkpoint-tmp-1", "stray", "0", "-1", f"{EPOCHS} (copy)", "1e9"):
        for (what, change), mode in itertools.product(changes.items(), MODES):
            path = f"workdir/checkpoints/{name}"
            yield Damage("beside the checkpoints", f"{what} called {name!r}", mode, (path,), change)


def _of_caches(reference: Reference) -> Iterator[Damage]:
    features = _labelled(reference, "cache/acoustic_features")
    for (label, path), (what, change) in itertools.product(features.items(), FILE.items()):
        yield Damage("the feature cache", f"{label} {what}", "evaluate", (path,), change)
    version = str(Path(next(iter(features.values()))).parent)
    places = {"version": version, "dataset": str(Path(version).parent), "all features": "cache/acoustic_features"}
    for (label, path), (what, change) in itertools.product(places.items(), FOLDER.items()):
        yield Damage("the feature cache", f"folder of {label} {what}", "evaluate", (path,), change)
    for what in ("is gone", "is a folder", "longer", "zeros"):
        yield Damage("the feature cache", f"its lock {what}", "train", ("cache/.lock",), FILE[what])
    programs = (path for path in (reference.folder / "cache" / "xla").rglob("*") if path.is_file())
    largest = str(max(programs, key=lambda path: path.stat().st_size).relative_to(reference.folder))
    for what, change in FILE.items():
        yield Damage("compiled programs", f"the largest {what}", "evaluate", (largest,), change)
    for what, change in FOLDER.items():
        yield Damage("compiled programs", f"folder {what}", "evaluate", ("cache/xla",), change)


def _of_tables() -> Iterator[Damage]:
    for name, (what, change), mode in itertools.product(TABLES, TABLE.items(), MODES):
        yield Damage(name, what, mode, (f"workdir/{name}",), change)
    # Nothing says any more what was trained there.
    for option in ("--config.seed=1", "--config.learning_rate=0.5", "--config.label_smoothing=0.3"):
        for mode in MODES:
            what = f"is gone, and {option}"
            yield Damage("config.json", what, mode, ("workdir/config.json",), _unlink, (option,), refused=True)


def _labelled(reference: Reference, folder: str) -> dict[str, str]:
    """Returns the files below a folder of the study by labels without hashes, in an order that does not depend on them.

    Files of array data are called after random numbers: they are numbered by their size.
    """
    labelled: dict[str, str] = {}
    files = [path for path in (reference.folder / folder).rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (str(path.parent), path.stat().st_size, path.name)):
        inner = path.relative_to(reference.folder / folder)
        label = re.sub(r"[0-9a-f]{16,}", "#", str(inner))
        number = sum(known.partition(" ")[0] == label for known in labelled)
        labelled[f"{label} {number + 1}" if "#" in label else label] = str(path.relative_to(reference.folder))
    return labelled


class _Drill:
    """Tries damages of one reference."""

    def __init__(self, reference: Reference, scratch: Path) -> None:
        self.reference, self.scratch = reference, scratch
        self._numbers = itertools.count()

    def attempt(self, damage: Damage) -> Failure | None:
        """Damages a copy and runs the command; returns None if it held."""
        folder = self.scratch / f"case-{next(self._numbers)}"
        cache = any(path.startswith("cache") for path in damage.paths)
        study = copy_of(self.reference, folder, cache=cache)
        for path in damage.paths:
            damage.change(folder / path)
        finished = run_command(
            command(study.workdir, f"--mode={damage.mode}", *damage.options, table=study.table, cache=study.cache)
        )
        problem = complaint(finished) or self._problem(damage, study, finished)
        shutil.rmtree(folder)
        if not problem:
            return None
        again = f"{rerun('damage', damage.name)} --folder FOLDER"
        return Failure(f"{damage.name}: {problem}", again, last_lines(finished.out, finished.err))

    def _problem(self, damage: Damage, study: Reference, finished: Finished) -> str:
        """Returns what is wrong with the results of a process that has ended well, "" if nothing is."""
        if finished.status != 0:
            return ""
        if damage.refused:
            return "is accepted, expected a refusal"
        names = different(study.workdir, self.reference.workdir)
        if not names:
            return ""
        unforgivable = {"predictions.csv", "runs.csv"} & set(names)
        if names == ["history.jsonl"] == [damage.kind]:  # what is evaluated from it is the same
            return ""
        said = "history.jsonl" in finished.out + finished.err and damage.kind == "history.jsonl"
        # Without the newest checkpoint the study is one of fewer epochs, and the table says that under itself.
        if damage.kind == "the newest checkpoint" and "epochs are trained" in finished.out:
            return ""
        return "" if said and not unforgivable else f"{', '.join(names)} differ from the undisturbed study"
