"""What stands behind the audio of a file."""

from io import BufferedIOBase

from sejax.errors import InputError
from sejax.features.containers.layout import joined
from sejax.features.containers.mpeg import begins_with_frames
from sejax.features.containers.tags import BEGINNINGS, tags_end

# Bytes behind the audio that are allowed whatever they are: less than one window at 16 kHz and 16 bits.
_STRAY_BYTES = 800
_BLOCK = 2**20


def end_before(path: str, file: BufferedIOBase, position: int, length: int, *, remedy: str = "") -> int | None:
    """Returns where the audio ends, None for the end of the file, and refuses bytes behind it that may be audio too.

    Zeros (padding) and tags are none.

    Args:
      position: Where the audio ends, in bytes.
      length: Of the file, in bytes.
      remedy: What mends it, for the sentence.

    Raises:
      InputError: there is more.
    """
    if position >= length:
        return None
    rest = tags_end(file, position)
    file.seek(rest)
    block = file.read(_BLOCK)
    if block.startswith(BEGINNINGS) or begins_with_frames(block):
        raise joined(path, rest)
    if length - rest <= _STRAY_BYTES:
        return position
    while block:
        if block.strip(b"\0"):
            raise InputError(
                f"{path}: has {length - rest} bytes behind the audio that its header states, expected none"
                + (
                    f": read them as audio too with {remedy}"
                    if remedy
                    else ": its header is wrong, or it was appended to"
                )
            )
        block = file.read(_BLOCK)
    return position
