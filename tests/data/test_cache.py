import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from filelock import FileLock

from sejax.corpora.schema import Corpus, Utterance
from sejax.data import cache as builder
from sejax.data import compute as computing
from sejax.data import shard_files
from sejax.data.cache import Wanted, build_features
from sejax.data.compute import contents
from sejax.data.fingerprints import REMEMBERED
from sejax.data.shards import StreamFeatures
from sejax.errors import InputError
from sejax.features import extract as extraction
from sejax.features.audio import Audio, change_speed, load_audio
from sejax.features.corrupt import corrupt, parse
from sejax.features.extract import Contents, Extraction, Job, statistics_dtype
from sejax.features.registry import extract
from sejax.host import processes

RATE = 16_000
SMALL = {"n_mels": 20, "n_fft": 512}
GOLDEN = Path(__file__).parent.parent / "golden"


NAMES_AND_SPEEDS = [("mfcc", 1.0), ("mfcc", 0.9), ("stf", 1.0), ("mel", 1.1), ("raw", 0.9)]


def write_corpus(folder: Path, utterances: int = 5) -> Corpus:
    """Noise of 0.1 s and more, each utterance longer than the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    listed = []
    for i in range(utterances):
        path = folder / f"u{i:03d}.wav"
        soundfile.write(path, random.uniform(-0.5, 0.5, 1600 + 160 * (i % 50)), RATE, subtype="FLOAT")
        listed.append(Utterance(id=path.stem, path=str(path), speaker=f"s{i % 2}"))
    return Corpus("noise", ("a", "b"), (1.0, 5.0), tuple(listed))


def build(
    corpus: Corpus,
    cache: Path,
    *,
    stream: str = "mel",
    settings: Mapping[str, int] = SMALL,
    made_of: Contents | None = None,
    speed: float = 1.0,
    workers: int | None = 1,
    max_bad_fraction: float = 0.0,
    **options: int,
) -> StreamFeatures:
    wanted = [Wanted(stream, made_of or contents(stream, settings), speed)]
    (features,) = build_features(
        corpus, wanted, cache_dir=str(cache), workers=workers, max_bad_fraction=max_bad_fraction, **options
    )
    return features


def stored(stream: str = "mel", settings: Mapping[str, int] = SMALL) -> Contents:
    """The contents of that stream, to be read alone: whoever computes them fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("features were computed")

    return replace(contents(stream, settings), compute=refuse)


def datasets(cache: Path) -> set[str]:
    """What the cache holds, the lock and the remembered digests aside."""
    folder = cache / "acoustic_features"
    assert set(os.listdir(cache)) <= {".lock", "acoustic_features", REMEMBERED}
    return set(os.listdir(folder)) if folder.exists() else set()


def assert_equal(one: StreamFeatures, other: StreamFeatures) -> None:
    assert one.frames.keys() == other.frames.keys()
    for key in one.frames:
        np.testing.assert_array_equal(one.frames[key], other.frames[key])
        np.testing.assert_array_equal(one.statistics[key], other.statistics[key])
    for field in ("digest", "errors", "notes", "seconds"):
        assert getattr(one, field) == getattr(other, field)


def test_what_is_read_is_what_was_computed(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    features = build(corpus, tmp_path / "cache")
    assert list(features.frames) == [utterance.id for utterance in corpus.utterances]
    for i, utterance in enumerate(corpus.utterances):
        samples = load_audio(utterance.path).samples
        frames = features.frames[utterance.id]
        assert frames.dtype == np.float32
        assert frames.shape == (11 + i, 20)
        np.testing.assert_array_equal(frames, extract("mel", samples, SMALL))
        assert features.digest[utterance.id] == hashlib.blake2b(samples, digest_size=16).hexdigest()
        assert features.seconds[utterance.id] == pytest.approx(0.1 + 0.01 * i)
    assert features.errors == features.notes == {}


@pytest.mark.parametrize("utterances", [1, 3, 4, 5])
def test_a_dataset_has_as_many_files_as_it_needs(tmp_path: Path, utterances: int) -> None:
    corpus = write_corpus(tmp_path / "corpus", utterances)
    whole = build(corpus, tmp_path / "whole")
    assert_equal(build(corpus, tmp_path / "parts", per_shard=2), whole)
    assert len(whole.frames) == utterances
    assert len(list((tmp_path / "whole").rglob("*.array_record*"))) == 1
    assert len(list((tmp_path / "parts").rglob("*.array_record*"))) == (utterances + 1) // 2


def test_a_second_start_reads(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    first = build(corpus, tmp_path / "cache")
    assert_equal(build(corpus, tmp_path / "cache", made_of=stored(), workers=3, per_shard=2), first)
    # Audio and settings alone count: neither the folder of the corpus nor its labels do.
    moved = shutil.move(tmp_path / "corpus", tmp_path / "moved")
    utterances = tuple(
        Utterance(id=u.id, path=f"{moved}/{u.id}.wav", speaker="other", label="a") for u in corpus.utterances
    )
    assert_equal(build(Corpus("noise", ("a",), (1.0, 7.0), utterances), tmp_path / "cache", made_of=stored()), first)
    with pytest.raises(AssertionError, match="features were computed"):
        build(Corpus("other", ("a",), (1.0, 7.0), utterances), tmp_path / "cache", made_of=stored())


def test_processes_compute_what_one_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus", 40)
    alone = build(corpus, tmp_path / "alone", stream="stf", settings={})
    monkeypatch.setattr(computing, "STARTUP_SECONDS", 0.0)
    assert_equal(build(corpus, tmp_path / "together", stream="stf", settings={}, workers=2), alone)
    # One line each says what was computed; TFDS says nothing.
    said = capfd.readouterr()
    assert said.out == ""
    lines = [line for line in re.split("[\r\n]", said.err) if line.strip() and "[" not in line]
    assert len(lines) == 2
    assert all(
        re.fullmatch(r"stf  noise  40 utterances computed in \d+\.\d s, \d+\.\d s of audio per second", line)
        for line in lines
    )
    assert "stf  noise  40 utterances  [" in said.err


def test_whatever_changes_the_result_is_another_dataset(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    corpus = write_corpus(tmp_path / "corpus", 2)
    first, second = corpus.utterances
    build(corpus, cache)
    seen = datasets(cache)
    assert len(seen) == 1
    assert re.fullmatch("noise_mel_[0-9a-f]{16}", next(iter(seen)))

    def is_new(**changed: object) -> StreamFeatures:
        nonlocal seen
        features = build(changed.pop("corpus", corpus), cache, **changed)  # type: ignore[arg-type]
        now = datasets(cache)
        assert len(now - seen) == 1
        seen = now
        return features

    def with_first(**fields: object) -> Corpus:
        renewed = Utterance(**{**vars(first), **fields})  # type: ignore[arg-type]
        return Corpus("noise", (), (1.0, 5.0), (renewed, second))

    is_new(settings={**SMALL, "hop_length": 200})
    is_new(stream="mfcc", settings={**SMALL, "n_mfcc": 5})
    is_new(corpus=Corpus("other", (), (1.0, 5.0), corpus.utterances))
    is_new(corpus=with_first(id="u"))
    is_new(corpus=with_first(end=0.05))
    is_new(corpus=with_first(start=0.01))
    is_new(corpus=with_first(path=second.path))
    is_new(corpus=Corpus("noise", (), (1.0, 5.0), (first,)))
    slow = is_new(speed=0.8)
    samples = load_audio(first.path).samples
    np.testing.assert_array_equal(slow.frames[first.id], extract("mel", change_speed(samples, 0.8), SMALL))
    assert slow.seconds[first.id] == pytest.approx(len(samples) / RATE)
    # The default given is the default.
    build(corpus, cache, settings={**SMALL, "hop_length": 160})
    assert datasets(cache) == seen
    # Another time changes nothing; another content does, of the same size and time too (`cp -p`, `touch -r`).
    os.utime(first.path, ns=(0, 0))
    build(corpus, cache, made_of=stored())
    soundfile.write(first.path, np.random.default_rng(1).uniform(-0.5, 0.5, 1600), RATE, subtype="FLOAT")
    os.utime(first.path, ns=(0, 0))
    changed = is_new()
    np.testing.assert_array_equal(changed.frames[first.id], extract("mel", load_audio(first.path).samples, SMALL))


def test_corpora_that_differ_in_their_samples_alone_share_nothing(tmp_path: Path) -> None:
    corpora = [write_corpus(tmp_path / name) for name in ("speech", "noise")]
    for utterance in corpora[1].utterances:
        samples, rate = soundfile.read(utterance.path)
        soundfile.write(utterance.path, samples[::-1], rate, subtype="FLOAT")
    for utterance in (*corpora[0].utterances, *corpora[1].utterances):
        os.utime(utterance.path, (10**9, 10**9))  # as in an archive that is made to be reproducible
    both = [build(corpus, tmp_path / "cache") for corpus in corpora]
    for corpus, features in zip(corpora, both, strict=True):
        for u in corpus.utterances:
            np.testing.assert_array_equal(features.frames[u.id], extract("mel", load_audio(u.path).samples, SMALL))


def test_members_of_an_archive_are_told_by_their_whole_name(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 2)
    with zipfile.ZipFile(tmp_path / "corpus.zip", "w") as archive:
        for folder, utterance in zip("ab", corpus.utterances, strict=True):
            archive.write(utterance.path, f"{folder}/u.wav")
    first = corpus.utterances[0]
    for folder, utterance in zip("ab", corpus.utterances, strict=True):
        zipped = replace(corpus, utterances=(replace(first, path=f"{tmp_path}/corpus.zip::{folder}/u.wav"),))
        expected = extract("mel", load_audio(utterance.path).samples, SMALL)
        np.testing.assert_array_equal(build(zipped, tmp_path / "cache").frames[first.id], expected)


def test_a_file_is_read_again_only_if_the_system_says_that_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, cache = write_corpus(tmp_path / "corpus"), tmp_path / "cache"
    changed = Path(corpus.utterances[0].path)
    read = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, *rest: read.append(Path(file.name)) or digest(file, *rest))

    def reads() -> list[Path]:
        read.clear()
        build(corpus, cache)
        return sorted(read)

    everything = sorted(Path(utterance.path) for utterance in corpus.utterances)
    began = time.time()
    monkeypatch.setattr(time, "time", lambda: began)
    assert reads() == reads() == everything  # changed within the resolution of a clock
    monkeypatch.setattr(time, "time", lambda: began + 1000)
    assert reads() == everything
    assert reads() == []
    os.utime(changed, (10**9, 10**9))
    assert reads() == [changed]
    status = changed.stat()
    changed.write_bytes(changed.read_bytes()[:-4] + bytes(4))
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))  # as `touch -r`: size, inode and time are equal
    assert reads() == [changed]
    for damage in (b"", b"[]", b'{"x": 3}', b"\0\0"):
        (cache / REMEMBERED).write_bytes(damage)
        assert reads() == everything


# Other names would leave every cache that exists unread.
NAMES_OF_DATASETS = [
    ("mel", {}, 1.0, "pinned_mel_270ea235ce3a0473"),
    ("mfcc", {"n_mfcc": 13}, 1.0, "pinned_mfcc_e97095c26fe98f0a"),
    ("stf", {}, 0.9, "pinned_stf_811048495bba36ff"),
    ("prosody", {}, 1.0, "pinned_prosody_dc4e4ec91afd4192"),
    ("raw", {}, 1.0, "pinned_raw_f505377ebf6f0b84"),
    ("ssl", {"model": str(GOLDEN / "ssl" / "hubert-base"), "layers": "1"}, 1.0, "pinned_ssl_12b84e75b8d948d3"),
]


@pytest.mark.parametrize(("feature", "settings", "speed", "name"), NAMES_OF_DATASETS)
def test_caches_of_older_revisions_are_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    feature: str,
    settings: dict[str, int | str],
    speed: float,
    name: str,
) -> None:
    utterances = []
    for i in range(3):
        path = tmp_path / f"u{i}.wav"
        path.write_bytes(bytes(8044))
        utterances.append(Utterance(id=path.stem, path=str(path), speaker="s"))
    corpus = Corpus("pinned", ("a",), (1.0, 5.0), tuple(utterances))
    described = contents(feature, settings)

    def nothing(
        wanted: Sequence[tuple[Contents, float]], jobs: Sequence[Job], *, workers: int
    ) -> Generator[tuple[int, int, Extraction], None, None]:
        frames = np.zeros((1, described.size), described.dtype)
        statistics = np.zeros(1, statistics_dtype(described.dtype))
        for number in range(len(jobs)):
            yield 0, number, Extraction(frames, statistics, "", "", "", 1.0)

    monkeypatch.setattr(builder, "compute", nothing)
    build(corpus, tmp_path / "cache", made_of=described, speed=speed)
    folder = tmp_path / "cache" / "acoustic_features" / name / "1.0.0"
    # Names of files had the number of shards.
    (shard,) = folder.glob("*.array_record*")
    shard.rename(f"{shard}-of-00001")
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("{SHARD_INDEX}", "{SHARD_X_OF_Y}"))
    monkeypatch.setattr(builder, "compute", None)
    assert len(build(corpus, tmp_path / "cache", made_of=described, speed=speed).frames) == 3


def test_a_new_version_of_the_features_is_another_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path / "corpus", 1)
    build(corpus, tmp_path / "cache")
    monkeypatch.setattr(builder, "FEATURES_VERSION", builder.FEATURES_VERSION + 1)
    build(corpus, tmp_path / "cache")
    assert len(datasets(tmp_path / "cache")) == 2


def test_bad_files_are_kept_as_sentences(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 10)
    missing, silent, stereo, twin = (Path(corpus.utterances[i].path) for i in (0, 3, 4, 6))
    missing.unlink()
    soundfile.write(silent, np.zeros(8000), RATE)
    samples, _ = soundfile.read(corpus.utterances[5].path)
    soundfile.write(stereo, np.stack((samples, samples), axis=1), RATE)
    shutil.copy(corpus.utterances[5].path, twin)
    features = build(corpus, tmp_path / "cache", max_bad_fraction=0.2)
    assert features.errors == {
        "u000": f"{missing}: no such file",
        "u003": f"{silent}: is silent, every sample is 0, expected speech",
    }
    good = [f"u00{i}" for i in (1, 2, 4, 5, 6, 7, 8, 9)]
    assert list(features.frames) == list(features.digest) == list(features.seconds) == good
    assert features.notes == {"u004": "stereo mixed to mono"}
    assert features.digest["u005"] == features.digest["u006"]
    assert len(set(features.digest.values())) == 7
    assert_equal(build(corpus, tmp_path / "cache", made_of=stored(), max_bad_fraction=0.2), features)
    # Files that were allowed when the dataset was built may not be allowed later.
    with pytest.raises(
        InputError, match=r"for at least 2 of 10 utterances \(unusable audio 2\), expected at most 10 %"
    ):
        build(corpus, tmp_path / "cache", made_of=stored(), max_bad_fraction=0.1)


def test_utterances_that_speed_makes_too_short_are_bad(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 2)
    path = corpus.utterances[0].path
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 420), RATE)
    assert build(corpus, tmp_path / "cache", max_bad_fraction=0.5).errors == {}
    errors = build(corpus, tmp_path / "cache", max_bad_fraction=0.5, speed=1.1).errors
    assert errors["u000"] == (f"{path}: has 382 samples at 16000 Hz and speed 1.1, expected at least one window of 400")


@pytest.mark.parametrize("processes", [1, 2])
def test_too_many_bad_files_stop_the_build_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(computing, "STARTUP_SECONDS", 0.0)
    corpus = write_corpus(tmp_path / "corpus", 40)
    for utterance in corpus.utterances[20:24]:
        Path(utterance.path).unlink()
    with pytest.raises(InputError) as raised:
        build(corpus, tmp_path / "cache", max_bad_fraction=0.05, workers=processes)
    path = str(tmp_path / "corpus" / "u0")
    assert str(raised.value) == (
        "the corpus noise has no usable audio for at least 3 of 40 utterances (unusable audio 3), expected at most 5 % "
        f"(config.max_bad_fraction); the first: {path}20.wav: no such file"
    )
    assert datasets(tmp_path / "cache") == set()


def test_mistakes_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 1)
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match=r"the feature is 'chroma', expected one of \('mfcc', .*, 'ssl'\)"):
        contents("chroma", {})
    with pytest.raises(InputError, match=r"config\.features\.mel has 'mels', expected one of \('n_mels', "):
        contents("mel", {"mels": 3})
    with pytest.raises(InputError, match=r"config\.speeds has 9\.0, expected factors between 0\.25 and 4"):
        build(corpus, cache, made_of=stored(), speed=9.0)
    with pytest.raises(InputError, match="the number of workers is 0, expected 1 or more"):
        build(corpus, cache, made_of=stored(), workers=0)
    with pytest.raises(InputError, match="the corpus noise has 0 utterances, expected 1 or more"):
        build(Corpus("noise", (), (1.0, 5.0), ()), cache, made_of=stored())
    assert not cache.exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="the features cannot be stored here"):
        build(corpus, tmp_path / "file" / "cache", made_of=stored())


def test_of_two_builds_at_once_one_waits_and_reads(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    corpus, cache = write_corpus(tmp_path / "corpus"), tmp_path / "cache"
    expected = build(corpus, tmp_path / "other")
    cache.mkdir()
    results: list[StreamFeatures] = []
    second = threading.Thread(target=lambda: results.append(build(corpus, cache, made_of=stored())))
    with FileLock(cache / ".lock"):
        second.start()
        deadline = time.monotonic() + 20
        while "waiting for it" not in capfd.readouterr().err:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Meanwhile the first build ends.
        shutil.move(tmp_path / "other" / "acoustic_features", cache / "acoustic_features")
    second.join()
    assert_equal(results[0], expected)


# As at a terminal, also where the tests run in the background and ignore SIGINT.
ANSWER_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"

BUILD_SLOWLY = """
import contextlib, sys, time
from sejax.corpora.schema import Corpus, Utterance
from sejax.data import cache, compute
from sejax.data.cache import Wanted, build_features

folder, cache_dir, workers = sys.argv[1:]
utterances = tuple(Utterance(id=f"u{i:03d}", path=f"{folder}/u{i:03d}.wav", speaker="s") for i in range(300))
wanted = [Wanted("mel", compute.contents("mel", {"n_mels": 20, "n_fft": 512}))]
compute.STARTUP_SECONDS = 0.0

def slowly(*args, **options):
    with contextlib.closing(compute.compute(*args, **options)) as computed:
        for i, numbered in enumerate(computed):
            yield numbered
            if i == 70:
                print("midway", file=sys.__stdout__, flush=True)
            if i > 70:
                time.sleep(0.05)

cache.compute = slowly
build_features(
    Corpus("noise", ("a", "b"), (1.0, 5.0), utterances), wanted,
    cache_dir=cache_dir, workers=int(workers), max_bad_fraction=0.0,
)
"""


def processes_of(group: int) -> list[int]:
    """The living members of a process group."""
    members = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                members.append(int(entry))
    return members


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="reads /proc")
@pytest.mark.parametrize(("how", "processes"), [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 2)])
def test_a_build_stopped_midway_is_continued_and_leaves_no_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], how: signal.Signals, processes: int
) -> None:
    corpus = write_corpus(tmp_path / "corpus", 300)
    cache = tmp_path / "cache"
    with open(tmp_path / "stderr", "w") as stderr:
        stopped = subprocess.Popen(
            [sys.executable, "-c", ANSWER_CTRL_C + BUILD_SLOWLY, str(tmp_path / "corpus"), str(cache), str(processes)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    assert stopped.stdout is not None
    assert stopped.stdout.readline() == "midway\n", (tmp_path / "stderr").read_text()
    assert len(processes_of(stopped.pid)) >= (1 if processes == 1 else 3)
    left = next((cache / "acoustic_features").iterdir())
    assert os.listdir(left) == ["incomplete"]
    if how == signal.SIGINT:  # Ctrl-C reaches all of them
        os.killpg(stopped.pid, how)
    else:
        stopped.kill()
    stopped.communicate(timeout=20)
    assert stopped.returncode != 0
    deadline = time.monotonic() + 10
    while processes_of(stopped.pid):
        assert time.monotonic() < deadline, "worker processes outlive their parent"
        time.sleep(0.05)
    if how == signal.SIGINT:
        said = (tmp_path / "stderr").read_text()
        assert said.count("KeyboardInterrupt") == 1, said
    capfd.readouterr()
    features = build(corpus, cache)
    assert "mel  noise  300 utterances: 64 records of an interrupted build are there" in capfd.readouterr().err
    assert_equal(features, build(corpus, tmp_path / "at once"))
    np.testing.assert_array_equal(
        features.frames["u299"], extract("mel", load_audio(corpus.utterances[299].path).samples, SMALL)
    )
    assert os.listdir(left) == ["1.0.0"]


def test_an_exception_in_a_worker_is_raised_and_ends_the_workers() -> None:
    results = processes.map_in_processes(int, ["1", "2", "x", "4"], workers=2, chunk=1)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ValueError, match="invalid literal"):
        next(results)


def test_workers_have_one_blas_thread_and_import_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    names = ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
    assert list(processes.map_in_processes(os.getenv, names, workers=1, chunk=3)) == ["1", "1", "1"]
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7"
    assert "OMP_NUM_THREADS" not in os.environ
    loaded = next(processes.map_in_processes(eval, ["list(__import__('sys').modules)"], workers=1, chunk=1))
    assert "sejax.host.processes" in loaded
    assert not {"pytest", "tensorflow_datasets", "tensorflow", "jax"} & set(loaded)


def test_ctrl_c_is_answered_by_the_parent_alone_also_in_a_script_without_a_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        ANSWER_CTRL_C + "import time\n"
        "from sejax.host.processes import map_in_processes\n"
        "results = map_in_processes(float, ['1'] * 9, workers=2, chunk=1)\n"
        "print('main', next(results), flush=True)\n"
        "time.sleep(60)\n"
    )
    with open(tmp_path / "stderr", "w") as stderr:
        running = subprocess.Popen(
            [sys.executable, script],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    assert running.stdout is not None
    assert running.stdout.readline() == "main 1.0\n", (tmp_path / "stderr").read_text()
    time.sleep(0.5)  # the workers have nothing to do by now
    os.killpg(running.pid, signal.SIGINT)
    rest, _ = running.communicate(timeout=20)
    assert rest == ""
    said = (tmp_path / "stderr").read_text()
    assert said.count("KeyboardInterrupt") == said.count("Traceback") == 1, said


def test_tensorflow_is_never_imported_and_nothing_is_said_on_stdout(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", 3)
    code = f"""
import sys
from sejax.corpora.schema import Corpus, Utterance
from sejax.data.cache import Wanted, build_features
from sejax.data.compute import contents

paths = [f"{tmp_path}/corpus/u00{{i}}.wav" for i in range(3)]
utterances = tuple(Utterance(id=path[-8:-4], path=path, speaker="s") for path in paths)
corpus = Corpus("noise", (), (1.0, 5.0), utterances)
for _ in range(2):
    build_features(corpus, [Wanted("stf", contents("stf", {{}}))], cache_dir=r"{tmp_path}/cache", max_bad_fraction=0.0)
loaded = {{"tensorflow", "torch", "jax"}} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    said = [line for line in re.split("[\r\n]", done.stderr) if line.strip()]
    assert said[-1].strip().startswith("stf  noise  3 utterances computed in")
    assert all("stf  noise  3 utterances" in line for line in said), done.stderr


def test_reading_is_fast(tmp_path: Path) -> None:
    """300 utterances in a small part of a second; a loaded machine is allowed for."""
    corpus = write_corpus(tmp_path / "corpus", 300)
    build(corpus, tmp_path / "cache", stream="stf", settings={})
    began = time.perf_counter()
    build(corpus, tmp_path / "cache", stream="stf", settings={})
    assert time.perf_counter() - began < 2


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: Mapping[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "lengthened": lambda path: path.write_bytes(path.read_bytes() * 2),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a folder": replace_by_folder,
    "of another shape": lambda path: path.write_text('{"splits": 3, "pythonClassName": 7}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_shards_are_computed_again(tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    corpus, cache = write_corpus(tmp_path / "corpus"), tmp_path / "cache"
    whole = build(corpus, tmp_path / "other")
    build(corpus, cache)
    files = [path for path in sorted(cache.rglob("*")) if path.is_file() and path.name != ".lock"]
    assert len(files) >= 3
    for path in files:
        content = path.read_bytes()
        capfd.readouterr()
        DAMAGES[damage](path)
        assert_equal(build(corpus, cache), whole)
        said = capfd.readouterr().err
        if ".array_record" in path.name and damage != "lengthened":
            assert said.count(f"note: {path.parent.parent}: stored features are damaged (") == 1
            assert damage != "emptied" or f"({path.name} is empty)" in said
            assert path.read_bytes() == content
        shutil.rmtree(cache)
        build(corpus, cache)


def test_flipped_bits_never_change_a_feature(tmp_path: Path) -> None:
    corpus, cache = write_corpus(tmp_path / "corpus"), tmp_path / "cache"
    whole = build(corpus, tmp_path / "other")
    build(corpus, cache)
    for path in [path for path in cache.rglob("*") if path.is_file() and path.name != ".lock"]:
        content = path.read_bytes()
        written = [place for place, byte in enumerate(content) if byte]  # shards are padded with zeros
        for place in written[:: len(written) // 15]:
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            assert_equal(build(corpus, cache), whole)
            path.write_bytes(content)


def test_damaged_shards_that_cannot_be_replaced_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, cache = write_corpus(tmp_path / "corpus"), tmp_path / "cache"
    build(corpus, cache)
    next(cache.rglob("*.array_record*")).write_bytes(b"")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "makedirs", full)
    with pytest.raises(InputError, match=rf"{cache}: the features cannot be stored here \(No space left on device\)"):
        build(corpus, cache)


@pytest.mark.parametrize("damage", ["dataset_info.json", "metadata.json", "features.json", "array_record-00000"])
def test_damaged_parts_of_an_interrupted_build_are_made_again(tmp_path: Path, damage: str) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    whole = build(corpus, tmp_path / "whole")
    build(corpus, tmp_path / "cache", per_shard=2)
    (folder,) = (tmp_path / "cache" / "acoustic_features").iterdir()
    (folder / "1.0.0").rename(folder / "incomplete")
    parts = folder / "incomplete"
    info = json.loads((parts / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = info["splits"][0]["shardLengths"][:2]  # the third was not finished
    (parts / "dataset_info.json").write_text(json.dumps(info))
    (damaged,) = (path for path in parts.iterdir() if path.name.endswith(damage))
    damaged.write_bytes(damaged.read_bytes()[:20])
    assert_equal(build(corpus, tmp_path / "cache", per_shard=2), whole)
    assert os.listdir(folder) == ["1.0.0"]


def test_a_file_is_decoded_once_for_all_features_and_speeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, decoded = write_corpus(tmp_path / "corpus"), []

    def noted(path: str, **options: float | None) -> Audio:
        decoded.append(path)
        return load_audio(path, **options)

    alone = [build(corpus, tmp_path / "alone", stream=name, settings={}, speed=x) for name, x in NAMES_AND_SPEEDS]
    monkeypatch.setattr(extraction, "load_audio", noted)
    made_of = {name: contents(name, {}) for name, _ in NAMES_AND_SPEEDS}
    wanted = [Wanted(name, made_of[name], speed) for name, speed in NAMES_AND_SPEEDS]
    together = build_features(corpus, wanted, cache_dir=str(tmp_path / "cache"), workers=1, max_bad_fraction=0.0)
    assert decoded == [utterance.path for utterance in corpus.utterances]
    for one, other in zip(together, alone, strict=True):
        assert_equal(one, other)
    # What is there is not computed again, and what is not is.
    decoded.clear()
    more = [*wanted, Wanted("raw", contents("raw", {}), 1.0)]
    build_features(corpus, more, cache_dir=str(tmp_path / "cache"), workers=1, max_bad_fraction=0.0)
    assert len(decoded) == 5


def test_a_build_takes_up_whatever_files_are_whole(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of any numbers, by any process; and deletes the others."""
    corpus = write_corpus(tmp_path / "corpus", 9)
    whole = build(corpus, tmp_path / "whole", per_shard=2)
    build(corpus, tmp_path / "cache", per_shard=2)
    (folder,) = (tmp_path / "cache" / "acoustic_features").iterdir()
    (folder / "1.0.0").rename(folder / "incomplete")
    name = "acoustic_features-utterances.array_record-"
    files = [folder / "incomplete" / f"{name}{i:05d}" for i in range(5)]
    shutil.copy(files[1], files[0].with_name(f"{name}00007"))  # of the same utterances
    files[1].rename(files[1].with_name(f"{name}100012"))
    files[3].rename(files[3].with_name(f"{name}00003.4711"))  # not complete
    assert_equal(build(corpus, tmp_path / "cache", per_shard=2), whole)
    assert "9 utterances: 7 records of an interrupted build are there" in capfd.readouterr().err
    left = os.listdir(folder / "1.0.0")
    assert sorted(file for file in left if file.startswith(name)) == [f"{name}{i:05d}" for i in range(5)]
    assert len(left) == 5 + 3  # what TFDS knows of it


def test_more_files_are_read_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_files, "_OPEN", 2)
    corpus = write_corpus(tmp_path / "corpus", 9)
    features = build(corpus, tmp_path / "cache", per_shard=1)
    for _ in range(2):
        assert [len(np.asarray(frames)) for frames in features.frames.values()] == [11 + i for i in range(9)]
    opened = [file.path for file in psutil.Process().open_files()]
    assert 1 <= len([path for path in opened if path.startswith(str(tmp_path))]) <= 2


def test_a_corrupted_view_is_a_dataset_that_knows_its_folders_contents(tmp_path: Path) -> None:
    corpus, noises = write_corpus(tmp_path / "corpus"), tmp_path / "noises"
    noises.mkdir()
    soundfile.write(noises / "a.wav", np.random.default_rng(1).uniform(-0.5, 0.5, 16_000), RATE)

    def corrupted(folder: Path) -> StreamFeatures:
        wanted = [Wanted("mel", contents("mel", SMALL), 1.0, parse(f"rir:0.2+noise:5@{folder}"))]
        cache_dir = str(tmp_path / "cache")
        (features,) = build_features(corpus, wanted, cache_dir=cache_dir, workers=1, max_bad_fraction=0.0)
        return features

    found = corrupted(noises)
    for utterance in corpus.utterances:
        samples = corrupt(
            load_audio(utterance.path).samples, parse(f"rir:0.2+noise:5@{noises}"), found.digest[utterance.id]
        )
        np.testing.assert_array_equal(found.frames[utterance.id], extract("mel", samples, SMALL))
    clean = build(corpus, tmp_path / "cache")
    assert clean.digest == found.digest  # of the file
    noises.rename(tmp_path / "moved")
    assert_equal(corrupted(tmp_path / "moved"), found)
    assert len(datasets(tmp_path / "cache")) == 2
    soundfile.write(tmp_path / "moved" / "a.wav", np.random.default_rng(2).uniform(-0.5, 0.5, 16_000), RATE)
    other = corrupted(tmp_path / "moved")
    assert len(datasets(tmp_path / "cache")) == 3
    assert not np.array_equal(other.frames["u000"], found.frames["u000"])


def test_a_noise_file_that_cannot_be_used_stops_the_build_and_costs_no_utterance(tmp_path: Path) -> None:
    corpus, noises = write_corpus(tmp_path / "corpus"), tmp_path / "noises"
    noises.mkdir()
    (noises / "a.wav").write_bytes(b"no audio")
    wanted = [Wanted("mel", contents("mel", SMALL), 1.0, parse(f"noise:5@{noises}"))]
    with pytest.raises(InputError, match=r"a corruption from .*noises cannot use a file: .*a\.wav: is a text"):
        build_features(corpus, wanted, cache_dir=str(tmp_path / "cache"), workers=1, max_bad_fraction=1.0)
