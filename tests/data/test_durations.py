"""Durations by headers: those of the decoded audio, and files that cannot be used are dropped."""

from pathlib import Path

import pytest
from tiny_study import write_voice

from sejax.corpora.schema import Corpus, Utterance
from sejax.data.durations import measure
from sejax.features.audio import SAMPLING_RATE, load_audio


def test_headers_say_how_long_audio_lasts(tmp_path: Path) -> None:
    for n, name in enumerate(("a.wav", "b.flac", "c.ogg", "d.wav")):
        write_voice(tmp_path / name, seed=n, sampling_rate=(16_000, 44_100)[n % 2], channels=1 + n % 2)
    torn = (tmp_path / "d.wav").read_bytes()
    (tmp_path / "d.wav").write_bytes(torn[: len(torn) // 2])
    parts = {"a": ("a.wav", None, None), "b": ("b.flac", None, None), "c": ("c.ogg", None, None)}
    parts |= {"cut": ("a.wav", 0.1, 0.3), "d": ("d.wav", None, None), "e": ("e.wav", None, None)}
    parts["far"] = ("a.wav", 0.1, 7.0)
    spoken = [Utterance(name, str(tmp_path / file), "s", start=a, end=b) for name, (file, a, b) in parts.items()]
    corpus = Corpus("table", ("sad",), (1.0, 5.0), tuple(sorted(spoken, key=lambda u: u.id)))
    left, seconds = measure(corpus, workers=2)
    assert [u.id for u in left.utterances] == list(seconds) == ["a", "b", "c", "cut"]
    for utterance in left.utterances:
        decoded = load_audio(utterance.path, start=utterance.start, end=utterance.end).samples
        assert seconds[utterance.id] == pytest.approx(len(decoded) / SAMPLING_RATE, abs=1e-4)
    reasons = {dropped.id: dropped.reason for dropped in left.dropped}
    assert list(reasons) == ["d", "e", "far"]
    assert "truncated" in reasons["d"] and "e.wav" in reasons["e"] and "is cut at 7 s" in reasons["far"]
