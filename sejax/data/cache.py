"""Features of a corpus as TFDS shards: computed once and read back from then on.

There is one dataset per corpus, feature, settings and speed. Its name ends in a hash over everything that changes the
features: other settings or an audio file of other bytes give another dataset, and stale shards are never read. TFDS
builds in a temporary folder and renames it when it is complete. An interrupted build is therefore never read, and the
next build removes it.
"""

import contextlib
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from filelock import FileLock, Timeout
from jaxtyping import Float, Num

from sejax.corpora.schema import SAMPLING_RATE, Corpus, Utterance
from sejax.data.fingerprints import fingerprint_audio
from sejax.data.stored import Stored
from sejax.errors import InputError
from sejax.features.audio import check_speed
from sejax.features.extract import Contents, Segment, statistics_dtype
from sejax.host.disk import disk_problem
from sejax.host.progress import progress_bar
from sejax.host.wording import first_line

# Raised when the same settings give other numbers than before.
FEATURES_VERSION = 1
SPLIT = "utterances"
# Utterances in one shard: bounds the memory of records that are being written.
PER_SHARD = 64

Example = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class StreamFeatures:
    """One feature of every utterance of a corpus, by utterance id.

    `errors` has a sentence for each utterance with bad audio; the other fields hold the good ones. `frames` are read
    from the shard when they are needed: float32; float16 for hidden states of pretrained models; int16 for raw audio,
    one sample per frame. `statistics` are float32; float16 for hidden states; none for raw audio. `digest` (blake2b of
    the decoded samples) is equal for duplicate audio. `notes` says what was unusual about a file (other ids are
    absent). `seconds` is the duration before any change of speed.
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
    contents: Contents,
    speed: float = 1.0,
    cache_dir: str,
    workers: int | None = None,
    max_bad_fraction: float,
    per_shard: int = PER_SHARD,
) -> StreamFeatures:
    """Reads the features of a corpus from the cache, and computes them first if they are not stored there.

    Args:
      corpus: The `path`, `start` and `end` of its utterances are read.
      stream: Name of the stream that reads the features.
      contents: The feature, see `sejax.data.compute.contents`. Streams of equal contents share a dataset.
      speed: Factor of the speed perturbation; 1 changes nothing.
      cache_dir: Folder of the shards; created if missing.
      workers: Number of processes that compute, or for a pretrained model of threads that load audio; None is one per
        core.
      max_bad_fraction: Share of the utterances that may be lost for their audio, those that the reader of the corpus
        has dropped among them; see `Corpus.require_usable`.
      per_shard: Number of utterances in one file.

    Raises:
      InputError: a wrong speed or number of workers, no utterances, a pretrained model that cannot be loaded, a cache
        that cannot be written, or more bad files than allowed (nothing is stored then).
    """
    check_bad = functools.partial(corpus.require_usable, max_bad_fraction)
    check_bad()
    if workers is not None and workers < 1:
        raise InputError(f"the number of workers is {workers}, expected 1 or more (None is one per core)")
    check_speed(speed)
    workers = workers or os.cpu_count() or 1
    try:
        os.makedirs(cache_dir, exist_ok=True)
        fingerprints = fingerprint_audio(corpus.utterances, cache_dir, workers=workers)
        config = DatasetConfig(
            name=_dataset_name(corpus.name, fingerprints, contents, speed),
            corpus=corpus.name,
            stream=stream,
            contents=contents,
            speed=speed,
            utterances=corpus.utterances,
            workers=workers,
            check_bad=check_bad,
            per_shard=per_shard,
        )
        with _silent_tfds():
            features = _stored(cache_dir, config) or _read(_build(cache_dir, config))
    except InputError:
        raise
    except Exception as error:
        # array_record has errors of its own for a disk that is full; NotImplementedError: a file system without locks.
        if not (isinstance(error, OSError | NotImplementedError) or disk_problem(error)):
            raise
        raise InputError(
            f"{cache_dir}: the features cannot be stored here ({disk_problem(error) or error}), expected a folder with "
            "room that can be written to (config.cache_dir)"
        ) from error
    # The shards may have been built when more bad files were allowed.
    check_bad(features.errors)
    return features


@dataclass(eq=False, kw_only=True)
class DatasetConfig(tfds.core.BuilderConfig):
    """One dataset. Its name has a hash over everything but the stream and the last three fields."""

    corpus: str
    stream: str
    contents: Contents
    speed: float
    utterances: Sequence[Utterance]
    workers: int
    check_bad: Callable[..., None]  # `Corpus.require_usable`, of the errors by utterance id
    per_shard: int


class FeatureShards(tfds.core.ShardBasedBuilder):
    """The TFDS builder of the dataset that `builder_config` describes.

    It writes shard by shard. TFDS's usual builder shuffles all records, which it holds until the last one is computed,
    and needs TensorFlow for more than 1 GB of them; the mel spectrograms of IEMOCAP are larger.
    """

    # TFDS calls the folder in the cache after it. It is older than the class, and caches keep it.
    name = "acoustic_features"
    VERSION = tfds.core.Version("1.0.0")

    builder_config: DatasetConfig
    seconds = 0.0  # of good audio, counted while it is built

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        contents = config.contents
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{contents.feature} of {config.corpus}, one record per utterance.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    # Raw bytes: a list of floats is read seven times slower.
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
                **({"fingerprint": contents.fingerprint} if contents.fingerprint else {}),
                speed=config.speed,
                sampling_rate=SAMPLING_RATE,
                features_version=FEATURES_VERSION,
            ),
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable[[], Iterator[Example]]]]:
        examples = self._generate_examples()
        per_shard = self.builder_config.per_shard
        shards = -(-len(self.builder_config.utterances) // per_shard)
        # The last one takes all remaining examples, so that the generator reaches its end.
        return {SPLIT: [lambda: itertools.islice(examples, per_shard)] * (shards - 1) + [lambda: examples]}

    def _generate_examples(self) -> Iterator[Example]:
        config = self.builder_config
        segments = [Segment(utterance.path, utterance.start, utterance.end) for utterance in config.utterances]
        extractions = config.contents.extract(segments, speed=config.speed, workers=config.workers)
        errors = {}
        with progress_bar(len(segments), _title(config)) as bar, contextlib.closing(extractions):
            for number, extraction in extractions:
                utterance = config.utterances[number]
                self.seconds += extraction.seconds
                if extraction.error:
                    errors[utterance.id] = extraction.error
                    config.check_bad(errors)
                yield utterance.id, {"id": utterance.id, **vars(extraction)}
                bar.update()


def _title(config: DatasetConfig) -> str:
    """Returns the beginning of the lines about a build."""
    speed = "" if config.speed == 1 else f"  speed {config.speed:g}"
    return f"{config.stream}  {config.corpus}{speed}  {len(config.utterances)} utterances"


def _dataset_name(corpus: str, fingerprints: Sequence[Any], contents: Contents, speed: float) -> str:
    """Returns the name of a dataset, which has a hash over everything that changes its features."""
    identity = {
        "corpus": corpus,
        "utterances": fingerprints,
        "stream": contents.feature,
        "settings": dict(sorted(contents.identity.items())),
        "speed": speed,
        "sampling_rate": SAMPLING_RATE,
        "version": FEATURES_VERSION,
    }
    digest = hashlib.blake2b(json.dumps(identity).encode(), digest_size=8).hexdigest()
    return f"{corpus}_{contents.feature}_{digest}"


def _folder(cache_dir: str, config: DatasetConfig) -> str:
    """Returns the folder of a dataset; below it is one for the version, and the files that a killed build has left."""
    return os.path.join(cache_dir, FeatureShards.name, config.name)


def _stored(cache_dir: str, config: DatasetConfig, *, note: bool = True) -> StreamFeatures | None:
    """Returns the features that the cache holds, None if it holds none or, with a note, if they are damaged."""
    if not os.path.isdir(os.path.join(_folder(cache_dir, config), str(FeatureShards.VERSION))):
        return None
    try:
        return _read(FeatureShards(data_dir=cache_dir, config=config))
    # A damaged file can raise anything in TFDS and array_record. All of it can be computed again.
    except Exception as error:
        if note:
            folder = Path(_folder(cache_dir, config))
            empty = sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.stat().st_size)
            problem = f"{empty[0]} is empty" if empty else first_line(error)
            print(f"note: {folder}: stored features are damaged ({problem}): they are computed again", file=sys.stderr)
        return None


def _build(cache_dir: str, config: DatasetConfig) -> FeatureShards:
    """Computes the features and writes the shards, unless another process has done so meanwhile."""
    with _lock(cache_dir):
        if _stored(cache_dir, config, note=False):
            return FeatureShards(data_dir=cache_dir, config=config)
        folder = _folder(cache_dir, config)
        downloads = os.path.join(folder, "downloads")
        shutil.rmtree(folder, ignore_errors=True)
        builder = FeatureShards(data_dir=cache_dir, config=config)
        began = time.monotonic()
        try:
            # TFDS creates a folder for downloads even where there are none.
            builder.download_and_prepare(file_format="array_record", download_dir=downloads)
            shutil.rmtree(downloads)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        took = time.monotonic() - began
        print(
            f"{_title(config)} computed in {took:.1f} s, {builder.seconds / took:.1f} s of audio per second",
            file=sys.stderr,
        )
    return builder


@contextlib.contextmanager
def _lock(cache_dir: str) -> Iterator[None]:
    """Allows one build at a time per cache; the lock of a killed process is free."""
    lock = FileLock(os.path.join(cache_dir, ".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"{cache_dir}: another process computes features; waiting for it.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _silent_tfds() -> Iterator[None]:
    """Suppresses what TFDS prints, logs and shows in progress bars of its own."""
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


def _read(builder: FeatureShards) -> StreamFeatures:
    """Reads all records of a dataset, sorted by id; their frames stay on disk.

    Raises:
      ValueError: the records are not one for each utterance of the corpus.
    """
    source = builder.as_data_source(split=SPLIT)
    records = []
    for place in range(len(source)):
        record = source[place]
        # TFDS returns text as bytes.
        text = {name: value.decode() for name, value in record.items() if isinstance(value, bytes)}
        frames = Stored(record["frames"].shape, record["frames"].dtype, functools.partial(_frames, source, place))
        records.append(record | text | {"frames": frames})
    records.sort(key=lambda record: record["id"])
    if [record["id"] for record in records] != sorted(u.id for u in builder.builder_config.utterances):
        raise ValueError(f"{len(records)} records of other utterances than the corpus has")
    good = [record for record in records if not record["error"]]
    return StreamFeatures(
        stream=builder.builder_config.stream,
        frames={record["id"]: record["frames"] for record in good},
        statistics={record["id"]: record["statistics"] for record in good},
        digest={record["id"]: record["digest"] for record in good},
        errors={record["id"]: record["error"] for record in records if record["error"]},
        notes={record["id"]: record["note"] for record in good if record["note"]},
        seconds={record["id"]: float(record["seconds"]) for record in good},
    )


def _frames(source: Sequence[Mapping[str, Any]], place: int) -> Num[np.ndarray, "_frames _feature"]:
    return source[place]["frames"]
