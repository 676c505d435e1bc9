"""The audio files of a folder, by their names."""

import os
from collections.abc import Iterator

from sejax.corpora.files import is_audio
from sejax.errors import InputError


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
