"""Files and folders that are written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sejax.errors import InputError


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, errors: str = "strict") -> Iterator[TextIO]:
    """Opens a UTF-8 text file that replaces `path` when the block ends without an exception.

    The text is written to `<path>.partial` in the same folder. An exception removes that file and leaves `path` as
    it was. Newlines are written as given, on every system.

    Args:
      path: of the file.
      errors: what becomes of text that is no Unicode, as `open` takes it.

    Raises:
      InputError: there is a folder of that name.
    """
    partial = Path(f"{os.fspath(path)}.partial")
    for name in (partial, Path(path)):
        if name.is_dir():
            raise InputError(f"{name}: is a folder, expected a file, which is written here; move it away")
    try:
        with open(partial, "w", newline="", encoding="utf-8", errors=errors) as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Gives a new folder, which replaces `folder` as a whole when the block ends without an exception.

    An exception leaves `folder`, and everything beside it, as it was. See `require_replaceable`.

    Raises:
      InputError: a folder cannot be made there.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}), expected a folder on a disk") from error
    partial = Path(place, folder.name)  # mkdtemp's own folder is for its owner alone
    try:
        partial.mkdir()
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def require_replaceable(folder: Path, *, what: str, mark: str, own: Callable[[str], bool]) -> None:
    """Refuses a folder that holds anything but what is replaced.

    Args:
      folder: resolved.
      what: is written there, with its article.
      mark: the file that a folder of this kind has.
      own: whether a file or folder of a name in it belongs to this kind.

    Raises:
      InputError: it is the current folder, a file, or holds something else.
    """
    if folder == Path.cwd():
        raise InputError(f"{folder}: is the current folder, expected another one, which is replaced")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder, or nothing, where {what} is written")
    names = sorted(path.name for path in folder.iterdir())
    if names and not (folder / mark).is_file():
        raise InputError(f"{folder}: holds other files, expected an empty folder, {what}, or nothing")
    if others := [name for name in names if not own(name)]:
        raise InputError(
            f"{folder}: holds {', '.join(others[:4])} beside {what}, which would be deleted, expected {what} alone: "
            "export to another folder"
        )
