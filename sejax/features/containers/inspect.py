"""Tells the containers apart, and asks the one that knows."""

import re
from io import BufferedIOBase

from soundfile import SoundFile

from sejax.errors import InputError
from sejax.features.containers.chunks import AIFF, CAF, RIFF, RIFX, SVX, W64, examine_chunks
from sejax.features.containers.flac import examine_flac
from sejax.features.containers.headers import examine_au, examine_nist
from sejax.features.containers.layout import Layout, converted, truncated
from sejax.features.containers.mpeg import examine_frames, is_frame
from sejax.features.containers.ogg import examine_ogg
from sejax.features.containers.tags import id3_end

_FORMS = {b"AIFF": AIFF, b"AIFC": AIFF, b"8SVX": SVX, b"16SV": SVX}
_UNTRUSTED = {
    "SDS": "a MIDI sample dump, whose missing parts libsndfile reads as silence",
    "XI": "an instrument of FastTracker, which has no sampling rate",
}
# What libsndfile logs when this number is not that of the size.
_COUNTED = {"AIFF": re.compile(r"'COMM' chunk \((\d+)\) not equal"), "RF64": re.compile(r"'ds64' chunk of (\d+)")}
# What libsndfile logs when it has shortened a file to what is there.
_SHORTENED = re.compile(r"truncated|\d+ \(?should be \d+", re.IGNORECASE)
_FRAMES = re.compile(r"^\s*(?:Frames|.*Cols)\s*:\s*(\d+)\s*$", re.MULTILINE)


def examine(path: str, file: BufferedIOBase, length: int) -> tuple[str, Layout]:
    """Compares what the header of a file of `length` bytes promises with what the file holds.

    Args:
      path: For messages.
      file: At its beginning; left anywhere.

    Returns:
      The name of the container, "" for one that only libsndfile may know, and how to read it.

    Raises:
      InputError: the file is truncated or damaged, or holds more audio than its header states.
    """
    start = file.read(12)
    file.seek(0)
    if start[:4] in (b"RIFF", b"RF64", b"BW64", b"RIFX") and start[8:] == b"WAVE":
        return "wav", examine_chunks(path, file, length, RIFX if start[:4] == b"RIFX" else RIFF)
    if start[:4] == b"riff":
        return "Sony W64", examine_chunks(path, file, length, W64)
    if start[:4] == b"FORM" and start[8:] in _FORMS:
        return "AIFF", examine_chunks(path, file, length, _FORMS[start[8:]])
    if start[:4] == b"caff":
        return "Core Audio", examine_chunks(path, file, length, CAF)
    if start[:4] in (b".snd", b"dns."):
        return "Sun AU", examine_au(path, file, length)
    if start[:7] == b"NIST_1A":
        return "NIST sphere", examine_nist(path, file, length)
    if start[:4] == b"OggS":
        return "ogg", examine_ogg(path, file, length)
    begin = id3_end(file)
    file.seek(begin)
    start = file.read(4)
    if start == b"fLaC":
        return "FLAC", examine_flac(path, file, length, begin)
    if begin > 0 or is_frame(start):
        return "mp3", examine_frames(path, file, start=begin, end=length, tagged=begin > 0)
    return "", Layout(known=False)


def check_counts(path: str, sound: SoundFile) -> None:
    """Compares the number of frames that stands beside the size of the audio in an AIFF or RF64 file.

    Raises:
      InputError: it is another; 0 is not stated.
    """
    if sound.format in _COUNTED and sound.subtype != "IMA_ADPCM":  # whose number is that of blocks
        promised = max(map(int, _COUNTED[sound.format].findall(sound.extra_info)), default=0)
        if promised > sound.frames:
            raise truncated(path, sound.frames, promised, "frames of audio")
        if 0 < promised < sound.frames:
            raise InputError(
                f"{path}: has a header that contradicts itself: {promised} frames of audio, whose bytes make "
                f"{sound.frames}, expected one number: copy the file again, or correct its header"
            )


def check_by_log(path: str, sound: SoundFile) -> str:
    """Returns a note about a file of a container that only libsndfile knows.

    Raises:
      InputError: libsndfile has shortened it to what is there.
    """
    if sound.format in _UNTRUSTED:
        raise InputError(
            f"{path}: is {_UNTRUSTED[sound.format]}, expected wav, flac, ogg, mp3 or the like: convert it with "
            f"{converted(path)}"
        )
    log = sound.extra_info
    promised = max(map(int, _FRAMES.findall(log)), default=sound.frames)
    if promised > sound.frames:
        raise truncated(path, sound.frames, promised, "frames of audio")
    if promised < sound.frames:
        raise InputError(f"{path}: has {sound.frames} frames of audio, expected the {promised} of its header")
    if _SHORTENED.search(log):
        raise InputError(f"{path}: is truncated or damaged, expected a whole file: convert it with {converted(path)}")
    return f"nothing in a file of this kind ({sound.format}) tells whether it is whole"
