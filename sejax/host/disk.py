"""What a disk refuses, in words."""

import errno
import os
from collections.abc import Iterator

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def disk_problem(error: BaseException) -> str | None:
    """Returns what the disk refuses, such as "No space left on device", if that has caused an error; None if not.

    Libraries that write in C++ (tensorstore) report the words of the system without its number.
    """
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _REFUSALS:
            where = f": {cause.filename}" if cause.filename else ""
            return f"{os.strerror(cause.errno)}{where}"
        for words in map(os.strerror, _REFUSALS):
            if words in str(cause):
                return words
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, the one that caused it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
