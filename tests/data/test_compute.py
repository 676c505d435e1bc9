"""Where features are computed: in this process, in worker processes, and in which order they come."""

import os
from contextlib import closing

import numpy as np
import pytest

from sejax.data.compute import CHUNK, PROBE, compute
from sejax.features.extract import Extraction, Segment

SEGMENTS = [Segment(f"{i}.wav", None, None) for i in range(40)]


def by_process(segment: Segment) -> Extraction:
    """An extraction that says which segment it is of, and which process computed it."""
    return Extraction(np.zeros((0, 1), np.float32), np.zeros(0, np.float32), segment.path, "", str(os.getpid()), 1.0)


def test_segments_come_in_order_from_worker_processes_that_save_time() -> None:
    extractions = list(compute(by_process, SEGMENTS, workers=2, startup_seconds=-1.0))
    assert [number for number, _ in extractions] == list(range(40))
    assert [extraction.digest for _, extraction in extractions] == [segment.path for segment in SEGMENTS]
    computed_by = [int(extraction.note) for _, extraction in extractions]
    assert set(computed_by[:PROBE]) == {os.getpid()}
    assert os.getpid() not in computed_by[PROBE:]
    assert len(set(computed_by[PROBE:])) <= 2


@pytest.mark.parametrize("segments", [1, PROBE - 1, PROBE, PROBE + 1, 40])
def test_no_process_is_started_where_none_saves_time(segments: int) -> None:
    extractions = list(compute(by_process, SEGMENTS[:segments], workers=2, startup_seconds=60.0))
    assert [number for number, _ in extractions] == list(range(segments))
    assert {int(extraction.note) for _, extraction in extractions} == {os.getpid()}


def test_workers_end_when_the_features_are_no_longer_wanted() -> None:
    with closing(compute(by_process, SEGMENTS, workers=2, startup_seconds=-1.0)) as extractions:
        workers = {int(next(extractions)[1].note) for _ in range(PROBE + CHUNK)} - {os.getpid()}
    assert workers
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
