"""Predictions over time: windows, streams and files of any length and rate."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from sejax.errors import InputError
from sejax.inference import Model, Record, Segment
from sejax.inference.windows import Windows


def spoken(seconds: float, rate: int, *, channels: int = 1) -> np.ndarray:
    """A voice-like sound whose pitch moves."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = np.cumsum(120 + 60 * np.sin(3 * time)) / rate
    sound = 0.2 * np.sin(2 * np.pi * pitch)[:, None] * np.linspace(1, 0.5, channels)
    return sound.astype(np.float32)


@given(
    seconds=st.floats(0.01, 4),
    every=st.floats(0.05, 1),
    longer=st.floats(0, 1),
    pieces=st.lists(st.integers(0, 9000), min_size=1, max_size=30),
    rate=st.sampled_from([8000, 16_000, 44_100]),
)
def test_the_size_of_the_pieces_changes_no_sample(
    seconds: float, every: float, longer: float, pieces: list[int], rate: int
):
    samples = spoken(seconds, rate)[:, 0]

    def cut(sizes: list[int]) -> list[tuple[float, float, bytes]]:
        windows = Windows(rate, every=every, length=every + longer)
        found, first = [], 0
        for size in sizes:
            found += windows.add(samples[first : first + size])
            first += size
        found += [*windows.add(samples[first:]), *windows.close()]
        return [(window.start, window.end, window.samples.tobytes()) for window in found]

    whole = cut([])
    assert cut(pieces) == whole
    step, size = round(every * 16_000), round((every + longer) * 16_000)
    ends = [round(16_000 * end) for _, end, _ in whole]
    assert ends[:-1] == [size + i * step for i in range(len(ends) - 1)]  # the last one ends with the audio
    assert abs(ends[-1] - 16_000 * len(samples) / rate) <= 1
    assert all(round(16_000 * (end - start)) == min(size, ends[-1]) for start, end, _ in whole)


@pytest.mark.parametrize(
    ("every", "length", "rate"), [(0.5, 0.4, 16_000), (0.0, 1.0, 16_000), (np.nan, 1.0, 16_000), (0.5, 1.0, 100)]
)
def test_windows_that_make_no_sense(every: float, length: float, rate: int):
    with pytest.raises(InputError, match="expected"):
        Windows(rate, every=every, length=length)


def test_a_sample_that_is_no_number_is_named():
    windows = Windows(16_000, every=0.5, length=1.0)
    list(windows.add(np.zeros(16_000, np.float32)))
    with pytest.raises(InputError, match=r"1 samples that are NaN or infinite, the first at 1\.500 s"):
        list(windows.add(np.where(np.arange(16_000) == 8000, np.nan, 0.1).astype(np.float32)))


def numbers(records: list[Record]) -> list[tuple[object, ...]]:
    return [(r.start, r.end, r.label, r.note, r.probabilities, r.dimensions) for r in records]


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16_000, 1), (44_100, 2)])
def test_a_stream_and_a_file_give_the_same_numbers(bundle: Path, tmp_path: Path, rate: int, channels: int):
    model = Model.load(bundle)
    samples = spoken(2.6, rate, channels=channels)
    samples[: round(0.8 * rate)] = 0  # a window of it is silent
    path = tmp_path / "recording.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    of_file = list(model.predict_windows(Segment(str(path), None, None), every=0.3, window=0.7))
    stream, of_stream = model.stream(rate, every=0.3, window=0.7), []
    mixed, rng = samples.mean(axis=1), np.random.default_rng(0)
    while len(mixed):
        size = int(rng.integers(1, 7000))
        of_stream += stream.add(mixed[:size])
        mixed = mixed[size:]
    of_stream += stream.close()
    assert of_file[0].note == "silence" and not of_file[0].label and not of_file[0].probabilities
    assert [r.note for r in of_file].count("silence") == 1 and len(of_file) == 8
    for one, other in zip(of_file, of_stream, strict=True):
        assert (one.start, one.end, one.label, one.note) == (other.start, other.end, other.label, other.note)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert one.dimensions == pytest.approx(other.dimensions, abs=1e-6)


def test_a_window_is_predicted_as_a_file_of_its_samples(bundle: Path, tmp_path: Path):
    model, samples = Model.load(bundle), spoken(2.0, 16_000)
    path = tmp_path / "recording.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    second = list(model.predict_windows(Segment(str(path), None, None), every=0.5, window=1.0))[1]
    alone = model.predict_samples(samples[8000:24_000], 16_000)
    assert (second.start, second.end) == (0.5, 1.5)
    assert second.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
    (part,) = model.predict([Segment(str(path), 0.5, 1.5)])
    assert part.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
    of_part = list(model.predict_windows(Segment(str(path), 0.5, 1.5), every=0.5, window=3.0))
    assert [(r.start, r.end) for r in of_part] == [(0.5, 1.5)]
    assert of_part[0].probabilities == pytest.approx(alone.probabilities, abs=1e-6)


def test_a_file_that_breaks_off_ends_with_its_error(bundle: Path, tmp_path: Path):
    path = tmp_path / "cut.wav"
    soundfile.write(path, spoken(2.0, 16_000), 16_000, subtype="FLOAT")
    broken = spoken(2.0, 16_000)
    broken[24_000] = np.inf
    soundfile.write(path, broken, 16_000, subtype="FLOAT")
    *_, last = Model.load(bundle).predict_windows(Segment(str(path), None, None), every=0.5, window=1.0)
    assert last.error.startswith(f"{path}: has 1 samples that are NaN or infinite, the first at 1.500 s")


@pytest.mark.parametrize(
    "samples",
    [np.zeros(16_000), np.ones((16_000,), np.int16), np.full(16_000, np.nan), np.zeros((2, 3, 4)), np.ones(3)],
)
def test_samples_that_cannot_be_used(bundle: Path, samples: np.ndarray):
    with pytest.raises(InputError, match=r"the samples.*expected"):
        Model.load(bundle).predict_samples(samples, 16_000)
