"""The audio files of a folder, by their names."""

import os
from collections.abc import Iterator
from pathlib import Path

import soundfile

from sejax.errors import InputError

# What files of libsndfile's formats are called, beside the formats' own names.
_SUFFIXES = {".wave", ".aif", ".aifc", ".oga", ".opus", ".snd", ".sph", ".nist", ".mp2", ".mpeg"}
# Audio and video that cannot be read here: a folder's other files are passed over, these are named in an error.
_FOREIGN = {".m4a", ".mp4", ".aac", ".wma", ".amr", ".3gp", ".webm", ".mkv", ".mov", ".avi"}


def is_audio(name: str) -> bool:
    """Returns whether a file is called as audio is."""
    suffix = Path(name).suffix.casefold()
    return suffix in _SUFFIXES | _FOREIGN or suffix.removeprefix(".").upper() in soundfile.available_formats()


def audio_files(folder: str) -> list[str]:
    """Returns the paths of the audio files in a folder and in the folders below it, sorted; not the hidden ones.

    Raises:
      InputError: a folder cannot be listed.
    """
    return sorted(_audio_files(folder))


def _audio_files(folder: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror}), expected a folder") from error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(root, name) for name in names if is_audio(name) and not name.startswith("."))
