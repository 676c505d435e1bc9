"""Containers of chunks: wav (RIFF, RIFX, RF64, W64), AIFF, SVX and Core Audio."""

import struct
from dataclasses import dataclass, replace
from io import BufferedIOBase

from sejax.errors import InputError
from sejax.features.containers.ending import end_before
from sejax.features.containers.layout import (
    AS_IT_IS,
    NO_LENGTH,
    Layout,
    converted,
    is_unknown,
    joined,
    patched,
    truncated,
)
from sejax.features.containers.mpeg import examine_frames
from sejax.host.wording import count

# What begins a file, and no chunk.
_FILES = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"riff")
# Format tags of wav files: MPEG audio; GSM 6.10, in blocks of so many bytes and frames.
_MPEG_TAGS, _GSM_TAG = (0x50, 0x55), 0x31
_GSM_BYTES, _GSM_FRAMES = 65, 320
# Format tags of samples that each have bytes of their own: PCM and float, which state their bits, and A-law and mu-law
# of 8; the last stands for one that follows.
_PLAIN_TAGS, _LAW_TAGS, _EXTENSIBLE_TAG = (1, 3), (6, 7), 0xFFFE
# Bytes of the description of a format that are looked at.
_FORMAT_BYTES = 40
# A chunk's header before the data, if it says more than that: nobody writes so much.
_HEADER_BYTES = 2**26


@dataclass(frozen=True)
class Chunks:
    """How the chunks of a container are written.

    Args:
      first: Position of the first chunk.
      name: Bytes of a chunk's name.
      header: Bytes of its name and its size.
      size: struct format of a chunk's size.
      align: Chunks begin at multiples of it.
      data: Name of the chunk with the audio.
      prefix: Bytes of this chunk before its audio.
      whole: Position of the size of the whole file, and what it does not count; None where there is no such size.
      own_header: Whether a chunk's size counts its own header.
    """

    first: int
    name: int
    header: int
    size: str
    align: int
    data: bytes
    prefix: int = 0
    whole: tuple[int, int] | None = (4, 8)
    own_header: bool = False

    def read(self, file: BufferedIOBase, position: int) -> tuple[bytes, int] | None:
        """Returns the name of the chunk at a position and the bytes of its contents; None at the end of the file."""
        file.seek(position)
        header = file.read(self.header)
        if len(header) < self.header:
            return None
        (size,) = struct.unpack(self.size, header[self.name :])
        return header[: self.name], size - self.header * self.own_header

    def after(self, content: int, size: int) -> int:
        """Returns where the chunk after one begins."""
        return content + size + -(content + size) % self.align


_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
RIFF = Chunks(first=12, name=4, header=8, size="<I", align=2, data=b"data")
RIFX = Chunks(first=12, name=4, header=8, size=">I", align=2, data=b"data")
W64 = Chunks(first=40, name=16, header=24, size="<Q", align=8, data=_W64_DATA, whole=(16, 0), own_header=True)
AIFF = Chunks(first=12, name=4, header=8, size=">I", align=2, data=b"SSND", prefix=8)
SVX = Chunks(first=12, name=4, header=8, size=">I", align=2, data=b"BODY")
CAF = Chunks(first=8, name=4, header=12, size=">Q", align=1, data=b"data", prefix=4, whole=None)


def examine_chunks(path: str, file: BufferedIOBase, length: int, chunks: Chunks) -> Layout:
    """Compares the size of the chunk with the audio with the file, which has `length` bytes.

    Raises:
      InputError: the file is truncated, holds more than its header states, or has a header that contradicts itself.
    """
    position, tag, note = chunks.first, 0, ""
    wide: tuple[int, int] | None = None  # where the sizes of an RF64 file stand, and that of its audio
    while position < length and (read := chunks.read(file, position)) is not None:
        name, size = read
        content = position + chunks.header
        # Audio of unknown length may state less than its own header; any other chunk would be read for ever.
        if not _is_name(name) or size < (-chunks.header if name == chunks.data else 0):
            break
        if name == chunks.data:
            if wide is not None and size >= 2**32 - 1:
                size = wide[1]
            layout = _examine_data(
                path, file, length, chunks, position=position, size=size, wide=None if wide is None else wide[0]
            )
            layout = replace(layout, note="; ".join(filter(None, (layout.note, note))))
            end = length if layout.head else content + size
            if tag in _MPEG_TAGS:
                return examine_frames(path, file, start=content, end=end)
            if tag == _GSM_TAG:  # libsndfile takes a byte of padding for another block
                return replace(layout, frames=(end - content) // _GSM_BYTES * _GSM_FRAMES)
            return layout
        if name == b"ds64":  # the sizes of an RF64 file, which do not fit in their own fields
            file.seek(content)
            wide = content, int.from_bytes(file.read(16)[8:], "little")
        if name[:4] == b"fmt ":
            file.seek(content)
            tag, note = _check_format(path, file.read(min(size, _FORMAT_BYTES)), chunks)
        if name == b"desc" and chunks is CAF:
            file.seek(content)
            _check_description(path, file.read(min(size, _FORMAT_BYTES)))
        position = chunks.after(content, size)
    return Layout(known=False)


def _check_format(path: str, format: bytes, chunks: Chunks) -> tuple[int, str]:
    """Compares the numbers of the format of a wav file, which state the size of a frame twice.

    Returns:
      The format tag, and a note about the bytes per second: no decoder needs them, and some writers get them wrong.

    Raises:
      InputError: they contradict each other.
    """
    if len(format) < 16:
        return int.from_bytes(format[:2], "little"), ""
    order = chunks.size[0]
    tag, channels, rate, bytes_per_second, block, bits = struct.unpack(f"{order}HHIIHH", format[:16])
    coding = tag
    if tag == _EXTENSIBLE_TAG:
        (coding,) = struct.unpack(f"{order}H", format[24:26].ljust(2, b"\0"))
    if coding in _LAW_TAGS:
        bits = 8
    elif coding not in _PLAIN_TAGS:
        return tag, ""
    _check_frame(path, channels, bits, block)
    right = rate * channels * _sample_bytes(bits)
    if bytes_per_second in (0, right):
        return tag, ""
    return tag, f"its header states {bytes_per_second} bytes per second, which at {rate} Hz would be {right}"


def _check_description(path: str, description: bytes) -> None:
    """Compares the numbers of the format of a Core Audio file, see `_check_format`."""
    if len(description) >= 32 and description[8:12] == b"lpcm":
        block, frames, channels, bits = struct.unpack(">4I", description[16:32])
        if frames == 1:
            _check_frame(path, channels, bits, block)


def _check_frame(path: str, channels: int, bits: int, block: int) -> None:
    """Refuses a frame of another number of bytes than its samples have; 0 is not stated, or told by libsndfile."""
    expected = channels * _sample_bytes(bits)
    if expected and block not in (0, expected):
        raise InputError(
            f"{path}: has a header that contradicts itself: {count(channels, 'sample')} of {bits} bits in each frame "
            f"of {count(block, 'byte')}, expected {count(expected, 'byte')}: copy the file again, or correct its header"
        )


def _sample_bytes(bits: int) -> int:
    return -(-bits // 8)


def _examine_data(
    path: str, file: BufferedIOBase, length: int, chunks: Chunks, *, position: int, size: int, wide: int | None
) -> Layout:
    """Compares the chunk with the audio, which begins at `position` and states `size` bytes, with the file.

    Args:
      wide: Position of the sizes of an RF64 file.
    """
    content = position + chunks.header
    there = length - content
    is_empty = size <= chunks.prefix
    if (is_unknown(size) and size > there) or (is_empty and _chunks_end(path, file, length, chunks, content) is None):
        values = {position + chunks.name: (chunks.size, there + chunks.header * chunks.own_header)}
        if wide is not None:
            values = {wide: ("<Q", length - 8), wide + 8: ("<Q", there)}
        elif chunks.whole is not None:
            place, uncounted = chunks.whole
            values[place] = chunks.size, length - uncounted
        if content > _HEADER_BYTES:
            return Layout(known=False)
        file.seek(0)
        return Layout(head=patched(file.read(content), values), skip=content, note=NO_LENGTH)
    if there < size:
        raise truncated(path, there - chunks.prefix, size - chunks.prefix, "bytes of audio")
    end = chunks.after(content, size)
    stray = _chunks_end(path, file, length, chunks, end)
    if stray is None and end != content + size:  # many writers forget to fill up to an even position
        stray = _chunks_end(path, file, length, chunks, content + size)
    if stray is None:
        remedy = converted(path, read_options="-ignore_length 1") if chunks is RIFF else ""
        return Layout(end=end_before(path, file, min(end, length), length, remedy=remedy))
    return AS_IT_IS


def _chunks_end(path: str, file: BufferedIOBase, length: int, chunks: Chunks, position: int) -> int | None:
    """Returns where the chunks from a position on end: at the end of the file, or None if something else follows.

    Raises:
      InputError: there is audio in them.
    """
    while position < length:
        read = chunks.read(file, position)
        if read is None:
            break
        name, size = read
        if name[:4] in _FILES and position + chunks.header + size <= length:
            raise joined(path, position)
        if not _is_name(name) or size < 0 or position + chunks.header + size > length:
            return None
        if name == chunks.data and size > chunks.prefix:
            raise InputError(
                f"{path}: has a second chunk of audio at byte {position}, expected one: "
                f"convert it with {converted(path)}"
            )
        position = chunks.after(position + chunks.header, size)
    return position


def _is_name(name: bytes) -> bool:
    return all(0x20 <= byte < 0x7F for byte in name[:4])
