import errno
import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from audio_files import refusal

from sejax.errors import InputError
from sejax.features.audio import Audio, change_speed, load_audio

RATE = 16_000


def sine(hertz: float = 440, seconds: float = 0.5, rate: int = RATE, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **options: str) -> str:
    soundfile.write(path, samples, rate, **options)
    return str(path)


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


@pytest.mark.parametrize(
    "subtype", ["PCM_16", "PCM_24", "PCM_32", "PCM_U8", "ULAW", "ALAW", "FLOAT", "IMA_ADPCM", "GSM610", "G721_32"]
)
def test_clipping_is_noted_at_the_full_scale_of_every_subtype(tmp_path: Path, subtype: str) -> None:
    loud = np.clip(sine(200, amplitude=1.5, seconds=1), -1, 1)
    note = load_audio(write(tmp_path / "a.wav", loud, subtype=subtype)).note
    assert note.startswith("clipped: "), note
    quieter = load_audio(write(tmp_path / "b.wav", 0.9 * loud, subtype=subtype)).note
    assert quieter == ""


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (
            2**15,
            "which look like integers of 16 bits, expected samples in [-1, 1]: divide them with `ffmpeg -i A -af "
            "volume=1/32768 ",
        ),
        (
            2**23,
            "integers of 24 bits, expected samples in [-1, 1]: divide them with `ffmpeg -i A -af volume=1/8388608",
        ),
        (2**31, "look like integers of 32 bits"),
        (1e30, "has floats up to 5e+29, expected samples in [-1, 1]"),
        (20, "look like integers of 16 bits"),
        (67_000, "which look like integers of 16 bits"),  # resampled, with a little overshoot
        (140_000, "which look like integers of 24 bits"),
    ],
)
def test_integers_stored_as_floats_are_refused(tmp_path: Path, scale: float, said: str) -> None:
    path = write(tmp_path / "a.wav", sine() * np.float32(scale), subtype="FLOAT")
    assert said in refusal(path).replace(path, "A")


def test_quiet_integers_stored_as_floats_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.rint(4 * sine()), subtype="DOUBLE")
    assert "has floats up to 2, which look like integers of 16 bits" in refusal(path)


def test_peaks_above_full_scale_are_kept_and_noted(tmp_path: Path) -> None:
    samples = sine(amplitude=1.2)
    audio = load_audio(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    np.testing.assert_array_equal(audio.samples, samples)
    assert audio.note == "exceeds full scale: peak 1.2"


def test_very_quiet_audio_is_noted(tmp_path: Path) -> None:
    note = load_audio(write(tmp_path / "a.wav", sine() / np.float32(32768), subtype="FLOAT")).note
    assert note == "very quiet: peak -96 dB of full scale"


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_channels_that_cancel_are_refused(tmp_path: Path, subtype: str) -> None:
    speech, noise = sine(), 0.01 * np.random.default_rng(0).standard_normal((8000, 2)).astype(np.float32)
    for name, channels in {
        "opposite": (speech, -speech),
        "weaker": (speech, np.float32(-0.8) * speech),
        "noisy": (speech + noise[:, 0], noise[:, 1] - speech),
        "offset": (speech + np.float32(0.1), np.float32(0.1) - speech),
        "four": (speech, -speech, speech, -speech),
    }.items():
        path = write(tmp_path / f"{name}.wav", np.stack(channels, axis=1), subtype=subtype)
        said = refusal(path)
        assert said.startswith("has channels of opposite sign, which cancel when they are mixed to mono"), name
        assert said.endswith(f"`ffmpeg -i {path} -af 'pan=mono|c0=c0' {tmp_path}/{name}_mended.wav`")


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [(0, 0.75, "mixed to mono in 75 % of the file"), (0, 0.15, "mono in 15 % of"), (0.7, 0.9, "mono in 20 % of")],
)
def test_channels_that_cancel_in_a_part_of_the_file_are_refused(
    tmp_path: Path, begin: float, end: float, said: str
) -> None:
    rising = sine(seconds=6.0) * np.linspace(0.1, 1, 6 * RATE, dtype=np.float32)
    right = rising.copy()
    right[round(begin * rising.size) : round(end * rising.size)] *= -1
    path = write(tmp_path / "a.wav", np.stack((rising, right), axis=1))
    assert said in refusal(path)


def test_channels_that_cancel_for_a_moment_or_in_pauses_are_no_fault(tmp_path: Path) -> None:
    samples = sine(seconds=6.0)
    for name, window, amplitude, note in (
        ("moment", slice(16_000, 19_200), 1.0, "stereo mixed to mono; its channels cancel in 3.3 % of the mix"),
        ("pause", slice(0, 48_000), 0.01, "stereo mixed to mono"),
    ):
        left = samples.copy()
        left[window] *= np.float32(amplitude)
        right = left.copy()
        right[window] *= -1
        path = write(tmp_path / f"{name}.wav", np.stack((left, right), axis=1))
        assert load_audio(path).note == note


def test_channels_that_partly_cancel_are_noted_and_others_are_not(tmp_path: Path) -> None:
    left, other = sine(), sine(317)
    for right, note in (
        (np.float32(-0.5) * left, "stereo mixed to mono; its channels partly cancel in the mix"),
        (other, "stereo mixed to mono"),
        (np.zeros_like(left), "stereo mixed to mono"),
    ):
        assert load_audio(write(tmp_path / "a.wav", np.stack((left, right), axis=1))).note == note


@pytest.mark.parametrize("rate", [1, 100, 3999, 384_001, 10_000_000])
def test_impossible_rates_are_refused(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", sine(), rate)
    said = refusal(path)
    assert said.startswith(f"has a sampling rate of {rate} Hz in its header, expected 4000 to 384000: give it its true")
    assert said.endswith(f"with `ffmpeg -i {path} -af asetrate=16000 {tmp_path}/a_mended.wav`")


def test_a_thousand_channels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.repeat(sine()[:800, None], 1000, axis=1))
    assert refusal(path) == "has 1000 channels, expected at most 64"


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
    assert refusal(tmp_path) == "is a folder, expected a file"
    assert refusal("https://example.org/a.wav") == "is a web address, expected a file: download it first"
    with pytest.raises(InputError, match="cannot be the path of a file"):
        load_audio("a\0b.wav")


def test_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert refusal(tmp_path / "a.wav") == "has 0 bytes, expected an audio file"
    assert refusal(write(tmp_path / "b.wav", np.zeros(0, np.float32))) == "has 0 samples, expected speech"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.raw", "a"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"this is a text, not a sound, whatever it is called" * 20,
            "is a text: 'this is a text",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "is a git-lfs pointer",
        ),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b'{"error": "unauthorized"}', 'is JSON: {"error": "unauthorized"}, expected audio'),
        (b"\x1f\x8b\x08\x00" + bytes(100), "is a gzip archive, expected audio"),
        (bytes(5000), "is a file of zero bytes"),
        (np.random.default_rng(0).bytes(5000), "is not recognised as audio, expected wav, flac, ogg, mp3 or the like"),
    ],
)
def test_files_that_are_no_audio_are_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x00\x00\x00\x1cftypM4A \x00\x00\x02\x00", "MP4 audio (m4a)"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\x82\x84webm", "a WebM file"),
        (b"#!AMR\n<\x00\x01\xa5\x90\xd6", "AMR audio"),
        (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa", "Windows Media (wma, wmv)"),
        (b"\xff\xf1`@E_\xfc\xdc\x00Lav", "AAC audio without a container"),
    ],
)
def test_formats_that_libsndfile_lacks_are_named_with_the_command_that_converts(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "an interview.dat"
    path.write_bytes(content + np.random.default_rng(0).bytes(2000))
    expected = f"is {said}, which cannot be read here, expected wav, flac, ogg, mp3 or the like: convert it with "
    assert refusal(path) == expected + f"`ffmpeg -i '{path}' '{path.with_suffix('.wav')}'`"


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert refusal(tmp_path / "a.wav").startswith("is a FIFO, expected a file")
    (tmp_path / "b.wav").symlink_to("/dev/zero")
    assert refusal(tmp_path / "b.wav").startswith("is a device, expected a file")
    (tmp_path / "c.wav").symlink_to("c.wav")
    assert refusal(tmp_path / "c.wav").startswith("cannot be opened (Too many levels of symbolic links")


@pytest.mark.parametrize("method", ["read", "readinto"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_an_error_of_the_disk_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int
) -> None:
    path = write(tmp_path / "a.wav", sine())

    class Disk(io.BufferedReader):
        """A file of which the header can be read, and then nothing."""

        def fail(self, *given: Any) -> Any:
            if self.tell() >= 40:
                raise OSError(number, os.strerror(number))
            return getattr(super(), method)(*given)

    setattr(Disk, method, Disk.fail)
    monkeypatch.setattr("sejax.features.audio.WHOLE_BYTES", 0 if method == "readinto" else 2**24)
    whole = open
    failing = lambda *given: Disk(io.FileIO(path)) if given[0] == path else whole(*given)  # noqa: E731
    monkeypatch.setattr("builtins.open", failing)
    said = f"cannot be read ({os.strerror(number)})"
    if method == "readinto":
        assert refusal(path) == said
        assert refusal(path, start=0.1, end=0.2) == said
    else:
        monkeypatch.setattr(Disk, "tell", lambda self: 40)
        assert refusal(path) == said


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", sine())

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("builtins.open", refuse)
    assert refusal(path) == "cannot be opened (Permission denied)"


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
    expected = (
        "is truncated, has 15000 bytes of audio, expected the 16000 of its header: copy the file again, or keep what "
    )
    assert said == expected + f"is there with `ffmpeg -i {path} {tmp_path}/a_mended.wav`"
    # Also where the cut would lie in the part that is there: the file cannot be trusted.
    assert refusal(path, end=0.1) == said
    # A chunk before the data, of odd length and hence padded, and one after it.
    extra = b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    path.write_bytes(whole[:36] + extra + whole[36:] + b"junk" + struct.pack("<I", 2) + b"ab")
    assert len(load_audio(str(path)).samples) == 8000
    path.write_bytes(whole[:36] + extra + whole[36:-2])
    assert refusal(path).startswith("is truncated, has 15998 bytes of audio, expected the 16000 of its header")


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
