"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
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
