"""The reader of a folder of audio files with metadata, as Hugging Face's `datasets` lays it out ("AudioFolder").

    metadata.csv, metadata.jsonl or metadata.parquet, here or in each folder: a row per file, with the column file_name
    train/..., test/...                                                       splits, if the names of folders say so

or, without metadata, a folder for each class; or Parquet files with the audio inside (see `sejax.corpora.shards`).
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from sejax.corpora.described import COLUMNS, GENDERS, MISSING, UNKNOWN, VOTES, read_described
from sejax.corpora.files import is_audio
from sejax.corpora.rows import read_rows
from sejax.corpora.schema import DIMENSIONS, Corpus, is_split
from sejax.corpora.shards import COMPLETE, EXTRA, find_shards, unpack_shards
from sejax.corpora.spelling import clean, show
from sejax.corpora.split_names import WORDS, splits_by_name
from sejax.corpora.typed_rows import as_cell, read_json_lines, read_parquet
from sejax.corpora.vad_scale import parse_vad_scale
from sejax.errors import InputError, shown
from sejax.host.wording import count

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SPEAKERS = ("speaker", "speaker_id", "actor", "SpkrID")
"""Columns that are taken for the speaker; nothing else is guessed."""
_FILE_NAME = "file_name"
_CONFIGS = re.compile(r"^(data_files|data_dir|drop_labels|configs):", re.MULTILINE)


class Options(NamedTuple):
    """What the option `labels` says: the folder's own names of our columns, and the scale of the ratings."""

    columns: Mapping[str, str]
    scale: tuple[float, float] | None


def prepare_audio_folder(data_dir: str, cache_dir: str, settings: Mapping[str, Any], workers: int | None = None) -> str:
    """Unpacks Parquet files with audio below `cache_dir`, once, and returns the folder to read: see `unpack_shards`.

    A folder that has metadata is read as it is.
    """
    described = os.path.isdir(data_dir) and _list(data_dir)[0]
    return data_dir if described else unpack_shards(data_dir, cache_dir)


def read_audio_folder(data_dir: str, labels: str = "default") -> Corpus:
    """Reads a folder of audio files with metadata, or with a folder for each class.

    The metadata may have the columns of a table (see `read_described`) under their names; the paths are in `file_name`,
    or another column that ends in `_file_name`. The speaker may also be called `speaker_id`, `actor` or `SpkrID`.
    Without a speaker, every speaker is unknown. Words for a missing value are blank cells, and genders other than F and
    M are none. A note lists the columns that are not read.

    Without metadata, the folder in which a file lies is its class if there are several and all files are equally deep.

    Splits are those of the column `split`, or of the names of folders or files (see `splits_by_name`), or those of the
    Parquet files that were unpacked. The front matter of README.md is not read.

    Args:
      data_dir: the folder.
      labels: "default", or parts with commas between them: `ours=theirs` names a column (`label=emotion`), and
        `lowest..highest` the scale of valence, arousal and dominance.

    Raises:
      InputError: the folder is none, has no audio, or holds its audio in Parquet files that are not unpacked; metadata
        of several kinds; no column with paths; what the readers of CSV, JSON lines and Parquet refuse; a column that
        `labels` names is absent; no column that holds anything to learn; or what `read_described` refuses.
    """
    options = parse_options(labels)
    if not os.path.isdir(data_dir):
        what = "is a file" if os.path.exists(data_dir) else "is not there"
        raise InputError(f"{data_dir} {what}, expected a folder of audio files with metadata.csv, .jsonl or .parquet")
    root = os.path.abspath(data_dir)
    listed, audio = _list(root)
    unpacked = Path(root, COMPLETE)
    notes: list[str] = json.loads(unpacked.read_text("utf-8"))["notes"] if unpacked.exists() else []
    if listed:
        rows = list(_described_rows(root, listed, options, notes))
        named = {os.path.normpath(row["path"]) for _, row in rows}
        if unread := [path for path in audio if path not in named]:
            notes.append(
                f"{count(len(unread), 'audio file')} without a row in the metadata left out (such as {unread[0]})"
            )
    elif audio:
        if options.columns:
            raise InputError(f"config.labels is {shown(labels)}, but {data_dir} has no metadata whose columns it names")
        rows = _rows_by_folder(root, audio, notes)
    elif find_shards(root):
        raise InputError(
            f"{data_dir} holds Parquet files with the audio inside, expected the folder that they are unpacked to "
            "(a study unpacks them by itself, in Python `prepare_audio_folder`)"
        )
    else:
        raise InputError(f"{data_dir} has neither {', '.join(METADATA)} nor audio files in it (nor in folders of it)")
    _set_splits(root, rows, notes)
    corpus = read_described(rows, root, corpus="audio_folder", listing=data_dir, scale=options.scale)
    return replace(corpus, notes=(*notes, *corpus.notes))


def parse_options(labels: str) -> Options:
    """Returns the options that `labels` holds, such as `label=emotion,speaker=person,1..7`.

    Raises:
      InputError: a part is neither a scale (see `parse_vad_scale`) nor names a column of ours, or one comes twice.
    """
    columns: dict[str, str] = {}
    scale = None
    for part in [] if labels == "default" else labels.split(","):
        ours, equals, theirs = (word.strip() for word in part.partition("="))
        if not equals:
            if scale is not None:
                raise InputError(f"config.labels is {shown(labels)}, expected one scale")
            scale = parse_vad_scale(ours)
            continue
        if (ours not in COLUMNS and not ours.startswith(VOTES)) or ours == "path" or not theirs or ours in columns:
            allowed = ", ".join(column for column in (*COLUMNS, f"{VOTES}<class>") if column != "path")
            raise InputError(
                f"config.labels has the part {shown(part)}, expected column=THEIRS, each column once, of {allowed}"
            )
        columns[ours] = theirs
    return Options(columns, scale)


def _list(root: str) -> tuple[list[str], list[str]]:
    """Returns the metadata files and the audio files at any depth, relative to the root, sorted."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be listed ({error.strerror}), expected a folder") from error

    listed, audio = [], []
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        folders[:] = [name for name in folders if not os.path.exists(os.path.join(folder, name, COMPLETE))]  # a cache
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), root)
            if name in METADATA:
                listed.append(path)
            elif is_audio(name) and not name.startswith("."):  # macOS writes files called ._*
                audio.append(path)
    return listed, audio


def _described_rows(
    root: str, listed: Sequence[str], options: Options, notes: list[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the rows of all metadata files under our names of columns, with paths relative to the root."""
    kinds = {os.path.basename(path) for path in listed}
    if len(kinds) > 1:
        raise InputError(f"{root} has {' and '.join(sorted(kinds))}, expected metadata of one kind")
    unread: dict[str, None] = {}
    genders = 0
    for name in listed:
        path = os.path.join(root, name)
        for where, values in _read_values(path):
            columns = _columns(values, options.columns, path)
            row = {ours: as_cell(values.get(theirs), theirs, where) for ours, theirs in columns.items()}
            unread |= dict.fromkeys(column for column in values if column not in columns.values())
            row = {column: "" if clean(cell) in MISSING else cell for column, cell in row.items()}
            row = {column: cell if column == "path" else clean(cell) for column, cell in row.items()}
            row["path"] = os.path.join(os.path.dirname(name), row["path"]) if row["path"] else ""
            row["speaker"] = row.get("speaker") or UNKNOWN
            if row.get("gender", "").casefold() not in ("", *GENDERS):
                row["gender"] = ""
                genders += 1
            yield where, row
    if unread:
        notes.append(f"columns of the metadata that are not read: {', '.join(map(show, sorted(unread)))}")
    if genders:
        notes.append(f"{count(genders, 'row')} with a gender other than F and M: taken as unknown")


def _read_values(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.endswith(".csv"):
        return read_rows(path, None, (), verbatim=_FILE_NAME)
    return read_json_lines(path) if path.endswith(".jsonl") else read_parquet(path, None, EXTRA)


def _columns(values: Mapping[str, Any], named: Mapping[str, str], path: str) -> dict[str, str]:
    """Returns their name of each of our columns."""
    paths = [name for name in values if name == _FILE_NAME] or [name for name in values if name.endswith("_file_name")]
    if len(paths) != 1:
        raise InputError(f"{path} has the columns {', '.join(map(show, values))}, expected {_FILE_NAME} among them")
    for ours, theirs in named.items():
        if theirs not in values:
            raise InputError(
                f"{path} has no column {show(theirs)}, which config.labels names for {ours}, found "
                f"{', '.join(map(show, values))}"
            )
    speaker = next((name for name in SPEAKERS if name in values), None)
    own = {name: name for name in values if name in COLUMNS or name.startswith(VOTES)}
    columns = {**own, **({"speaker": speaker} if speaker else {}), **named, "path": paths[0]}
    if not any(name in ("label", *DIMENSIONS) or name.startswith(VOTES) for name in columns):
        raise InputError(
            f"{path} has the columns {', '.join(map(show, values))}, expected label, {VOTES}<class> or "
            f"{', '.join(DIMENSIONS)} among them, or their names as config.labels=label=COLUMN"
        )
    return columns


def _rows_by_folder(root: str, audio: Sequence[str], notes: list[str]) -> list[tuple[str, dict[str, str]]]:
    parents = [os.path.basename(os.path.dirname(path)) for path in audio]
    depths = {len(PurePath(path).parts) for path in audio}
    if len(depths) > 1 or len(set(parents)) < 2 or set(parents) <= set(WORDS):
        found = f"{count(len(audio), 'audio file')} in folders called {', '.join(map(show, sorted(set(parents))[:5]))}"
        raise InputError(
            f"{root} has no metadata, and {found} at {count(len(depths), 'depth')}, expected a folder for each of two "
            "classes or more, all equally deep"
        )
    notes.append("the class of a file is the folder in which it lies, as there is no metadata")
    return [
        (os.path.join(root, path), {"path": path, "speaker": UNKNOWN, "label": parent})
        for path, parent in zip(audio, parents, strict=True)
    ]


def _set_splits(root: str, rows: Sequence[tuple[str, dict[str, str]]], notes: list[str]) -> None:
    """Sets the cell `split` of each row: in our words, or by the names of folders and files."""
    if any(row.get("split") for _, row in rows):
        for _, row in rows:
            own = row.get("split", "")
            row["split"] = own if is_split(own) else WORDS.get(own.casefold(), own)
        return
    paths = [PurePath(row["path"]).as_posix() for _, row in rows]
    found, note = splits_by_name(paths)
    notes += [note] if note else []
    readme = Path(root, "README.md")
    if readme.is_file() and _CONFIGS.search(readme.read_text("utf-8", "replace")):
        notes.append("README.md has configurations, which are not read: splits are those of names of folders and files")
    for path, (_, row) in zip(paths, rows, strict=True):
        if path in found:
            row["split"] = found[path]
