"""What tells the audio of a corpus from other audio: the bytes of its files, wherever they lie and whenever changed.

Reading all bytes takes as long as decoding them. A cache therefore remembers the digest of each file, and beside it
size, inode and times: the time of the last change of the inode (ctime) is the system's own, so that no copy, archive
or `touch` can set it back. As long as all of them are equal, the file is not read.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Collection, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sejax.corpora.schema import Utterance
from sejax.errors import InputError
from sejax.features.corrupt import files_of
from sejax.host.archives import split_archive
from sejax.host.atomic import atomic_write
from sejax.host.processes import map_in_threads

REMEMBERED = "audio_digests.json"
# A file that has changed so lately could change again without another time: clocks of file systems are coarse.
_SETTLED_SECONDS = 2.0
_AHEAD = 64  # files

Known = dict[str, list[Any]]  # by path: what is equal while the file is unchanged, and the digest


def fingerprint_audio(
    utterances: Sequence[Utterance], cache_dir: str, *, workers: int
) -> Generator[list[Any], None, None]:
    """Yields for every utterance its id, the name and the digest of its file, and its cut.

    They differ if its audio has changed. The folder of a file is left out: a corpus may be moved.

    Args:
      utterances: Their `path`, `start` and `end` are read.
      cache_dir: Where the digests are remembered, if it can be written.
      workers: Number of threads that read files.
    """
    digests = _digest_files(
        dict.fromkeys(split_archive(utterance.path)[0] for utterance in utterances), cache_dir, workers=workers
    )
    for utterance in utterances:
        file, member = split_archive(utterance.path)
        yield [utterance.id, member or os.path.basename(file), digests[file], utterance.start, utterance.end]


def fingerprint_folder(folder: str, cache_dir: str, *, workers: int) -> str:
    """Returns a digest of the names and bytes of the files that a corruption draws from, wherever the folder lies.

    Args:
      folder: see `sejax.features.corrupt.files_of`.
      cache_dir: see `fingerprint_audio`.
      workers: see `fingerprint_audio`.

    Raises:
      InputError: there is no such folder, or no audio in it.
    """
    files = files_of(folder)
    digests = _digest_files(files, cache_dir, workers=workers)
    names = [(os.path.relpath(file, os.path.expanduser(folder)), digests[file]) for file in files]
    return hashlib.blake2b(json.dumps(names).encode(), digest_size=16).hexdigest()


def _digest_files(files: Collection[str], cache_dir: str, *, workers: int) -> dict[str, str]:
    """Returns the digest of each file, and remembers those that are new."""
    remembered = Path(cache_dir, REMEMBERED)
    known, changed = _read_known(remembered), False
    digests = {}
    found = map_in_threads(partial(_digest, known), map(os.path.abspath, files), threads=workers, ahead=_AHEAD)
    for file, (entry, settled) in zip(files, found, strict=True):
        digests[file] = entry[-1]
        path = os.path.abspath(file)
        if settled and known.get(path) != entry:
            known[path], changed = entry, True
    if changed:
        _write_known(remembered, known)
    return digests


def _digest(known: Known, path: str) -> tuple[list[Any], bool]:
    """Returns what is to be remembered of a file, its digest last, and whether it may be.

    What cannot be read is a bad file in the stored features, until it can be: its digest says only why.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for its writer
            return [stat.filemode(status.st_mode)[0]], False
        sign = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        with open(path, "rb") as file:  # also shows that it may be read
            if (entry := known.get(path)) and entry[:-1] == sign:
                return entry, True
            digest = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()
    except (OSError, ValueError):  # ValueError: a path with a NUL
        return [""], False
    return [*sign, digest], status.st_ctime < time.time() - _SETTLED_SECONDS


def _read_known(path: Path) -> Known:
    """Returns what is remembered; nothing if the file is absent or damaged."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {path: entry for path, entry in tree.items() if isinstance(entry, list)} if isinstance(tree, dict) else {}


def _write_known(path: Path, known: Known) -> None:
    try:
        with atomic_write(path) as file:
            json.dump(known, file, indent=0)
    except (OSError, InputError):  # a cache that can only be read, or has a folder of that name
        pass
