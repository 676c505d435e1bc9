import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sejax.errors import InputError
from sejax.features.audio import Audio, change_speed, load_audio

RATE = 16_000


def sine(hertz: float = 440, seconds: float = 0.5, rate: int = RATE, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **options: str) -> str:
    soundfile.write(path, samples, rate, **options)
    return str(path)


def refusal(path: str | Path, **cut: float) -> str:
    """The sentence with which a file is refused: one line that names the file."""
    with pytest.raises(InputError) as raised:
        load_audio(str(path), **cut)
    sentence = str(raised.value)
    assert sentence.startswith(f"{path}: ")
    assert not sentence.endswith(".")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")


def dominant_hertz(samples: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


def test_wav_and_flac_are_read_exactly(tmp_path: Path) -> None:
    samples = (sine() * 32767).astype(np.int16)
    for name in ("a.wav", "a.flac"):
        audio = load_audio(write(tmp_path / name, samples))
        assert isinstance(audio, Audio)
        assert audio.note == ""
        assert audio.samples.dtype == np.float32
        np.testing.assert_array_equal(audio.samples, samples / np.float32(32768))


def test_another_rate_is_resampled_by_soxr_and_noted(tmp_path: Path) -> None:
    samples = sine(1000, rate=48_000)
    audio = load_audio(write(tmp_path / "a.wav", samples, 48_000, subtype="FLOAT"))
    assert audio.note == "48000 Hz resampled to 16000 Hz"
    assert len(audio.samples) == 8000
    assert dominant_hertz(audio.samples) == pytest.approx(1000, abs=2)
    np.testing.assert_array_equal(audio.samples, soxr.resample(samples, 48_000, 16_000, quality="HQ"))
    assert load_audio(str(tmp_path / "a.wav"), sampling_rate=48_000).note == ""


def test_resampling_does_not_fold_high_frequencies_back(tmp_path: Path) -> None:
    mixture = sine(1000, rate=44_100) + sine(11_000, rate=44_100, amplitude=0.4)
    audio = load_audio(write(tmp_path / "a.wav", mixture, 44_100))
    np.testing.assert_allclose(audio.samples[500:-500], sine(1000)[500:-500], atol=2e-3)


def test_stereo_is_mixed_to_the_mean_and_noted(tmp_path: Path) -> None:
    left, right = sine(440), sine(1000, amplitude=0.25)
    audio = load_audio(write(tmp_path / "a.wav", np.stack((left, right), axis=1), subtype="FLOAT"))
    assert audio.note == "stereo mixed to mono"
    np.testing.assert_allclose(audio.samples, (left + right) / 2, atol=1e-7)
    four = np.stack((left, right, left, right), axis=1)
    assert load_audio(write(tmp_path / "b.wav", four)).note == "4 channels mixed to mono"


def test_clipping_is_noted_not_refused(tmp_path: Path) -> None:
    loud = np.clip(sine(amplitude=1.1), -1, 1)
    share = 100 * np.mean(np.abs(loud) == 1)
    audio = load_audio(write(tmp_path / "a.wav", loud))
    assert audio.note == f"clipped: {share:.1f} % of the samples at full scale"
    assert load_audio(write(tmp_path / "b.wav", loud, subtype="PCM_U8")).note.startswith("clipped: 29")
    assert load_audio(write(tmp_path / "c.wav", sine(amplitude=0.99))).note == ""


def test_notes_are_joined(tmp_path: Path) -> None:
    loud = np.clip(sine(amplitude=2, rate=44_100), -1, 1)
    note = load_audio(write(tmp_path / "a.wav", np.stack((loud, loud), axis=1), 44_100)).note
    assert note.split("; ")[:2] == ["stereo mixed to mono", "44100 Hz resampled to 16000 Hz"]
    assert note.split("; ")[2].startswith("clipped: ")


def test_a_cut_is_those_seconds(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(path, start=0.25, end=0.5).samples, samples[4000:8000])
    np.testing.assert_array_equal(load_audio(path, start=0.25).samples, samples[4000:])
    np.testing.assert_array_equal(load_audio(path, end=0.5).samples, samples[:8000])
    # Rounded times may end a little late.
    np.testing.assert_array_equal(load_audio(path, start=0.5, end=1.009).samples, samples[8000:])


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (0.0, 1.02, "is cut at 1.02 s, expected at most its duration of 1.000 s"),
        (2.0, 3.0, "is cut at 3 s, expected at most its duration of 1.000 s"),
        (2.0, None, "is cut from 2 s to 1 s, expected 0 <= start < end in a file of 1.000 s"),
        (0.5, 0.5, "is cut from 0.5 s to 0.5 s, expected 0 <= start < end"),
        (0.8, 0.2, "expected 0 <= start < end in a file of 1.000 s"),
        (-0.1, 0.5, "is cut from -0.1 s to 0.5 s"),
        (float("nan"), 0.5, "is cut from nan s to 0.5 s"),
        (0.5, 0.51, "lasts 10.0 ms, expected at least one window of 25 ms"),
    ],
)
def test_a_cut_outside_the_file_is_refused(tmp_path: Path, start: float, end: float, said: str) -> None:
    path = write(tmp_path / "a.wav", sine(seconds=1))
    assert said in refusal(path, start=start, end=end)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.wav") == "no such file"
    assert refusal(tmp_path / "none.zip::a.wav") == "no such file"
    assert refusal(tmp_path) == "is a folder, expected an audio file"


def test_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert refusal(tmp_path / "a.wav") == "has 0 bytes, expected an audio file"
    assert refusal(write(tmp_path / "b.wav", np.zeros(0, np.float32))) == "has 0 samples, expected speech"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.raw", "a"])
def test_files_that_are_no_audio_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is a text, not a sound, whatever it is called" * 20)
    assert refusal(tmp_path / name).startswith("cannot be read as audio (")


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_silence_is_refused(tmp_path: Path, value: float) -> None:
    path = write(tmp_path / "a.wav", np.full(8000, value, np.float32))
    assert refusal(path) == f"is silent, every sample is {value:g}, expected speech"
    stereo = write(tmp_path / "b.wav", np.full((8000, 2), value, np.float32), 44_100)
    assert refusal(stereo).startswith("is silent")


def test_a_truncated_wav_is_refused_and_an_exact_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, sine())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    said = refusal(path)
    assert said == "is truncated, has 15000 bytes of audio, expected the 16000 of its header"
    # Also where the cut would lie in the part that is there: the file cannot be trusted.
    assert refusal(path, end=0.1) == said
    # A chunk before the data, of odd length and hence padded, and one after it.
    extra = b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    path.write_bytes(whole[:36] + extra + whole[36:] + b"junk" + struct.pack("<I", 2) + b"ab")
    assert len(load_audio(str(path)).samples) == 8000
    path.write_bytes(whole[:36] + extra + whole[36:-2])
    assert refusal(path).startswith("is truncated, has 15998 bytes of audio, expected the 16000 of its header")


def test_a_wav_of_unknown_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, sine())
    whole = path.read_bytes()
    position = whole.index(b"data") + 4
    path.write_bytes(whole[:position] + b"\xff\xff\xff\xff" + whole[position + 4 :])
    assert len(load_audio(str(path)).samples) == 8000


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_flac_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.flac"
    write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert refusal(path).startswith(("is truncated", "cannot be read"))


def test_nan_and_infinite_samples_are_refused(tmp_path: Path) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        samples = sine()
        samples[4000] = bad
        samples[6000] = bad
        said = refusal(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
        assert said == "has 2 samples that are NaN or infinite, the first at 0.250 s, expected finite audio"


def test_less_than_a_window_is_refused(tmp_path: Path) -> None:
    for rate in (8000, RATE, 48_000):
        exactly = write(tmp_path / "a.wav", sine(seconds=0.025, rate=rate), rate)
        assert len(load_audio(exactly).samples) == 400
        short = write(tmp_path / "b.wav", sine(seconds=0.02, rate=rate), rate)
        assert refusal(short) == "lasts 20.0 ms, expected at least one window of 25 ms"


def test_members_of_archives(tmp_path: Path) -> None:
    samples = sine()
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", subtype="FLOAT")
    archive = tmp_path / "corpus.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("wav/a.wav", buffer.getvalue())
        file.writestr("wav/short.wav", buffer.getvalue()[:-100])
    np.testing.assert_array_equal(load_audio(f"{archive}::wav/a.wav").samples, samples)
    assert len(load_audio(f"{archive}::wav/a.wav", start=0.1, end=0.2).samples) == 1600
    assert refusal(f"{archive}::wav/short.wav").startswith("is truncated")
    assert refusal(f"{archive}::wav/b.wav") == f"the archive {archive} has no such member"
    # The open archive is kept, but not beyond the file.
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("wav/b.wav", buffer.getvalue())
    assert len(load_audio(f"{archive}::wav/b.wav").samples) == len(samples)


def test_broken_archives_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "corpus.zip"
    archive.write_bytes(b"no archive")
    assert refusal(f"{archive}::a.wav").startswith("cannot be read from its archive")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.wav", b"x" * 2000)
    content = bytearray(archive.read_bytes())
    content[500] ^= 0xFF
    archive.write_bytes(content)
    assert refusal(f"{archive}::a.wav").startswith("cannot be read from its archive (Bad CRC-32")


@settings(
    max_examples=150,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_never_worse(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / f"a.{data.draw(st.sampled_from(['wav', 'flac']))}"
    write(path, sine(seconds=0.1))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 120) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        audio = load_audio(str(path))
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert np.isfinite(audio.samples).all()
        assert len(audio.samples) >= 400


def test_speed_changes_length_and_pitch_together() -> None:
    samples = sine(1000, seconds=1)
    assert change_speed(samples, 1.0) is samples
    for speed in (0.9, 1.1, 2.0):
        changed = change_speed(samples, speed)
        assert changed.dtype == np.float32
        assert len(changed) == pytest.approx(len(samples) / speed, abs=1)
        assert dominant_hertz(changed) == pytest.approx(1000 * speed, abs=2)


@pytest.mark.parametrize("speed", [0.0, -1.0, 0.2, 5.0, float("nan")])
def test_impossible_speeds_are_refused(speed: float) -> None:
    with pytest.raises(InputError, match=rf"config\.speeds has {speed}, expected factors between 0.25 and 4"):
        change_speed(sine(), speed)
