"""What a corpus of a million utterances costs before its first feature, and whether a build holds features in memory.

The corpus is a table of `--rows` lines over a few real files, of which every line cuts out a part: names, speakers,
labels and times differ. Each line below is a process of its own, with its seconds and its peak of memory:

- plan: reads the table, makes folds, digests the audio, names the dataset, and plans the parts of a build.
- build, a quarter and all of `--built` rows: stores raw audio, which has 64 kB of frames for 2 s and no statistics, in
  an empty cache, and reads it. What three quarters add to the peak is what an utterance costs, features included.
- resume: the same build of all, after another was killed with half of the files complete.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parent.parent / "bench.py"
SECONDS = 2.0  # of an utterance
FILES, FILE_SECONDS = 8, 60
SPEAKERS, FOLDS = 100, 10


class PlannedError(Exception):
    """Ends a build whose parts are planned; says how many there are."""


def write_table(folder: Path, rows: int) -> str:
    """Writes the audio and the table, and returns the table's path."""
    import numpy as np
    import soundfile

    random = np.random.default_rng(0)
    for number in range(FILES):
        soundfile.write(folder / f"{number}.wav", random.normal(0, 0.1, FILE_SECONDS * 16_000), 16_000)
    path = folder / "corpus.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "path", "start", "end", "speaker", "label"])
        for row in range(rows):
            start = row * 7919 % 57_000 / 1000
            cells = (
                f"u{row:07d}",
                f"{row % FILES}.wav",
                start,
                start + SECONDS,
                f"s{row % SPEAKERS}",
                "ab"[row % 3 // 2],
            )
            table.writerow(cells)
    return str(path)


def plan(table: str, cache_dir: str) -> dict[str, Any]:
    """Does what precedes the first feature, and returns the seconds of each step."""
    from sejax.corpora.read import read_corpus
    from sejax.protocols.registry import make_folds

    began = time.perf_counter()
    corpus = read_corpus("table", table)
    read = time.perf_counter()
    make_folds(corpus.utterances, "loso", most=FOLDS)
    folded = time.perf_counter()

    def planned(do: Callable[[str], None], parts: Sequence[str]) -> None:
        raise PlannedError(len(parts))

    try:
        _build(corpus, cache_dir, engine=planned)
    except PlannedError as parts:
        steps = {"read": read - began, "folds": folded - read, "parts": time.perf_counter() - folded}
        return {"rows": len(corpus.utterances), "files": parts.args[0], "steps": steps}
    raise AssertionError("the cache is not empty")


def build(table: str, cache_dir: str, rows: int) -> dict[str, Any]:
    """Stores the features of the first rows, and reads them."""
    from sejax.corpora.read import read_corpus

    corpus = read_corpus("table", table)
    corpus = replace(corpus, utterances=corpus.utterances[:rows])
    began = time.perf_counter()
    features = _build(corpus, cache_dir)
    frames = sum(stored.shape[0] for stored in features.frames.values())
    return {"rows": len(features.frames), "frames_bytes": 2 * frames, "build_seconds": time.perf_counter() - began}


def _build(corpus: Any, cache_dir: str, **options: Any) -> Any:
    from sejax.data.cache import Wanted, build_features
    from sejax.data.compute import contents

    (features,) = build_features(
        corpus, [Wanted("raw", contents("raw", {}))], cache_dir=cache_dir, max_bad_fraction=0.0, **options
    )
    return features


def step(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Does one step in this process, and returns its facts."""
    began = time.perf_counter()
    do: dict[str, Callable[..., dict[str, Any]]] = {"plan": plan, "build": build}
    facts = do[name](**options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return facts | {"seconds": time.perf_counter() - began, "peak_bytes": peak}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the table")
    parser.add_argument("--built", type=int, default=20_000, help="rows whose features are stored")
    parser.add_argument("--step", type=json.loads, help=argparse.SUPPRESS)  # name and options, by `_start`


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Does every step in a process of its own."""
    if arguments.step:
        return step(*arguments.step)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table = write_table(folder, arguments.rows)
        few = write_table(_made(folder / "few"), arguments.built)
        sizes = {"quarter": arguments.built // 4, "all": arguments.built}
        result = {"plan": _finish(*_start(folder, "plan", table=table, cache_dir=str(folder / "plan")))}
        for name, rows in sizes.items():
            result[name] = _finish(*_start(folder, "build", table=few, cache_dir=str(folder / name), rows=rows))

        # Half of the files are complete: the build is killed and started again.
        words = {"table": few, "cache_dir": str(folder / "killed"), "rows": arguments.built}
        killed, _ = _start(folder, "build", **words)
        complete = len(list((folder / "all").glob("*/*/*/*array_record-*")))
        while len(list((folder / "killed").glob("*/*/incomplete/*array_record-*"))) <= complete // 2:
            if killed.poll() is not None:
                sys.exit("the build ended before it was killed: give more rows with --built")
            time.sleep(0.01)
        killed.kill()
        killed.wait()
        result["resume"] = _finish(*_start(folder, "build", **words))
    more = result["all"]["rows"] - result["quarter"]["rows"]
    return {
        "steps": result,
        "bytes_per_planned_row": result["plan"]["peak_bytes"] / result["plan"]["rows"],
        "bytes_per_built_row": (result["all"]["peak_bytes"] - result["quarter"]["peak_bytes"]) / more,
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _start(folder: Path, name: str, **options: Any) -> tuple[subprocess.Popen[bytes], Path]:
    """Starts a step in a process of its own, and returns the process and the file of its result."""
    out = folder / f"{name}.json"
    words = [sys.executable, str(BENCH), "corpus", "--step", json.dumps([name, options]), "--out", str(out)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL), out


def _finish(process: subprocess.Popen[bytes], out: Path) -> dict[str, Any]:
    if process.wait():
        sys.exit(f"a step of the benchmark ended with status {process.returncode}")
    tree = json.loads(out.read_text())
    return {name: tree[name] for name in tree if name not in ("what", "cores", "load_average", "date")}


def show(result: dict[str, Any]) -> None:
    if "bytes_per_built_row" not in result:  # of one step
        return
    for name, facts in result["steps"].items():
        print(f"{name:8}{facts['rows']:10,} rows  {facts['seconds']:7.1f} s  peak {facts['peak_bytes'] / 1e6:7.0f} MB")
    print("plan: " + ", ".join(f"{step} {taken:.1f} s" for step, taken in result["steps"]["plan"]["steps"].items()))
    print(
        f"{result['bytes_per_planned_row']:.0f} bytes per planned row; a stored row of "
        f"{result['steps']['all']['frames_bytes'] / result['steps']['all']['rows']:.0f} bytes of frames adds "
        f"{result['bytes_per_built_row']:.0f} to the peak"
    )
