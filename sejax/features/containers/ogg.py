"""Ogg: its pages, which are numbered, have checksums, say at which sample they end, and of which the last says so."""

import struct
import zlib
from io import BufferedIOBase

from sejax.errors import InputError
from sejax.features.containers.ending import end_before
from sejax.features.containers.layout import Layout, converted
from sejax.features.containers.packets import Packets

_CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"fLaC", b"Speex   ")
_FIRST, _LAST = 2, 4
# The bytes with their bits in reverse order, for a checksum that zlib computes the other way round.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_HEADER = 27
# Packets by which pages may differ from what is in them: libvorbis and libopus fill up less than one, at the end.
_TOLERATED = 2
_NO_SAMPLE = -1  # of a page in which no packet ends


def examine_ogg(path: str, file: BufferedIOBase, length: int) -> Layout:
    """Walks through the pages of a file of `length` bytes.

    Raises:
      InputError: the file is truncated, has a damaged or missing page, one that ends before the samples that are in
        it and in front of it, or a second stream behind the first.
    """
    position, serial, number, ended, bodies = 0, None, 0, False, False
    ends = _Ends()
    file.seek(0)
    mended = f"keep what is there with {converted(path)}"
    while position < length:
        header = file.read(_HEADER)
        if header[:4] != b"OggS":
            break
        if len(header) < _HEADER:
            raise _ends_inside(path, position, mended)
        kind, samples, stream, page, checksum, segments = struct.unpack("<5xBqIIIB", header)
        sizes = file.read(segments)
        body = file.read(sum(sizes))
        if len(sizes) < segments or len(body) < sum(sizes):
            raise _ends_inside(path, position, mended)
        if _checksum(header[:22] + bytes(4) + header[26:] + sizes + body) != checksum:
            raise InputError(f"{path}: is damaged, the checksum of its ogg page at byte {position} is wrong: {mended}")
        if kind & _FIRST:
            if bodies:
                raise InputError(
                    f"{path}: holds two ogg streams, of which the second begins at byte {position}, expected one: join "
                    f"them with {converted(path)}"
                )
            if serial is None and body.startswith(_CODECS):
                serial, number = stream, page
        else:
            bodies = True
        if stream == serial:
            if page != number:
                raise InputError(f"{path}: is damaged, ogg page {number} is missing at byte {position}: {mended}")
            number, ended = page + 1, ended or bool(kind & _LAST)
            ends.add(path, position, samples, is_last=bool(kind & _LAST), sizes=sizes, body=body)
        position += _HEADER + segments + len(body)
    if serial is None:
        return Layout(known=False)
    if not ended:
        raise InputError(f"{path}: is truncated, has no last ogg page, expected one: copy the file again, or {mended}")
    return Layout(end=end_before(path, file, position, length), note=ends.note)


class _Ends:
    """Compares the samples at which pages say that they end with those that are in them: decoders believe the pages.

    Attributes:
      note: What is unusual.
    """

    def __init__(self) -> None:
        self.note = ""
        # Samples in front of a page, as the pages and as their packets have it.
        self._end, self._counted, self._packets = 0, 0, Packets()

    def add(self, path: str, position: int, samples: int, *, is_last: bool, sizes: bytes, body: bytes) -> None:
        """Adds the page at a byte, which says that it ends at a sample.

        Raises:
          InputError: it says that it ends too early, or too late, or does not say it where it has to.
        """
        mended = f"copy the file again, or keep what is there with {converted(path)}"
        self._packets.add(sizes, body)
        if samples == _NO_SAMPLE:
            # A page that ends inside a packet has 255 as its last size.
            if is_last and sizes and sizes[-1] < 255:
                raise InputError(
                    f"{path}: is damaged, its last ogg page, at byte {position}, does not say at which sample it ends: "
                    f"{mended}"
                )
            return
        inside, tolerance = self._packets.samples - self._counted, _TOLERATED * self._packets.longest
        least = self._end + (max(inside - tolerance, 0) if is_last else 0)
        if samples < least:
            raise InputError(
                f"{path}: is damaged, its ogg page at byte {position} ends at sample {samples}, expected {least} or "
                f"more, which are in it and in front of it: {mended}"
            )
        missing = samples - self._end - inside
        if missing > tolerance and inside and not self._counted:
            self.note = f"begins at sample {missing} of its stream, what was before is not in the file"
        elif missing > tolerance and self._counted and not is_last:
            raise InputError(
                f"{path}: is damaged, {missing} samples are missing in front of its ogg page at byte {position}, "
                f"expected all: {mended}"
            )
        self._end, self._counted = samples, self._packets.samples


def _ends_inside(path: str, position: int, mended: str) -> InputError:
    return InputError(
        f"{path}: is truncated, ends inside the ogg page at byte {position}, expected whole pages: copy the file "
        f"again, or {mended}"
    )


def _checksum(page: bytes) -> int:
    """Returns the CRC-32 of RFC 3533: zlib's polynomial, most significant bit first, without inversion."""
    state = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(state.to_bytes(4, "little").translate(_REVERSED))
