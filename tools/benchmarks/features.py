"""Seconds of audio per second: MFCC, mel, short-term features (STF) and prosody, here and by the libraries that have
them; and voice and auditory, here alone.

On one core: each side is a process with one thread and has the same samples in memory. librosa computes file by file
with our settings (`feature.mfcc`; `feature.melspectrogram` and `power_to_db`), pyAudioAnalysis with the same windows
(`ShortTermFeatures.feature_extraction`). All of prosody is compared with the pitch alone by librosa (`pyin`, the same
range and hop), on a part of the files. pyAudioAnalysis needs packages of its own (see tools/golden_stf.py):
`--pyaudioanalysis-python` is an interpreter that has them; without it our STF are measured alone. "All" is the work of
a worker process in a study: it reads each file once for MFCC, mel and STF and adds the statistics of their frames,
which the libraries do not do.

On all cores: `build_features` of these three and of prosody, from audio files to the arrays that a study trains on.

The audio is that of the synthetic corpus, which has IEMOCAP's durations; `--fraction 1` is as much audio.
"""

import argparse
import sys
import tempfile
import wave
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sejax.corpora.schema import SAMPLING_RATE
from tools.benchmarks.sides import Facts, Measured, Process, Side, add_other, measure_in_turn, ratio

COMPARED = ("mfcc", "mel", "stf")  # with the libraries, all of it
BUILT = (*COMPARED, "prosody")
STREAMS = (*COMPARED, "prosody", "voice", "auditory")
IEMOCAP_SECONDS = 7.17 * 3600  # of the usual four classes
# pYIN is slow: it and prosody are compared on every eighth of the files.
PITCH = {"sejax prosody, fewer files": "sejax", "librosa pyin, fewer files": "librosa"}
FEWER = 8
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
LIKE_PYAUDIOANALYSIS = "stf, pyaudioanalysis"  # the variant that has that library's numbers


def frames_by(library: str, feature: str, settings: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Returns a function from int16 samples to frames `[frame, feature]`."""
    if library == "pyAudioAnalysis":
        from pyAudioAnalysis.ShortTermFeatures import feature_extraction

        window, step = settings["win_length"], settings["hop_length"]
        return lambda samples: feature_extraction(samples, SAMPLING_RATE, window, step)[0].T

    import numpy as np

    if library == "sejax":
        from sejax.features.registry import extract

        return lambda samples: extract(feature, samples / np.float32(32768), settings)

    import librosa

    options = {"sr": SAMPLING_RATE, **settings}
    if feature == "prosody":
        return lambda samples: librosa.pyin(samples / np.float32(32768), **options)[2]
    if feature == "mfcc":
        return lambda samples: librosa.feature.mfcc(y=samples / np.float32(32768), **options).T
    return lambda samples: (
        librosa.power_to_db(librosa.feature.melspectrogram(y=samples / np.float32(32768), **options)).T
    )


def frames_side(
    library: str, feature: str, settings: Mapping[str, Any], paths: Sequence[str]
) -> tuple[Callable[[], None], Facts]:
    """Computes one feature of every file; its mean shows whether two sides compute the same."""
    import numpy as np

    compute = frames_by(library, feature, settings)
    files = []
    for path in paths:
        with wave.open(path) as file:
            files.append(np.frombuffer(file.readframes(file.getnframes()), np.int16))

    def run() -> None:
        for samples in files:
            compute(samples)

    return run, {"mean": float(np.mean([compute(samples).mean() for samples in files]))}


def all_side(paths: Sequence[str]) -> tuple[Callable[[], None], Facts]:
    """Computes the compared features of every file, as the worker processes of `build_features` do."""
    from sejax.data.compute import contents
    from sejax.features.extract import Job, Perturbation, Segment, Task, do_tasks

    made_of = [contents(stream, {}) for stream in COMPARED]
    tasks = [Task(Perturbation(), each.window, each.size, each.dtype, each.compute) for each in made_of]

    def run() -> None:
        for path in paths:
            do_tasks(Job(Segment(path, None, None), range(len(tasks))), tasks=tasks)

    return run, {}


def build_side(folder: str) -> tuple[Callable[[], None], Facts]:
    """Builds the features `BUILT` of the corpus in an empty cache and reads it, by the default number of processes."""
    from sejax.corpora.read import read_corpus
    from sejax.data.cache import Wanted, build_features
    from sejax.data.compute import contents

    corpus = read_corpus("synthetic", folder)

    def run() -> None:
        with tempfile.TemporaryDirectory() as cache:
            wanted = [Wanted(stream, contents(stream, {})) for stream in BUILT]
            build_features(corpus, wanted, cache_dir=cache, max_bad_fraction=0.0)

    return run, {}


def side(name: str, options: dict[str, Any]) -> Side:
    """Returns the side of a name."""
    return {
        "all": lambda: all_side(**options),
        "build": lambda: build_side(**options),
    }.get(name, lambda: frames_side(**options))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fraction", type=float, default=0.055, help="of IEMOCAP's 5,531 utterances")
    parser.add_argument("--files", type=int, default=40, help="of these that are computed on one core")
    parser.add_argument("--pyaudioanalysis-python", default=sys.executable, help="interpreter with pyAudioAnalysis")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--build-rounds", type=int, default=3, help="of build_features")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures the sides on one core in turn, then `build_features`."""
    from sejax.corpora.read import read_corpus
    from sejax.corpora.synthetic.write import write_synthetic
    from sejax.features.registry import full_settings

    settings: dict[str, dict[str, Any]] = {stream: dict(full_settings(stream, {})) for stream in STREAMS}
    with tempfile.TemporaryDirectory() as folder:
        corpus_folder = str(Path(folder) / "corpus")
        write_synthetic(corpus_folder, fraction=arguments.fraction, seed=0)
        every = [utterance.path for utterance in read_corpus("synthetic", corpus_folder).utterances]
        # Spread over the speakers.
        some = every[:: max(1, len(every) // arguments.files)][: arguments.files]

        def frames(
            library: str,
            feature: str,
            changed: dict[str, Any],
            python: str = sys.executable,
            paths: Sequence[str] = some,
        ) -> Process:
            options = {"library": library, "feature": feature, "settings": settings[feature] | changed, "paths": paths}
            return Process("features", "frames", options, python, ONE_THREAD)

        sides = {f"sejax {stream}": frames("sejax", stream, {}) for stream in STREAMS}
        sides[f"sejax {LIKE_PYAUDIOANALYSIS}"] = frames("sejax", "stf", {"variant": "pyaudioanalysis"})
        sides["sejax all"] = Process("features", "all", {"paths": some}, environment=ONE_THREAD)
        sides |= {f"librosa {feature}": frames("librosa", feature, {}) for feature in ("mfcc", "mel")}
        few = some[::FEWER]
        sides |= {name: frames(library, "prosody", {}, paths=few) for name, library in PITCH.items()}
        other = {"pyAudioAnalysis stf": frames("pyAudioAnalysis", "stf", {}, arguments.pyaudioanalysis_python)}
        add_other(sides, other, ("pyAudioAnalysis", "jax"), "our short-term features are")
        measured = measure_in_turn(sides, arguments.rounds)
        build = Process("features", "build", {"folder": corpus_folder})
        built = measure_in_turn({"build": build}, arguments.build_rounds)["build"]
        seconds, few_seconds, all_seconds = _seconds(some), _seconds(few), _seconds(every)
    return {
        "audio": "synthetic corpus",
        "files": len(some),
        "audio_seconds": seconds,
        "sides": {
            name: times.summary()
            | {"audio_seconds_per_second": (few_seconds if name in PITCH else seconds) / times.median}
            for name, times in measured.items()
        },
        "speed_over": _ratios(measured),
        "build": {
            **built.summary(),
            "files": len(every),
            "audio_seconds": all_seconds,
            "audio_seconds_per_second": all_seconds / built.median,
            "iemocap_minutes": IEMOCAP_SECONDS * built.median / all_seconds / 60,
        },
    }


def _ratios(measured: Mapping[str, Measured]) -> dict[str, float]:
    """Returns how many times faster ours are, by comparison."""
    prosody, pitch = PITCH
    over = {"librosa's pyin, of pitch alone: prosody": ratio(measured[pitch], measured[prosody])}
    over |= {f"librosa: {name}": ratio(measured[f"librosa {name}"], measured[f"sejax {name}"]) for name in COMPARED[:2]}
    if "pyAudioAnalysis stf" in measured:
        theirs = measured["pyAudioAnalysis stf"]
        for name in ("stf", LIKE_PYAUDIOANALYSIS):
            over[f"pyAudioAnalysis: {name}"] = ratio(theirs, measured[f"sejax {name}"])
        parts = (measured["librosa mfcc"], measured["librosa mel"], theirs)
        together = Measured({}, [sum(turn) for turn in zip(*(part.seconds for part in parts), strict=True)])
        over["librosa and pyAudioAnalysis: all"] = ratio(together, measured["sejax all"])
    return over


def _seconds(paths: Sequence[str]) -> float:
    """Returns the seconds of audio in these files."""
    total = 0
    for path in paths:
        with wave.open(path) as file:
            total += file.getnframes()
    return total / SAMPLING_RATE


def show(result: dict[str, Any]) -> None:
    print(f"{result['files']} files, {result['audio_seconds']:.0f} s of audio; each side on one core")
    print(f"{'':28}{'audio s / s':>12}{'first run s':>13}")
    for name, times in result["sides"].items():
        print(f"{name:28}{times['audio_seconds_per_second']:12.0f}{times['first_seconds']:13.1f}")
    for name, speed in result["speed_over"].items():
        print(f"{speed:.1f} times as fast as {name}")
    build = result["build"]
    print(
        f"build_features, {', '.join(BUILT)}: {build['files']} files, {build['audio_seconds']:.0f} s of audio, at "
        f"{build['audio_seconds_per_second']:.0f} audio s / s; IEMOCAP's {IEMOCAP_SECONDS / 3600:.2f} hours at that "
        f"speed: {build['iemocap_minutes']:.1f} minutes"
    )
