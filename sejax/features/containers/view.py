"""A file as libsndfile sees it."""

import io
from io import BufferedIOBase
from typing import Any


class Memory(io.BytesIO):
    """A file in memory, without exceptions: libsndfile, which is C, cannot pass them on."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_SET:
            return super().seek(max(offset, 0))
        return super().seek(offset, whence)


class View:
    """A file with other first bytes or another end, and without exceptions, see `Memory`.

    Args:
      file: Open for random access.
      head: Stands in place of the file's first `skip` bytes.
      end: Where it ends, in bytes of the file; None is its own end.
    """

    def __init__(self, file: BufferedIOBase, head: bytes, skip: int, end: int | None) -> None:
        self._file, self._head, self._shift = file, head, len(head) - skip
        self._end, self._position = end, 0
        self.error: OSError | None = None  # the first that was met

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            if whence == io.SEEK_CUR:
                offset += self._position
            elif whence == io.SEEK_END:
                end = self._file.seek(0, io.SEEK_END) if self._end is None else self._end
                offset += end + self._shift
            self._position = max(offset, 0)
        except OSError as error:
            self._keep(error)
        return self._position

    def readinto(self, buffer: Any) -> int:  # memory of libsndfile's
        done, buffer = 0, memoryview(buffer)
        try:
            if self._position < len(self._head):
                part = self._head[self._position : self._position + len(buffer)]
                buffer[: len(part)] = part
                done = len(part)
            if done < len(buffer):
                place = self._file.seek(self._position + done - self._shift)
                left = len(buffer) if self._end is None else max(self._end - place, 0)
                done += self._file.readinto(buffer[done : done + left])
        except OSError as error:
            self._keep(error)
        self._position += done
        return done

    def _keep(self, error: OSError) -> None:
        self.error = self.error or error
