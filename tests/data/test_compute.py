"""Where features are computed: in this process, in worker processes, and in which order they come."""

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sejax.data import compute as computing
from sejax.data.compute import CHUNK, PROBE, compute
from sejax.features.extract import Contents, Extraction, Job, Loaded, Perturbation, Segment

JOBS = [Job(Segment(f"{i}.wav", None, None), [0]) for i in range(40)]


def by_process(loaded: Loaded) -> Extraction:
    """An extraction that says which file it is of, and which process computed it."""
    return Extraction(np.zeros((0, 1), np.float32), np.zeros(0, np.float32), loaded.path, "", str(os.getpid()), 1.0)


WANTED = [(Contents("f", {}, {}, 1, np.float32, 1, compute=by_process), Perturbation())]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for job in JOBS:
        soundfile.write(job.segment.path, np.random.default_rng(0).uniform(-0.5, 0.5, 1600), 16_000)


def test_segments_come_in_order_from_worker_processes_that_save_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "STARTUP_SECONDS", -1.0)
    computed = list(compute(WANTED, JOBS, workers=2))
    assert [(task, number) for task, number, _ in computed] == [(0, number) for number in range(40)]
    assert [extraction.digest for *_, extraction in computed] == [job.segment.path for job in JOBS]
    computed_by = [int(extraction.note) for *_, extraction in computed]
    assert set(computed_by[:PROBE]) == {os.getpid()}
    assert os.getpid() not in computed_by[PROBE:]
    assert len(set(computed_by[PROBE:])) <= 2


@pytest.mark.parametrize("segments", [1, PROBE - 1, PROBE, PROBE + 1, 40])
def test_no_process_is_started_where_none_saves_time(segments: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "STARTUP_SECONDS", 60.0)
    computed = list(compute(WANTED, JOBS[:segments], workers=2))
    assert [number for _, number, _ in computed] == list(range(segments))
    assert {int(extraction.note) for *_, extraction in computed} == {os.getpid()}


def test_workers_end_when_the_features_are_no_longer_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "STARTUP_SECONDS", -1.0)
    with closing(compute(WANTED, JOBS, workers=2)) as computed:
        workers = {int(next(computed)[2].note) for _ in range(PROBE + CHUNK)} - {os.getpid()}
    assert workers
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
