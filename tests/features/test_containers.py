import io
import itertools
import re
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import RATE, encoded, encodings, mutations, refusal, speech

from sejax.errors import InputError
from sejax.features.audio import load_audio
from sejax.features.containers.packets import Packets

NO_LENGTH = "its header states no length, it is read to its end"
# Containers without a length in their header, or with one that libsndfile does not report.
UNCHECKED = {"PAF", "PVF", "IRCAM", "VOC"}
# What is refused altogether: a rate that is not stored, gaps that are read as silence.
REFUSED = {"SDS", "XI"}
ENCODINGS = [pytest.param(*encoding, id="-".join(encoding)) for encoding in encodings()]


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def put(content: bytes, position: int, format: str, number: int) -> bytes:
    return content[:position] + struct.pack(format, number) + content[position + struct.calcsize(format) :]


def raw_samples(format: str, subtype: str) -> np.ndarray:
    """What libsndfile reads of a whole file, without seeks."""
    # It opens an mp3 in memory only behind a tag, here ten bytes of padding.
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10) if format == "MP3" else b""
    with soundfile.SoundFile(io.BytesIO(tag + encoded(format, subtype))) as file:
        return file.read(file.frames, dtype="float32")


@pytest.mark.parametrize(("format", "subtype"), [p for p in ENCODINGS if p.values[0] in ("WAV", "FLAC", "OGG", "MP3")])
def test_whole_files_are_read_as_libsndfile_reads_them(tmp_path: Path, format: str, subtype: str) -> None:
    if subtype in ("GSM610", "G721_32"):
        pytest.skip("8000 Hz")
    audio = load_audio(write(tmp_path / "a", encoded(format, subtype)))
    np.testing.assert_array_equal(audio.samples, raw_samples(format, subtype))
    assert audio.note == ""


@pytest.mark.parametrize(("format", "subtype"), ENCODINGS)
def test_every_format_is_read_whole_and_in_parts_and_refused_when_it_is_truncated(
    tmp_path: Path, format: str, subtype: str
) -> None:
    content = encoded(format, subtype)
    path = write(tmp_path / "a", content)
    if format in REFUSED:
        assert "convert it with `ffmpeg" in refusal(path)
        return
    whole = load_audio(path)
    assert 7900 <= len(whole.samples) <= 8400
    part = load_audio(path, start=0.1, end=0.3).samples
    assert len(part) == 3200
    if "resampled" not in whole.note:
        np.testing.assert_array_equal(part, whole.samples[1600:4800])
    for share in (0.3, 0.6, 0.95):
        path = write(tmp_path / "b", content[: int(share * len(content))])
        if format in UNCHECKED:
            try:
                note = load_audio(path).note
            except InputError:
                continue
            assert note.startswith(f"nothing in a file of this kind ({format}) tells whether it is whole")
        else:
            refusal(path)
            if format != "FLAC":  # where the part may be trusted, as it has a checksum of its own
                refusal(path, start=0.05, end=0.1)


WIDESPREAD = [
    ("WAV", "PCM_16"),
    ("RF64", "FLOAT"),
    ("W64", "PCM_24"),
    ("AIFF", "PCM_16"),
    ("AU", "ULAW"),
    ("CAF", "PCM_16"),
    ("NIST", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("MP3", "MPEG_LAYER_III"),
    ("OGG", "VORBIS"),
]


@pytest.mark.parametrize(("format", "subtype"), WIDESPREAD)
def test_joined_and_padded_files(tmp_path: Path, format: str, subtype: str) -> None:
    content = encoded(format, subtype)
    said = refusal(write(tmp_path / "joined", content + content))
    assert "two" in said
    frames = len(load_audio(write(tmp_path / "a", content)).samples)
    assert len(load_audio(write(tmp_path / "padded", content + bytes(3000))).samples) == frames
    assert len(load_audio(write(tmp_path / "tagged", content + b"TAG" + b"x" * 125)).samples) == frames
    if format not in ("FLAC", "MP3"):  # whose decoders know where they end
        noise = np.random.default_rng(0).bytes(3000)
        assert "bytes behind the audio that its header states" in refusal(write(tmp_path / "more", content + noise))


def wav_length(content: bytes, number: int) -> bytes:
    return put(content, content.index(b"data") + 4, "<I", number)


def wide_length(content: bytes, number: int) -> bytes:
    return put(content, content.index(b"ds64") + 16, "<Q", number % 2**64)


def aiff_length(content: bytes, number: int) -> bytes:
    return put(content, content.index(b"SSND") + 4, ">I", number)


def w64_length(content: bytes, number: int) -> bytes:
    return put(content, content.index(b"data") + 16, "<Q", number % 2**64)


def caf_length(content: bytes, number: int) -> bytes:
    return put(content, content.index(b"data") + 4, ">Q", number % 2**64)


def au_length(content: bytes, number: int) -> bytes:
    return put(content, 8, ">I", number)


def nist_length(content: bytes, number: int) -> bytes:
    return content.replace(b"sample_count -i 8000", f"sample_count -i {number:<4}".encode())


def flac_length(content: bytes, number: int) -> bytes:
    return put(put(content, 22, ">I", number % 2**32), 21, "B", content[21] & 0xF0 | number >> 32)


UNKNOWN = {
    "WAV": (wav_length, [0, 0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFDA, 0x80000000, 0x80000024, 0xFFFFFFFF, 0xFFFFFFDB]),
    "WAVEX": (wav_length, [0, 0xFFFFFFFF]),
    "RF64": (wide_length, [0, -1, 2**63 - 1, 0xFFFFFFFF]),
    "W64": (w64_length, [0, 24, -1, 2**63, 2**63 - 1]),
    "AIFF": (aiff_length, [0, 8, 0x7F000008, 0x7FFFFFFF, 0xFFFFFFFF]),
    "AU": (au_length, [0, 0x7FFFF000, 0xFFFFFFFF]),
    "CAF": (caf_length, [0, -1, 2**63 - 1]),
    "NIST": (nist_length, [0, -1]),
    "FLAC": (flac_length, [0]),
}


@pytest.mark.parametrize(("format", "number"), [(name, n) for name, (_, numbers) in UNKNOWN.items() for n in numbers])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_length_that_the_writer_did_not_know_is_that_of_the_file(
    tmp_path: Path, format: str, number: int, subtype: str
) -> None:
    content = encoded(format, subtype)
    audio = load_audio(write(tmp_path / "a", UNKNOWN[format][0](content, number)))
    np.testing.assert_array_equal(audio.samples, raw_samples(format, subtype))
    assert audio.note == NO_LENGTH
    part = load_audio(str(tmp_path / "a"), start=0.1, end=0.3)
    np.testing.assert_array_equal(part.samples, audio.samples[1600:4800])
    assert part.note == NO_LENGTH


def test_the_size_of_the_whole_file_does_not_matter(tmp_path: Path) -> None:
    content = encoded("WAV", "PCM_16")
    for size in (0, 36, 0xFFFFFFFF, 0x7FFFF024):
        assert load_audio(write(tmp_path / "a.wav", put(content, 4, "<I", size))).note == ""
        killed = put(put(content, 4, "<I", size), 40, "<I", 0)
        assert len(load_audio(write(tmp_path / "b.wav", killed)).samples) == 8000
    empty = put(put(content[:44], 4, "<I", 36), 40, "<I", 0) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert refusal(write(tmp_path / "c.wav", empty)) == "has 0 samples, expected speech"


@pytest.mark.parametrize(
    ("format", "fewer", "remedy"),
    [
        ("WAV", lambda content: wav_length(content, 8000), "read them as audio too with `ffmpeg -ignore_length 1 -i"),
        ("RF64", lambda content: wide_length(content, 8000), ""),
        ("W64", lambda content: w64_length(content, 8024), ""),
        ("AIFF", lambda content: aiff_length(content, 8008), ""),
        ("AU", lambda content: au_length(content, 8000), ""),
        ("CAF", lambda content: caf_length(content, 8004), ""),
        ("NIST", lambda content: nist_length(content, 4000), ""),
        ("FLAC", lambda content: flac_length(content, 4096), ""),
    ],
)
def test_a_header_that_states_less_than_is_there_is_refused(
    tmp_path: Path, format: str, fewer: Callable[[bytes], bytes], remedy: str
) -> None:
    said = refusal(write(tmp_path / "a.wav", fewer(encoded(format, "PCM_16"))))
    assert "bytes behind the audio that its header states, expected none" in said
    assert remedy in said


@pytest.mark.parametrize(
    ("format", "count"),
    [("AIFF", lambda content: content.index(b"COMM") + 10), ("RF64", lambda content: content.index(b"ds64") + 24)],
)
def test_a_count_of_frames_beside_the_size_is_compared(
    tmp_path: Path, format: str, count: Callable[[bytes], int]
) -> None:
    content = encoded(format, "PCM_16")
    order = ">I" if format == "AIFF" else "<I"
    more = write(tmp_path / "a", put(content, count(content), order, 16_000))
    assert refusal(more).startswith("is truncated, has 8000 frames of audio, expected the 16000 of its header")
    unsaid = write(tmp_path / "b", put(content, count(content), order, 0))
    assert len(load_audio(unsaid).samples) == 8000
    fewer = write(tmp_path / "c", put(content, count(content), order, 7000))
    said = refusal(fewer)
    assert said.startswith(
        "has a header that contradicts itself: 7000 frames of audio, whose bytes make 8000, expected"
    )


def wav_format(content: bytes, offset: int) -> int:
    """The position of a number of the format of a wav or W64 file."""
    place = content.index(b"fmt ")
    return place + offset + (24 if content.startswith(b"riff") else 8)


def aiff_format(content: bytes, offset: int) -> int:
    return content.index(b"COMM") + 8 + offset


def caf_format(content: bytes, offset: int) -> int:
    return content.index(b"desc") + 12 + offset


@pytest.mark.parametrize(
    ("encoding", "place", "offset", "order", "number", "said"),
    [
        (("WAV", "PCM_16"), wav_format, 14, "<H", 24, "1 sample of 24 bits in each frame of 2 bytes, expected 3 bytes"),
        (("WAV", "PCM_16"), wav_format, 14, "<H", 8, "1 sample of 8 bits in each frame of 2 bytes, expected 1 byte"),
        (("WAV", "PCM_16"), wav_format, 2, "<H", 2, "2 samples of 16 bits in each frame of 2 bytes, expected 4 bytes"),
        (("WAV", "PCM_16"), wav_format, 12, "<H", 4, "1 sample of 16 bits in each frame of 4 bytes, expected 2 bytes"),
        (("WAV", "FLOAT"), wav_format, 14, "<H", 64, "1 sample of 64 bits in each frame of 4 bytes, expected 8 bytes"),
        (("WAV", "ULAW"), wav_format, 2, "<H", 2, "2 samples of 8 bits in each frame of 1 byte, expected 2 bytes"),
        (("WAVEX", "PCM_16"), wav_format, 14, "<H", 24, "1 sample of 24 bits in each frame of 2 bytes"),
        (("RF64", "PCM_16"), wav_format, 14, "<H", 8, "1 sample of 8 bits in each frame of 2 bytes"),
        (("W64", "PCM_16"), wav_format, 14, "<H", 8, "1 sample of 8 bits in each frame of 2 bytes"),
        (("AIFF", "PCM_16"), aiff_format, 6, ">H", 8, "8000 frames of audio, whose bytes make 16000"),
        (("CAF", "PCM_16"), caf_format, 28, ">I", 8, "1 sample of 8 bits in each frame of 2 bytes"),
        (("CAF", "PCM_16"), caf_format, 24, ">I", 2, "2 samples of 16 bits in each frame of 2 bytes"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    tmp_path: Path,
    encoding: tuple[str, str],
    place: Callable[[bytes, int], int],
    offset: int,
    order: str,
    number: int,
    said: str,
) -> None:
    content = encoded(*encoding)
    sentence = refusal(write(tmp_path / "a.wav", put(content, place(content, offset), order, number)))
    assert sentence.startswith(f"has a header that contradicts itself: {said}")
    assert sentence.endswith(": copy the file again, or correct its header")


def test_numbers_that_writers_get_wrong_and_no_decoder_needs(tmp_path: Path) -> None:
    content = encoded("WAV", "PCM_16")
    audio = load_audio(write(tmp_path / "a.wav", put(content, wav_format(content, 8), "<I", 16_000)))
    assert audio.note == "its header states 16000 bytes per second, which at 16000 Hz would be 32000"
    np.testing.assert_array_equal(audio.samples, raw_samples("WAV", "PCM_16"))
    unsaid = put(put(content, wav_format(content, 8), "<I", 0), wav_format(content, 12), "<H", 0)
    assert load_audio(write(tmp_path / "b.wav", unsaid)).note == ""
    killed = load_audio(write(tmp_path / "c.wav", put(wav_length(content, 0), wav_format(content, 8), "<I", 1)))
    assert killed.note.startswith("its header states no length, it is read to its end; its header states 1 bytes per")
    # Twelve bits in the upper part of two bytes.
    assert load_audio(write(tmp_path / "d.wav", put(content, wav_format(content, 14), "<H", 12))).note == ""


def test_lengths_of_big_endian_wav_files(tmp_path: Path) -> None:
    samples = (speech(0.5)[:, 0] * 32767).astype(">i2")
    header = (
        b"RIFX" + struct.pack(">I", 36 + 16_000) + b"WAVEfmt " + struct.pack(">IHHIIHH", 16, 1, 1, RATE, 32_000, 2, 16)
    )
    content = header + b"data" + struct.pack(">I", 16_000) + samples.tobytes()
    whole = load_audio(write(tmp_path / "a.wav", content)).samples
    np.testing.assert_array_equal(whole, samples.astype(np.float32) / 32768)
    said = refusal(write(tmp_path / "a.wav", content[:-1000]))
    assert said.startswith("is truncated, has 15000 bytes of audio, expected the 16000 of its header")
    unknown = load_audio(write(tmp_path / "a.wav", put(content, 40, ">I", 0xFFFFFFFF)))
    np.testing.assert_array_equal(unknown.samples, whole)


def test_chunks_around_the_audio_are_passed_over(tmp_path: Path) -> None:
    content = encoded("WAV", "PCM_16")
    before = b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    behind = b"LIST" + struct.pack("<I", 2000) + b"RIFFdata" * 250
    for changed in (content[:36] + before + content[36:], content + behind):
        assert len(load_audio(write(tmp_path / "a.wav", changed)).samples) == 8000
    # A writer that does not fill up to an even position.
    odd = wav_length(content, 15_999)[:-1] + behind
    assert len(load_audio(write(tmp_path / "a.wav", odd)).samples) == 7999
    second = b"data" + struct.pack("<I", 2000) + bytes(2000)
    assert refusal(write(tmp_path / "a.wav", content + second)).startswith("has a second chunk of audio at byte 16044")


@pytest.mark.parametrize("size", [0, 8, 23])
def test_a_chunk_that_is_smaller_than_its_own_header_ends_the_search(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.w64"
    soundfile.write(path, np.linspace(-0.5, 0.5, 3200), 16_000, format="W64", subtype="ULAW")
    content = bytearray(path.read_bytes())
    place = content.index(b"fmt ") + 16
    content[place : place + 8] = size.to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.w64"):
        load_audio(str(path))


def test_a_header_may_promise_anything(tmp_path: Path) -> None:
    flac = flac_length(encoded("FLAC", "PCM_16"), 10**10)
    said = refusal(write(tmp_path / "a.flac", flac))
    assert said.startswith("is truncated, has 8000 samples, expected the 10000000000 of its header")
    ogg = bytearray(encoded("OGG", "VORBIS", seconds=4.0))
    last = ogg.rindex(b"OggS")
    ogg[last + 6 : last + 14] = struct.pack("<q", 10**10)
    ogg[last + 22 : last + 26] = bytes(4)
    ogg[last + 22 : last + 26] = struct.pack("<I", ogg_checksum(bytes(ogg[last:])))
    assert refusal(write(tmp_path / "a.ogg", bytes(ogg))).startswith("is truncated, has ")


def ogg_checksum(page: bytes) -> int:
    """The CRC-32 of RFC 3533, bit by bit."""
    state = 0
    for byte in page:
        state ^= byte << 24
        for _ in range(8):
            state = (state << 1) ^ (0x104C11DB7 if state >> 31 else 0)
    return state


def ogg_pages(content: bytes) -> list[bytes]:
    starts = [place for place in range(len(content)) if content.startswith(b"OggS\0", place)]
    return [content[start:end] for start, end in itertools.pairwise([*starts, len(content)])]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_pages_of_ogg_files(tmp_path: Path, subtype: str) -> None:
    pages = ogg_pages(encoded("OGG", subtype, seconds=4.0))
    assert len(pages) > 4
    assert load_audio(write(tmp_path / "a.ogg", b"".join(pages))).note == ""
    said = refusal(write(tmp_path / "a.ogg", b"".join(pages[:-1])))
    assert said.startswith(
        "is truncated, has no last ogg page, expected one: copy the file again, or keep what is there"
    )
    assert "is missing at byte" in refusal(write(tmp_path / "a.ogg", b"".join(pages[:3] + pages[4:])))
    renumbered = [with_checksum(put(page, 18, "<I", 3 + number)) for number, page in enumerate(pages[4:])]
    said = refusal(write(tmp_path / "a.ogg", b"".join(pages[:3] + renumbered)))
    assert re.match(r"is damaged, \d+ samples are missing in front of its ogg page at byte \d+, expected all", said)
    late = pages[:2] + [with_checksum(put(page, 18, "<I", 2 + number)) for number, page in enumerate(pages[4:])]
    note = load_audio(write(tmp_path / "a.ogg", b"".join(late))).note
    assert re.fullmatch(r"begins at sample \d+ of its stream, what was before is not in the file", note)
    flipped = bytearray(b"".join(pages))
    flipped[len(flipped) // 2] ^= 1
    assert "the checksum of its ogg page at byte" in refusal(write(tmp_path / "a.ogg", bytes(flipped)))


def with_checksum(page: bytes) -> bytes:
    page = put(page, 22, "<I", 0)
    return put(page, 22, "<I", ogg_checksum(page))


def with_granule(page: bytes, samples: int) -> bytes:
    """A page that ends at another sample."""
    return with_checksum(put(page, 6, "<q", samples))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seconds", [0.5, 4.0])  # on one page, on several
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_pages_that_end_before_the_samples_in_front_of_them(
    tmp_path: Path, subtype: str, seconds: float, channels: int
) -> None:
    *pages, last = ogg_pages(encoded("OGG", subtype, seconds=seconds, channels=channels))
    assert "damaged" not in load_audio(write(tmp_path / "whole.ogg", b"".join([*pages, last]))).note
    (samples,) = struct.unpack("<q", last[6:14])
    for fewer in (samples // 2, 0, -2, round(0.6 * samples) if seconds < 1 else samples - samples // 16):
        said = refusal(write(tmp_path / "a.ogg", b"".join([*pages, with_granule(last, fewer)])))
        assert said.startswith("is damaged, its ogg page at byte ")
        assert f" ends at sample {fewer}, expected " in said
        assert (
            " or more, which are in it and in front of it: copy the file again, or keep what is there with `f" in said
        )
    said = refusal(write(tmp_path / "a.ogg", b"".join([*pages, with_granule(last, -1)])))
    assert said.startswith("is damaged, its last ogg page, at byte ")
    assert " does not say at which sample it ends: copy the file again, or keep what is there with `ffmpeg" in said
    if len(pages) > 3:
        said = refusal(write(tmp_path / "a.ogg", b"".join([*pages[:-1], with_granule(pages[-1], 5), last])))
        assert " ends at sample 5, expected " in said


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_the_packets_of_ogg_files_are_counted_exactly(subtype: str, rate: int) -> None:
    for seconds, quality in ((0.05, 0.4), (1.0, 0.0), (3.37, 1.0)):
        buffer = io.BytesIO()
        file = soundfile.SoundFile(buffer, "w", rate, 1, subtype, format="OGG", compression_level=quality)
        with file:
            file.write(speech(seconds, 1, rate))
        packets = Packets()
        for page in ogg_pages(buffer.getvalue()):
            body = 27 + page[26]
            packets.add(page[27:body], page[body:])
            (samples,) = struct.unpack("<q", page[6:14])
            filling = packets.longest if page[5] & 4 else 0
            assert packets.samples - filling <= samples <= packets.samples


def mp3(mode: str, *, rate: int = RATE, quiet: float = 3.0, loud: float = 3.0, stereo: bool = False) -> bytes:
    """An mp3 file, quiet at first and then loud."""
    samples = speech(quiet + loud, 1 + stereo, rate)
    samples[: round(quiet * rate)] *= 1e-3
    buffer = io.BytesIO()
    file = soundfile.SoundFile(
        buffer, "w", rate, 1 + stereo, "MPEG_LAYER_III", format="MP3", bitrate_mode=mode, compression_level=0.5
    )
    with file:
        file.write(samples)
    return buffer.getvalue()


def without_count(content: bytes) -> tuple[bytes, int]:
    """The frames of an mp3 file without the first, which counts them, and this number."""
    mark = max(content.find(b"Xing"), content.find(b"Info"))
    (count,) = struct.unpack(">I", content[mark + 8 : mark + 12])
    start = content.rindex(b"\xff", 0, mark)
    following = content.index(content[start : start + 2], mark)
    return content[following:], count


@pytest.mark.parametrize("stereo", [False, True])
@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("tag", [b"", b"ID3\x04\x00\x00\x00\x00\x00\x0aTIT2\0\0\0\0\0\0"])
def test_mp3_files_without_a_count_are_counted(tmp_path: Path, mode: str, tag: bytes, stereo: bool) -> None:
    whole = mp3(mode, stereo=stereo)
    frames, count = without_count(whole)
    audio = load_audio(write(tmp_path / "a.mp3", tag + frames)).samples
    assert len(audio) == 576 * count
    # The same audio behind the delay of encoder and decoder, which only the first frame states.
    expected = load_audio(write(tmp_path / "b.mp3", whole)).samples
    assert len(expected) == 6 * RATE
    delays = [np.abs(audio[delay : delay + 90_000] - expected[:90_000]).max() for delay in range(1000, 1300)]
    assert min(delays) < 1e-4
    part = load_audio(str(tmp_path / "a.mp3"), start=4.0, end=5.0).samples
    np.testing.assert_allclose(part, audio[64_000:80_000], atol=1e-4)
    # Tags at the end are no frames.
    assert len(load_audio(write(tmp_path / "c.mp3", frames + b"TAG" + bytes(125))).samples) == len(audio)


def test_mp3_files_that_are_cut_joined_or_mixed_are_refused(tmp_path: Path) -> None:
    whole = mp3("VARIABLE", quiet=1, loud=1)
    frames, count = without_count(whole)
    said = refusal(write(tmp_path / "a.mp3", whole[: len(whole) // 2]))
    assert said.startswith("is truncated, has ")
    assert f"mp3 frames, expected the {count} of its header" in said
    assert refusal(write(tmp_path / "a.mp3", frames[:-20])).startswith("is truncated, ends inside an mp3 frame")
    more = put(whole, whole.index(b"Xing") + 8, ">I", count - 9)
    said = refusal(write(tmp_path / "a.mp3", more))
    assert f"has {count} mp3 frames, expected the {count - 9} of its header (two files joined?)" in said
    joined = load_audio(write(tmp_path / "a.mp3", frames + frames)).samples
    assert len(joined) == 2 * 576 * count
    other = without_count(mp3("VARIABLE", rate=44_100, quiet=1, loud=1, stereo=True))[0]
    said = refusal(write(tmp_path / "a.mp3", frames + other))
    assert said.startswith("changes from 16000 Hz mono to 44100 Hz stereo at byte ")
    said = refusal(write(tmp_path / "a.mp3", frames + bytes(500) + frames))
    assert said.startswith(f"is damaged, has no mp3 frame at byte {len(frames)}, expected one")


ID3 = b"ID3\x04\x00\x00\x00\x00\x00\x0aTIT2\0\0\0\0\0\0"
APE = b"APETAGEX" + struct.pack("<4I8x", 2000, 8, 0, 0xA0000000) + bytes(8)
LYRICS = b"LYRICSBEGINla la la000020LYRICS200"


@pytest.mark.parametrize("tags", [b"", ID3, b"TAG" + b"x" * 125, APE, LYRICS, LYRICS + b"TAG" + b"x" * 125 + ID3])
def test_joined_files_are_refused_whatever_tags_are_between(tmp_path: Path, tags: bytes) -> None:
    whole = mp3("VARIABLE", quiet=0.3, loud=1)
    frames = without_count(whole)[0]
    wav, flac = encoded("WAV", "PCM_16"), encoded("FLAC", "PCM_16")
    pairs = [(wav, frames), (wav, whole), (wav, wav), (wav, flac), (encoded("OGG", "VORBIS"), frames), (frames, whole)]
    pairs += [(flac, frames), (flac, wav), (whole, wav), (whole, flac), (frames, wav)]
    if tags:  # frames alone do not tell where a file begins
        pairs += [(frames, frames)]
        assert load_audio(write(tmp_path / "a", wav + tags + bytes(900))).note == ""
        assert load_audio(write(tmp_path / "a", frames + tags)).note == ""
        assert load_audio(write(tmp_path / "a", flac + tags)).note == ""
    for one, other in pairs:
        said = refusal(write(tmp_path / "a", one + tags + other))
        assert said.startswith(
            f"holds two audio files, of which the second begins at byte {len(one + tags)}, expected one"
        )


def test_an_mp3_file_of_a_recorder_that_was_killed_is_read_to_its_end(tmp_path: Path) -> None:
    whole = mp3("VARIABLE")
    _, frames = without_count(whole)
    audio = load_audio(write(tmp_path / "a.mp3", put(whole, whole.index(b"Xing") + 8, ">I", 0)))
    assert len(audio.samples) == 576 * frames
    assert audio.note == "its header states no length, it is read to its end"


def test_mp3_files_of_other_writers(tmp_path: Path) -> None:
    whole = mp3("VARIABLE")
    expected = load_audio(write(tmp_path / "a.mp3", whole)).samples
    # Without the bits by which libsndfile recognises a file that has no tag.
    other = load_audio(write(tmp_path / "b.mp3", whole[:3] + bytes([whole[3] & 0xF0]) + whole[4:])).samples
    np.testing.assert_array_equal(other, expected)
    # The count as the Fraunhofer encoder writes it.
    frames, count = without_count(whole)
    first = whole[: len(whole) - len(frames)]
    vbri = first[:4] + bytes(32) + b"VBRI" + bytes(10) + struct.pack(">I", count)
    vbri += bytes(len(first) - len(vbri))
    assert len(load_audio(write(tmp_path / "c.mp3", vbri + frames)).samples) == 576 * count
    assert refusal(write(tmp_path / "c.mp3", vbri + frames[:-2000])).startswith("is truncated, has ")
    uncounted = first.replace(b"Info", b"Xing")
    uncounted = put(uncounted, uncounted.index(b"Xing") + 4, ">I", 0)
    assert len(load_audio(write(tmp_path / "c.mp3", uncounted + frames)).samples) == 576 * count
    assert refusal(write(tmp_path / "c.mp3", uncounted)) == "has 0 whole mp3 frames, expected speech"


def test_mp3_in_wav_files(tmp_path: Path) -> None:
    frames, count = without_count(mp3("VARIABLE"))
    format = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 4000, 1, 0, 12, 1, 2, 144, 1, 1393)
    content = b"WAVEfmt " + struct.pack("<I", len(format)) + format + b"data" + struct.pack("<I", len(frames)) + frames
    content = b"RIFF" + struct.pack("<I", len(content)) + content
    assert len(load_audio(write(tmp_path / "a.wav", content)).samples) == 576 * count
    assert refusal(write(tmp_path / "a.wav", content[:-500])).startswith("is truncated, has ")


def test_gsm_has_no_block_of_padding(tmp_path: Path) -> None:
    content = encoded("WAV", "GSM610", seconds=0.52)  # 13 blocks of 65 bytes, and one of padding
    audio = load_audio(write(tmp_path / "a.wav", content))
    assert len(audio.samples) == 2 * 13 * 320


def test_compressed_sphere_files_are_named(tmp_path: Path) -> None:
    content = encoded("NIST", "PCM_16").replace(
        b"sample_coding -s3 pcm\n", b"sample_coding -s26 pcm,embedded-shorten-v2.00\n"
    )
    said = refusal(write(tmp_path / "a.sph", content))
    assert said.startswith("is a NIST sphere file with embedded-shorten-v2.00, which is not decoded here")


def test_a_codec_that_libsndfile_lacks_is_told(tmp_path: Path) -> None:
    said = refusal(write(tmp_path / "a.wav", put(encoded("WAV", "PCM_16"), 20, "<H", 0x161)))
    assert said.startswith("cannot be decoded here (wav: ")
    assert said.endswith(f"convert it with `ffmpeg -i {tmp_path}/a.wav {tmp_path}/a_mended.wav`")


def test_files_that_are_too_large_for_memory_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sejax.features.audio.BLOCK_SAMPLES", 1000)
    monkeypatch.setattr("sejax.features.audio.WHOLE_BYTES", 1000)
    for format, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("AIFF", "DWVW_16")):
        path = write(tmp_path / "a", encoded(format, subtype))
        whole = raw_samples(format, subtype) if subtype == "PCM_16" else load_audio(path).samples
        np.testing.assert_array_equal(load_audio(path).samples, whole)
        np.testing.assert_array_equal(load_audio(path, start=0.2).samples, whole[3200:])
    monkeypatch.setattr("sejax.features.audio.MAX_SAMPLES", 3000)
    said = refusal(path)
    assert said == "has 8000 frames of 1 channels, expected at most 3000 samples at once: cut it into utterances"
    assert len(load_audio(path, start=0.2, end=0.3).samples) == 1600


@pytest.mark.parametrize(("format", "subtype"), ENCODINGS)
def test_damaged_files_are_read_or_refused_never_worse(tmp_path: Path, format: str, subtype: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seed = zlib.crc32(f"{format} {subtype}".encode())
    for number, content in enumerate(itertools.islice(mutations(encoded(format, subtype, seconds=0.2), seed), 12)):
        path = write(tmp_path / str(number), content)
        try:
            audio = load_audio(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
        else:
            assert np.isfinite(audio.samples).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes
