"""Tags behind and in front of audio (ID3, APE, Lyrics3), and the first bytes of audio files."""

from io import BufferedIOBase

TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
BEGINNINGS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"caff", b"fLaC", b"OggS", b"NIST")
_LYRICS_ENDS = (b"LYRICS200", b"LYRICSEND")
_LYRICS_BYTES = 2**20


def id3_end(file: BufferedIOBase, position: int = 0) -> int:
    """Returns where the ID3v2 tags end that begin at a position."""
    while size := _id3_bytes(_read(file, position, 10)):
        position += size
    return position


def tags_end(file: BufferedIOBase, position: int) -> int:
    """Returns where the tags end that begin at a position."""
    while size := _tag_bytes(file, position):
        position += size
    return position


def _tag_bytes(file: BufferedIOBase, position: int) -> int:
    """Returns the bytes of the tag at a position, 0 without one."""
    start = _read(file, position, 32)
    if start.startswith(b"ID3"):
        return _id3_bytes(start[:10])
    if start.startswith(b"TAG"):
        return 227 if start.startswith(b"TAG+") else 128
    if start.startswith(b"APETAGEX"):  # its size does not count this header
        return 32 + int.from_bytes(start[12:16], "little")
    if start.startswith(b"LYRICSBEGIN"):
        lyrics = _read(file, position, _LYRICS_BYTES)
        return min((lyrics.index(end) + len(end) for end in _LYRICS_ENDS if end in lyrics), default=0)
    return 0


def _id3_bytes(header: bytes) -> int:
    if len(header) < 10 or header[:3] != b"ID3" or max(header[6:10]) > 127:
        return 0
    size = int.from_bytes(header[6:10])
    size = (size >> 24 & 127) << 21 | (size >> 16 & 127) << 14 | (size >> 8 & 127) << 7 | size & 127
    return 10 + size + 10 * bool(header[5] & 0x10)


def _read(file: BufferedIOBase, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)
