"""Audio files as mono samples at one rate; the only module that opens audio.

Every file that cannot be trusted is refused with one sentence: a network would train on silence or on half an
utterance without a murmur. What is merely unusual (another sampling rate, stereo, clipping) is mended or
left, and noted.
"""

import io
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, Int16

from sejax.errors import InputError

SAMPLING_RATE = 16_000
# One analysis window: nothing shorter has a feature.
MIN_SECONDS = 0.025
# How far beyond the end of a file a cut may reach: the times of segments are rounded.
CUT_TOLERANCE_SECONDS = 0.01
# Share of the samples at full scale from which a file is noted as clipped.
CLIPPED_SHARE = 0.01
# The largest positive value of a sample: the default is that of 16 bits, which finer formats reach or exceed.
FULL_SCALE = {"PCM_U8": 1 - 2**-7, "PCM_S8": 1 - 2**-7}
FULL_SCALE_DEFAULT = 1 - 2**-15
# A writer that did not know the length in advance (a pipe) leaves this as the length of the data.
RIFF_LENGTH_UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True)
class Audio:
    """Mono samples in [-1, 1] and what was unusual about the file ("" where nothing was)."""

    samples: Float32[np.ndarray, " samples"]
    note: str


def load_audio(
    path: str, *, start: float | None = None, end: float | None = None, sampling_rate: int = SAMPLING_RATE
) -> Audio:
    """Read a file, or a cut out of it, as mono samples at `sampling_rate` (hertz).

    Any format of libsndfile (wav, flac, ...), any rate (resampled by soxr, quality HQ), any number of
    channels (their mean).

    Args:
        path: a file, or the member of a zip archive as "archive.zip::member".
        start, end: where to cut, in seconds; None is the beginning or the end of the file.
        sampling_rate: the rate of the returned samples.

    Raises:
        InputError: the file is missing, unreadable, empty, truncated, silent (constant), holds NaN or
            infinite samples or is shorter than one window of 25 ms, or the cut does not lie inside it.
    """
    with _open(path) as file:
        _check_not_truncated(path, file)
        try:
            with soundfile.SoundFile(file) as sound:
                rate, full_scale = sound.samplerate, FULL_SCALE.get(sound.subtype, FULL_SCALE_DEFAULT)
                if sound.frames == 0:
                    raise InputError(f"{path}: holds no samples; expected speech.")
                first, last = _cut(path, start, end, frames=sound.frames, rate=rate)
                sound.seek(first)
                channels = sound.read(last - first, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless formats
            reason = getattr(error, "error_string", error)
            raise InputError(f"{path}: cannot be read as audio ({reason}).") from error
    if len(channels) < last - first:
        raise InputError(
            f"{path}: truncated, its header promises {last} frames and the data ends after {first + len(channels)}."
        )
    return _check_and_convert(path, channels, rate, sampling_rate, full_scale)


def _check_and_convert(
    path: str,
    channels: Float32[np.ndarray, "frames channels"],
    rate: int,
    sampling_rate: int,
    full_scale: float,
) -> Audio:
    """Refuse what is no speech, note what is unusual, mix and resample the rest."""
    if not np.isfinite(channels).all():
        bad = np.flatnonzero(~np.isfinite(channels).all(axis=1))
        raise InputError(
            f"{path}: {bad.size} samples are NaN or infinite, the first at {bad[0] / rate:.3f} s; "
            "expected finite audio."
        )
    if len(channels) / rate < MIN_SECONDS:
        raise InputError(
            f"{path}: lasts {1000 * len(channels) / rate:.1f} ms; expected at least one window of "
            f"{1000 * MIN_SECONDS:.0f} ms."
        )
    notes = []
    clipped = float((np.abs(channels) >= full_scale).mean())
    samples = channels[:, 0]
    if channels.shape[1] > 1:
        kind = "stereo" if channels.shape[1] == 2 else f"{channels.shape[1]} channels"
        notes.append(f"{kind} mixed to mono")
        samples = channels.mean(axis=1)
    if samples.min() == samples.max():
        raise InputError(f"{path}: silent, every sample is {samples[0]:g}; expected speech.")
    if rate != sampling_rate:
        notes.append(f"{rate} Hz resampled to {sampling_rate} Hz")
        samples = soxr.resample(samples, rate, sampling_rate, quality="HQ")
    if clipped > CLIPPED_SHARE:
        notes.append(f"clipped: {100 * clipped:.1f} % of the samples at full scale")
    return Audio(np.ascontiguousarray(samples, np.float32), "; ".join(notes))


def change_speed(samples: Float32[np.ndarray, " samples"], speed: float) -> Float32[np.ndarray, " changed"]:
    """Play the samples `speed` times as fast: tempo and pitch change together.

    The length is divided by `speed`. It is the speed perturbation of Ko et al., Audio augmentation for speech
    recognition, Interspeech 2015.

    Raises:
        InputError: the speed is not between 0.25 and 4.
    """
    check_speed(speed)
    if speed == 1:
        return samples
    return soxr.resample(samples, SAMPLING_RATE * speed, SAMPLING_RATE, quality="HQ")


def raw(samples: Float32[np.ndarray, " samples"]) -> Int16[np.ndarray, "samples 1"]:
    """The samples themselves in 16 bits (exact where the file had no more), for models that read audio."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)[:, None]


def check_speed(speed: float) -> None:
    """Raise an InputError for a factor that is a mistake rather than a perturbation."""
    if not 0.25 <= speed <= 4:
        raise InputError(f"The speed is {speed}; expected a factor between 0.25 and 4 (1 changes nothing).")


def split_archive(path: str) -> tuple[str, str | None]:
    """The file on disk, and the member inside it where the path is "archive.zip::member"."""
    archive, separator, member = path.partition(".zip::")
    return (f"{archive}.zip", member) if separator else (path, None)


def _open(path: str) -> io.BufferedIOBase:
    """Open a file or the member of an archive for random access."""
    file, member = split_archive(path)
    if member is None:
        if os.path.isdir(file):
            raise InputError(f"{path}: is a folder; expected an audio file.")
        try:
            return open(file, "rb")
        except OSError as error:
            raise _not_openable(path, error) from error
    try:
        status = os.stat(file)
        return io.BytesIO(_archive(file, status.st_size, status.st_mtime_ns).read(member))
    except KeyError as error:
        raise InputError(f"{path}: the archive {file} has no such member.") from error
    except OSError as error:
        raise _not_openable(path, error) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read from its archive ({error}).") from error


def _not_openable(path: str, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file.")
    return InputError(f"{path}: cannot be opened ({error.strerror}).")


@lru_cache(maxsize=4)
def _archive(file: str, size: int, mtime_ns: int) -> zipfile.ZipFile:
    """The open archive, once per process: its directory of members takes longer to read than a member.

    Size and time of change are there so that an archive which was replaced is opened anew.
    """
    return zipfile.ZipFile(file)


def _check_not_truncated(path: str, file: io.BufferedIOBase) -> None:
    """Refuse a wav file whose data chunk ends before its header says.

    libsndfile shortens such a file silently. Those of other formats (flac) fail or come short when read.
    """
    length = file.seek(0, io.SEEK_END)
    if length == 0:
        raise InputError(f"{path}: is empty (0 bytes); expected an audio file.")
    file.seek(0)
    riff = file.read(12)
    position = 12
    if riff[:4] == b"RIFF" and riff[8:] == b"WAVE":
        while len(header := file.read(8)) == 8:
            name, promised = struct.unpack("<4sI", header)
            position += 8
            if name == b"data":
                if promised != RIFF_LENGTH_UNKNOWN and position + promised > length:
                    raise InputError(
                        f"{path}: truncated, its header promises {promised} bytes of audio and the file "
                        f"holds {length - position}."
                    )
                break
            # Chunks begin at even positions.
            position = file.seek(position + promised + promised % 2)
    file.seek(0)


def _cut(path: str, start: float | None, end: float | None, *, frames: int, rate: int) -> tuple[int, int]:
    """First frame and the one after the last of the cut, in the file's own frames."""
    duration = frames / rate
    first = 0.0 if start is None else start
    last = duration if end is None else end
    if not 0 <= first < last:  # also false for NaN
        raise InputError(
            f"{path}: the cut from {first:g} s to {last:g} s is no stretch of a file of {duration:.3f} s; "
            "expected 0 <= start < end."
        )
    if last > duration + CUT_TOLERANCE_SECONDS:
        raise InputError(f"{path}: the cut ends at {last:g} s and the file at {duration:.3f} s.")
    return round(first * rate), min(round(last * rate), frames)
