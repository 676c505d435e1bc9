"""Parquet files with the audio inside, as `push_to_hub` of Hugging Face's `datasets` writes them, and their unpacking.

    data/train-00000-of-00002.parquet      the columns of the metadata, and `audio`: a struct of bytes and path

The audio is written to files once, byte for byte, below the cache: a Parquet file can only be read by whole groups of
rows, a hundred utterances for each one that is wanted. Everything behind the reader then reads files as it always does.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TextIO

from filelock import FileLock

from sejax.corpora.files import is_audio
from sejax.corpora.split_names import name_splits, splits_by_name
from sejax.corpora.typed_rows import open_parquet, read_parquet, read_structs
from sejax.errors import InputError
from sejax.host.atomic import atomic_folder, atomic_write

EXTRA = "datasets"
METADATA = "metadata.jsonl"
COMPLETE = "unpacked.json"
"""The file that marks an unpacked folder, with notes about it."""

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}.*\.parquet")
_ROWS = 64  # that are in memory at once
_STEM = 80  # characters of a file's own name that are kept
_UNSAFE = re.compile(r"[^\w.-]+")


def find_shards(folder: str) -> list[str]:
    """Returns the Parquet files of a folder and of its folder `data`, sorted, without metadata of audio files."""
    found = []
    for place in (folder, os.path.join(folder, "data")):
        names = os.listdir(place) if os.path.isdir(place) else []
        found += [os.path.join(place, name) for name in names if name.endswith(".parquet")]
    return sorted(path for path in found if os.path.basename(path) != "metadata.parquet")


def unpack_shards(folder: str, cache_dir: str) -> str:
    """Unpacks the Parquet files of a folder unless that is done already, and returns the folder to read.

    It is called `audio-folder-<digest>`, after the names, sizes and times of the Parquet files: changed ones are
    unpacked anew, and the older folder may be deleted. It holds a folder for each split with the audio as files, and
    `metadata.jsonl` with the other columns.

    Args:
      folder: with Parquet files, or one without, which is returned as it is.
      cache_dir: where to unpack.

    Raises:
      InputError: a Parquet file cannot be read or has no column with audio, or nothing can be written.
    """
    shards = find_shards(folder) if os.path.isdir(folder) else []
    if not shards:
        return folder
    unpacked = Path(os.path.abspath(cache_dir), f"audio-folder-{_sign(shards)}")
    if Path(unpacked, COMPLETE).exists():
        return str(unpacked)
    try:
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{unpacked}.lock"):
            if not Path(unpacked, COMPLETE).exists():
                print(f"{folder}: its Parquet files are unpacked to {unpacked}", file=sys.stderr)
                with atomic_folder(unpacked) as partial:
                    _unpack(shards, folder, partial)
    except OSError as error:
        what = error.filename or unpacked
        raise InputError(f"{what} cannot be written ({error.strerror}), expected room in config.cache_dir") from error
    return str(unpacked)


def _sign(shards: Sequence[str]) -> str:
    """Returns what changes with the files. The time of the inode (ctime) is the system's own: no `touch` sets it."""
    files = [(path, os.stat(path)) for path in map(os.path.realpath, shards)]
    sign = [(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns) for path, status in files]
    return hashlib.blake2b(json.dumps(sign).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _unpack(shards: Sequence[str], folder: str, target: Path) -> None:
    own = _shard_splits(shards, folder)
    splits, notes = _read_splits(list(dict.fromkeys(own.values())))
    for name in dict.fromkeys(own.values()):
        place = target / _UNSAFE.sub("_", name)
        place.mkdir()
        cells = {"split": splits[name]} if splits else {}
        with open(place / METADATA, "w", encoding="utf-8") as metadata:
            for number, shard in enumerate(path for path in shards if own[path] == name):
                _unpack_shard(shard, f"{number:05}", cells, place, metadata)
    with atomic_write(target / COMPLETE) as file:
        json.dump({"from": [os.path.abspath(path) for path in shards], "notes": notes}, file)


def _read_splits(names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Returns the split that each of the library's splits is, and notes; no splits if one is none, or there is one."""
    splits = name_splits(names)
    if len(splits) < len(names):
        return {}, [
            f"the Parquet files have the splits {', '.join(names)}: not all have the word of one, so none is used"
        ]
    renamed = [f"{name} is {split}" for name, split in splits.items() if name != split]
    return (splits, ["splits: " + ", ".join(renamed)] if renamed else []) if len(set(splits.values())) > 1 else ({}, [])


def _shard_splits(shards: Sequence[str], folder: str) -> dict[str, str]:
    """Returns the split that the name of each file says; "train", as the library calls what has no split."""
    named = {path: match[1] for path in shards if (match := _SHARD.fullmatch(os.path.basename(path)))}
    if len(named) == len(shards):
        return named
    relative = {path: PurePath(os.path.relpath(path, folder)).as_posix() for path in shards}
    found, _ = splits_by_name(list(relative.values()))
    return {path: found.get(name, "train") for path, name in relative.items()}


def _unpack_shard(shard: str, prefix: str, cells: Mapping[str, str], place: Path, metadata: TextIO) -> None:
    rows = read_parquet(shard, None, EXTRA)
    audio = read_structs(shard, _audio_column(shard), _ROWS, EXTRA)
    for number, ((_, row), value) in enumerate(zip(rows, audio, strict=True)):
        data, path = (value["bytes"], value["path"]) if value else (None, None)
        name = f"{prefix}-{number:06}{_own_name(path or '')}"
        if data:
            (place / name).write_bytes(data)
        elif path:  # a row that holds no audio and says where it was
            name = path
        metadata.write(json.dumps({**cells, **row, "file_name": name}, ensure_ascii=False) + "\n")


def _audio_column(shard: str) -> str:
    schema = open_parquet(shard, EXTRA).schema_arrow
    fields = {field.name: {part.name for part in _parts(field.type)} for field in schema}
    columns = [name for name, parts in fields.items() if {"bytes", "path"} <= parts]
    if not columns:
        raise InputError(
            f"{shard} has no column with audio in it, found {', '.join(schema.names)}, expected a struct of bytes and "
            "path"
        )
    return "audio" if "audio" in columns else columns[0]


def _parts(kind: Any) -> Iterator[Any]:
    return (kind.field(index) for index in range(kind.num_fields))


def _own_name(path: str) -> str:
    """Returns the end of the file's name: its own one, as far as it is a name, and the extension."""
    own = re.split(r"[/\\]", path)[-1]
    stem, extension = os.path.splitext(own)
    safe = _UNSAFE.sub("_", stem)[:_STEM]
    return (f"-{safe}" if safe else "") + (extension.lower() if is_audio(own) else ".wav")
