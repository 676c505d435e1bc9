"""Copies of a recording are found whatever was done to the file; other takes are not."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from audio_files import RATE, take

from sejax.corpora.schema import Utterance
from sejax.data import copies
from sejax.data.copies import REMEMBERED, find_copies
from sejax.features.audio import load_audio
from sejax.features.audioprint import Copy, audioprint


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Utterance:
    soundfile.write(path, samples, rate)
    return Utterance(id=path.name, path=str(path), speaker="s")


def find(utterances: list[Utterance], cache_dir: Path) -> tuple[Copy, ...]:
    loaded = {u.id: load_audio(u.path, start=u.start, end=u.end).samples for u in utterances}
    prints = {name: audioprint(samples) for name, samples in loaded.items()}
    digests = {name: samples.tobytes().hex() for name, samples in loaded.items()}
    return find_copies(utterances, prints, digests, cache_dir=str(cache_dir))


def takes(folder: Path, number: int = 10) -> list[Utterance]:
    """The same sentence by two speakers."""
    return [write(folder / f"take{n}.wav", take(n, speaker=n % 2)) for n in range(number)]


def at(rate: int, samples: np.ndarray) -> np.ndarray:
    return soxr.resample(samples, RATE, rate)


CHANGES = {
    "8 kHz": (".wav", 8000, lambda samples: samples, 0.0),
    "44.1 kHz": (".flac", 44_100, lambda samples: samples, 0.0),
    "front": (".wav", RATE, lambda samples: samples[RATE + 77 :], RATE + 77),
    "end": (".wav", RATE, lambda samples: samples[: -RATE - 77], 0.0),
    "gain": (".wav", RATE, lambda samples: 0.03 * samples, 0.0),
    "inverted": (".wav", RATE, lambda samples: -samples, 0.0),
    "mp3": (".mp3", RATE, lambda samples: samples, 0.0),
    "ogg": (".ogg", 22_050, lambda samples: samples, 0.0),
    "mp3 of the end at 8 kHz": (".mp3", 8000, lambda samples: 0.3 * samples[RATE + 100 :], RATE + 100),
    "silence in front, mp3": (".mp3", 48_000, lambda samples: np.concatenate([np.zeros(RATE), samples]), -RATE),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_found_and_no_other_take(tmp_path: Path, change: str):
    suffix, rate, function, offset = CHANGES[change]
    utterances = takes(tmp_path)
    utterances.append(
        write(tmp_path / f"copy{suffix}", at(rate, function(take(3, speaker=1)).astype(np.float32)), rate)
    )
    (found,) = find(utterances, tmp_path)
    assert {found.first, found.second} == {"take3.wav", f"copy{suffix}"}
    assert found.alike.offset == pytest.approx(offset / RATE, abs=1e-3)
    assert abs(found.alike.correlation) > 0.95
    assert found.alike.seconds == pytest.approx(3 - max(offset, 0) / RATE - (change == "end"), abs=0.01)


def test_silence_hum_and_noise_match_nothing(tmp_path: Path):
    time, rng = np.arange(3 * RATE) / RATE, np.random.default_rng(0)
    hum = 0.3 * np.sin(2 * np.pi * 1000 * time)
    click = np.zeros(3 * RATE)
    utterances = [
        write(tmp_path / f"{kind}{n}.wav", samples)
        for n in range(3)
        for kind, samples in {
            "hum": hum + 0.003 * rng.standard_normal(len(time)),
            "noise": 0.1 * rng.standard_normal(len(time)),
            "last bit": rng.integers(-1, 2, len(time)) / 32_768,
            "click": np.where(np.arange(len(time)) == 5000 * (n + 1), 0.5, click),
        }.items()
    ]
    assert find(utterances, tmp_path) == ()


def test_all_of_many_copies_are_linked(tmp_path: Path):
    """More than are suspected of one word."""
    utterances = [write(tmp_path / f"{n}.wav", take(1)[1000 * n :]) for n in range(12)]
    linked, links = {"0.wav"}, find(utterances, tmp_path)
    for _ in links:
        linked |= {name for copy in links if linked & {copy.first, copy.second} for name in (copy.first, copy.second)}
    assert linked == {utterance.id for utterance in utterances}
    assert len(links) == 11  # no more than are needed


def test_equal_samples_are_left_out(tmp_path: Path):
    utterances = [write(tmp_path / name, take(1)) for name in ("a.wav", "b.wav")]
    assert find(utterances, tmp_path) == ()
    assert [
        (copy.first, copy.second) for copy in find([*utterances, write(tmp_path / "c.mp3", take(1))], tmp_path)
    ] == [("a.wav", "c.mp3")]


def test_turns_that_overlap_at_their_ends_are_no_copies(tmp_path: Path):
    whole = write(tmp_path / "dialogue.wav", np.concatenate([take(1), take(2)]))
    cuts = {"a": (0.0, 3.0), "b": (2.0, 5.0), "c": (0.5, 2.5)}
    turns = [Utterance(id=name, path=whole.path, speaker="s", start=cut[0], end=cut[1]) for name, cut in cuts.items()]
    assert find(turns[:2], tmp_path) == ()
    (found,) = find(turns, tmp_path)  # c is a part of a
    assert {found.first, found.second} == {"a", "c"} and found.alike.offset == pytest.approx(0.5)


def test_what_is_found_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    utterances = [*takes(tmp_path, 3), write(tmp_path / "copy.mp3", take(1, speaker=1))]
    found = find(utterances, tmp_path)
    assert len(found) == 1
    with monkeypatch.context() as patch:
        patch.setattr(copies, "suspects", None)
        patch.setattr(copies, "load_audio", None)
        assert find(utterances, tmp_path) == found
    for damage in ("", "{", "[]", '{"a": [1]}', '{"a": [["x", "y", [1]]]}'):
        (tmp_path / REMEMBERED).write_text(damage)
        assert find(utterances, tmp_path) == found
    assert find(utterances[:3], tmp_path) == ()
    (tmp_path / "file").write_text("")
    assert find(utterances, tmp_path / "file") == found  # nowhere to remember it


def test_utterances_without_audio_are_left_out(tmp_path: Path):
    good = takes(tmp_path, 1)
    bad = Utterance(id="bad", path=str(tmp_path / "absent.wav"), speaker="s")
    words, digest = audioprint(take(0)), "0"
    assert find_copies([*good, bad], {good[0].id: words}, {good[0].id: digest}, cache_dir=str(tmp_path)) == ()
    assert find_copies([], {}, {}, cache_dir=str(tmp_path)) == ()
