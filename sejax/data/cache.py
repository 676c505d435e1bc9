"""Features of a corpus as TFDS shards: computed once, in parallel, and read back ever after.

One dataset per corpus, feature, settings and speed. Its name ends in a hash over everything that changes the
result, so that other settings or a touched audio file are another dataset and stale shards are never read.
TFDS builds in a temporary folder and renames it when it is complete: what an interrupted build leaves behind
is never read, and is removed by the next build.
"""

import contextlib
import fcntl
import functools
import hashlib
import io
import itertools
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, Num
from numpy.typing import DTypeLike
from tqdm import tqdm

from sejax.corpora.schema import Corpus, Utterance
from sejax.data.stored import Stored
from sejax.errors import InputError
from sejax.features.audio import SAMPLING_RATE, check_speed, split_archive
from sejax.features.extract import Extraction, Segment, extract_utterance
from sejax.features.registry import Setting, feature_dtype, feature_size, full_settings, statistics_dtype
from sejax.processes import map_in_processes

# Raise it when the same settings give other numbers than before.
FEATURES_VERSION = 1
SPLIT = "utterances"
# Hidden states of a pretrained model, which this process computes itself on the accelerator.
PRETRAINED = "ssl"
# What starting worker processes takes: they are started where they save more than that.
STARTUP_SECONDS = 3.0
# Utterances that are computed first, to learn how long one takes.
PROBE = 8
CHUNK = 8
# Utterances whose records lie in one file: bounds the memory for what is being written.
PER_SHARD = 64

Example = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class StreamFeatures:
    """One feature of every utterance of a corpus, by utterance id.

    `frames` (read from the shard when they are needed: float32; hidden states of pretrained models float16; raw
    audio int16, a sample a frame) and `statistics` (float32; of hidden states float16; of raw audio none) hold the
    good ones, `errors` a sentence for each of the others. `digest` (blake2b of the decoded samples) is equal for
    duplicate audio; `notes` has what was unusual about a file (ids without are absent); `seconds` is the duration
    before any change of speed.
    """

    stream: str
    frames: dict[str, Stored]
    statistics: dict[str, Float[np.ndarray, " statistic"]]
    digest: dict[str, str]
    errors: dict[str, str]
    notes: dict[str, str]
    seconds: dict[str, float]


def build_features(
    corpus: Corpus,
    *,
    stream: str,
    feature: str | None = None,
    settings: Mapping[str, Setting],
    speed: float = 1.0,
    cache_dir: str,
    workers: int | None = None,
    max_bad_fraction: float,
) -> StreamFeatures:
    """Read the features of a corpus from the cache, after computing them if they are not there.

    Args:
        corpus: its utterances' `path`, `start` and `end` are read.
        stream: what the features are called.
        feature: "mfcc", "mel", "stf", "prosody", "ssl" (hidden states of a pretrained model) or "raw" (audio at
            16 kHz); None is the stream's name. Streams of the same feature and settings share a dataset.
        settings: of that feature; what is not given has its default. See `sejax.pretrained.extract.DEFAULTS` for
            those of "ssl".
        speed: factor of the speed perturbation; 1 changes nothing.
        cache_dir: folder of the shards; made where it does not exist.
        workers: processes to compute in; None is one per core. Of "ssl": threads that load audio.
        max_bad_fraction: the share of the utterances whose audio may be bad.

    Raises:
        InputError: a wrong setting, speed or number of workers, no utterances, no such pretrained model, a
            cache that cannot be written, or more bad files than allowed (nothing is stored then).
    """
    if not corpus.utterances:
        raise InputError(f"The corpus {corpus.name} has no utterances; expected at least one.")
    if workers is not None and workers < 1:
        raise InputError(f"The number of workers is {workers}; expected 1 or more (None is one per core).")
    check_speed(speed)
    config = _config(
        corpus,
        stream,
        _contents(feature or stream, settings),
        speed=speed,
        workers=workers,
        max_bad_fraction=max_bad_fraction,
    )
    try:
        os.makedirs(cache_dir, exist_ok=True)
        with _silent_tfds():
            builder = AcousticFeatures(data_dir=cache_dir, config=config)
            if not builder.is_prepared():
                builder = _build(cache_dir, config)
    except OSError as error:
        raise InputError(f"{cache_dir}: the features cannot be stored here ({error}).") from error
    features = _read(builder, stream)
    # The shards may have been built when more was allowed.
    _check_bad(features.errors, corpus.name, len(corpus.utterances), max_bad_fraction)
    return features


@dataclass(frozen=True)
class Contents:
    """Which feature a dataset has of every utterance, and how its frames are stored."""

    feature: str
    settings: Mapping[str, Setting]  # complete
    identity: Mapping[str, Setting]  # all that changes the result
    size: int  # values of a frame
    dtype: DTypeLike
    wanted: Any = None  # of a pretrained model: sejax.pretrained.extract.Wanted


def _contents(feature: str, settings: Mapping[str, Setting]) -> Contents:
    if feature == PRETRAINED:
        # Imports jax, which acoustic features do without.
        from sejax.pretrained.extract import read_settings

        wanted = read_settings(settings)
        return Contents(feature, wanted.settings, wanted.content, wanted.size, np.float16, wanted)
    full = full_settings(feature, settings)
    return Contents(feature, full, full, feature_size(feature, full), feature_dtype(feature))


@dataclass(eq=False, kw_only=True)
class AcousticConfig(tfds.core.BuilderConfig):
    """What one dataset is made of. The name holds a hash over all but the stream and the last two."""

    corpus: str
    stream: str
    contents: Contents
    speed: float
    utterances: Sequence[Utterance]
    workers: int
    max_bad_fraction: float


class AcousticFeatures(tfds.core.ShardBasedBuilder):
    """The TFDS builder; `builder_config` says of what.

    It writes shard by shard: TFDS's usual builder keeps all records until the last, to shuffle them, and needs
    TensorFlow where they are more than 1 GB, which the mel spectrograms of IEMOCAP are.
    """

    VERSION = tfds.core.Version("1.0.0")

    builder_config: AcousticConfig
    seconds = 0.0  # of good audio, once it is built

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        contents = config.contents
        wanted = contents.wanted
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{contents.feature} of {config.corpus}, one record per utterance.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    # As raw bytes: a list of floats is read seven times slower.
                    "frames": tfds.features.Tensor(shape=(None, contents.size), dtype=contents.dtype, encoding="bytes"),
                    "statistics": tfds.features.Tensor(
                        shape=(None,), dtype=statistics_dtype(contents.dtype), encoding="bytes"
                    ),
                    "digest": tfds.features.Text(),
                    "error": tfds.features.Text(),
                    "note": tfds.features.Text(),
                    "seconds": tfds.features.Scalar(np.float32),
                }
            ),
            metadata=tfds.core.MetadataDict(
                corpus=config.corpus,
                feature=contents.feature,
                settings=dict(contents.settings),
                **({"fingerprint": wanted.fingerprint} if wanted else {}),
                speed=config.speed,
                sampling_rate=SAMPLING_RATE,
                features_version=FEATURES_VERSION,
            ),
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable[[], Iterator[Example]]]]:
        examples = self._generate_examples()
        shards = -(-len(self.builder_config.utterances) // PER_SHARD)
        # The last takes what is left, and so sees the generator's end.
        return {SPLIT: [lambda: itertools.islice(examples, PER_SHARD)] * (shards - 1) + [lambda: examples]}

    def _generate_examples(self) -> Iterator[Example]:
        config = self.builder_config
        errors = {}
        with _progress(config) as bar, contextlib.closing(_extractions(config)) as extractions:
            for number, extraction in extractions:
                utterance = config.utterances[number]
                self.seconds += extraction.seconds
                if extraction.error:
                    errors[utterance.id] = extraction.error
                    _check_bad(errors, config.corpus, len(config.utterances), config.max_bad_fraction)
                yield utterance.id, {"id": utterance.id, **vars(extraction)}
                bar.update()


def _extractions(config: AcousticConfig) -> Generator[tuple[int, Extraction], None, None]:
    """The features of every utterance, with its number."""
    segments = [Segment(utterance.path, utterance.start, utterance.end) for utterance in config.utterances]
    if config.contents.feature == PRETRAINED:
        from sejax.pretrained.extract import extract_hidden_states

        yield from extract_hidden_states(
            segments, wanted=config.contents.wanted, speed=config.speed, loaders=config.workers
        )
    else:
        yield from enumerate(_extract_in_processes(segments, config))


def _extract_in_processes(segments: Sequence[Segment], config: AcousticConfig) -> Generator[Extraction, None, None]:
    """In order, by worker processes where that is faster than without."""
    function = functools.partial(
        extract_utterance, name=config.contents.feature, settings=dict(config.contents.settings), speed=config.speed
    )
    # The first also imports librosa, in seconds that say nothing about the others.
    yield function(segments[0])
    took = []
    for segment in segments[1:PROBE]:
        began = time.perf_counter()
        extraction = function(segment)
        took.append(time.perf_counter() - began)
        yield extraction
    rest = segments[PROBE:]
    saved = len(rest) * float(np.mean(took or 0)) * (1 - 1 / config.workers)
    if rest and saved > STARTUP_SECONDS:
        yield from map_in_processes(function, rest, workers=config.workers, chunk=CHUNK)
    else:
        yield from map(function, rest)


def _work(config: AcousticConfig) -> str:
    """What a build is about, as its lines begin."""
    speed = "" if config.speed == 1 else f"  speed {config.speed:g}"
    return f"{config.stream}  {config.corpus}{speed}  {len(config.utterances)} utterances"


def _progress(config: AcousticConfig) -> tqdm:
    return tqdm(
        total=len(config.utterances),
        desc=_work(config),
        bar_format="{desc}  [{bar:20}] {remaining} left",
        ascii=" #",
        leave=False,
        # A log file needs no bar that moves.
        mininterval=0.1 if sys.stderr.isatty() else 30,
    )


def _config(
    corpus: Corpus,
    stream: str,
    contents: Contents,
    *,
    speed: float,
    workers: int | None,
    max_bad_fraction: float,
) -> AcousticConfig:
    """The config of a dataset, named by what it is made of."""
    made_of = {
        "corpus": corpus.name,
        "utterances": _fingerprints(corpus.utterances),
        "stream": contents.feature,
        "settings": dict(sorted(contents.identity.items())),
        "speed": speed,
        "sampling_rate": SAMPLING_RATE,
        "version": FEATURES_VERSION,
    }
    digest = hashlib.blake2b(json.dumps(made_of).encode(), digest_size=8).hexdigest()
    return AcousticConfig(
        name=f"{corpus.name}_{contents.feature}_{digest}",
        corpus=corpus.name,
        stream=stream,
        contents=contents,
        speed=speed,
        utterances=corpus.utterances,
        workers=workers or os.cpu_count() or 1,
        max_bad_fraction=max_bad_fraction,
    )


def _fingerprints(utterances: Sequence[Utterance]) -> list[list[Any]]:
    """What tells whether an utterance's audio changed: name, size and time of its file, and the cut.

    The folder does not count: a corpus may be moved.
    """
    status = functools.cache(_size_and_time)
    fingerprints = []
    for utterance in utterances:
        file, _ = split_archive(utterance.path)
        name = os.path.basename(utterance.path)
        fingerprints.append([utterance.id, name, *status(file), utterance.start, utterance.end])
    return fingerprints


def _size_and_time(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except OSError:  # stored as a bad file; when it appears, this changes
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _build(cache_dir: str, config: AcousticConfig) -> AcousticFeatures:
    """Compute the features and write the shards, unless another process does it meanwhile."""
    with _lock(cache_dir):
        builder = AcousticFeatures(data_dir=cache_dir, config=config)
        if builder.is_prepared():
            return builder
        # <cache_dir>/acoustic_features/<config>/<version>: beside it lies what a killed build left.
        folder = os.path.dirname(builder.data_dir)
        downloads = os.path.join(folder, "downloads")
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        try:
            # TFDS makes a folder for downloads even where there are none: it is removed.
            builder.download_and_prepare(file_format="array_record", download_dir=downloads)
            shutil.rmtree(downloads)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        took = time.monotonic() - began
        print(
            f"{_work(config)} computed in {took:.1f} s, {builder.seconds / took:.1f} s of audio per second",
            file=sys.stderr,
        )
    return builder


@contextlib.contextmanager
def _lock(cache_dir: str) -> Iterator[None]:
    """One build at a time per cache; the lock of a killed process is free."""
    with open(os.path.join(cache_dir, ".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{cache_dir}: another process computes features; waiting for it.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _silent_tfds() -> Iterator[None]:
    """TFDS prints and logs where it writes and has progress bars of its own."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.display_progress_bar(enable=False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.display_progress_bar(enable=True)
        logger.setLevel(level)


def _read(builder: AcousticFeatures, stream: str) -> StreamFeatures:
    """All records of a dataset, sorted by id; their frames stay on disk."""
    source = builder.as_data_source(split=SPLIT)
    records = []
    for place in range(len(source)):
        record = source[place]
        # TFDS gives text back as bytes.
        text = {name: value.decode() for name, value in record.items() if isinstance(value, bytes)}
        frames = Stored(record["frames"].shape, record["frames"].dtype, functools.partial(_frames, source, place))
        records.append(record | text | {"frames": frames})
    records.sort(key=lambda record: record["id"])
    good = [record for record in records if not record["error"]]
    return StreamFeatures(
        stream=stream,
        frames={record["id"]: record["frames"] for record in good},
        statistics={record["id"]: record["statistics"] for record in good},
        digest={record["id"]: record["digest"] for record in good},
        errors={record["id"]: record["error"] for record in records if record["error"]},
        notes={record["id"]: record["note"] for record in good if record["note"]},
        seconds={record["id"]: float(record["seconds"]) for record in good},
    )


def _frames(source: Sequence[Mapping[str, Any]], place: int) -> Num[np.ndarray, "_frames _feature"]:
    return source[place]["frames"]


def _check_bad(errors: Mapping[str, str], corpus: str, utterances: int, max_bad_fraction: float) -> None:
    if len(errors) > max_bad_fraction * utterances:
        first = "; ".join(sentence.rstrip(".") for sentence in list(errors.values())[:3])
        more = "; ..." if len(errors) > 3 else ""
        raise InputError(
            f"The corpus {corpus} has {len(errors)} or more bad audio files among {utterances}, expected "
            f"at most {100 * max_bad_fraction:g} % (max_bad_fraction): {first}{more}."
        )
