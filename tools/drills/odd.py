"""Studies of odd corpora, each a real `python -m sejax.main`: what users have that no test corpus has.

Rows, speakers, labels or audio that change between two starts; absent files of every kind; one name in two spellings;
control characters; containers that hold less than they promise; corpora of one class, of two speakers, of a single
rating; names with blanks, quotes, commas, emoji; a named pipe; a full disk; a cache that cannot be written; two starts
at once.

Each case says what is expected: a refusal (exit status 1 and one sentence with these words), or a run (exit status 0,
finite results, and these words in its output, metrics.json or report). Some may do either. A traceback, a hang, or
status 0 without results never hold.
"""

import argparse
import csv
import functools
import itertools
import os
import shutil
import subprocess
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from tools.drills.study import (
    Finished,
    Reference,
    Row,
    command,
    complaint,
    copy_of,
    different,
    prepare,
    results_problem,
    tone,
    tones,
    write_corpus,
    write_table,
    write_tone,
)
from tools.drills.study import run as run_command
from tools.drills.tally import Failure, Tally, add_bounds, choose, last_lines, rerun, try_all

REFUSED, RUNS, EITHER = "refused", "runs", "either"

# `_changed` fills a folder; what it returns is added to the command.
Change = Callable[[Reference], Sequence[str] | None]


@dataclass(frozen=True)
class Odd:
    """A corpus, and what is expected of its study.

    Args:
      kind: the group that it is counted in.
      what: what is odd.
      change: changes the folder of a study; returns further options.
      expected: `REFUSED`, `RUNS` or `EITHER`.
      words: of the refusal or of the run's output and results, in any case of letters; of alternatives ("a|b") one.
      finished: whether the study of the healthy corpus was finished in this workdir before.
      same: whether the results have to be those of the healthy corpus.
      distinct: a column of predictions.csv, and how many values it has to have if the study runs.
      start: how the command is started, if not as usual.
    """

    kind: str
    what: str
    change: Change
    expected: str
    words: tuple[str, ...] = ()
    finished: bool = False
    same: bool = False
    distinct: tuple[str, int] | None = None
    start: Callable[[Reference, list[str]], Finished] | None = None

    @property
    def name(self) -> str:
        """The group, and what is odd."""
        return f"{self.kind}: {self.what}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, help="so many cases, drawn by the seed; else all")
    add_bounds(parser, minutes=60)


def run(arguments: argparse.Namespace, folder: Path, scratch: Path) -> Tally:
    """Tries all odd corpora, or those that were chosen."""
    reference, numbers = prepare(folder), itertools.count()

    def attempt(odd: Odd) -> Failure | None:
        study = copy_of(reference, scratch / f"case-{next(numbers)}", corpus=True)
        if not odd.finished:
            shutil.rmtree(study.workdir)
        words = command(study.workdir, *(odd.change(study) or ()), table=study.table, cache=study.cache)
        finished = odd.start(study, words) if odd.start else run_command(words)
        problem = complaint(finished) or _problem(odd, study, finished, reference)
        subprocess.run(["chmod", "-R", "u+rwX", str(study.folder)], check=False)
        shutil.rmtree(study.folder)
        if not problem:
            return None
        return Failure(
            f"{odd.name}: {problem}",
            f"{rerun('odd', odd.name)} --folder FOLDER",
            last_lines(finished.out, finished.err),
        )

    return try_all(choose(list(odd_corpora()), arguments), attempt, jobs=arguments.jobs, minutes=arguments.minutes)


def _problem(odd: Odd, study: Reference, finished: Finished, reference: Reference) -> str:
    """Returns what is not as expected about a study that ended with results or with a sentence, "" if nothing is."""
    said = finished.out + finished.err
    if finished.status == 0:
        if odd.expected == REFUSED:
            return "is accepted, expected a refusal"
        said += "".join(_text(study.workdir / name) for name in ("metrics.json", "report.html"))
        if problem := results_problem(study.workdir):
            return problem
        if odd.distinct:
            column, count = odd.distinct
            with (study.workdir / "predictions.csv").open(newline="", encoding="utf-8") as file:
                values = sorted({row[column] for row in csv.DictReader(file)})
            if len(values) != count:
                return f"has {len(values)} values of {column} ({', '.join(map(repr, values))}), expected {count}"
    elif odd.expected == RUNS:
        return "is refused, expected a run"
    if odd.same and (names := different(study.workdir, reference.workdir)):
        return f"{', '.join(names)} differ from the undisturbed study"
    absent = [word for word in odd.words if not any(each.lower() in said.lower() for each in word.split("|"))]
    return f"does not say {', '.join(absent)}" if absent and odd.expected != EITHER else ""


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


# ------------------------------------------------------------------------------------------ changes of a corpus


def _rows(change: Callable[[list[Row]], list[Row] | None], rows: Callable[[], list[Row]] = tones) -> Change:
    """Returns the change of the rows of the table; audio of new paths is written, unless it is called absent."""

    def write(study: Reference) -> None:
        changed = rows()
        changed = change(changed) or changed
        write_table(study.table, changed)
        for number, row in enumerate(changed):
            path = study.table.parent / str(row["path"])
            if "absent" not in path.name and "\0" not in path.name and not os.path.lexists(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_tone(path, number)

    return write


def _cell(column: str, value: object, *places: int) -> Change:
    """Returns the change of one cell, in the rows of these places."""

    def change(rows: list[Row]) -> None:
        for place in places:
            rows[place][column] = value

    return _rows(change)


def _spellings(column: str, one: str, other: str) -> Change:
    """Returns the change that spells a value of half of its rows in another way."""

    def change(rows: list[Row]) -> None:
        value = rows[0][column]
        places = [row for row in rows if row[column] == value]
        for number, row in enumerate(places):
            row[column] = one if number % 2 == 0 else other

    return _rows(_with_column(column, change))


def _then(change: Change, *options: str) -> Change:
    """Returns the change with options that follow it."""

    def changed(study: Reference) -> Sequence[str]:
        change(study)
        return options

    return changed


def _write(text: str) -> Change:
    """Returns the change that replaces the whole table."""

    def change(study: Reference) -> None:
        study.table.write_text(text)

    return change


def _nothing(study: Reference) -> None:
    """Leaves the corpus as it is."""


def _with_column(column: str, change: Callable[[list[Row]], None]) -> Callable[[list[Row]], None]:
    def complete(rows: list[Row]) -> None:
        for row in rows:
            row.setdefault(column, f"{column[0]}{row['speaker']}")
        change(rows)

    return complete


def _column(column: str, value: Callable[[Row], object]) -> Callable[[list[Row]], None]:
    def change(rows: list[Row]) -> None:
        for row in rows:
            row[column] = value(row)

    return change


def _audio(name: str, write: Callable[[Path], None]) -> Change:
    """Returns the change of one audio file, which becomes the only odd one of many."""

    def change(study: Reference) -> None:
        rows = tones()
        rows[0]["path"] = name
        write(study.table.parent / name)
        write_corpus(study.table, rows)

    return change


def _cut(container: str, subtype: str) -> Change:
    """Returns the change by a file that has lost its second half, in this container."""

    def write(path: Path) -> None:
        soundfile.write(path, tone(0, seconds=2.0), 16_000, format=container, subtype=subtype)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return _audio(f"cut.{container.lower()}", write)


# -------------------------------------------------------------------------------------------------- the cases


def odd_corpora() -> Iterator[Odd]:
    """Yields all cases."""
    yield from _changed_between_starts()
    yield from _absent_files()
    yield from _two_spellings()
    yield from _control_characters()
    yield from _odd_audio()
    yield from _small_corpora()
    yield from _odd_names()
    yield from _odd_machines()


def _changed_between_starts() -> Iterator[Odd]:
    odd = functools.partial(Odd, "changed between two starts", expected=REFUSED, finished=True)

    def exchange(column: str, one: str, other: str) -> Change:
        names = {one: other, other: one}
        return _rows(_column(column, lambda row: names.get(row[column], row[column])))

    def rename_files(study: Reference) -> None:
        write_corpus(study.table, [{**row, "path": f"renamed_{row['path']}"} for row in tones()])

    def other_audio(study: Reference) -> None:
        write_tone(study.table.parent / "s0_0.wav", 77)

    yield odd("two speakers are exchanged", exchange("speaker", "s0", "s1"), words=("speaker",))
    yield odd("a speaker has another name", _rows(_column("speaker", lambda row: row["speaker"].replace("s0", "s9"))))
    yield odd("the classes are exchanged", exchange("label", "angry", "sad"), words=("label|class",))
    yield odd("a class has another name", _rows(_column("label", lambda row: row["label"].replace("sad", "zad"))))
    yield odd("one label changes", _cell("label", "sad", 0), words=("label",))
    yield odd("one label is gone", _cell("label", "", 0), words=("label",))
    yield odd("one rating changes", _cell("valence", 5, 3), words=("valence|rating|VAD",))
    yield odd("a speaker moves to another group", _cell("speaker", "s3", 0), words=("speaker",))
    yield odd("a row is gone", _rows(lambda rows: rows[:-1]))
    yield odd("a row is new", _rows(lambda rows: [*rows, {**rows[-1], "path": "new.wav"}]))
    yield odd("a session appears", _rows(_column("session", lambda row: row["speaker"][-1])))
    yield odd("all files have other names", rename_files)
    yield odd("one file holds other audio", other_audio, words=("audio",))
    yield odd("a table with folds", _rows(_column("fold", lambda row: row["speaker"])))
    yield odd("a split appears", _rows(_column("split", lambda row: "train")))
    yield odd("a start and an end appear", _rows(_column("end", lambda row: 0.3)))
    evaluate = _then(exchange("speaker", "s0", "s1"), "--mode=evaluate")
    yield odd("two speakers are exchanged before it is evaluated", evaluate, words=("speaker",))
    reverse = _rows(lambda rows: rows[::-1])
    yield Odd("changed between two starts", "only the order of rows", reverse, RUNS, finished=True, same=True)


def _absent_files() -> Iterator[Odd]:
    odd = functools.partial(Odd, "absent files", expected=REFUSED)
    many = _rows(_column("path", lambda row: row["path"] if row["path"] in ("s0_0.wav", "s1_1.wav") else "absent.wav"))
    numbered = _rows(lambda rows: [{**row, "path": f"absent_{i}.wav"} if i > 2 else row for i, row in enumerate(rows)])

    def folder(study: Reference) -> None:
        (study.table.parent / "folder.wav").mkdir()
        _cell("path", "folder.wav", 0)(study)

    def decomposed(study: Reference) -> None:
        write_tone(study.table.parent / unicodedata.normalize("NFD", "Müller.wav"), 5)
        rows = tones()
        rows[0]["path"] = unicodedata.normalize("NFC", "Müller.wav")
        write_table(study.table, rows)

    def pipe(study: Reference) -> None:
        os.mkfifo(study.table.parent / "pipe.wav")
        _cell("path", "pipe.wav", 0)(study)

    def device(study: Reference) -> None:
        (study.table.parent / "zero.wav").symlink_to("/dev/zero")
        _cell("path", "zero.wav", 0)(study)

    def loop(study: Reference) -> None:
        (study.table.parent / "loop.wav").symlink_to("loop.wav")
        _cell("path", "loop.wav", 0)(study)

    yield odd("13 of 16", numbered, words=("absent_3.wav", "13"))
    yield odd("14 of 16 of the same name", many, words=("absent.wav",))
    yield odd("one of 16", _cell("path", "absent.wav", 0), words=("absent.wav",))
    yield odd("all of them", _rows(_column("path", lambda row: f"absent_{row['path']}")), words=("absent",))
    allowed = _then(_cell("path", "absent.wav", 0), "--config.max_bad_fraction=0.1")
    yield Odd("absent files", "one of 16 is allowed", allowed, RUNS, ("absent.wav", "1 "))
    yield odd("a folder", folder, words=("folder",))
    yield odd("a URL", _cell("path", "https://example.org/absent.wav", 0), words=("example.org",))
    yield odd("backslashes", _cell("path", "wav\\absent.wav", 0), words=("backslash|\\",))
    yield Odd("absent files", "another Unicode form is there", decomposed, EITHER)
    yield odd("a named pipe", pipe, words=("pipe.wav",))
    yield odd("a device", device, words=("zero.wav",))
    yield odd("a link to itself", loop, words=("loop.wav",))


def _two_spellings() -> Iterator[Odd]:
    """Yields names that are one to a person and two to a computer: an error, or the same after trimming and NFC."""
    composed, decomposed = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    spellings = {
        "numbers as pandas writes them": ("1", "1.0", REFUSED),
        "numbers with zeros": ("1", "01", REFUSED),
        "upper case": ("anna", "Anna", REFUSED),
        "composed and decomposed": (composed, decomposed, RUNS),
        "a zero-width space": ("anna", "anna\u200b", EITHER),
        "a byte order mark": ("anna", "anna\ufeff", EITHER),
        "a non-breaking space": ("anna", "anna\u00a0", EITHER),
        "blanks around": ("anna", " anna ", RUNS),
        "two blanks inside": ("anna m", "anna  m", EITHER),
        "full-width digits": ("1", "１", EITHER),
        "a capital sharp s": ("strauß", "STRAUSS", EITHER),
    }
    distinct = {"speaker": ("speaker", 4), "label": ("label", 2), "session": ("fold", 4)}
    for column, (what, (one, other, expected)) in itertools.product(distinct, spellings.items()):
        change = _spellings(column, one, other)
        if column == "session":
            change = _then(change, "--config.protocol=loso_session")
        words = (column,) if expected == REFUSED else ()
        yield Odd(f"two spellings of a {column}", what, change, expected, words, distinct=distinct[column])


def _control_characters() -> Iterator[Odd]:
    for character in ("\r", "\n", "\t", "\0", "\x0b", "\x1b", "\x7f", "\x85"):
        for column in ("label", "speaker", "id", "session", "text"):
            change = _rows(_with_column(column, functools.partial(_insert, column, character)))
            yield Odd("control characters", f"{character!r} in a {column}", change, REFUSED, ("line",))


def _insert(column: str, character: str, rows: list[Row]) -> None:
    """Puts a character into the values of a column."""
    for number, row in enumerate(rows):
        if column == "id":
            row["id"] = f"u{number}"
        if row["speaker"] == "s0" or column == "id":
            row[column] = f"{str(row[column])[:1]}{character}{str(row[column])[1:]}x"


def _odd_audio() -> Iterator[Odd]:
    cut = functools.partial(Odd, "audio", expected=REFUSED, words=("cut.",))
    for container, subtype in (
        ("WAV", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("W64", "PCM_16"),
        ("RF64", "PCM_16"),
        ("NIST", "PCM_16"),
        ("CAF", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("VOC", "PCM_16"),
    ):
        yield cut(f"half of a {container} file", _cut(container, subtype))

    def write(samples: np.ndarray, rate: int = 16_000, subtype: str = "FLOAT") -> Callable[[Path], None]:
        return lambda path: soundfile.write(path, samples, rate, subtype=subtype)

    loud = tone(0, seconds=1.0)
    opposite = np.stack([loud, -loud], axis=1)
    bad = functools.partial(Odd, "audio", expected=REFUSED, words=("odd.wav",))
    yield bad("floats in the range of int16", _audio("odd.wav", write(loud * 32768)))
    yield bad("stereo of opposite sign", _audio("odd.wav", write(opposite)))
    yield bad("a sampling rate of 1 Hz", _audio("odd.wav", write(loud, 1, "PCM_16")))
    yield bad("a single NaN", _audio("odd.wav", write(np.where(np.arange(len(loud)) == 9, np.nan, loud))))
    yield bad("silence", _audio("odd.wav", write(np.zeros(16_000))))
    yield bad("no samples", _audio("odd.wav", write(np.zeros(0))))
    yield bad("10 ms", _audio("odd.wav", write(tone(0, seconds=0.01))))
    yield bad("no bytes", _audio("odd.wav", _file(b"")))
    yield bad("a text", _audio("odd.wav", _file("hello\n" * 99)), words=("text|recogni",))
    page = "<!DOCTYPE html><html><body>404</body></html>"
    yield bad("a web page", _audio("odd.wav", _file(page)), words=("html|web page",))
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    yield bad("a git-lfs pointer", _audio("odd.wav", _file(pointer)), words=("lfs",))
    runs = functools.partial(Odd, "audio", expected=RUNS)
    yield runs("clipped", _audio("odd.wav", write(np.clip(loud * 9, -1, 1), 16_000, "PCM_16")), words=("clipp",))
    yield runs("clipped mu-law", _audio("odd.wav", write(np.clip(loud * 9, -1, 1), 8000, "ULAW")), words=("clipp",))
    yield runs("96 kHz", _audio("odd.wav", write(tone(0, seconds=1.0, rate=96_000), 96_000, "PCM_24")))
    yield runs("GSM 6.10", _audio("odd.wav", write(tone(0, seconds=1.0, rate=8000), 8000, "GSM610")))
    yield runs("a length that its writer did not know", _audio("odd.wav", _of_unknown_length(0x7FFFF000)))
    yield runs("a length of 0 from a recorder that was killed", _audio("odd.wav", _of_unknown_length(0)))
    yield runs("five minutes", _audio("odd.wav", write(tone(0, seconds=300.0), 16_000, "PCM_16")))
    yield runs("upper-case suffix", _audio("ODD.WAV", write(loud, 16_000, "PCM_16")))
    yield runs(
        "flac that is called wav", _audio("odd.wav", lambda path: soundfile.write(path, loud, 16_000, format="FLAC"))
    )


def _file(content: str | bytes) -> Callable[[Path], None]:
    """Returns what writes a file that is no audio."""

    def write(path: Path) -> None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def _of_unknown_length(length: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        soundfile.write(path, tone(0, seconds=1.0), 16_000, subtype="PCM_16")
        content = bytearray(path.read_bytes())
        place = content.index(b"data") + 4
        content[place : place + 4] = length.to_bytes(4, "little")
        path.write_bytes(content)

    return write


def _small_corpora() -> Iterator[Odd]:
    odd = functools.partial(Odd, "small corpora")

    def only(speakers: int, utterances: int) -> Change:
        return _rows(lambda rows: None, lambda: tones(speakers, utterances))

    def without(*columns: str) -> Change:
        return _rows(lambda rows: [{name: row[name] for name in row if name not in columns} for row in rows])

    def ratings(count: int) -> Callable[[list[Row]], None]:
        def change(rows: list[Row]) -> None:
            for row in rows[count:]:
                row["dominance"] = ""

        return change

    def unlabelled(rows: list[Row]) -> None:
        for row in rows:
            if row["speaker"] != "s0":
                row["label"] = ""

    def duplicate(study: Reference) -> None:
        shutil.copy(study.table.parent / "s0_0.wav", study.table.parent / "s1_0.wav")

    yield odd("one class", _rows(_column("label", lambda row: "angry")), EITHER)
    yield odd("a class per utterance", _rows(_column("label", lambda row: row["path"])), EITHER)
    yield odd("a class of one utterance", _cell("label", "happy", 5), EITHER)
    yield odd("a class of one speaker", _rows(_column("label", lambda row: row["speaker"])), EITHER)
    yield odd("one utterance per speaker", only(4, 1), EITHER)
    yield odd("one speaker", only(1, 8), REFUSED, ("speaker",))
    yield odd("two speakers", only(2, 4), REFUSED, ("speaker", "2"))
    yield odd("three speakers", only(3, 2), RUNS)
    yield odd("one row", only(1, 1), REFUSED)
    yield odd("no ratings", without("valence", "arousal", "dominance"), RUNS)
    yield odd("no labels", without("label"), RUNS)
    yield odd("neither", without("label", "valence", "arousal", "dominance"), REFUSED, ("label",))
    yield odd("labels of one speaker alone", _rows(unlabelled), EITHER)
    yield odd("one dimension with one rating", _rows(ratings(1)), RUNS)
    yield odd("one dimension with ratings of one speaker", _rows(ratings(4)), RUNS)
    yield odd("ratings that never vary", _rows(_column("valence", lambda row: 3)), EITHER)
    yield odd("ratings on no scale", _cell("valence", 1000, 0), REFUSED, ("scale",))
    yield odd("duplicate audio across speakers", duplicate, REFUSED, ("s0_0", "s1_0"))
    yield odd("a row twice", _rows(lambda rows: [*rows, rows[0]]), REFUSED, ("twice",))
    yield odd("an empty table", _write(""), REFUSED)
    yield odd("a header alone", _write("path,speaker,label\n"), REFUSED)
    yield odd("no table", lambda study: study.table.unlink(), REFUSED, ("table",))
    yield odd("upper-case columns", _write("Path,Speaker,Label\ns0_0.wav,s0,sad\n"), REFUSED, ("lower case",))


def _odd_names() -> Iterator[Odd]:
    for name in (
        "a b",
        "it's",
        'say "x"',
        "a,b",
        "😀",
        "%s{0}$HOME",
        "-rf",
        "#1",
        "é",
        "x" * 200,
        "<b>&amp;",
        "a;b=c",
        "a::b",
    ):
        renamed = _rows(_column("path", functools.partial(_prefixed, f"{name} ", "path")))
        yield Odd("names", f"files called {name:.20}", renamed, RUNS)
        for column in ("speaker", "label"):
            change = _rows(_column(column, functools.partial(_prefixed, name, column)))
            yield Odd("names", f"a {column} called {name:.20}", change, RUNS)

    def link(study: Reference) -> None:
        study.workdir.symlink_to(study.folder / "elsewhere", target_is_directory=True)

    def file(study: Reference) -> None:
        study.workdir.write_text("x")

    yield Odd("names", "a workdir that is a link to nowhere", link, EITHER)
    yield Odd("names", "a workdir that is a file", file, REFUSED)


def _prefixed(prefix: str, column: str, row: Row) -> str:
    return f"{prefix}{row[column]}"


def _odd_machines() -> Iterator[Odd]:
    """Yields full disks, caches that cannot be written, and two starts at once."""
    odd = functools.partial(Odd, "machines")

    def own_cache(study: Reference) -> None:
        cache = study.cache.resolve()
        study.cache.unlink()
        shutil.copytree(cache, study.cache)

    def read_only(study: Reference) -> None:
        own_cache(study)
        subprocess.run(["chmod", "-R", "a-w", str(study.cache)], check=True)

    def file_as_cache(study: Reference) -> None:
        study.cache.unlink()
        study.cache.write_text("x")

    if _may_mount():
        words = ("space|full|disk",)
        for kilobytes in (16, 64, 256, 1024):
            start = functools.partial(_on_a_full_disk, kilobytes=kilobytes, place="workdir")
            yield odd(f"a disk of {kilobytes} kB for the workdir", _nothing, REFUSED, words, same=True, start=start)
        for kilobytes in (4, 32):
            start = functools.partial(_on_a_full_disk, kilobytes=kilobytes, place="cache")
            yield odd(f"a disk of {kilobytes} kB for the cache", _without_cache, REFUSED, words, same=True, start=start)
    if os.geteuid() != 0:
        yield odd("a cache that cannot be written", read_only, RUNS, same=True)
    yield odd("a file where the cache should be", file_as_cache, REFUSED)
    yield odd("two starts at once", _nothing, RUNS, same=True, start=_twice_at_once)


def _without_cache(study: Reference) -> None:
    study.cache.unlink()
    study.cache.mkdir()


def _may_mount() -> bool:
    """Returns whether a small file system can be mounted here, in a name space that ends with the command."""
    try:
        return subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _on_a_full_disk(study: Reference, words: list[str], *, kilobytes: int, place: str) -> Finished:
    """Runs the command with a small file system as workdir or cache, and then again with a large one.

    The second run has to end with the results of the undisturbed study. What it leaves is copied out of the mount.
    """
    folder, kept = study.folder / place, study.folder / "kept"
    folder.mkdir(exist_ok=True)
    script = (
        f'mount -t tmpfs -o size={kilobytes}k tmpfs "{folder}" && {{ "$@"; status=$?; '
        f'mount -o remount,size=1g "{folder}"; '
        f'"$@" >"{study.folder}/again.txt" 2>&1; echo $? >"{study.folder}/status"; '
        f'cp -r "{study.workdir}" "{kept}"; exit $status; }}'
    )
    finished = run_command(["unshare", "-rm", "sh", "-c", script, "sh", *words])
    again = _text(study.folder / "again.txt")
    if _text(study.folder / "status").strip() != "0":
        return Finished(0, finished.out, f"error: with room again it fails\n{again}", finished.seconds)
    shutil.rmtree(study.workdir, ignore_errors=True)
    shutil.copytree(kept, study.workdir)
    return finished


def _twice_at_once(study: Reference, words: list[str]) -> Finished:
    """Starts the command twice at once: one has to be refused, the other is returned."""
    with ThreadPoolExecutor(2) as pool:
        ends = sorted(pool.map(run_command, [words, words]), key=lambda finished: finished.status or 0)
    if [end.status for end in ends] != [0, 1] or complaint(ends[1]):
        statuses = ", ".join(str(end.status) for end in ends)
        return Finished(1, ends[1].out, f"of two starts one has to be refused: status {statuses}", ends[1].seconds)
    return ends[0]
