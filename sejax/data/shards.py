"""The shards of one dataset of features: TFDS with array_record, written shard by shard and read record by record.

A dataset is written in a folder of its own, which is renamed when it is complete; what is there is therefore whole.
Shards that an interrupted build has written stay, and the next one goes on behind them; if settings or audio change
before, nobody takes them up, and the folder may be deleted.
"""

import contextlib
import functools
import io
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, Num

from sejax.corpora.schema import SAMPLING_RATE
from sejax.data.stored import Stored
from sejax.features.extract import Contents, Extraction, statistics_dtype

# TFDS calls the folder in the cache and the files after it. It is older than this module, and caches keep it.
DATASETS = "acoustic_features"
SPLIT = "utterances"
_VERSION = "1.0.0"
_INCOMPLETE = "incomplete"
# Frames of all layers of a large model: 64 utterances of 30 s are 5 GB.
BUFFER_BYTES = 64 * 2**20


@dataclass(frozen=True)
class StreamFeatures:
    """One feature of every utterance of a corpus, by utterance id.

    `errors` has a sentence for each utterance with bad audio; the other fields hold the good ones. `frames` are read
    from the shard when they are needed: float32; float16 for hidden states of pretrained models; int16 for raw audio,
    one sample per frame. `statistics` are float32; float16 for hidden states; none for raw audio. `digest` (blake2b of
    the decoded samples) is equal for duplicate audio. `notes` says what was unusual about a file (other ids are
    absent). `seconds` is the duration before any change of speed.
    """

    frames: dict[str, Stored]
    statistics: dict[str, Float[np.ndarray, " statistic"]]
    digest: dict[str, str]
    errors: dict[str, str]
    notes: dict[str, str]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Dataset:
    """One dataset. `name` has a hash over everything else that changes the features."""

    name: str
    corpus: str
    contents: Contents
    speed: float
    metadata: Mapping[str, Any]

    def folder(self, cache_dir: str) -> Path:
        """Returns its folder: below it is one for the version, and one for a build that is not complete."""
        return Path(cache_dir, DATASETS, self.name)


class Writer:
    """Writes a dataset. It holds no more than the records of one shard, and not much more than `BUFFER_BYTES`."""

    def __init__(self, cache_dir: str, dataset: Dataset, *, per_shard: int) -> None:
        """Takes up the shards that an interrupted build has left, or begins.

        Args:
          cache_dir: folder of all datasets.
          dataset: the one that is written.
          per_shard: records in one file.

        Raises:
          OSError: the folder cannot be written.
        """
        self.there: dict[str, str] = {}  # the error, "" for none, of each utterance that has been written
        self.seconds = 0.0  # of good audio that was added
        self._folder = dataset.folder(cache_dir)
        self._per_shard = per_shard
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0
        parts = self._folder / _INCOMPLETE
        shutil.rmtree(self._folder / _VERSION, ignore_errors=True)  # it is damaged, or nobody would write
        try:
            source = _open(parts)
            for place in range(len(source)):
                record = source[place]
                self.there[_text(record["id"])] = _text(record["error"])
        except Exception:  # none, or a damaged one, which can raise anything in TFDS and array_record
            self.there = {}
        if not self.there:
            shutil.rmtree(self._folder, ignore_errors=True)
            parts.mkdir(parents=True)
        # TFDS reads it before it writes it again, and a killed process may have left it empty.
        (parts / "metadata.json").unlink(missing_ok=True)
        info = _info(dataset, parts)
        self._writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=per_shard, overwrite=not self.there, file_format="array_record"
        )
        if not self.there:
            self._writer.initialize_splits([SPLIT])

    def add(self, utterance: str, extraction: Extraction) -> None:
        """Takes a record, and writes all that wait if they fill a shard or the buffer."""
        self.there[utterance] = extraction.error
        self.seconds += extraction.seconds
        self._waiting.append({"id": utterance, **vars(extraction)})
        self._waiting_bytes += extraction.frames.nbytes + extraction.statistics.nbytes
        if len(self._waiting) == self._per_shard or self._waiting_bytes > BUFFER_BYTES:
            self._write()

    def close(self) -> None:
        """Writes what waits and makes the dataset one that is read."""
        self._write()
        self._writer.close_all()
        os.replace(self._folder / _INCOMPLETE, self._folder / _VERSION)

    def discard(self) -> None:
        """Deletes everything that was written."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self) -> None:
        if self._waiting:
            self._writer.add_examples({SPLIT: self._waiting})
            self._waiting, self._waiting_bytes = [], 0


def is_stored(cache_dir: str, dataset: Dataset) -> bool:
    """Returns whether there is a complete dataset, be it damaged or not."""
    return (dataset.folder(cache_dir) / _VERSION).is_dir()


def read_shards(cache_dir: str, dataset: Dataset, utterances: Sequence[str]) -> StreamFeatures:
    """Reads all records of a complete dataset, sorted by id; their frames stay on disk.

    Args:
      cache_dir: folder of all datasets.
      dataset: the one that is read.
      utterances: ids that it must have.

    Raises:
      ValueError: the records are not one for each utterance, or of another size or type.
      Exception: whatever TFDS and array_record raise about damaged files.
    """
    source = _open(dataset.folder(cache_dir) / _VERSION)
    found = [_without_frames(source, place, dataset.contents) for place in range(len(source))]
    found.sort(key=lambda record: record["id"])
    if [record["id"] for record in found] != sorted(utterances):
        raise ValueError(f"{len(found)} records of other utterances than the corpus has")
    good = [record for record in found if not record["error"]]
    return StreamFeatures(
        frames={record["id"]: record["frames"] for record in good},
        statistics={record["id"]: record["statistics"] for record in good},
        digest={record["id"]: record["digest"] for record in good},
        errors={record["id"]: record["error"] for record in found if record["error"]},
        notes={record["id"]: record["note"] for record in good if record["note"]},
        seconds={record["id"]: float(record["seconds"]) for record in good},
    )


@contextlib.contextmanager
def silent_tfds() -> Iterator[None]:
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


def _info(dataset: Dataset, folder: Path) -> tfds.core.DatasetInfo:
    contents = dataset.contents
    statistics = statistics_dtype(contents.dtype)
    return tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=DATASETS,
            version=tfds.core.Version(_VERSION),
            data_dir=os.fspath(folder),
            module_name=__name__,
            config_name=dataset.name,
        ),
        description=f"{contents.feature} of {dataset.corpus}, one record per utterance.",
        features=tfds.features.FeaturesDict(
            {
                "id": tfds.features.Text(),
                # Raw bytes: a list of floats is read seven times slower.
                "frames": tfds.features.Tensor(shape=(None, contents.size), dtype=contents.dtype, encoding="bytes"),
                "statistics": tfds.features.Tensor(shape=(None,), dtype=statistics, encoding="bytes"),
                "digest": tfds.features.Text(),
                "error": tfds.features.Text(),
                "note": tfds.features.Text(),
                "seconds": tfds.features.Scalar(np.float32),
            }
        ),
        metadata=tfds.core.MetadataDict(
            corpus=dataset.corpus,
            feature=contents.feature,
            settings=dict(contents.settings),
            **({"fingerprint": contents.fingerprint} if contents.fingerprint else {}),
            speed=dataset.speed,
            sampling_rate=SAMPLING_RATE,
            **dataset.metadata,
        ),
    )


def _open(folder: Path) -> Any:
    """Returns the records of a folder as a sequence; each is read when it is asked for."""
    return tfds.builder_from_directory(os.fspath(folder)).as_data_source(split=SPLIT)


def _without_frames(source: Any, place: int, contents: Contents) -> dict[str, Any]:
    """Returns a record whose frames stay on disk.

    Raises:
      ValueError: it is of another size or type than the contents.
    """
    record = source[place]
    frames, statistics = record["frames"], record["statistics"]
    types = frames.dtype, statistics.dtype
    if types != (contents.dtype, statistics_dtype(contents.dtype)) or frames.shape[1:] != (contents.size,):
        raise ValueError(f"records of {types[0]} {frames.shape} and {types[1]}, expected others")
    text = {name: _text(record[name]) for name in ("id", "digest", "error", "note")}
    return record | text | {"frames": Stored(frames.shape, frames.dtype, functools.partial(_frames, source, place))}


def _text(value: str | bytes) -> str:
    """TFDS returns text as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _frames(source: Sequence[Mapping[str, Any]], place: int) -> Num[np.ndarray, "_frames _feature"]:
    return source[place]["frames"]
