"""The audio files of a corpus that is a folder tree or a zip archive of one. Nothing is unpacked whole."""

import glob
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import PurePosixPath
from typing import IO

from sejax.corpora.files import AudioFiles, check_regular
from sejax.corpora.schema import Dropped, Loss
from sejax.errors import InputError
from sejax.host.archives import describe_damage
from sejax.host.wording import count, printable

ANYWHERE = "**"
"""The pattern of folders that stands for a whole tree: the corpus's folder and all below it."""

# What zipfile raises for a damaged archive.
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    struct.error,
    EOFError,
    OSError,  # bzip2, and places outside the file
    RuntimeError,  # encryption, and an unknown method of compression
    ValueError,  # names and sizes
    OverflowError,
    KeyError,
)

# Bytes of a member beyond which it is no utterance but a mistake, or a bomb: it would be read into memory whole.
_LARGEST_MEMBER = 1 << 28


@dataclass(frozen=True)
class AudioTree:
    """The audio files of a corpus.

    Args:
      paths: regular files, or members of an archive (`<archive>::<member>`), those in few folders first, then sorted.
      dropped: what is called like an audio file and is none.
      notes: remarks, one sentence each.
      open: opens one of `paths`.
      size: returns the bytes of one of `paths`.
    """

    paths: Sequence[str]
    dropped: Sequence[Dropped]
    notes: Sequence[str]
    open: Callable[[str], IO[bytes]]
    size: Callable[[str], int]


@contextmanager
def open_tree(data_dir: str, folders: Sequence[str], endings: Sequence[str], expected: str) -> Iterator[AudioTree]:
    """Lists the audio files at `data_dir`, and opens its archive for as long as the context lasts.

    Args:
      data_dir: a folder, or a zip archive.
      folders: glob patterns of the folders with the audio, below `data_dir` ("." is that folder, `ANYWHERE` all). The
        first pattern with a match is used, in an archive at any depth; "." is the whole archive there.
      endings: of the names of audio files, in lower case.
      expected: what `data_dir` should be, for messages.

    Raises:
      InputError: an archive is none, is damaged, or its name does not end in .zip.
    """
    if os.path.isdir(data_dir):
        yield _list_folder(data_dir, folders, tuple(endings))
        return
    check_regular(data_dir, expected)
    if not data_dir.endswith(".zip"):  # the path of a member is split there
        raise InputError(f"{data_dir} has a name that does not end in .zip, expected {expected}")
    try:
        with zipfile.ZipFile(data_dir) as archive:
            yield _list_archive(data_dir, archive, folders, tuple(endings))
    except InputError:
        raise
    except ARCHIVE_ERRORS as error:
        raise InputError(f"{data_dir} {describe_damage(data_dir, error)}") from error


def find_files(data_dir: str, names: Collection[str]) -> dict[str, str]:
    """Finds files by their names, such as the tables beside the audio.

    Args:
      data_dir: a folder, of which the whole tree is searched, or a zip archive.
      names: of the files, with their endings.

    Returns:
      The name of each file that is there -> its path, that in the fewest folders if there are several.
    """
    if os.path.isdir(data_dir):
        paths = (os.path.join(folder, name) for folder in _walk(data_dir) for name in os.listdir(folder))
    else:
        with zipfile.ZipFile(data_dir) as archive:
            paths = (f"{data_dir}::{member}" for member in archive.namelist())
    found = dict[str, str]()
    for path in _in_order(path for path in paths if last_names(path)[1] in names):
        found.setdefault(last_names(path)[1], path)
    return found


def dropped_file(path: str, reason: str, kind: Loss) -> Dropped:
    """Returns a dropped file. What is no text in its name is shown by its codes: results hold text only."""
    path = printable(path)
    return Dropped(os.path.splitext(last_names(path)[1])[0], path, printable(reason), kind)


def last_names(path: str) -> tuple[str, str]:
    """Returns the names of a file's folder and of the file; the folder's is empty at the top of an archive."""
    folder, name = ["", *re.split(r"[/\\]", path.rpartition(".zip::")[2])][-2:]
    return folder, name


def _list_folder(data_dir: str, patterns: Sequence[str], endings: tuple[str, ...]) -> AudioTree:
    for pattern in patterns:
        folders = _walk(data_dir) if pattern == ANYWHERE else glob.glob(os.path.join(glob.escape(data_dir), pattern))
        folders = [path for path in folders if os.path.isdir(path)]
        if folders:
            break
    paths = [os.path.normpath(os.path.join(path, name)) for path in folders for name in os.listdir(path)]
    paths = _in_order(path for path in paths if _is_audio(path, endings))
    files = AudioFiles()
    problems = {path: problem for path in paths if (problem := files.problem(path)) is not None}
    return AudioTree(
        paths=[path for path in paths if path not in problems],
        dropped=[dropped_file(path, sentence, kind) for path, (kind, sentence) in problems.items()],
        notes=[],
        open=lambda path: open(path, "rb"),
        size=os.path.getsize,
    )


def _walk(folder: str) -> list[str]:
    """Returns a folder and all below it but hidden ones. Links to folders are followed, each folder is visited once."""

    def refuse(error: OSError) -> None:
        raise error

    folders = dict[str, str]()  # by their real paths
    for path, names, _ in os.walk(folder, followlinks=True, onerror=refuse):
        names[:] = [] if os.path.realpath(path) in folders else sorted(name for name in names if name[0] != ".")
        folders.setdefault(os.path.realpath(path), path)
    return list(folders.values())


def _list_archive(path: str, archive: zipfile.ZipFile, patterns: Sequence[str], endings: tuple[str, ...]) -> AudioTree:
    prefix = f"{path}::"
    sizes = {member.filename: member.file_size for member in archive.infolist() if _is_audio(member.filename, endings)}
    members = [member for member in archive.namelist() if member in sizes]
    for pattern in patterns:
        chosen = [member for member in members if _is_in(member, pattern)]
        if chosen:
            break
    inside = set(chosen)
    others = [member for member in members if member not in inside]
    notes = []
    if others:
        notes.append(
            f"{count(len(others), 'wav file')} outside the folder {pattern} of the archive left out (the first: "
            f"{printable(others[0])})"
        )
    large = {member for member in chosen if sizes[member] > _LARGEST_MEMBER}
    return AudioTree(
        paths=_in_order(prefix + member for member in chosen if member not in large),
        dropped=[
            dropped_file(
                prefix + member,
                f"{prefix}{member} has {sizes[member]:,} bytes unpacked, expected at most {_LARGEST_MEMBER:,}",
                Loss.AUDIO,
            )
            for member in chosen
            if member in large
        ],
        notes=notes,
        open=lambda path: archive.open(path.removeprefix(prefix)),
        size=lambda path: sizes[path.removeprefix(prefix)],
    )


def _is_in(member: str, pattern: str) -> bool:
    """Returns whether a member of an archive is in a folder, at any depth."""
    folder = PurePosixPath(member.replace("\\", "/")).parent
    return pattern in (".", ANYWHERE) or folder.match(pattern)


def _is_audio(path: str, endings: tuple[str, ...]) -> bool:
    name = last_names(path)[1]
    return name.lower().endswith(endings) and not name.startswith(".")  # macOS writes files called ._*


def _in_order(paths: Iterator[str]) -> list[str]:
    return sorted(paths, key=lambda path: (path.count("/"), path))
