"""What a file holds, told by its first bytes."""

import gzip
import io
import pickle
import zipfile

import pytest
from tiny_study import GOLDEN_SSL

from sejax.host.magic import FIRST_BYTES, describe_contents

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c\nsize 1265\n"


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "empty"),
        (bytes(600), "nothing but zeros"),
        (LFS, "a git-lfs pointer"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"\n  <html lang='en'>", "a web page"),
        (b"<!-- saved --><HTML><head>", "a web page"),
        (b"\xef\xbb\xbf<!doctype html>", "a web page"),
        (zipped("a.wav"), "a zip archive"),
        (zipped("archive/data.pkl"), "a PyTorch file"),
        (gzip.compress(b"x"), "a gzip archive"),
        (pickle.dumps({}, protocol=2), "a pickle"),
        (b'{"error": "Invalid username or password."}', "JSON text"),
        (b"[1, 2]", "JSON text"),
        (b"Entry not found", "plain text"),
        ("früher".encode() * 100, "plain text"),
    ],
)
def test_what_it_holds(contents: bytes, said: str):
    assert (describe_contents(contents[:FIRST_BYTES]) or "").startswith(said)


def test_what_it_does_not_know():
    safetensors = (GOLDEN_SSL / "hubert-base" / "model.safetensors").read_bytes()
    for contents in (safetensors, b"RIFF\x24\x00\x00\x00WAVEfmt ", b"fLaC\x00\x00\x00\x22", b"\xff\xfb\x90\x64"):
        assert describe_contents(contents[:FIRST_BYTES]) is None
