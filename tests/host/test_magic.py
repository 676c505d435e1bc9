import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sejax.host.magic import FIRST_BYTES, describe_contents


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.txt", "x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("first_bytes", "said"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a git-lfs pointer"),
        (b"<!DOCTYPE html>\n<html lang='en'>", "a web page"),
        (b"\xef\xbb\xbf\r\n  <HTML><head>", "a web page"),
        (b"<?xml version='1.0'?><html xmlns='x'>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (b'{"error": "Repository not found"}', 'JSON: {"error": "Repository not found"}'),
        (b'[\n  {"a": 1}]', 'JSON: [ {"a": 1}]'),
        (b"Not Found", "a text: 'Not Found'"),
        (b"Zugriff verweigert: bitte anmelden, bevor Sie Dateien laden", "a text: 'Zugriff verweigert"),
        ("später".encode("utf-16"), "a text: 'später'"),
        (zipped(), "a zip archive"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"\0" * 257 + b"ustar\x0000", "a tar archive"),
        (pickle.dumps({"a": 1}), "a pickle"),
        (b"\x00\x00\x00\x1cftypM4A \x00\x00", "MP4 audio (m4a)"),
        (b"\x00\x00\x00\x1cftypisom\x00\x00", "an MP4 file"),
        (b"\x00\x00\x00\x14ftypqt  ", "a QuickTime movie (mov)"),
        (b"\x00\x00\x00\x1cftyp3gp4", "3GP"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\x82\x84webm", "a WebM file"),
        (b"\x1aE\xdf\xa3\xa3B\x86\x81\x01B\x82\x88matroska", "a Matroska file"),
        (b"\xff\xf1`@E_\xfc\xdc\x00Lav", "AAC audio"),
        (b"#!AMR\n<", "AMR audio"),
        (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa", "Windows Media"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "an AVI video"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "a wav file"),
        ((50).to_bytes(8, "little") + json.dumps({"a": {"dtype": "F32"}}).encode(), "a safetensors file"),
        (bytes(64), "a file of zero bytes"),
    ],
)
def test_first_bytes_say_what_a_file_is(first_bytes: bytes, said: str) -> None:
    assert (describe_contents(first_bytes) or "").startswith(said)


def test_a_text_that_is_cut_inside_a_character_is_a_text() -> None:
    text = ("ä" * FIRST_BYTES).encode()
    assert (describe_contents(b"x" + text) or "").startswith("a text: 'xäää")


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_nothing_known(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(128, 250, 400, np.uint8).tobytes()
    assert describe_contents(b"\x90" + noise) is None


@given(st.binary(max_size=600))
def test_any_bytes_have_a_short_description_or_none(first_bytes: bytes) -> None:
    description = describe_contents(first_bytes)
    assert description is None or (0 < len(description) < 120 and description.isprintable())
