"""Builds in parts, which an engine computes anywhere: the same features, whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from tiny_study import ROOT, environment, ray_worker

from sejax.corpora.schema import Corpus, Utterance
from sejax.data.cache import Wanted, build_features
from sejax.data.compute import contents
from sejax.data.engines import Do, Engine, beam
from sejax.data.parts import Compute
from sejax.data.shards import StreamFeatures
from sejax.errors import InputError
from sejax.features.corrupt import parse

VIEWS = (("mfcc", 1.0), ("mel", 0.9), ("prosody", 1.0), ("audioprint", 1.0))
TWO_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


def write_corpus(folder: Path, utterances: int) -> Corpus:
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(utterances):
        soundfile.write(folder / f"u{i:03d}.wav", random.uniform(-0.5, 0.5, 3200 + 160 * i), 16_000)
    return corpus_of(folder)


def corpus_of(folder: Path) -> Corpus:
    paths = sorted(folder.iterdir())
    return Corpus("noise", ("a",), (1.0, 5.0), tuple(Utterance(path.stem, str(path), "s") for path in paths))


def build(corpus: Corpus, cache: Path, engine: Engine | None = None, bad: float = 0.0) -> list[StreamFeatures]:
    wanted = [Wanted(name, contents(name, {}), speed) for name, speed in VIEWS]
    return build_features(
        corpus, wanted, cache_dir=str(cache), workers=1, max_bad_fraction=bad, per_shard=4, engine=engine
    )


def assert_same_bytes(one: Sequence[StreamFeatures], other: Sequence[StreamFeatures]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert list(mine.frames) == list(theirs.frames)
        for utterance in mine.frames:
            assert np.asarray(mine.frames[utterance]).tobytes() == np.asarray(theirs.frames[utterance]).tobytes()
            assert mine.statistics[utterance].tobytes() == theirs.statistics[utterance].tobytes()
        for field in ("digest", "errors", "notes", "seconds"):
            assert getattr(mine, field) == getattr(theirs, field)


def backwards(do: Do, parts: Sequence[str]) -> None:
    """An engine that does the last part first, and one part twice."""
    for part in (*reversed(parts), parts[0]):
        do(part)


def test_parts_in_any_order_give_the_same_features(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 11)
    (tmp_path / "corpus" / "u004.wav").write_bytes(b"")
    whole = build(corpus, tmp_path / "whole", bad=0.1)
    assert set(whole[0].errors) == {"u004"}
    assert_same_bytes(build(corpus, tmp_path / "cache", backwards, bad=0.1), whole)
    assert ".parts" not in os.listdir(tmp_path / "cache")


def test_what_is_complete_is_not_computed_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    corpus = write_corpus(tmp_path / "corpus", 11)
    asked: list[int] = []

    def some(do: Do, parts: Sequence[str], *, number: int) -> None:
        asked.append(len(parts))
        for part in (*parts[1:], parts[0])[:number]:
            do(part)
        if number < len(parts):
            raise RuntimeError("the machine is gone")

    with pytest.raises(RuntimeError, match="gone"):
        build(corpus, tmp_path / "cache", partial(some, number=1))
    # The second part was complete: four utterances of each dataset. Two parts are left.
    complete = {path.stat().st_mtime_ns for path in tmp_path.glob("cache/*/*/incomplete/*array_record-*")}
    resumed = build(corpus, tmp_path / "cache", partial(some, number=10))
    assert asked == [3, 2]
    assert complete <= {path.stat().st_mtime_ns for path in tmp_path.glob("cache/*/*/1.0.0/*array_record-*")}
    assert f"{4 * len(VIEWS)} records of an interrupted build are there" in capfd.readouterr().err
    assert_same_bytes(resumed, build(corpus, tmp_path / "whole"))


def test_a_mistake_in_a_part_is_one_sentence(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 3)
    (tmp_path / "noises").mkdir()
    (tmp_path / "noises" / "a.wav").write_bytes(b"no audio")
    wanted = [Wanted("mel", contents("mel", {}), 1.0, parse(f"noise:5@{tmp_path}/noises"))]
    with pytest.raises(InputError, match=r"noises/a\.wav"):
        build_features(corpus, wanted, cache_dir=str(tmp_path / "cache"), max_bad_fraction=0.0, engine=backwards)


def test_without_beam_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(InputError, match=r"^config\.compute is beam, which needs .* pip install 'sejax\[beam\]'$"):
        beam(Compute("", [], []), ["part"], options=())


BUILD_WITH_BEAM = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_engines import TWO_PROCESSES, beam, build, corpus_of
from sejax.errors import InputError
try:
    build(corpus_of(Path(sys.argv[2])), Path(sys.argv[3]), partial(beam, options=TWO_PROCESSES))
except InputError as error:
    sys.exit(str(error))
"""


def test_beam_computes_the_same_and_goes_on_after_a_killed_worker(tmp_path: Path) -> None:
    pytest.importorskip("apache_beam")
    corpus, cache = write_corpus(tmp_path / "corpus", 150), tmp_path / "cache"

    def start() -> subprocess.Popen[str]:
        words = [
            sys.executable,
            "-c",
            BUILD_WITH_BEAM,
            str(Path(__file__).parent),
            str(tmp_path / "corpus"),
            str(cache),
        ]
        return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)

    def files() -> list[Path]:
        return [path for path in cache.glob("*/*/incomplete/*array_record-*") if path.suffix.count("-") == 1]

    killed = start()
    deadline = time.monotonic() + 60
    while len(files()) < 2 * len(VIEWS):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = [child for child in psutil.Process(killed.pid).children(recursive=True) if "python" in child.name()]
    workers[-1].send_signal(signal.SIGKILL)
    said = killed.communicate(timeout=60)[1]
    assert "a worker process of it has ended (Worker subprocess exited with return code" in said.splitlines()[-1]
    assert not any(worker.is_running() for worker in workers)
    before = {path.stat().st_mtime_ns for path in files()}
    assert before

    resumed = start()
    said = resumed.communicate(timeout=120)[1]
    assert resumed.returncode == 0, said
    assert "records of an interrupted build are there" in said
    assert before <= {path.stat().st_mtime_ns for path in cache.glob("*/*/1.0.0/*array_record-*")}
    assert_same_bytes(build(corpus, cache), build(corpus, tmp_path / "whole"))
    assert_same_bytes(build(corpus, tmp_path / "here", partial(beam, options=())), build(corpus, tmp_path / "whole"))
    with pytest.raises(InputError, match=r"^config\.beam_options is"):
        build(corpus, tmp_path / "other", partial(beam, options=("--direct_num_workers=two",)))


def test_a_killed_task_of_ray_is_begun_again(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    corpus = write_corpus(tmp_path / "corpus", 8)
    script = (
        "import sys\nfrom functools import partial\nfrom pathlib import Path\n"
        "from test_engines import build, corpus_of\nfrom sejax.data.engines import on_ray\n"
        "build(corpus_of(Path(sys.argv[1])), Path(sys.argv[2]), partial(on_ray, options=()))"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "corpus"), str(tmp_path / "cache")]
    environ = environment(str(Path(__file__).parent)) | {"RAY_ADDRESS": "local"}
    with subprocess.Popen(words, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            victim, end = None, time.monotonic() + 100
            while victim is None and process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
                victim = ray_worker(process.pid, "features 1")
            assert victim is not None
            victim.kill()
            _, said = process.communicate(timeout=100)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "note: features 1 of 2 has failed (WorkerCrashedError" in said
    assert_same_bytes(build(corpus, tmp_path / "cache"), build(corpus, tmp_path / "whole"))
