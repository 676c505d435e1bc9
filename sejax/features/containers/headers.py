"""Containers with one header in front of the audio: Sun AU and NIST sphere."""

import struct
from io import BufferedIOBase

from sejax.errors import InputError
from sejax.features.containers.ending import end_before
from sejax.features.containers.layout import (
    NO_LENGTH,
    Layout,
    converted,
    is_unknown,
    patched,
    truncated,
)


def examine_au(path: str, file: BufferedIOBase, length: int) -> Layout:
    """Compares the size in a Sun AU header with the file, which has `length` bytes.

    Raises:
      InputError: the file is truncated, or holds more than its header states.
    """
    start = file.read(12)
    order = ">" if start[:4] == b".snd" else "<"
    if len(start) < 12:
        return Layout(known=False)
    offset, size = struct.unpack(f"{order}II", start[4:])
    there = length - offset
    if (is_unknown(size) and size > there) or (size == 0 and there > 0):
        return Layout(head=patched(start, {8: (f"{order}I", max(there, 0))}), skip=12, note=NO_LENGTH)
    if there < size:
        raise truncated(path, max(there, 0), size, "bytes of audio")
    return Layout(end=end_before(path, file, offset + size, length))


def examine_nist(path: str, file: BufferedIOBase, length: int) -> Layout:
    """Compares the number of samples in a NIST sphere header with the file, which has `length` bytes.

    Raises:
      InputError: the file is compressed, truncated, or holds more than its header states.
    """
    start = file.read(16)
    try:
        header_bytes = int(start[8:].split()[0])
    except (ValueError, IndexError):
        return Layout(known=False)
    file.seek(0)
    fields = {}
    for line in file.read(min(max(header_bytes, 0), length)).decode("latin-1").splitlines():
        name, _, value = line.partition(" ")
        fields[name] = value.partition(" ")[2].strip()
    coding = fields.get("sample_coding", "pcm")
    if "," in coding:
        compression = coding.partition(",")[2]
        raise InputError(
            f"{path}: is a NIST sphere file with {compression}, which is not decoded here, expected plain samples: "
            f"convert it with {converted(path)}"
        )
    try:
        samples, channels = int(fields.get("sample_count", 0)), int(fields.get("channel_count", 1))
        width = int(fields.get("sample_n_bytes", 2))
    except ValueError:
        return Layout(known=False)
    promised, there = samples * channels * width, length - header_bytes
    if samples <= 0 or channels <= 0 or width <= 0 or is_unknown(promised):
        return Layout(note=NO_LENGTH)
    if there < promised:
        raise truncated(path, max(there, 0), promised, "bytes of audio")
    return Layout(end=end_before(path, file, header_bytes + promised, length))
