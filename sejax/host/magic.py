"""What a file holds, told from its first bytes: for the sentence about a file that is not what its name says."""

import codecs
import re

# How many bytes `describe_contents` wants to see.
FIRST_BYTES = 512
_GIT_LFS = b"version https://git-lfs"

# Beginnings that say what a file is, by whether it is audio or video.
_OTHERS = (
    (_GIT_LFS, "a git-lfs pointer instead of the file itself (`git lfs pull` fetches it)"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"%PDF-", "a PDF document"),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"MThd", "MIDI notes"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x7fELF", "a program"),
)
_MEDIA = (
    (b"#!AMR", "AMR audio"),
    (b"#!SILK", "SILK audio"),
    (b"\x02#!SILK", "SILK audio"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (wma, wmv)"),
    (b"FLV\x01", "Flash video"),
    (b".RMF", "RealMedia"),
    (b".ra\xfd", "RealAudio"),
    (b"MAC ", "Monkey's Audio"),
    (b"wvpk", "WavPack audio"),
    (b"TTA1", "TTA audio"),
    (b"ajkg", "audio compressed with shorten"),
    (b"MPCK", "Musepack audio"),
    (b"MP+", "Musepack audio"),
    (b"DSD ", "DSD audio"),
    (b"FRM8", "DSD audio"),
    (b"ADIF", "AAC audio"),
    (b"\x0b\x77", "AC-3 audio"),
    (b"\x7f\xfe\x80\x01", "DTS audio"),
    (b"\x00\x00\x01\xba", "an MPEG video"),
    (b"\x00\x00\x01\xb3", "an MPEG video"),
    (b"RIFF", "a RIFF file"),
    (b"RIFX", "a RIFX file"),
    (b"RF64", "an RF64 file"),
    (b"fLaC", "FLAC audio"),
    (b"OggS", "an ogg stream"),
    (b"caff", "a Core Audio file"),
    (b".snd", "a Sun audio file"),
    (b"NIST_1A", "a NIST sphere file"),
    (b"ID3", "an mp3 file or its tags"),
)
_RIFF = {
    b"WAVE": ("a wav file", True),
    b"AVI ": ("an AVI video", True),
    b"WEBP": ("a WebP image", False),
    b"RMID": ("MIDI notes", False),
}
_MP4 = {b"qt": "a QuickTime movie (mov)", b"3g": "3GP audio or video", b"M4": "MP4 audio (m4a)"}
_WEB_PAGE = "a web page (an error or a login page in place of the file: download it again)"
_SHOWN = 40


def holds_media(first_bytes: bytes) -> bool:
    """Returns whether a file that begins with these bytes is audio or video, of whatever format."""
    identified = _identify(first_bytes[:FIRST_BYTES])
    return identified is not None and identified[1]


def is_git_lfs_pointer(first_bytes: bytes) -> bool:
    """Returns whether a file that begins with these bytes is the stub that a clone without git-lfs leaves."""
    return first_bytes.startswith(_GIT_LFS)


def describe_contents(first_bytes: bytes) -> str | None:
    """Returns what a file is that begins with these bytes, as in `a web page`; None where they do not tell.

    Args:
      first_bytes: The first bytes of the file, `FIRST_BYTES` of them where it has so many.
    """
    identified = _identify(first_bytes[:FIRST_BYTES])
    return None if identified is None else identified[0]


def _identify(start: bytes) -> tuple[str, bool] | None:
    """Returns what a file is that begins with these bytes, and whether that is audio or video."""
    if not start:
        return "an empty file", False
    if start[:4] in (b"RIFF", b"RIFX") and start[8:12] in _RIFF:
        return _RIFF[start[8:12]]
    for beginnings, is_media in ((_MEDIA, True), (_OTHERS, False)):
        for beginning, description in beginnings:
            if start.startswith(beginning):
                return description, is_media
    medium = _identify_medium(start)
    if medium is not None:
        return medium, True
    if start[257:262] == b"ustar":
        return "a tar archive", False
    if re.match(rb"\x80[\x02-\x05][}\]c\x95\x8a(]", start):
        return "a pickle of Python objects", False
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:
        return "a safetensors file", False
    if not start.strip(b"\x00"):
        return "a file of zero bytes (its contents were never written)", False
    text = _describe_text(start)
    return None if text is None else (text, False)


def _identify_medium(start: bytes) -> str | None:
    """Returns which audio or video a file is whose first bytes alone do not tell it."""
    if start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC"):
        return "an AIFF file"
    if start[4:8] == b"ftyp":
        return _MP4.get(start[8:10], "an MP4 file (mp4, m4a)")
    if start[4:8] in (b"moov", b"mdat", b"wide"):
        return "a QuickTime movie (mov)"
    if start[:4] == b"\x1a\x45\xdf\xa3":
        return "a WebM file" if b"webm" in start else "a Matroska file (mka, mkv)"
    if re.match(rb"\xff[\xf0\xf1\xf8\xf9]", start) and start[2:3] and start[2] >> 2 & 15 < 13:
        return "AAC audio without a container"
    if start[0] == 0x47 and start[188:189] == b"\x47":
        return "an MPEG transport stream"
    return None


def _describe_text(start: bytes) -> str | None:
    """Returns which kind of text the bytes are, None if they are none."""
    utf_16 = start[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        # An incremental decoder allows a character that is cut at the end.
        decoder = codecs.getincrementaldecoder("utf-16" if utf_16 else "utf-8-sig")()
        words = decoder.decode(start).strip()
    except UnicodeDecodeError:
        return None
    if not words or any(not character.isprintable() and character not in "\t\r\n\f" for character in words):
        return None
    lowered = words.lower()
    if re.match(r"<(!doctype html|html|head|body|!--)", lowered):
        return _WEB_PAGE
    if lowered.startswith("<?xml") or re.match(r"<\w", lowered):
        return _WEB_PAGE if "<html" in lowered else "XML"
    shown = " ".join(words.split())
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    if re.match(r"""[\[{]\s*["\[{\]}]""", words):
        return f"JSON: {shown}"
    return f"a text: {shown!r}"
