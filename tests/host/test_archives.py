import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sejax.errors import InputError
from sejax.features.audio import load_audio
from sejax.host.archives import MEMBER_BYTES, open_file, shell_command, split_archive

RATE = 16_000
SAMPLES = (0.5 * np.sin(np.arange(8000) / 6)).astype(np.float32)


def wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, SAMPLES, RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def refusal(path: str) -> str:
    with pytest.raises(InputError) as raised, open_file(path):
        pass
    sentence = str(raised.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")


def test_members_of_archives(tmp_path: Path) -> None:
    archive = tmp_path / "corpus.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("wav/a.wav", wav())
        file.writestr("wav/short one.wav", wav()[:-100])
        file.mkdir("folder")
    np.testing.assert_array_equal(load_audio(f"{archive}::wav/a.wav").samples, SAMPLES)
    assert len(load_audio(f"{archive}::wav/a.wav", start=0.1, end=0.2).samples) == 1600
    with pytest.raises(InputError) as raised:
        load_audio(f"{archive}::wav/short one.wav")
    assert str(raised.value).endswith(
        f"`ffmpeg -i 'short one.wav' 'short one_mended.wav'` after `unzip -j {archive} 'wav/short one.wav'`"
    )
    assert refusal(f"{archive}::wav/b.wav") == f"the archive {archive} has no such member"
    assert refusal(f"{archive}::folder/") == "is a folder, expected a file"
    assert refusal(f"{tmp_path}/none.zip::a.wav") == "no such file"
    # The open archive is kept, but not beyond the file.
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("wav/b.wav", wav())
    assert len(load_audio(f"{archive}::wav/b.wav").samples) == len(SAMPLES)


def test_broken_archives_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "corpus.zip"
    archive.write_bytes(b"no archive")
    said = refusal(f"{archive}::a.wav")
    assert said == "its archive is a text: 'no archive', expected a whole zip archive: download it again"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.wav", b"x" * 2000)
    content = bytearray(archive.read_bytes())
    content[500] ^= 0xFF
    archive.write_bytes(content)
    assert refusal(f"{archive}::a.wav").startswith("its archive is damaged (Bad CRC-32")
    cut = tmp_path / "cut.zip"
    cut.write_bytes(content[: len(content) // 2])
    said = refusal(f"{cut}::a.wav")
    assert said == (
        "its archive is cut short or damaged (no directory at its end), expected a whole zip archive: download it again"
    )
    end = content.index(b"PK\x05\x06")  # which says where the directory is
    for offset, number in ((12, 2**31), (16, 2**31), (16, 7)):
        changed = bytearray(content)
        struct.pack_into("<I", changed, end + offset, number)
        cut.write_bytes(changed)
        said = refusal(f"{cut}::a.wav")
        assert said.startswith("its archive is damaged (") and said.endswith("zip archive: download it again")
        assert "Errno" not in said


def test_encrypted_and_huge_members_are_refused_before_they_are_read(tmp_path: Path) -> None:
    archive = tmp_path / "corpus.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.wav", wav())
    content = bytearray(archive.read_bytes())
    central = content.index(b"PK\x01\x02")
    content[central + 8] |= 1
    archive.write_bytes(content)
    assert refusal(f"{archive}::a.wav").startswith("is encrypted, expected a file without a password")
    content[central + 8] &= ~1
    content[central + 24 : central + 28] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "other.zip").write_bytes(content)
    said = refusal(f"{tmp_path}/other.zip::a.wav")
    assert said == f"has 4294967294 bytes unpacked, expected at most {MEMBER_BYTES} in an archive: unpack it first"


@settings(max_examples=80, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_archives_are_read_or_refused_never_worse(tmp_path: Path, data: st.DataObject) -> None:
    archive = tmp_path / f"{data.draw(st.integers(0, 10**9))}.zip"
    kind = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as file:
        file.writestr("a.wav", wav()[:4000])
        file.writestr("b.wav", b"x")
    content = bytearray(buffer.getvalue())
    headers = [place for place in range(len(content)) if content[place : place + 2] == b"PK"]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(headers)) + data.draw(st.integers(0, 60))
        content[place : place + 1] = bytes([data.draw(st.integers(0, 255))])
    archive.write_bytes(content)
    path = f"{archive}::a.wav"
    try:
        with open_file(path) as file:
            assert len(file.read()) < 10**6
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
    archive.unlink()


def test_commands_can_be_copied() -> None:
    assert shell_command("ffmpeg -i", "/a b/c.mp3", "d.wav") == "`ffmpeg -i '/a b/c.mp3' d.wav`"
    assert (
        shell_command("ffmpeg -i", "x.zip::a/c.mp3", "c.wav")
        == "`ffmpeg -i c.mp3 c.wav` after `unzip -j x.zip a/c.mp3`"
    )
    assert split_archive("x.zip::a/c.mp3") == ("x.zip", "a/c.mp3")
    assert split_archive("x.zip") == ("x.zip", None)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_cannot_be_bounded_are_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.wav", bytes(1000))
    with pytest.raises(InputError, match=r"a\.zip::a\.wav: is compressed by another method than deflate, unpack"):
        open_file(f"{tmp_path}/a.zip::a.wav")


def test_a_bomb_with_a_false_size_takes_little_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(300_000_000))
    content = (tmp_path / "a.zip").read_bytes()
    size = (300_000_000).to_bytes(4, "little")
    assert content.count(size) >= 1
    (tmp_path / "a.zip").write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(InputError, match="its archive is damaged"):
        open_file(f"{tmp_path}/a.zip::a.wav")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
