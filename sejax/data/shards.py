"""One dataset of features: a folder that TFDS reads, of files of records (see `sejax.data.shard_files`).

A dataset is written in a folder of its own, which is renamed when it is complete; what is there is therefore whole.
Files that an interrupted build has completed stay, and the next one goes on behind them; if settings or audio change
before, nobody takes them up, and the folder may be deleted. Files may also come from other processes: a build takes
up whatever is there.
"""

import contextlib
import io
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, Num

from sejax.corpora.schema import SAMPLING_RATE
from sejax.data.shard_files import (
    DATASETS,
    FORMAT,
    SPLIT,
    TEMPLATE,
    FileWriter,
    Records,
    file_name,
    files_in,
    find_records,
    record_features,
)
from sejax.data.stored import Stored
from sejax.features.extract import Contents, Extraction, statistics_dtype

_VERSION = "1.0.0"
_INCOMPLETE = "incomplete"


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

    def file(self, cache_dir: str, number: int) -> FileWriter:
        """Begins a file of a build that is not complete; its number may leave a gap."""
        folder = self.folder(cache_dir) / _INCOMPLETE
        return FileWriter(folder / file_name(number), self.contents.size, self.contents.dtype)


class Writer:
    """Writes a dataset, file by file. It holds what `Found` says of the records, and no features."""

    def __init__(self, cache_dir: str, dataset: Dataset, *, per_shard: int) -> None:
        """Takes up the files that an interrupted build, or other processes, have completed.

        Args:
          cache_dir: folder of all datasets.
          dataset: the one that is written.
          per_shard: records in one file.

        Raises:
          OSError: the folder cannot be written.
        """
        self.there: dict[str, str] = {}  # the error, "" for none, of each utterance that has been written
        self.seconds = 0.0  # of good audio
        self._dataset, self._cache_dir, self._per_shard = dataset, cache_dir, per_shard
        self._folder = dataset.folder(cache_dir)
        self._lengths: list[int] = []  # of the complete files, in records
        self._bytes = 0
        self._file: FileWriter | None = None
        shutil.rmtree(self._folder / _VERSION, ignore_errors=True)  # it is damaged, or nobody would write
        (self._folder / _INCOMPLETE).mkdir(parents=True, exist_ok=True)
        self._take_up(self._folder / _INCOMPLETE)

    def add(self, utterance: str, extraction: Extraction) -> None:
        """Writes a record, and completes a file that has enough of them."""
        self._file = self._file or self._dataset.file(self._cache_dir, self.files)
        self._file.add(utterance, extraction)
        self.there[utterance] = extraction.error
        self.seconds += extraction.seconds
        if self._file.records == self._per_shard:
            self._complete()

    def close(self) -> None:
        """Completes the last file, and makes the dataset one that is read."""
        self._complete()
        folder = self._folder / _INCOMPLETE
        info = _info(self._dataset, folder)
        info.set_file_format(FORMAT)
        template = tfds.core.ShardedFileTemplate(
            dataset_name=info.name, data_dir=folder, split=SPLIT, filetype_suffix=FORMAT, template=TEMPLATE
        )
        split = tfds.core.SplitInfo(
            name=SPLIT, shard_lengths=self._lengths, num_bytes=self._bytes, filename_template=template
        )
        info.set_splits(tfds.core.splits.SplitDict([split]))
        info.write_to_directory(folder)
        os.replace(folder, self._folder / _VERSION)

    @property
    def files(self) -> int:
        """The number of complete files, which is that of the next one."""
        return len(self._lengths)

    def discard(self) -> None:
        """Deletes everything that was written."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _complete(self) -> None:
        if self._file:
            self._file.close()
            self._lengths.append(self._file.records)
            self._bytes += self._file.bytes
            self._file = None

    def _take_up(self, folder: Path) -> None:
        """Reads what the complete files hold, numbers them anew without gaps, and deletes everything else."""
        files = files_in(folder)
        for path in set(folder.iterdir()).difference(files):
            _delete(path)
        for path in files:
            try:
                found = list(find_records(path))
            except Exception:  # a damaged file can raise anything in TFDS and array_record
                found = []
            if not found or any(record.utterance in self.there for record in found):
                _delete(path)
                continue
            path.rename(folder / file_name(self.files))
            self._lengths.append(len(found))
            self._bytes += sum(record.bytes for record in found)
            self.seconds += sum(record.seconds for record in found)
            self.there.update((record.utterance, record.error) for record in found)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


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
    records = _open(dataset.folder(cache_dir) / _VERSION, dataset.contents)
    own = {utterance: utterance for utterance in utterances}  # all datasets share the caller's strings
    found = StreamFeatures({}, {}, {}, {}, {}, {})
    for place, record in enumerate(records):
        _check_types(record, dataset.contents)
        utterance = own.pop(record["id"], None)
        if utterance is None:
            raise ValueError(f"a second record of {record['id']}, or one of an utterance that the corpus lacks")
        if record["error"]:
            found.errors[utterance] = record["error"]
            continue
        frames = record["frames"]
        found.frames[utterance] = Stored(frames.shape, frames.dtype, partial(_frames, records, place))
        # A copy: that of the record is a view of all its bytes.
        found.statistics[utterance] = record["statistics"].copy()
        found.digest[utterance] = record["digest"]
        found.seconds[utterance] = float(record["seconds"])
        if record["note"]:
            found.notes[utterance] = record["note"]
    if own:
        raise ValueError(f"no record of {len(own)} of the corpus's utterances")
    return StreamFeatures(**{field.name: dict(sorted(getattr(found, field.name).items())) for field in fields(found)})


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
    return tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=DATASETS,
            version=tfds.core.Version(_VERSION),
            data_dir=os.fspath(folder),
            module_name=__name__,
            config_name=dataset.name,
        ),
        description=f"{contents.feature} of {dataset.corpus}, one record per utterance.",
        features=record_features(contents.size, contents.dtype),
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


def _open(folder: Path, contents: Contents) -> Records:
    """Returns the records of a folder, of which TFDS knows the files.

    Raises:
      Exception: whatever TFDS raises about a damaged folder.
    """
    files = tfds.builder_from_directory(os.fspath(folder)).info.splits[SPLIT].file_instructions
    lengths = {os.fspath(file.filename): file.examples_in_shard for file in files}
    return Records(lengths, record_features(contents.size, contents.dtype))


def _check_types(record: Mapping[str, Any], contents: Contents) -> None:
    """Checks that a record is of the size and the type of the contents.

    Raises:
      ValueError: it is not.
    """
    frames, statistics = record["frames"], record["statistics"]
    types = frames.dtype, statistics.dtype
    if types != (contents.dtype, statistics_dtype(contents.dtype)) or frames.shape[1:] != (contents.size,):
        raise ValueError(f"records of {types[0]} {frames.shape} and {types[1]}, expected others")


def _frames(records: Records, place: int) -> Num[np.ndarray, "_frames _feature"]:
    return records[place]["frames"]
