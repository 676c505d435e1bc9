"""The packets of an ogg stream: how many samples those of Vorbis and Opus decode to, from their first bytes.

References: Vorbis I specification (Xiph.Org), 4.2.4 and 4.3.8; RFC 6716, 3.1.
"""

_OPUS_HEADERS, _VORBIS_HEADERS = 2, 3
# Bits of a mode in the setup of Vorbis: block flag, window type and transform type (both 0), mapping.
_MODE_BITS, _MODE_ZEROS, _MODE_MAPPING = 41, 0xFFFFFFFF, 33
_MOST_MODES = 64


class Packets:
    """Counts the samples of a stream's packets, page by page, in units of the pages' own numbers of samples.

    Attributes:
      samples: How many samples the packets up to here decode to; stays 0 for other codecs.
      longest: How many the longest of them has.
    """

    def __init__(self) -> None:
        self.samples = self.longest = 0
        self._number, self._start = 0, bytearray()
        self._blocks: tuple[int, int] | None = None  # of Vorbis: samples of a short and of a long one
        self._modes: list[int] = []  # of Vorbis: which of the two each has
        self._last_block = 0
        self._is_opus = False

    def add(self, sizes: bytes, body: bytes) -> None:
        """Adds a page: the sizes of its segments, and their bytes."""
        place = 0
        for size in sizes:
            if self._number < _VORBIS_HEADERS or len(self._start) < 2:
                self._start += body[place : place + size]
            place += size
            if size < 255:
                self._end_packet(bytes(self._start))
                self._number, self._start = self._number + 1, bytearray()

    def _end_packet(self, start: bytes) -> None:
        if self._number == 0:
            self._is_opus = start.startswith(b"OpusHead")
            if start.startswith(b"\x01vorbis") and len(start) > 28:
                self._blocks = 1 << (start[28] & 15), 1 << (start[28] >> 4)
        elif self._is_opus and self._number >= _OPUS_HEADERS:
            self._count(_opus_samples(start))
        elif self._blocks is not None and self._number == _VORBIS_HEADERS - 1:
            self._modes = _vorbis_modes(start)
        elif self._modes and start and self._blocks is not None and self._number >= _VORBIS_HEADERS:
            mode = start[0] >> 1 & (1 << (len(self._modes) - 1).bit_length()) - 1
            block = self._blocks[self._modes[mode]] if mode < len(self._modes) else 0
            self._count((self._last_block + block) // 4 if self._last_block else 0)
            self._last_block = block

    def _count(self, samples: int) -> None:
        self.samples += samples
        self.longest = max(self.longest, samples)


def _opus_samples(start: bytes) -> int:
    """Returns the samples of an Opus packet, at 48 kHz."""
    if not start:
        return 0
    mode = start[0] >> 3
    if mode < 12:
        frame = (480, 960, 1920, 2880)[mode & 3]
    else:
        frame = (480, 960)[mode & 1] if mode < 16 else (120, 240, 480, 960)[mode & 3]
    return frame * (1, 2, 2, start[1] & 63 if len(start) > 1 else 0)[start[0] & 3]


def _vorbis_modes(setup: bytes) -> list[int]:
    """Returns the block flags of the modes, which end the setup: read from its end, for all else has no fixed size."""
    bits = int.from_bytes(setup, "little")
    place = bits.bit_length() - 1  # of the last bit, which is 1
    flags: list[int] = []
    modes: list[int] = []
    while place >= _MODE_BITS + 6 and len(flags) < _MOST_MODES:
        place -= _MODE_BITS
        mode = bits >> place & (1 << _MODE_BITS) - 1
        if mode >> 1 & _MODE_ZEROS or mode >> _MODE_MAPPING >= _MOST_MODES:
            break
        flags.insert(0, mode & 1)
        if (bits >> (place - 6) & 63) + 1 == len(flags):  # in front of the modes stands how many there are
            modes = flags.copy()
    return modes
