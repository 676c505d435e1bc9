"""Features of one utterance share what they are made of, and are the same as alone."""

import numpy as np
import pytest

from sejax.data.compute import contents
from sejax.features import acoustic
from sejax.features.audio import Audio
from sejax.features.extract import Extraction, Perturbation, Task, do_with
from sejax.features.shared import shared, sharing

NAMES = ("mfcc", "mel", "prosody", "voice", "auditory", "stf")


def tasks(names: tuple[str, ...], speeds: tuple[float, ...] = (1.0, 0.9)) -> list[Task]:
    made = [contents(name, {}) for name in names]
    return [Task(Perturbation(x), each.window, each.size, each.dtype, each.compute) for x in speeds for each in made]


def test_features_that_are_computed_together_equal_those_computed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    t = np.arange(16_000) / 16_000
    tone = sum(np.sin(2 * np.pi * 180 * k * t) / k for k in range(1, 6)) + np.random.default_rng(0).normal(
        0, 0.01, 16_000
    )
    audio = Audio((0.3 * tone).astype(np.float32), "")
    filtered = []
    filters = acoustic._mel_filters
    monkeypatch.setattr(acoustic, "_mel_filters", lambda *size: filtered.append(size) or filters(*size))
    together = do_with(audio, "x.wav", tasks(NAMES))
    assert len(filtered) == 2  # spectrograms: one per speed, of MFCC and mel
    alone = [do_with(audio, "x.wav", [task])[0] for task in tasks(NAMES)]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Extraction)
        assert isinstance(other, Extraction)
        assert one.frames.tobytes() == other.frames.tobytes()
        assert one.statistics.tobytes() == other.statistics.tobytes()


def test_a_shared_result_is_of_one_array_and_of_one_scope() -> None:
    calls = []

    @shared
    def doubled(samples: np.ndarray, *, times: int) -> np.ndarray:
        calls.append(times)
        return samples * times

    samples = np.ones(3)
    doubled(samples, times=2)
    doubled(samples, times=2)
    assert calls == [2, 2]
    with sharing():
        first = doubled(samples, times=2)
        assert doubled(samples, times=2) is first
        assert doubled(samples, times=3)[0] == 3
        assert doubled(samples.copy(), times=2) is not first
        with pytest.raises(ValueError, match="read-only"):
            first[0] = 5
    doubled(samples, times=2)
    assert calls == [2, 2, 2, 3, 2, 2]
