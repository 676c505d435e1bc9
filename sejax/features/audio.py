"""Audio files as mono samples at one rate; the only module that opens audio.

Files that cannot be trusted are refused with one sentence: a network would train on silence or on half an utterance
without any warning. Files that are merely unusual (another sampling rate, stereo, clipping) are converted or kept, and
noted.
"""

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedIOBase
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, Int16

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError, number
from sejax.features.containers.inspect import check_by_log, check_counts, examine
from sejax.features.containers.layout import NO_LENGTH, Layout, converted, truncated
from sejax.features.containers.view import Memory, View
from sejax.features.settings import Settings
from sejax.host.archives import open_file, split_archive
from sejax.host.magic import FIRST_BYTES, describe_contents, holds_media

# One analysis window: no feature is defined on less.
MIN_SECONDS = 0.025
# How far a cut may exceed the end of a file: the times of segments are rounded.
CUT_TOLERANCE_SECONDS = 0.01
# Rates that are believed, in hertz; a telephone has 8,000.
MIN_RATE, MAX_RATE = 4000, 384_000
MAX_CHANNELS = 64
# The most samples that are read at once, all channels together: 1 GiB. An utterance has far less.
MAX_SAMPLES = 2**28
# Files up to this size are read into memory at once, in bytes: libsndfile reads in small steps.
WHOLE_BYTES = 2**24
# Samples that are read in one step: bounds the memory where a header promises more than there is.
BLOCK_SAMPLES = 2**22
# Frames of audio that are decoded in front of a part of an mp3: its first frames use bytes of earlier ones.
MPEG_RUN_IN = 2**15
# Share of the samples at full scale from which a file is noted as clipped.
CLIPPED_SHARE = 0.01
# The largest positive value of a sample: the default is that of 16 bits, which finer formats reach or exceed.
FULL_SCALE = {
    "PCM_U8": 1 - 2**-7,
    "PCM_S8": 1 - 2**-7,
    "DPCM_8": 1 - 2**-7,
    "ULAW": 32_124 / 32_768,
    "ALAW": 32_256 / 32_768,
    "GSM610": 32_760 / 32_768,
    "DWVW_12": 1 - 2**-11,
    # Their decoders ripple below it.
    "G721_32": 0.99,
    "G723_24": 0.99,
    "G723_40": 0.99,
}
FULL_SCALE_DEFAULT = 1 - 2**-15
# Floats above this are integers that were stored as floats: mistakes of a mixer are smaller.
MAX_PEAK = 8.0
# The range, from 0, of the integers that floats are taken for: resampling and mixing exceed it by up to a factor.
INTEGER_RANGES = {16: 2**15, 24: 2**23, 32: 2**31}
MAX_OVERSHOOT = 2
# Half the range of the samples under which a file is noted as quiet.
QUIET_PEAK = 1e-3
# Power of the mix to mono, as a share of that of uncorrelated channels: 1 + the correlation of two equally loud ones.
CANCELLED_SHARE, PARTLY_CANCELLED_SHARE = 0.1, 0.5
# The windows in which this is compared again, in seconds; those far below the power of the loudest are pauses.
MIX_SECONDS = 0.1
PAUSE_POWER = 1e-3
# Share of the other windows whose channels may cancel.
MAX_CANCELLED_WINDOWS = 0.1
# The options with which ffmpeg takes one channel.
FIRST_CHANNEL = "-af 'pan=mono|c0=c0'"
# A factor of speed that is a perturbation rather than a mistake.
SPEED = number(0.25, 4)
# The shortest raw audio, in samples: one frame of a pretrained model.
RAW_WINDOW = 400


@dataclass(frozen=True)
class Audio:
    """Mono samples, full scale at -1 and 1, and a note of anything unusual about the file ("" where nothing was)."""

    samples: Float32[np.ndarray, " samples"]
    note: str


class _Sound(soundfile.SoundFile):
    """A file that soundfile reads in one go: it seeks after every read, which some formats cannot."""

    def seekable(self) -> bool:
        return False


def load_audio(
    path: str,
    *,
    start: float | None = None,
    end: float | None = None,
    sampling_rate: int = SAMPLING_RATE,
    longest: float = math.inf,
) -> Audio:
    """Reads a file, or a part of it, as mono samples.

    The file may have any format of libsndfile (wav, flac, mp3, ogg, aiff, sphere, ...), any rate from 4 to 384 kHz
    (soxr resamples it, quality HQ) and up to 64 channels (which are averaged).

    Args:
      path: A file, or the member of a zip archive as "archive.zip::member".
      start: Where the part begins, in seconds; None is the beginning of the file.
      end: Where the part ends, in seconds; None is the end of the file.
      sampling_rate: Rate of the returned samples, in hertz.
      longest: Seconds above which an utterance is refused, before it is read.

    Raises:
      InputError: the file is missing, unreadable, empty, truncated, damaged, two files in one, silent (constant), holds
        NaN or infinite samples, integers as floats or channels that cancel, or is shorter than one window of 25 ms or
        too long; or the part is not inside it.
    """
    with _open_sound(path, start, end) as (sound, part):
        _check_seconds(path, sound, part, longest, "an utterance")
        channels = _read(path, sound, part.first + part.lead, part.last - part.first)
        rate, subtype = sound.samplerate, sound.subtype
        if len(channels) < part.last - part.first:
            raise truncated(path, part.first + len(channels), part.last, "frames of audio")
    return _check_and_convert(path, channels, rate, sampling_rate, subtype, [part.note])


def convert_samples(name: str, samples: Float32[np.ndarray, "frames channels"], rate: int) -> Audio:
    """Returns samples in memory as `load_audio` returns those of a file.

    Args:
      name: What the samples are called in errors.
      samples: Full scale at -1 and 1.
      rate: Their rate, in hertz.

    Raises:
      InputError: what `load_audio` refuses about the samples of a file.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"{name}: the sampling rate is {rate} Hz, expected {MIN_RATE} to {MAX_RATE}")
    return _check_and_convert(name, samples, rate, SAMPLING_RATE, "FLOAT", [])


def audio_seconds(path: str) -> float:
    """Returns the duration of a file whose headers are as they should be.

    Raises:
      InputError: the file is missing, or its headers are not those of audio.
    """
    with _open_sound(path, None, None) as (sound, part):
        return (part.last - part.first) / sound.samplerate


@contextmanager
def open_blocks(
    path: str, *, start: float | None = None, end: float | None = None, longest: float = math.inf
) -> Iterator[tuple[int, Iterator[Float32[np.ndarray, " _samples"]]]]:
    """Opens a file, or a part of it, of any length, to be read in blocks.

    Args:
      path: see `load_audio`.
      start: see `load_audio`.
      end: see `load_audio`.
      longest: Seconds above which a recording is refused, before it is read.

    Yields:
      The sampling rate of the file, in hertz, and its mono samples in blocks.

    Raises:
      InputError: what `load_audio` refuses, also while blocks are read; but for silence and channels that cancel.
    """
    with _open_sound(path, start, end) as (sound, part):
        _check_seconds(path, sound, part, longest, "a recording")
        yield sound.samplerate, _blocks(path, sound, part)


def _blocks(path: str, sound: soundfile.SoundFile, part: "_Part") -> Iterator[Float32[np.ndarray, " _samples"]]:
    _go_to(sound, part.first + part.lead)
    done, size = part.first, BLOCK_SAMPLES // sound.channels
    while done < part.last:
        channels = sound.read(min(size, part.last - done), dtype="float32", always_2d=True)
        if not len(channels):
            raise truncated(path, done, part.last, "frames of audio")
        check_finite(path, channels, sound.samplerate, done / sound.samplerate)
        _check_range(path, channels, float(np.abs(channels).max()))
        done += len(channels)
        yield channels.mean(axis=1)


def _check_seconds(path: str, sound: soundfile.SoundFile, part: "_Part", longest: float, kind: str) -> None:
    seconds = (part.last - part.first) / sound.samplerate
    if seconds > longest:
        raise InputError(f"{path}: lasts {seconds:.0f} s, expected {kind} of {longest:g} s or less")


class _Part(NamedTuple):
    """A part of an opened file, in frames of it."""

    first: int
    last: int  # the one behind it
    lead: int  # frames that the decoder gives before the file's first
    note: str


@contextmanager
def _open_sound(path: str, start: float | None, end: float | None) -> Iterator[tuple[soundfile.SoundFile, _Part]]:
    """Opens a file whose headers are as they should be."""
    with open_file(path) as file:
        try:
            with _decode(path, file, start, end) as opened:
                yield opened
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


@contextmanager
def _decode(
    path: str, file: BufferedIOBase, start: float | None, end: float | None
) -> Iterator[tuple[soundfile.SoundFile, _Part]]:
    if start is None and end is None:
        length = file.seek(0, io.SEEK_END)
        file.seek(0)
        if length <= WHOLE_BYTES:
            file = io.BytesIO(file.read(length))
        container, layout = _examine(path, file)
    else:
        status = os.stat(split_archive(path)[0])
        container, layout = _examine_once(path, status.st_size, status.st_mtime_ns)
    source: View | Memory
    source = view = View(file, layout.head, layout.skip, layout.end)
    if isinstance(file, io.BytesIO) and layout.head == b"" and layout.end is None:
        source = Memory(file.getvalue())  # read faster than through a view
    try:
        with _Sound(source) as sound:
            _check_header(path, sound)
            note = layout.note if layout.known else check_by_log(path, sound)
            if NO_LENGTH not in layout.note:
                check_counts(path, sound)
            frames = sound.frames if layout.frames is None else layout.frames
            if frames <= 0:
                raise InputError(f"{path}: has 0 samples, expected speech")
            yield sound, _Part(*_cut(path, start, end, frames=frames, rate=sound.samplerate), layout.lead, note)
    except (soundfile.SoundFileError, InputError) as error:
        if view.error is not None:  # of which everything else is a consequence
            raise view.error from error
        if isinstance(error, InputError):
            raise
        raise _not_audio(path, file, container, error) from error
    if view.error is not None:
        raise view.error


def _examine(path: str, file: BufferedIOBase) -> tuple[str, Layout]:
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    if length == 0 and not file.read(1):
        raise InputError(f"{path}: has 0 bytes, expected an audio file")
    return examine(path, file, length)


@lru_cache(maxsize=64)
def _examine_once(path: str, size: int, mtime_ns: int) -> tuple[str, Layout]:
    """Examines a file from which several parts are cut."""
    with open_file(path) as file:
        return _examine(path, file)


def _not_audio(path: str, file: BufferedIOBase, container: str, error: Exception) -> InputError:
    """Returns the error for a file that libsndfile does not read: its first bytes may tell what it is.

    Args:
      container: What it is in, if that is known to be read otherwise.
    """
    reason = getattr(error, "error_string", str(error)).removeprefix("Error : ").strip().rstrip(".")
    if container:
        return InputError(
            f"{path}: cannot be decoded here ({container}: {reason}), expected a whole file with a codec "
            f"of libsndfile's: convert it with {converted(path)}"
        )
    file.seek(0)
    first_bytes = file.read(FIRST_BYTES)
    description = describe_contents(first_bytes)
    expected = "expected wav, flac, ogg, mp3 or the like"
    if description is None:  # libsndfile's reason would be that of the last format that it tried
        return InputError(f"{path}: is not recognised as audio, {expected}")
    if holds_media(first_bytes):
        return InputError(
            f"{path}: is {description}, which cannot be read here, {expected}: convert it with {converted(path)}"
        )
    return InputError(f"{path}: is {description}, expected audio")


def _check_header(path: str, sound: soundfile.SoundFile) -> None:
    if not MIN_RATE <= sound.samplerate <= MAX_RATE:
        raise InputError(
            f"{path}: has a sampling rate of {sound.samplerate} Hz in its header, expected {MIN_RATE} to {MAX_RATE}: "
            f"give it its true one, here 16000, with {converted(path, options='-af asetrate=16000')}"
        )
    if sound.channels > MAX_CHANNELS:
        raise InputError(f"{path}: has {sound.channels} channels, expected at most {MAX_CHANNELS}")


def _read(path: str, sound: soundfile.SoundFile, first: int, frames: int) -> Float32[np.ndarray, "frames channels"]:
    """Reads so many frames from a first one on, fewer where the file ends, in blocks: a header may promise anything."""
    _go_to(sound, first)
    block_frames, blocks = BLOCK_SAMPLES // sound.channels, []
    for begin in range(0, frames, block_frames):
        if begin * sound.channels >= MAX_SAMPLES:
            raise InputError(
                f"{path}: has {frames} frames of {sound.channels} channels, expected at most {MAX_SAMPLES} samples at "
                "once: cut it into utterances"
            )
        wanted = min(block_frames, frames - begin)
        blocks.append(sound.read(wanted, dtype="float32", always_2d=True))
        if len(blocks[-1]) < wanted:
            break
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _go_to(sound: soundfile.SoundFile, frame: int) -> None:
    """Moves to a frame, from which is read next."""
    block_frames = BLOCK_SAMPLES // sound.channels
    near = max(frame - MPEG_RUN_IN, 0) if sound.subtype.startswith("MPEG") else frame
    if near > 0:
        try:
            sound.seek(near)
        except soundfile.SoundFileError:  # a format without random access: read all that comes before
            near = 0
    for begin in range(near, frame, block_frames):
        sound.read(min(block_frames, frame - begin), dtype="float32")


def check_finite(path: str, channels: Float32[np.ndarray, "frames *channels"], rate: int, begin: float = 0.0) -> None:
    """Refuses samples that are NaN or infinite.

    Args:
      path: The file.
      channels: Samples of it.
      rate: Their rate, in hertz.
      begin: Where they begin in the file, in seconds.

    Raises:
      InputError: there are some.
    """
    if np.isfinite(channels).all():
        return
    bad = np.flatnonzero(~np.isfinite(channels).reshape(len(channels), -1).all(axis=1))
    raise InputError(
        f"{path}: has {bad.size} samples that are NaN or infinite, the first at {begin + bad[0] / rate:.3f} s, "
        "expected finite audio"
    )


def _check_and_convert(
    path: str,
    channels: Float32[np.ndarray, "frames channels"],
    rate: int,
    sampling_rate: int,
    subtype: str,
    notes: list[str],
) -> Audio:
    """Refuses audio that is no speech, notes anything unusual, mixes to mono and resamples."""
    if len(channels) / rate < MIN_SECONDS:
        raise InputError(
            f"{path}: lasts {1000 * len(channels) / rate:.1f} ms, expected at least one window of "
            f"{1000 * MIN_SECONDS:.0f} ms"
        )
    lowest, highest = channels.min(), channels.max()
    peak = float(max(-lowest, highest))
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        check_finite(path, channels, rate)
    _check_range(path, channels, peak)
    exceeds = peak > 1 and subtype in ("FLOAT", "DOUBLE")
    full_scale = FULL_SCALE.get(subtype, FULL_SCALE_DEFAULT)
    at_full_scale = float((np.abs(channels) >= full_scale).mean()) if peak >= full_scale else 0.0
    samples = channels[:, 0]
    if channels.shape[1] > 1:
        kind = "stereo" if channels.shape[1] == 2 else f"{channels.shape[1]} channels"
        samples = channels.mean(axis=1)
        notes += [f"{kind} mixed to mono", _check_mix(path, channels, samples, rate)]
        lowest, highest = samples.min(), samples.max()
    if lowest == highest:
        raise InputError(f"{path}: is silent, every sample is {samples[0]:g}, expected speech")
    if rate != sampling_rate:
        notes.append(f"{rate} Hz resampled to {sampling_rate} Hz")
        samples = soxr.resample(samples, rate, sampling_rate, quality="HQ")
    if exceeds:
        notes.append(f"exceeds full scale: peak {peak:.3g}")
    elif at_full_scale > CLIPPED_SHARE:
        notes.append(f"clipped: {100 * at_full_scale:.1f} % of the samples at full scale")
    if highest - lowest < 2 * QUIET_PEAK:
        notes.append(f"very quiet: peak {20 * np.log10((highest - lowest) / 2):.0f} dB of full scale")
    return Audio(np.ascontiguousarray(samples, np.float32), "; ".join(filter(None, notes)))


def _check_range(path: str, channels: Float32[np.ndarray, "frames channels"], peak: float) -> None:
    """Refuses integers that were stored as floats, which are meant to lie in [-1, 1]."""
    if peak <= 1 or (peak <= MAX_PEAK and not np.array_equal(channels, np.rint(channels))):
        return
    bits, full_scale = next((item for item in INTEGER_RANGES.items() if peak <= MAX_OVERSHOOT * item[1]), (0, 0))
    if not bits:
        raise InputError(f"{path}: has floats up to {peak:g}, expected samples in [-1, 1]: scale it")
    raise InputError(
        f"{path}: has floats up to {peak:g}, which look like integers of {bits} bits, expected samples in [-1, 1]: "
        f"divide them with {converted(path, options=f'-af volume=1/{full_scale}')}"
    )


def _check_mix(
    path: str, channels: Float32[np.ndarray, "frames channels"], mix: Float32[np.ndarray, " frames"], rate: int
) -> str:
    """Refuses channels that cancel each other, and notes those that do so a little."""
    power = sum(map(_power, channels.T)) / channels.shape[1] ** 2
    share = _power(mix) / power if power else 1.0
    cancelled = _cancelled_windows(channels, mix, rate)
    if share < CANCELLED_SHARE or cancelled > MAX_CANCELLED_WINDOWS:
        place = "" if share < CANCELLED_SHARE else f" in {100 * cancelled:.0f} % of the file"
        raise InputError(
            f"{path}: has channels of opposite sign, which cancel when they are mixed to mono{place}, expected "
            f"channels that add up: take one with {converted(path, options=FIRST_CHANNEL)}"
        )
    if share < PARTLY_CANCELLED_SHARE:
        return "its channels partly cancel in the mix"
    return f"its channels cancel in {100 * cancelled:.1f} % of the mix" if cancelled else ""


def _cancelled_windows(
    channels: Float32[np.ndarray, "frames channels"], mix: Float32[np.ndarray, " frames"], rate: int
) -> float:
    """Returns the share of the windows, pauses apart, in which the channels cancel."""
    size = round(MIX_SECONDS * rate)
    windows = len(mix) // size
    if not windows:
        return 0.0
    variances = channels[: windows * size].reshape(windows, size, -1).var(axis=1, dtype=np.float64)
    power = variances.sum(axis=1) / channels.shape[1] ** 2
    mixed = mix[: windows * size].reshape(windows, size).var(axis=1, dtype=np.float64)
    loud = power > PAUSE_POWER * power.max()
    return float((mixed[loud] < CANCELLED_SHARE * power[loud]).mean()) if loud.any() else 0.0


def _power(samples: Float32[np.ndarray, " samples"]) -> float:
    """Returns the mean square without the offset."""
    centred = samples - samples.mean(dtype=np.float64).astype(np.float32)
    return float(centred @ centred) / len(samples)


def change_speed(samples: Float32[np.ndarray, " samples"], speed: float) -> Float32[np.ndarray, " changed"]:
    """Plays the samples `speed` times as fast: tempo and pitch change together.

    The length is divided by `speed`. This is the speed perturbation of Ko et al., Audio augmentation for speech
    recognition, Interspeech 2015.

    Raises:
      InputError: the speed is not between 0.25 and 4.
    """
    check_speed(speed)
    if speed == 1:
        return samples
    return soxr.resample(samples, SAMPLING_RATE * speed, SAMPLING_RATE, quality="HQ")


def raw(samples: Float32[np.ndarray, " samples"]) -> Int16[np.ndarray, "samples 1"]:
    """Returns the samples in 16 bits (exact where the file has no more), for models that read audio."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)[:, None]


def no_statistics(frames: Int16[np.ndarray, "samples 1"], settings: Settings) -> Float32[np.ndarray, " 0"]:
    """Returns the statistics of raw audio, of which there are none."""
    return np.zeros(0, np.float32)


def check_speed(speed: float) -> None:
    """Refuses a factor that is a mistake rather than a perturbation.

    Raises:
      InputError: the speed is not between 0.25 and 4.
    """
    if not SPEED.holds(speed):
        raise InputError(f"config.speeds has {speed}, expected factors between 0.25 and 4 (1 changes nothing)")


def _cut(path: str, start: float | None, end: float | None, *, frames: int, rate: int) -> tuple[int, int]:
    """Returns the first frame of the part and the one after its last, in frames of the file."""
    duration = frames / rate
    first = 0.0 if start is None else start
    last = duration if end is None else end
    if not 0 <= first < last:  # also false for NaN
        raise InputError(
            f"{path}: is cut from {first:g} s to {last:g} s, expected 0 <= start < end in a file of {duration:.3f} s"
        )
    if last > duration + CUT_TOLERANCE_SECONDS:
        raise InputError(f"{path}: is cut at {last:g} s, expected at most its duration of {duration:.3f} s")
    return round(first * rate), min(round(last * rate), frames)
