"""Small audio files of every container and subtype that libsndfile writes, damaged copies, and what is said of them."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sejax.corpora.synthetic import voice
from sejax.errors import InputError
from sejax.features.audio import load_audio

RATE = 16_000
# Written, but not read back from memory: no header, a resource fork.
UNREADABLE = {"RAW", "SD2"}
# Formats with a rate of their own.
RATES = {"G721_32": 8000, "G723_24": 8000, "G723_40": 8000, "GSM610": 8000, "WVE": 8000, "OPUS": 16_000}
_MEMO: dict[tuple[str, str, float, int], bytes] = {}


def speech(seconds: float, channels: int = 1, rate: int = RATE) -> np.ndarray:
    """Returns something like speech, in [-0.6, 0.6]: tones and noise that rise and fall, `[frames, channels]`."""
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 300 * time) * np.sin(2 * np.pi * 3 * time + 1) + 0.03 * rng.standard_normal(
        time.size
    )
    return np.stack([wave * (1 - 0.2 * channel) for channel in range(channels)], axis=1).astype(np.float32)


def take(seed: int, *, speaker: int = 0, seconds: float = 3.0) -> np.ndarray:
    """Returns a synthetic voice that says one sentence, each time a little differently, in [-1, 1]."""
    rng = np.random.default_rng(seed)
    who = voice.draw_speaker(np.random.default_rng(speaker), "F")
    how = voice.express(rng, np.zeros(3), 0.0, 0.0, 0.0)
    vowels = [place % len(voice.VOWELS) for place in range(round(5 * seconds))]
    samples = voice.synthesise(rng, who, how, vowels, seconds)
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


def encoded(format: str, subtype: str, *, seconds: float = 0.5, channels: int = 1) -> bytes:
    """Returns a file of a libsndfile format and subtype, as in `soundfile.write`."""
    key = format, subtype, seconds, channels
    if key not in _MEMO:
        rate = RATES.get(subtype, RATES.get(format, RATE))
        buffer = io.BytesIO()
        with soundfile.SoundFile(buffer, "w", rate, channels, subtype, format=format) as file:
            file.write(speech(seconds, channels, rate))
        _MEMO[key] = buffer.getvalue()
    return _MEMO[key]


def encodings() -> list[tuple[str, str]]:
    """Returns the formats and subtypes that libsndfile writes in memory and reads back."""
    readable = []
    for format in soundfile.available_formats():
        for subtype in soundfile.available_subtypes(format):
            if format in UNREADABLE:
                continue
            try:
                encoded(format, subtype)
            except soundfile.SoundFileError:
                continue
            readable.append((format, subtype))
    return readable


def mutations(content: bytes, seed: int) -> Iterator[bytes]:
    """Yields damaged copies of a file without end: bytes, lengths, cuts, holes, repeats and what is appended."""
    rng = np.random.default_rng(seed)
    numbers = (0, 1, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(content), len(content) // 2, 2 * len(content))
    while True:
        copy = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(0, max(len(copy), 1)))
            if rng.random() < 0.7:  # most of what can go wrong stands in front
                place = int(rng.integers(0, max(min(len(copy), 160), 1)))
            kind = rng.integers(0, 7)
            if kind == 0:
                copy[place : place + 1] = bytes([rng.integers(0, 256)])
            elif kind == 1:
                form = str(rng.choice(["<I", ">I", "<H", ">H", "<Q", ">Q"]))
                number = int(rng.choice(numbers)) % 256 ** struct.calcsize(form)
                copy[place : place + struct.calcsize(form)] = struct.pack(form, number)
            elif kind == 2:
                del copy[int(rng.integers(0, max(len(copy), 1))) :]
            elif kind == 3:
                del copy[place : place + int(rng.integers(1, 200))]
            elif kind == 4:
                copy[place:place] = copy[place : place + int(rng.integers(1, 2000))]
            elif kind == 5:
                copy += bytes(rng.integers(0, 256, int(rng.integers(1, 5000)), np.uint8))
            else:
                copy[place : place + 1] = bytes([copy[place] ^ 1 << int(rng.integers(0, 8))]) if copy else b""
        yield bytes(copy)


def refusal(path: str | Path, **cut: float) -> str:
    """Returns the sentence with which a file is refused, without the name of the file: one line without a full stop."""
    with pytest.raises(InputError) as raised:
        load_audio(str(path), **cut)
    sentence = str(raised.value)
    assert sentence.startswith(f"{path}: ")
    assert not sentence.endswith(".")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")
