"""From audio files to the features of utterances."""

import hashlib
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Num
from numpy.typing import DTypeLike

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.features.audio import Audio, change_speed, load_audio
from sejax.features.audioprint import audioprint
from sejax.features.corrupt import Corruption, corrupt
from sejax.features.registry import FEATURES
from sejax.features.settings import Settings
from sejax.features.shared import sharing


class Segment(NamedTuple):
    """A file, or the part of it between two times (seconds)."""

    path: str
    start: float | None
    end: float | None


@dataclass(frozen=True)
class Loaded:
    """An utterance's samples at 16 kHz, perturbed as requested, and the description of its file.

    `digest`, `note` and `seconds` are those of `Extraction`.
    """

    path: str
    samples: Float32[np.ndarray, " samples"]
    digest: str
    note: str
    seconds: float


@dataclass(frozen=True)
class Extraction:
    """The features of one utterance: its frames and their statistics, or the reason why there are none.

    `digest` is the blake2b of the decoded samples, `note` says what was unusual about the file, and `seconds` is the
    duration before any change of speed. A bad file has frames `[0, feature]`, statistics `[0]`, the digest "" and
    0 seconds.
    """

    frames: Num[np.ndarray, "frames feature"]
    statistics: Float[np.ndarray, " statistic"]
    digest: str
    error: str
    note: str
    seconds: float


@runtime_checkable
class Collector(Protocol):
    """Computes one feature of many utterances at a time. It may be filled again when it was closed."""

    def add(self, key: Hashable, loaded: Loaded) -> Iterator[tuple[Any, Extraction]]:
        """Takes an utterance, and yields the features of those that are done, with the key that each was given."""
        ...

    def close(self) -> Iterator[tuple[Any, Extraction]]:
        """Yields the features of all others."""
        ...


@dataclass(frozen=True)
class Contents:
    """The contents of a dataset: one feature, its identity, its types and how it is computed.

    It is computed by one of two: `compute` where the file was decoded, perhaps in another process (it is picklable);
    or the collector that `collect` makes, in this process.
    """

    feature: str
    settings: Settings  # complete
    identity: Settings  # everything that changes the numbers
    size: int  # values in a frame
    dtype: DTypeLike  # of the frames
    window: int  # samples below which an utterance has no frame
    compute: Callable[[Loaded], Extraction] | None = None
    collect: Callable[[], Collector] | None = None
    light: bool = False  # whether to compute it takes less than to decode the file
    fingerprint: str = ""  # of the pretrained model that computes it


class Perturbation(NamedTuple):
    """What makes a view of an utterance: another speed, then a corruption. By default it is the original."""

    speed: float = 1.0  # factor of the speed perturbation
    corruption: Corruption | None = None

    def __str__(self) -> str:
        speed = "" if self.speed == 1 else f"speed {self.speed:g}"
        return " and ".join(filter(None, [speed, str(self.corruption or "")]))


class Task(NamedTuple):
    """What is to be made of the samples of every utterance. Fields but `perturbation` are those of `Contents`."""

    perturbation: Perturbation
    window: int
    size: int
    dtype: DTypeLike
    compute: Callable[[Loaded], Extraction] | None


class Job(NamedTuple):
    """An utterance, and the numbers of the tasks that it is wanted for."""

    segment: Segment
    tasks: Sequence[int]


def do_tasks(job: Job, *, tasks: Sequence[Task], longest: float = math.inf) -> list[Extraction | Loaded]:
    """Decodes an utterance once and does its tasks; one without `compute` gets the loaded samples.

    A bad file is a result, not an exception, and so is one longer than `longest` seconds.
    """
    wanted, path = [tasks[number] for number in job.tasks], job.segment.path
    try:
        audio = load_audio(path, start=job.segment.start, end=job.segment.end, longest=longest)
    except InputError as error:
        return [bad_file(error, task.size, task.dtype) for task in wanted]
    return do_with(audio, path, wanted)


def do_with(audio: Audio, path: str, tasks: Sequence[Task]) -> list[Extraction | Loaded]:
    """Does tasks with the samples of an utterance, as `do_tasks`; `path` names them in errors.

    Raises:
      InputError: a file that a corruption draws from cannot be used, which is no fault of the utterance's.
    """
    digest = hashlib.blake2b(audio.samples.tobytes(), digest_size=16).hexdigest()

    @cache
    def perturbed(perturbation: Perturbation) -> Float32[np.ndarray, " samples"]:
        samples = change_speed(audio.samples, perturbation.speed)
        return corrupt(samples, perturbation.corruption, digest) if perturbation.corruption else samples

    def do(task: Task) -> Extraction | Loaded:
        samples = perturbed(task.perturbation)
        if len(samples) < task.window:
            changed = f" and {task.perturbation}" if str(task.perturbation) else ""
            error = InputError(
                f"{path}: has {len(samples)} samples at {SAMPLING_RATE} Hz{changed}, "
                f"expected at least one window of {task.window}"
            )
            return bad_file(error, task.size, task.dtype)
        loaded = Loaded(path, samples, digest, audio.note, len(audio.samples) / SAMPLING_RATE)
        try:
            return task.compute(loaded) if task.compute else loaded
        except InputError as error:
            return bad_file(error, task.size, task.dtype)

    with sharing():
        return list(map(do, tasks))


def extract_loaded(loaded: Loaded, *, name: str, settings: Settings) -> Extraction:
    """Computes an acoustic feature of a loaded utterance, with complete settings.

    Raises:
      InputError: the feature cannot be computed from these samples.
    """
    feature = FEATURES[name]
    frames = feature.extract(loaded.samples, **settings)
    statistics = feature.summarise(frames, settings)
    if wrong := int((~np.isfinite(statistics)).sum()):
        raise InputError(
            f"{loaded.path}: {wrong:,} of the {len(statistics):,} statistics of {name} are not finite, expected numbers"
        )
    kept = frames[:0] if feature.whole else frames
    return Extraction(kept, statistics, loaded.digest, "", loaded.note, loaded.seconds)


def print_loaded(loaded: Loaded) -> Extraction:
    """Computes the fingerprint of a loaded utterance; it has no statistics."""
    words = audioprint(loaded.samples)
    return Extraction(words, np.zeros(0, np.float32), loaded.digest, "", loaded.note, loaded.seconds)


def bad_file(error: InputError, size: int, dtype: DTypeLike) -> Extraction:
    """Returns the result for an unusable file: no frames (of `size` values each), no statistics, and the error."""
    return Extraction(np.zeros((0, size), dtype), np.zeros(0, statistics_dtype(dtype)), "", str(error), "", 0.0)


def statistics_dtype(frames: DTypeLike) -> DTypeLike:
    """Returns the type in which the statistics of frames of a type are stored."""
    return np.float16 if frames == np.float16 else np.float32
