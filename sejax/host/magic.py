"""What a file holds, told by its first bytes: for the sentence about a file that is not what its name says."""

import re

FIRST_BYTES = 512
"""How many bytes of a file `describe_contents` needs."""

_GIT_LFS = b"version https://git-lfs"
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_SIGNATURES = (
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"%PDF-", "a PDF document"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")


def describe_contents(first_bytes: bytes) -> str | None:
    """Returns what a file holds by its first bytes, as a part of a sentence; None if they do not say.

    Args:
      first_bytes: the first `FIRST_BYTES` bytes of the file, or all of a shorter one.

    Returns:
      Such as "a git-lfs pointer (the file itself was not downloaded: git lfs pull)". Audio and safetensors give None.
    """
    if not first_bytes:
        return "empty"
    if not first_bytes.strip(b"\x00"):
        return "nothing but zeros (a download or copy that did not finish?)"
    if first_bytes.startswith(_GIT_LFS):
        return "a git-lfs pointer (the file itself was not downloaded: git lfs pull)"
    text = first_bytes.removeprefix(b"\xef\xbb\xbf")
    if _HTML.match(text):
        return "a web page (the download gave a page instead of the file)"
    for signature, what in _SIGNATURES:
        if first_bytes.startswith(signature):
            is_torch = what == "a zip archive" and re.search(rb"/data\.pkl|/version", first_bytes)
            return "a PyTorch file (a zip archive with pickles)" if is_torch else what
    if _PICKLE.match(first_bytes):
        return "a pickle (such as an older PyTorch file)"
    if not _is_text(text):
        return None
    return "JSON text" if re.match(rb'\s*(\{\s*["}]|\[\s*[\[{"\]\d-])', text) else "plain text"


def _is_text(first_bytes: bytes) -> bool:
    """Returns whether bytes are UTF-8 without control characters; the last character may be cut."""
    if any((byte < 0x20 and byte not in _TEXT_CONTROLS) or byte == 0x7F for byte in first_bytes):
        return False
    try:
        first_bytes.decode()
    except UnicodeDecodeError as error:
        return error.start > 0 and error.start >= len(first_bytes) - 3
    return True
