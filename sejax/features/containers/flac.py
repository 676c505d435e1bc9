"""FLAC: the number of samples in its header, and the last frame of the file."""

import re
import struct
from collections.abc import Iterator
from io import BufferedIOBase
from typing import NamedTuple

from sejax.features.containers.ending import end_before
from sejax.features.containers.layout import AS_IT_IS, NO_LENGTH, Layout, joined, patched, truncated
from sejax.features.containers.mpeg import begins_with_frames
from sejax.features.containers.tags import BEGINNINGS, TAGS

# The beginning of a FLAC file: its marker, and the header of the block STREAMINFO (the last block, or not).
_BEGINNINGS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
_HEADER = 42
_BLOCK = 2**20
# Where the last frame is looked for first. A frame has at most 65,535 samples.
_TAIL, _LONG_TAIL = 2**16, 2**22
# Bytes inside a frame that look like the header of one, at most.
_COINCIDENCES = 4
_BLOCK_SIZES = {1: 192, **{2 + i: 576 << i for i in range(4)}, **{8 + i: 256 << i for i in range(8)}}
# What may begin behind the last frame: tags, another file, an MPEG frame.
_BEHIND = re.compile(b"|".join(map(re.escape, (*TAGS, *BEGINNINGS, b"\xff"))))


def _crc_table(polynomial: int, bits: int) -> list[int]:
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> (bits - 1) & 1 else 0)
        table.append(value & (1 << bits) - 1)
    return table


_CRC8, _CRC16 = _crc_table(0x07, 8), _crc_table(0x8005, 16)


class _Frame(NamedTuple):
    position: int  # in the bytes that were searched
    end: int  # the number of its last sample + 1


def examine_flac(path: str, file: BufferedIOBase, length: int, start: int) -> Layout:
    """Compares the number of samples in the header, at byte `start`, with the number of the last frame.

    Raises:
      InputError: the file is truncated, holds more than its header states, or a second file.
    """
    file.seek(start)
    header = file.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(_BEGINNINGS):
        return Layout(known=False)
    second = _find(file, start + _HEADER, _BEGINNINGS)
    if second is not None:
        raise joined(path, second)
    promised = int.from_bytes(header[21:26]) & (1 << 36) - 1
    # A small tail holds the last frame of most files; its checksum is not needed where it ends as promised.
    for size in (_TAIL, _LONG_TAIL):
        begin = max(start + _HEADER, length - size)
        file.seek(begin)
        tail = file.read()
        frames = sorted(_frames(tail, header))
        if promised and frames and frames[-1].end == promised:
            _check_behind(path, file, begin, tail, frames[-1])
            return AS_IT_IS
        last = _last_whole(tail, frames)
        if last is not None or begin == start + _HEADER:
            break
    samples = 0 if last is None else last.end
    if promised == 0 and samples:
        head = patched(header[:26], {22: (">I", samples & 2**32 - 1), 21: ("B", header[21] & 0xF0 | samples >> 32)})
        file.seek(0)
        return Layout(head=file.read(start) + head, skip=start + 26, note=NO_LENGTH)
    if samples < promised:
        raise truncated(path, samples, promised, "samples")
    if samples > promised:
        end_before(path, file, begin + (last.position if last else 0), length)
    elif last is not None:
        _check_behind(path, file, begin, tail, last)
    return AS_IT_IS


def _check_behind(path: str, file: BufferedIOBase, begin: int, tail: bytes, last: _Frame) -> None:
    """Refuses a second file behind the last frame, whose checksum tells where it ends."""
    rest = tail[last.position :]
    for match in _BEHIND.finditer(rest):
        place = match.start()
        if (match[0] != b"\xff" or begins_with_frames(rest[place:])) and _crc(_CRC16, 16, rest[:place]) == 0:
            end_before(path, file, begin + last.position + place, begin + len(tail))


def _find(file: BufferedIOBase, position: int, needles: tuple[bytes, ...]) -> int | None:
    """Returns the position of the first of some bytes, None if there are none."""
    file.seek(position)
    kept, overlap = b"", len(needles[0]) - 1
    while block := file.read(_BLOCK):
        block = kept + block
        found = [place for needle in needles if (place := block.find(needle)) >= 0]
        if found:
            return position - len(kept) + min(found)
        position += len(block) - len(kept)
        kept = block[-overlap:]
    return None


def _frames(content: bytes, header: bytes) -> Iterator[_Frame]:
    """Yields the frames whose headers are found."""
    for sync in (b"\xff\xf8", b"\xff\xf9"):
        place = content.find(sync)
        while place >= 0:
            end = _sample_end(content[place : place + 16], header)
            if end is not None:
                yield _Frame(place, end)
            place = content.find(sync, place + 1)


def _sample_end(frame: bytes, header: bytes) -> int | None:
    """Returns the number of the sample behind a frame, None if its header is none."""
    if len(frame) < 6 or frame[3] & 1:
        return None
    size_code, rate_code = frame[2] >> 4, frame[2] & 15
    if size_code == 0 or rate_code == 15:
        return None
    lead = frame[4]  # the number is coded as UTF-8 codes a character
    extra = 0 if lead < 0x80 else 8 - (lead ^ 0xFF).bit_length() - 1
    number = lead if extra == 0 else lead & (0x3F >> extra)
    rest = frame[5 : 5 + extra]
    if (lead >= 0x80 and extra < 1) or len(rest) < extra or any(byte >> 6 != 2 for byte in rest):
        return None
    for byte in rest:
        number = number << 6 | byte & 0x3F
    place = 5 + extra
    if size_code in (6, 7):
        width = size_code - 5
        block_size = int.from_bytes(frame[place : place + width]) + 1
        place += width
    else:
        block_size = _BLOCK_SIZES[size_code]
    place += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if len(frame) <= place or _crc(_CRC8, 8, frame[:place]) != frame[place]:
        return None
    if frame[1] & 1:
        return number + block_size
    return number * struct.unpack(">H", header[10:12])[0] + block_size


def _last_whole(content: bytes, frames: list[_Frame]) -> _Frame | None:
    """Returns the last of the sorted frames whose checksum is right: up to one of the next, or to the end."""
    for number, frame in reversed(list(enumerate(frames))):
        following = frames[number + 1 : number + 1 + _COINCIDENCES]
        for end in (*(other.position for other in following), len(content)):
            if _crc(_CRC16, 16, content[frame.position : end]) == 0:
                return frame
    return None


def _crc(table: list[int], bits: int, content: bytes) -> int:
    value, mask = 0, (1 << bits) - 1
    for byte in content:
        value = (value << 8 & mask) ^ table[value >> (bits - 8) ^ byte]
    return value
