"""What is known of a file before it is decoded, and the words for what is wrong with it."""

import os
import shlex
import struct
from dataclasses import dataclass

from sejax.errors import InputError
from sejax.host.archives import shell_command, split_archive

# Lengths that writers put in a header when they did not know it (a pipe, a recorder that was killed): the largest of
# their field, or of a signed one, less some header; sox writes 0x7F000000 in AIFF files.
_UNKNOWN_NEAR = (0x7F000000, 2**31, 2**32, 2**63, 2**64)
_UNKNOWN_WITHIN = 2**16

NO_LENGTH = "its header states no length, it is read to its end"


@dataclass(frozen=True)
class Layout:
    """How libsndfile is to read a file: by default as it is.

    `head` stands in place of the file's first `skip` bytes: a header that states the real length. `lead` is the number
    of frames of audio that `head` adds, which are dropped. `frames` is how many frames the file has where libsndfile's
    count is not to be trusted; `end` where its audio ends, in bytes, where libsndfile would read what follows too.
    `known` is False where only libsndfile can tell. `note` says what is unusual.
    """

    head: bytes = b""
    skip: int = 0
    lead: int = 0
    frames: int | None = None
    end: int | None = None
    known: bool = True
    note: str = ""


AS_IT_IS = Layout()


def is_unknown(length: int) -> bool:
    """Returns whether a length in a header means that its writer did not know it; 0 may also mean empty."""
    return any(-_UNKNOWN_WITHIN <= length - near <= _UNKNOWN_WITHIN for near in _UNKNOWN_NEAR)


def converted(path: str, *, options: str = "", read_options: str = "") -> str:
    """Returns the ffmpeg command that writes a file's audio to a wav file beside it."""
    file, member = split_archive(path)
    stem, extension = os.path.splitext(os.path.basename(member) if member else file)
    target = f"{stem}_mended.wav" if extension.lower() == ".wav" else f"{stem}.wav"
    program = " ".join(filter(None, ("ffmpeg", read_options, "-i")))
    return shell_command(program, path, " ".join(filter(None, (options, shlex.quote(target)))))


def truncated(path: str, there: int, promised: int, unit: str) -> InputError:
    """Returns the error for a file that ends early: `there` of the `promised` units (a plural noun) are there."""
    return InputError(
        f"{path}: is truncated, has {there} {unit}, expected the {promised} of its header: copy the file again, or "
        f"keep what is there with {converted(path)}"
    )


def joined(path: str, position: int) -> InputError:
    """Returns the error for a file behind whose audio a second file begins, at a byte."""
    return InputError(
        f"{path}: holds two audio files, of which the second begins at byte {position}, expected one: cut them apart "
        f"with {shell_command(f'head -c {position}', path, '> first')} and "
        f"{shell_command(f'tail -c +{position + 1}', path, '> second')}"
    )


def patched(content: bytes, values: dict[int, tuple[str, int]]) -> bytes:
    """Returns the bytes with integers put in at positions: position -> (struct format, value)."""
    changed = bytearray(content)
    for position, (format, value) in values.items():
        struct.pack_into(format, changed, position, min(value, 256 ** struct.calcsize(format) - 1))
    return bytes(changed)
