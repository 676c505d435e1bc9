"""Feature files as they are read: npz and CSV alike, and a sentence for each way in which one is wrong."""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sejax.data.feature_files import read_feature_file
from sejax.errors import InputError

A, B = [1.0, 2.0, 3.0], [0.1, -4e-9, 1 / 3]


def test_csv_and_npz_are_the_same_to_the_bit(tmp_path: Path):
    vectors = np.random.default_rng(0).standard_normal((20, 7)) * 10.0 ** np.arange(-3, 4)
    for dtype in (np.float32, np.float64):
        of_type = vectors.astype(dtype)
        np.savez(tmp_path / "x.npz", **{f"u/{i}": vector for i, vector in enumerate(of_type)})
        lines = [",".join([*map(str, vector), f" u/{i} "]) for i, vector in enumerate(of_type)]
        (tmp_path / "x.csv").write_text("\n".join(["a,b,c,d,e,f,g,id", *lines, "", ""]))
        npz, csv = (read_feature_file(str(tmp_path / f"x.{kind}")) for kind in ("npz", "csv"))
        assert npz.rows == csv.rows
        np.testing.assert_array_equal(npz.vectors, csv.vectors)
        np.testing.assert_array_equal(npz.vectors, of_type.astype(np.float32))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "x.csv is an empty file, expected a CSV file"),
        ("file,x\na,1\n", "x.csv, line 1: the column id is missing, found file, x"),
        ("id;x\na;1\n", "x.csv, line 1: the columns are separated by semicolons, expected commas"),
        ("id\na\n", "x.csv, line 1: has the column id alone, expected columns of numbers beside it"),
        ("id,x,x\na,1,2\n", "x.csv, line 1: the column x occurs twice, expected once"),
        ("id,x,y\n", "x.csv: has no vectors, expected one for each utterance"),
        ("id,x,y\na,1,2\nb,1\n", "x.csv, line 3: 2 cells, expected the 3 columns of the header"),
        ("id,x,y\na,1,2\n\nb,1,one\n", "x.csv, line 4: y is 'one', expected a number"),
        ("id,x,y\na,1,\n", "x.csv, line 2: y is '', expected a number"),
        ("id,x,y\na,1,2\na,1,2\n", "x.csv, line 3: the id 'a' occurs twice, expected one vector for each utterance"),
        ("id,x,y\n,1,2\n", "x.csv, line 2: the id is blank, expected that of an utterance"),
        (
            "id,x,y\na,1,nan\n",
            "line 2: 1 of 2 numbers of 'a' are not finite in float32 (the first: number 2), expected",
        ),
        (
            "id,x,y\na,1e39,2\n",
            "line 2: 1 of 2 numbers of 'a' are not finite in float32 (the first: number 1), expected",
        ),
    ],
)
def test_a_wrong_csv_file_is_one_sentence(tmp_path: Path, text: str, sentence: str):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(sentence)):
        read_feature_file(str(tmp_path / "x.csv"))


@pytest.mark.parametrize(
    ("vectors", "sentence"),
    [
        ({}, "x.npz: has no vectors, expected one for each utterance"),
        ({"a": A, "b": [1.0]}, "x.npz: the vector of 'b' has 1 number, expected 3 as the one of 'a'"),
        (
            {"a": A, "b": [1.0, np.nan, np.inf]},
            "x.npz: 2 of 3 numbers of 'b' are not finite in float32 (the first: number 2)",
        ),
        ({"a": A, "a ": B}, "x.npz: the id 'a' occurs twice, expected one vector for each utterance"),
        (
            {"a": [A, B]},
            "x.npz: 'a' is an array of shape [2, 3], expected one vector for an utterance (of frames, their",
        ),
        ({"a": 1.0}, "x.npz: 'a' is an array of shape [], expected one vector for an utterance"),
        ({"a": []}, "x.npz: 'a' is an array of shape [0], expected one vector for an utterance"),
        ({"a": ["1", "2"]}, "x.npz: 'a' is of the type <U1, expected real numbers"),
        ({"a": [1j]}, "x.npz: 'a' is of the type complex128, expected real numbers"),
        (
            {"a": np.array([None, 1])},
            "x.npz: 'a' cannot be read (Object arrays cannot be loaded when allow_pickle=False",
        ),
    ],
)
def test_a_wrong_npz_file_is_one_sentence(tmp_path: Path, vectors: dict[str, Any], sentence: str):
    np.savez(tmp_path / "x.npz", **vectors)
    with pytest.raises(InputError, match=re.escape(sentence)):
        read_feature_file(str(tmp_path / "x.npz"))


def npy(vector: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, vector)
    return buffer.getvalue()


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "x.npz cannot be looked up (No such file or directory), expected an npz file"),
        (b"", "x.npz: cannot be read as npz (No data left in file), expected an npz file: a vector for each utterance"),
        (b"abc" * 100, "x.npz: cannot be read as npz ("),
        (npy(A), "x.npz: cannot be read as npz ("),
        (zipped(a_npy=npy(A))[:-30], "x.npz: cannot be read as npz (File is not a zip file), expected"),
        (zipped(a_npy=npy(A)[:-4]), "x.npz: 'a' cannot be read ("),
        (zipped(a_npy=npy(A)).replace(npy(A)[-8:], b"12345678", 1), "x.npz: 'a' cannot be read (Bad CRC-32 for file"),
        (zipped(a_txt=b"1 2 3"), "x.npz: 'a.txt' is of the type |S5, expected real numbers"),
    ],
)
def test_a_file_that_is_no_npz_is_one_sentence(tmp_path: Path, data: bytes | None, sentence: str):
    if data is not None:
        (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(InputError, match=re.escape(sentence)):
        read_feature_file(str(tmp_path / "x.npz"))
