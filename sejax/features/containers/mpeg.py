"""MPEG audio (mp3, mp2): its frames, counted.

libsndfile (mpg123) believes the number of frames in the header, and estimates it from the bit rate of the first frame
where there is none. A file of variable bit rate is then read in part.
"""

import io
from functools import lru_cache
from io import BufferedIOBase
from typing import NamedTuple

from sejax.errors import InputError
from sejax.features.containers.layout import AS_IT_IS, NO_LENGTH, Layout, converted, joined, truncated
from sejax.features.containers.tags import BEGINNINGS, TAGS, tags_end

_BIT_RATES = {  # in kbit/s, by (MPEG-1 or not, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_MONO = 3
# Bytes in front of the first frame that are looked through: padding behind tags, the rest of a frame.
_SEARCHED = 2**16
# Frames of one kind in a row that show that they are no coincidence.
_IN_A_ROW = 3
# The largest file whose frames are counted, in bytes: it is read into memory.
_BYTES = 2**30
# libsndfile recognises MPEG audio in memory by an ID3 tag in front of it: ten bytes of padding.
_TAG = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10)


class _Header(NamedTuple):
    size: int  # bytes of the frame
    samples: int
    rate: int
    layer: int
    mono: bool

    def sounds_like(self, other: "_Header") -> bool:
        return self[1:] == other[1:]


class _Walk(NamedTuple):
    frames: int
    end: int  # where the last whole frame ends
    cut: bool  # whether a frame ends behind the end
    junk: int | None  # position of bytes between frames that are no frame
    second: int | None = None  # where the frames of a second file begin


def is_frame(header: bytes) -> bool:
    """Returns whether bytes begin with the header of an MPEG frame."""
    return _header(header[:4]) is not None


def begins_with_frames(content: bytes) -> bool:
    """Returns whether bytes begin with MPEG frames, of which several show that they are no coincidence."""
    return _row(content, 0) == _IN_A_ROW


def examine_frames(path: str, file: BufferedIOBase, *, start: int, end: int, tagged: bool = False) -> Layout:
    """Counts the MPEG frames between two bytes of a file, and compares them with the number in the first.

    Args:
      tagged: Whether the file begins with an ID3 tag.

    Raises:
      InputError: the file is truncated or damaged, holds a second one, or changes its sampling rate.
    """
    if end - start > _BYTES:
        raise InputError(
            f"{path}: has {end - start} bytes of mp3, expected at most {_BYTES}: convert it with {converted(path)}"
        )
    file.seek(start)
    content = file.read(end - start)
    first = _first_frame(content)
    if first is None:
        return Layout(known=False)
    header = _header(content[first : first + 4])
    assert header is not None
    kind, promised = _information(content[first : first + header.size], header)
    note = ""
    if promised == 0:  # the writer did not come back to it
        promised, note = None, NO_LENGTH
    begin = first + header.size if kind else first
    walk = _walk(path, content, begin, header)
    if walk.second is not None:
        raise joined(path, start + walk.second)
    if promised is not None:
        whole = walk.frames >= promised - 1 and (walk.frames >= promised or not (walk.cut or walk.junk))
        if not whole:
            raise truncated(path, walk.frames, promised, "mp3 frames")
        if walk.frames > promised + 1:
            raise InputError(
                f"{path}: has {walk.frames} mp3 frames, expected the {promised} of its header (two files joined?): "
                f"read them all with {converted(path)}"
            )
    if promised is not None and kind != b"VBRI":  # which mpg123 does not read
        return AS_IT_IS if tagged else Layout(head=_TAG, skip=start + first)
    if walk.frames == 0:
        raise InputError(f"{path}: has 0 whole mp3 frames, expected speech")
    if walk.junk is not None:
        raise InputError(
            f"{path}: is damaged, has no mp3 frame at byte {start + walk.junk}, expected one: keep what is there with "
            f"{converted(path)}"
        )
    if walk.cut:
        raise InputError(
            f"{path}: is truncated, ends inside an mp3 frame, expected whole ones: copy the file again, or keep what "
            f"is there with {converted(path)}"
        )
    return Layout(
        head=_TAG + _silent_frame(content[first : first + 4]),
        skip=start + begin,
        lead=header.samples,
        frames=walk.frames * header.samples,
        note=note,
    )


@lru_cache(maxsize=4096)
def _header(start: bytes) -> _Header | None:
    """Reads the four bytes in front of a frame; None if they are none, or leave its size open."""
    if len(start) < 4 or start[0] != 0xFF or start[1] & 0xE0 != 0xE0:
        return None
    version, layer, bit_rate, rate = start[1] >> 3 & 3, 4 - (start[1] >> 1 & 3), start[2] >> 4, start[2] >> 2 & 3
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None
    hertz, bits = _RATES[version][rate], 1000 * _BIT_RATES[version == 3, layer][bit_rate - 1]
    padding = start[2] >> 1 & 1
    if layer == 1:
        size, samples = 4 * (12 * bits // hertz + padding), 384
    else:
        samples = 576 if layer == 3 and version != 3 else 1152
        size = samples // 8 * bits // hertz + padding
    return _Header(size, samples, hertz, layer, start[3] >> 6 == _MONO)


def _first_frame(content: bytes) -> int | None:
    """Returns where the first frame begins: one that others of its kind follow, or the end."""
    place = content.find(b"\xff")
    while 0 <= place < _SEARCHED:
        if _row(content, place) >= _IN_A_ROW:
            return place
        place = content.find(b"\xff", place + 1)
    return 0 if _header(content[:4]) is not None else None


def _row(content: bytes, place: int) -> int:
    """Returns how many frames of a kind follow each other from a place on, at most `_IN_A_ROW`."""
    first = _header(content[place : place + 4])
    for count in range(_IN_A_ROW):
        header = _header(content[place : place + 4])
        if header is None or first is None or not header.sounds_like(first):
            # A row may end with the file, or with its tags.
            ends = count > 0 and (place >= len(content) or content.startswith(TAGS, place))
            return _IN_A_ROW if ends else count
        place += header.size
    return _IN_A_ROW


def _information(frame: bytes, header: _Header) -> tuple[bytes, int | None]:
    """Returns which information a frame is instead of audio (b"": none), and the number of frames that it states."""
    if header.layer != 3:
        return b"", None
    side = {(1152, True): 17, (1152, False): 32, (576, True): 9, (576, False): 17}[header.samples, header.mono]
    # Some writers place it behind the checksum of a frame that has one.
    for place in (4 + side, 6 + side):
        if frame[place : place + 4] in (b"Xing", b"Info"):
            states = frame[place + 7] & 1 if len(frame) > place + 11 else 0
            return b"Xing", int.from_bytes(frame[place + 8 : place + 12]) if states else None
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        return b"VBRI", int.from_bytes(frame[50:54])
    return b"", None


def _walk(path: str, content: bytes, place: int, first: _Header) -> _Walk:
    """Walks from frame to frame.

    Raises:
      InputError: the sampling rate or the number of channels changes.
    """
    frames, junk, end = 0, None, len(content)
    while place < end:
        header = _header(content[place : place + 4])
        if header is not None and header.sounds_like(first):
            if place + header.size > end:
                return _Walk(frames, place, True, junk)
            if _information(content[place : place + header.size], header)[0]:
                return _Walk(frames, place, False, junk, second=place)
            place += header.size
            frames += 1
            continue
        if header is not None and header.layer == first.layer and _row(content, place) == _IN_A_ROW:
            raise InputError(
                f"{path}: changes from {_described(first)} to {_described(header)} at byte {place} of its mp3 frames, "
                f"expected one file: convert it with {converted(path)}"
            )
        following = _next_frame(content, place, first)
        if following is None:
            rest = tags_end(io.BytesIO(content), place)
            if content.startswith(BEGINNINGS, rest):
                return _Walk(frames, place, False, junk, second=rest)
            is_rest = content.startswith(TAGS, place) or not content[place:].strip(b"\0")
            # A header that is cut, too, is the rest of a frame.
            return _Walk(frames, place, False, junk if is_rest or junk is not None else place)
        if content.startswith(TAGS, place):
            return _Walk(frames, place, False, junk, second=following)
        if junk is None:
            junk = place
        place = following
    return _Walk(frames, place, False, junk)


def _next_frame(content: bytes, place: int, first: _Header) -> int | None:
    """Returns where the frames of the first one's kind, or of another after tags, go on behind something else."""
    place = content.find(b"\xff", place + 1)
    while place >= 0:
        header = _header(content[place : place + 4])
        if header is not None and header.layer == first.layer and _row(content, place) == _IN_A_ROW:
            return place
        place = content.find(b"\xff", place + 1)
    return None


def _described(header: _Header) -> str:
    return f"{header.rate} Hz {'mono' if header.mono else 'stereo'}"


def _silent_frame(start: bytes) -> bytes:
    """Returns a silent frame of the lowest bit rate, of the kind of the frame that begins with these four bytes.

    In front of the others it makes mpg123 expect more frames than there are, so that it reads them all.
    """
    start = bytes([0xFF, start[1] | 1, 0x10 | start[2] & 0x0C, start[3]])
    header = _header(start)
    assert header is not None
    return start + bytes(header.size - 4)
