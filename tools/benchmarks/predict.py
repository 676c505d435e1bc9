"""How fast and how large a model is that predicts: a bundle of a study (`python -m sejax.export`) or a published model.

- first: seconds of a cold process, `python -m sejax.predict`, from its start to the row of one 3-second file, with the
  programs that the process before it has compiled;
- files: seconds of audio per second and core, `Model.predict` over all files of a folder, also with compiled programs;
- recording: `--every 0.5` over hours of audio in one file: seconds of audio per second, and the largest memory of the
  process (the file is the folder's audio, again and again);
- stream: seconds of work per second of audio that comes in pieces of 0.1 s, a row every 0.5 s from windows of 3 s.

Each is a process of its own, in turn, for several rounds; the JSON has the medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
SECONDS = 3.0  # of the first file, of a window
STREAM_SECONDS = 60.0


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, help="a bundle, or a published model")
    command.add_argument("--audio", required=True, help="a folder of utterances")
    command.add_argument("--hours", type=float, default=2.0, help="length of the recording; 0: none")
    command.add_argument("--rounds", type=int, default=3)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(str(path) for path in Path(arguments.audio).rglob("*.wav"))
        if not files:
            raise SystemExit(f"{arguments.audio}: has no wav files, expected some")
        first = _write(Path(folder, "first.wav"), files, SECONDS)
        measured: dict[str, list[dict[str, float]]] = {"first": [], "files": [], "stream": [], "recording": []}
        for round_ in range(arguments.rounds + 1):
            found = {
                "first": _first(arguments.model, first),
                "files": _child("files", arguments.model, arguments.audio),
                "stream": _child("stream", arguments.model, _write(Path(folder, "stream.wav"), files, STREAM_SECONDS)),
            }
            if round_:  # the round before the first compiles
                for name, value in found.items():
                    measured[name].append(value)
        if arguments.hours:
            recording = _write(Path(folder, "recording.wav"), files, 3600 * arguments.hours)
            measured["recording"].append(_recording(arguments.model, recording, 3600 * arguments.hours))
    medians = {name: _median(rounds) for name, rounds in measured.items() if rounds}
    return {"model": arguments.model, "audio": arguments.audio, "rounds": arguments.rounds, **medians}


def show(result: Mapping[str, Any]) -> None:
    print(f"first row of a cold process: {result['first']['seconds']:.2f} s")
    print(f"files: {result['files']['real_time_per_core']:.0f} times real time per core")
    print(f"stream: {result['stream']['factor']:.2f} of the time")
    if "recording" in result:
        recording = result["recording"]
        print(f"recording: {recording['real_time']:.0f} times real time, {recording['gigabytes']:.2f} GB at most")


def _median(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(round_[name] for round_ in rounds) for name in rounds[0]}


def _write(path: Path, files: Sequence[str], seconds: float) -> str:
    """Writes so many seconds of the files' audio, again and again, at 16 kHz."""
    import soundfile

    from sejax.features.audio import load_audio

    left, place = round(16_000 * seconds), 0
    with soundfile.SoundFile(path, "w", 16_000, 1, subtype="PCM_16") as file:
        while left > 0:
            samples = load_audio(files[place % len(files)]).samples[:left]
            file.write(samples)
            left, place = left - len(samples), place + 1
    return str(path)


def _command(model: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "sejax.predict", "--model", model, *words]


def _first(model: str, path: str) -> dict[str, float]:
    began = time.perf_counter()
    subprocess.run(_command(model, path), check=True, capture_output=True, cwd=ROOT)
    return {"seconds": time.perf_counter() - began}


def _recording(model: str, path: str, seconds: float) -> dict[str, float]:
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(_command(model, "--every", "0.5", path), cwd=ROOT, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the recording ended with status {status}")
    return {"real_time": seconds / (time.perf_counter() - began), "gigabytes": usage.ru_maxrss * 1024 / 1e9}


def _child(what: str, model: str, path: str) -> dict[str, float]:
    """Measures in a process of its own."""
    program = f"from tools.benchmarks.predict import {what}; {what}({model!r}, {path!r})"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=QUIET)
    return json.loads(done.stdout.splitlines()[-1])


def files(model: str, folder: str) -> None:
    """Prints the speed of predicting all files of a folder."""
    from sejax.features.audio import load_audio
    from sejax.inference import Model
    from sejax.inference.commands.running import use_compilation_cache

    use_compilation_cache()
    paths = sorted(Path(folder).rglob("*.wav"))
    seconds = sum(len(load_audio(str(path)).samples) for path in paths) / 16_000
    loaded = Model.load(model)
    loaded.predict(paths[:1])
    began = time.perf_counter()
    loaded.predict(paths)
    speed = seconds / (time.perf_counter() - began)
    print(json.dumps({"real_time_per_core": speed / (os.cpu_count() or 1), "files": len(paths), "seconds": seconds}))


def stream(model: str, path: str) -> None:
    """Prints the share of the time that a stream needs."""
    import soundfile

    from sejax.inference import Model
    from sejax.inference.commands.running import use_compilation_cache

    use_compilation_cache()
    samples, rate = soundfile.read(path, dtype="float32")
    loaded = Model.load(model)
    loaded.predict_samples(samples[: round(SECONDS * rate)], rate)
    heard = loaded.stream(rate, every=0.5, window=SECONDS)
    piece, slowest = rate // 10, 0.0
    began = time.perf_counter()
    for first in range(0, len(samples), piece):
        before = time.perf_counter()
        heard.add(samples[first : first + piece])
        slowest = max(slowest, time.perf_counter() - before)
    factor = (time.perf_counter() - began) * rate / len(samples)
    print(json.dumps({"factor": factor, "slowest_row_seconds": slowest}))
