"""Files of records: one feature of some utterances in array_record, serialised by TFDS.

Each file is written record by record, and has its name only when it is complete. Any process may write one.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from numpy.typing import DTypeLike

from sejax.features.extract import Extraction, statistics_dtype

# TFDS calls the folder in the cache and the files after it. It is older than this module, and caches keep it.
DATASETS = "acoustic_features"
SPLIT = "utterances"
FORMAT = "array_record"
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"
_NAME = f"{DATASETS}-{SPLIT}.{FORMAT}-"
# Files of a dataset that are open at once: the system allows a process some thousand, and a corpus has more.
_OPEN = 256


class Found(NamedTuple):
    """What a build has to know of a record that is there."""

    utterance: str  # its id
    error: str
    seconds: float
    bytes: int


def record_features(size: int, dtype: DTypeLike) -> tfds.features.FeaturesDict:
    """Returns the fields of a record whose frames have so many values of a type."""
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            # Raw bytes: a list of floats is read seven times slower.
            "frames": tfds.features.Tensor(shape=(None, size), dtype=dtype, encoding="bytes"),
            "statistics": tfds.features.Tensor(shape=(None,), dtype=statistics_dtype(dtype), encoding="bytes"),
            "digest": tfds.features.Text(),
            "error": tfds.features.Text(),
            "note": tfds.features.Text(),
            "seconds": tfds.features.Scalar(np.float32),
        }
    )


def file_name(number: int) -> str:
    """Returns the name that TFDS expects of a file."""
    return f"{_NAME}{number:05d}"


def files_in(folder: Path) -> list[Path]:
    """Returns the complete files of a folder, by number."""
    found = [path for path in folder.iterdir() if path.name.startswith(_NAME) and path.name[len(_NAME) :].isdigit()]
    return sorted(found, key=lambda path: int(path.name[len(_NAME) :]))


class FileWriter:
    """Writes one file."""

    def __init__(self, path: Path, size: int, dtype: DTypeLike) -> None:
        """Begins a file.

        Args:
          path: its name when it is complete; a file there is replaced then.
          size: values in a frame.
          dtype: of the frames.
        """
        self.records = self.bytes = 0
        self._path, self._unfinished = path, path.with_name(f"{path.name}.{uuid4().hex}")
        self._features = record_features(size, dtype)
        self._serializer = tfds.core.example_serializer.ExampleSerializer(self._features.get_serialized_info())
        # In groups of one record, any record is read without others.
        self._writer = ArrayRecordWriter(os.fspath(self._unfinished), "group_size:1")

    def add(self, utterance: str, extraction: Extraction) -> None:
        """Writes the record of an utterance."""
        fields = self._features.encode_example({"id": utterance, **vars(extraction)})
        serialized = self._serializer.serialize_example(fields)
        self._writer.write(serialized)
        self.records += 1
        self.bytes += len(serialized)

    def close(self) -> None:
        """Completes the file."""
        self._writer.close()
        os.replace(self._unfinished, self._path)


class Records:
    """The records of several files, each read when it is asked for, by any thread."""

    def __init__(self, files: Mapping[str, int], features: tfds.features.FeaturesDict) -> None:
        """Opens no file yet.

        Args:
          files: the number of records in each.
          features: see `record_features`.
        """
        self._files, self._features = dict(files), features
        self._paths, self._ends = list(files), [0, *accumulate(files.values())]
        # A reader that is dropped closes its file when the last thread is done with it.
        self._open = lru_cache(maxsize=_OPEN)(ArrayRecordReader)

    def __reduce__(self) -> tuple[Any, ...]:
        return Records, (self._files, self._features)  # another process opens the files itself

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, place: int) -> dict[str, Any]:
        file = bisect_right(self._ends, place) - 1
        (serialized,) = self._open(self._paths[file]).read([place - self._ends[file]])
        record = self._features.deserialize_example_np(serialized)
        # TFDS returns text as bytes.
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in record.items()}


def find_records(path: Path) -> Iterator[Found]:
    """Yields what is in a complete file.

    Raises:
      Exception: whatever TFDS and array_record raise about a damaged one.
    """
    text = tfds.features.Text()
    # Fields that are not named are not decoded.
    few = tfds.features.FeaturesDict({"id": text, "error": text, "seconds": tfds.features.Scalar(np.float32)})
    reader = ArrayRecordReader(os.fspath(path))
    for place in range(reader.num_records()):
        (serialized,) = reader.read([place])
        record = few.deserialize_example_np(serialized)
        yield Found(record["id"].decode(), record["error"].decode(), float(record["seconds"]), len(serialized))
