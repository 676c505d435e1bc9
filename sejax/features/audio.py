"""Audio files as mono samples at one rate; the only module that opens audio.

Files that cannot be trusted are refused with one sentence: a network would train on silence or on half an utterance
without any warning. Files that are merely unusual (another sampling rate, stereo, clipping) are converted or kept, and
noted.
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

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.features.settings import Settings

# One analysis window: no feature is defined on less.
MIN_SECONDS = 0.025
# How far a cut may exceed the end of a file: the times of segments are rounded.
CUT_TOLERANCE_SECONDS = 0.01
# Share of the samples at full scale from which a file is noted as clipped.
CLIPPED_SHARE = 0.01
# The largest positive value of a sample: the default is that of 16 bits, which finer formats reach or exceed.
FULL_SCALE = {"PCM_U8": 1 - 2**-7, "PCM_S8": 1 - 2**-7}
FULL_SCALE_DEFAULT = 1 - 2**-15
# The shortest raw audio, in samples: one frame of a pretrained model.
RAW_WINDOW = 400
# The length of the data in a header whose writer did not know it in advance (a pipe).
RIFF_LENGTH_UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True)
class Audio:
    """Mono samples in [-1, 1], and a note of anything unusual about the file ("" where nothing was)."""

    samples: Float32[np.ndarray, " samples"]
    note: str


def load_audio(
    path: str, *, start: float | None = None, end: float | None = None, sampling_rate: int = SAMPLING_RATE
) -> Audio:
    """Reads a file, or a part of it, as mono samples.

    The file may have any format of libsndfile (wav, flac, ...), any rate (soxr resamples it, quality HQ) and any
    number of channels (which are averaged).

    Args:
      path: A file, or the member of a zip archive as "archive.zip::member".
      start: Where the part begins, in seconds; None is the beginning of the file.
      end: Where the part ends, in seconds; None is the end of the file.
      sampling_rate: Rate of the returned samples, in hertz.

    Raises:
      InputError: the file is missing, unreadable, empty, truncated, silent (constant), holds NaN or infinite samples
        or is shorter than one window of 25 ms; or the part is not inside it.
    """
    with _open(path) as file:
        _check_not_truncated(path, file)
        try:
            with soundfile.SoundFile(file) as sound:
                rate, full_scale = sound.samplerate, FULL_SCALE.get(sound.subtype, FULL_SCALE_DEFAULT)
                if sound.frames == 0:
                    raise InputError(f"{path}: has 0 samples, expected speech")
                first, last = _cut(path, start, end, frames=sound.frames, rate=rate)
                sound.seek(first)
                channels = sound.read(last - first, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless formats
            reason = getattr(error, "error_string", error)
            raise InputError(f"{path}: cannot be read as audio ({reason})") from error
    if len(channels) < last - first:
        raise InputError(
            f"{path}: is truncated, has {first + len(channels)} frames of audio, expected the {last} of its header"
        )
    return _check_and_convert(path, channels, rate, sampling_rate, full_scale)


def _check_and_convert(
    path: str,
    channels: Float32[np.ndarray, "frames channels"],
    rate: int,
    sampling_rate: int,
    full_scale: float,
) -> Audio:
    """Refuses audio that is no speech, notes anything unusual, mixes to mono and resamples."""
    if not np.isfinite(channels).all():
        bad = np.flatnonzero(~np.isfinite(channels).all(axis=1))
        raise InputError(
            f"{path}: has {bad.size} samples that are NaN or infinite, the first at {bad[0] / rate:.3f} s, "
            "expected finite audio"
        )
    if len(channels) / rate < MIN_SECONDS:
        raise InputError(
            f"{path}: lasts {1000 * len(channels) / rate:.1f} ms, expected at least one window of "
            f"{1000 * MIN_SECONDS:.0f} ms"
        )
    notes = []
    clipped = float((np.abs(channels) >= full_scale).mean())
    samples = channels[:, 0]
    if channels.shape[1] > 1:
        kind = "stereo" if channels.shape[1] == 2 else f"{channels.shape[1]} channels"
        notes.append(f"{kind} mixed to mono")
        samples = channels.mean(axis=1)
    if samples.min() == samples.max():
        raise InputError(f"{path}: is silent, every sample is {samples[0]:g}, expected speech")
    if rate != sampling_rate:
        notes.append(f"{rate} Hz resampled to {sampling_rate} Hz")
        samples = soxr.resample(samples, rate, sampling_rate, quality="HQ")
    if clipped > CLIPPED_SHARE:
        notes.append(f"clipped: {100 * clipped:.1f} % of the samples at full scale")
    return Audio(np.ascontiguousarray(samples, np.float32), "; ".join(notes))


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
    if not 0.25 <= speed <= 4:
        raise InputError(f"config.speeds has {speed}, expected factors between 0.25 and 4 (1 changes nothing)")


def split_archive(path: str) -> tuple[str, str | None]:
    """Returns the file on disk, and the member inside it where the path is "archive.zip::member"."""
    archive, separator, member = path.partition(".zip::")
    return (f"{archive}.zip", member) if separator else (path, None)


def _open(path: str) -> io.BufferedIOBase:
    """Opens a file or the member of an archive for random access."""
    file, member = split_archive(path)
    if member is None:
        if os.path.isdir(file):
            raise InputError(f"{path}: is a folder, expected an audio file")
        try:
            return open(file, "rb")
        except OSError as error:
            raise _not_openable(path, error) from error
    try:
        status = os.stat(file)
        return io.BytesIO(_archive(file, status.st_size, status.st_mtime_ns).read(member))
    except KeyError as error:
        raise InputError(f"{path}: the archive {file} has no such member") from error
    except OSError as error:
        raise _not_openable(path, error) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read from its archive ({error})") from error


def _not_openable(path: str, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file")
    return InputError(f"{path}: cannot be opened ({error.strerror})")


@lru_cache(maxsize=4)
def _archive(file: str, size: int, mtime_ns: int) -> zipfile.ZipFile:
    """Opens an archive once per process: its list of members takes longer to read than a member.

    Size and time of change are arguments so that an archive is opened again after it was replaced.
    """
    return zipfile.ZipFile(file)


def _check_not_truncated(path: str, file: io.BufferedIOBase) -> None:
    """Refuses a wav file whose data chunk is shorter than its header says.

    libsndfile shortens such a file silently. Truncated files of other formats (flac) fail, or return fewer frames than
    expected, when they are read.
    """
    length = file.seek(0, io.SEEK_END)
    if length == 0:
        raise InputError(f"{path}: has 0 bytes, expected an audio file")
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
                        f"{path}: is truncated, has {length - position} bytes of audio, expected the {promised} of "
                        "its header"
                    )
                break
            # Chunks begin at even positions.
            position = file.seek(position + promised + promised % 2)
    file.seek(0)


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
