"""Folders as Hugging Face's `datasets` lays them out, with metadata, with a folder for each class, or in Parquet."""

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from sejax.corpora.read import CORPORA, read_corpus
from sejax.corpora.readers.audio_folder import parse_options, prepare_audio_folder
from sejax.corpora.schema import Loss
from sejax.corpora.split_names import name_splits, splits_by_name
from sejax.errors import InputError


def write_audio(folder: Path, *names: str, rate: int = 8000) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.zeros(rate // 2), rate)


def read(folder: Path, labels: str = "default"):
    return read_corpus("audio_folder", str(folder), labels=labels)


def fails(folder: Path, *sentences: str, labels: str = "default") -> None:
    with pytest.raises(InputError) as caught:
        read(folder, labels)
    for sentence in sentences:
        assert sentence.replace("FOLDER", str(folder)) in str(caught.value)


# ---- metadata

CELLS: list[dict[str, Any]] = [
    {"file_name": "a.wav", "label": "joy", "speaker_id": "s1", "gender": "female", "valence": 2.5, "words": "na ja"},
    {
        "file_name": "sub/b.wav",
        "label": "anger",
        "speaker_id": "s2",
        "gender": "other",
        "valence": 4,
        "words": "so, so",
    },
]


def write_metadata(folder: Path, kind: str, rows: list[dict[str, Any]] = CELLS) -> None:
    path = folder / f"metadata.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = [list(rows[0]), *([f'"{cell}"' for cell in row.values()] for row in rows)]
        path.write_text("".join(",".join(line) + "\n" for line in lines))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_of_every_kind_says_the_same(tmp_path, kind):
    write_audio(tmp_path, "a.wav", "sub/b.wav", "sub/c.wav")
    write_metadata(tmp_path, kind)
    corpus = read(tmp_path)
    assert (corpus.name, corpus.classes, corpus.vad_scale) == ("audio_folder", ("anger", "joy"), (1.0, 5.0))
    one, two = corpus.utterances
    assert (one.id, one.path, one.speaker, one.label) == ("a", str(tmp_path / "a.wav"), "s1", "joy")
    assert (two.id, two.path, two.speaker, two.label) == ("sub/b", str(tmp_path / "sub/b.wav"), "s2", "anger")
    assert (one.gender, two.gender, one.vad[0], two.vad[0]) == ("F", None, 2.5, 4.0)
    assert (one.corpus, one.duration, one.split, one.speaker_known) == ("audio_folder", 0.5, None, True)
    assert "columns of the metadata that are not read: 'words'" in corpus.notes
    assert "1 row with a gender other than F and M: taken as unknown" in corpus.notes
    assert "1 audio file without a row in the metadata left out (such as sub/c.wav)" in corpus.notes


def test_metadata_in_each_folder_and_a_missing_file(tmp_path):
    write_audio(tmp_path, "train/x/a.wav", "test/a.wav")
    for split, name in (("train", "x/a.wav"), ("test", "a.wav")):
        (tmp_path / split / "metadata.csv").write_text(f"file_name,label\n{name},joy\n")
    with open(tmp_path / "test" / "metadata.csv", "a") as file:
        file.write("gone.wav,joy\n")
    corpus = read(tmp_path)
    assert [(u.id, u.split) for u in corpus.utterances] == [("test/a", "test"), ("train/x/a", "train")]
    assert [(lost.id, lost.kind) for lost in corpus.dropped] == [("test/gone", Loss.ABSENT)]
    assert f"{tmp_path}/test/metadata.csv, line 3: there is no audio file" in corpus.dropped[0].reason


def test_without_a_speaker_every_speaker_is_unknown(tmp_path):
    write_audio(tmp_path, "a.wav", "b.wav")
    (tmp_path / "metadata.csv").write_text("file_name,label,user\na.wav,x,s\nb.wav,x,s\n")
    corpus = read(tmp_path)
    found = [(u.speaker, u.speaker_known) for u in corpus.utterances]
    assert found == [("unknown-a", False), ("unknown-b", False)]
    assert any(note.startswith("2 utterances of unknown speakers") for note in corpus.notes)
    assert [u.speaker for u in read(tmp_path, "speaker=user").utterances] == ["s", "s"]


@pytest.mark.parametrize("column", ["speaker", "speaker_id", "actor", "SpkrID"])
def test_names_of_the_speaker_that_are_guessed_and_missing_ones(tmp_path, column):
    write_audio(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "metadata.csv").write_text(f"file_name,label,{column}\na.wav,x,7\nb.wav,x,\nc.wav,x,Unknown\n")
    assert [u.speaker_known for u in read(tmp_path).utterances] == [True, False, False]


def test_names_of_columns_and_the_scale_can_be_given(tmp_path):
    write_audio(tmp_path, "a.wav", "b.wav")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.wav", "emotion": "joy", "EmoVal": 6, "angry": 1, "happy": 3}\n\n'
        '{"file_name": "b.wav", "emotion": null, "EmoVal": NaN, "angry": 2, "happy": null}\n'
    )
    corpus = read(tmp_path, "label=emotion, valence=EmoVal,1..7,votes:joy=happy,votes:anger=angry")
    assert corpus.vad_scale == (1.0, 7.0)
    one, two = corpus.utterances
    assert (one.label, one.vad[0], one.distribution) == ("joy", 6.0, {"anger": 0.25, "joy": 0.75})
    assert (two.label, two.distribution) == ("anger", {"anger": 1.0, "joy": 0.0})
    assert math.isnan(two.vad[0])


def test_a_column_of_splits_counts_more_than_names(tmp_path):
    write_audio(tmp_path, "train/a.wav", "train/b.wav", "test/c.wav")
    rows = "train/a.wav,x,validation\ntrain/b.wav,x,Train\ntest/c.wav,x,test2\n"
    (tmp_path / "metadata.csv").write_text("file_name,label,split\n" + rows)
    assert [(u.id, u.split) for u in read(tmp_path).utterances] == [
        ("test/c", "test2"),
        ("train/a", "val"),
        ("train/b", "train"),
    ]


def test_the_names_of_classes_are_those_of_the_library(tmp_path):
    write_audio(tmp_path, "a.wav", "b.wav", "c.wav")
    table = pa.table({"file_name": ["a.wav", "b.wav", "c.wav"], "label": [1, 0, -1], "valence": [1.0, 2.0, 3.0]})
    features = {"label": {"names": ["anger", "joy"], "_type": "ClassLabel"}}
    info = json.dumps({"info": {"features": features}})
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), tmp_path / "metadata.parquet")
    assert [u.label for u in read(tmp_path).utterances] == ["joy", "anger", None]


# ---- a folder for each class


def test_the_folder_of_a_file_is_its_class(tmp_path):
    write_audio(tmp_path, "train/joy/a.wav", "train/anger/b.flac", "test/joy/a.wav")
    (tmp_path / ".cache").mkdir()
    write_audio(tmp_path, ".cache/x.wav", "__MACOSX/y/z.wav")
    corpus = read(tmp_path)
    assert corpus.classes == ("anger", "joy")
    assert [(u.id, u.label, u.split) for u in corpus.utterances] == [
        ("test/joy/a", "joy", "test"),
        ("train/anger/b", "anger", "train"),
        ("train/joy/a", "joy", "train"),
    ]
    assert "the class of a file is the folder in which it lies, as there is no metadata" in corpus.notes


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("joy/a.wav", "joy/b.wav"), "2 audio files in folders called 'joy' at 1 depth"),
        (("joy/a.wav", "anger/x/b.wav"), "2 audio files in folders called 'joy', 'x' at 2 depths"),
        (
            ("train/a.wav", "test/b.wav"),
            "in folders called 'test', 'train' at 1 depth, expected a folder for each of two",
        ),
    ],
)
def test_folders_that_are_no_classes(tmp_path, names, said):
    write_audio(tmp_path, *names)
    fails(tmp_path, "FOLDER has no metadata, and ", said)


# ---- splits by names


@pytest.mark.parametrize(
    ("paths", "splits"),
    [
        (["train/a.wav", "dev/b.wav", "testing/c.wav"], ["train", "val", "test"]),
        (["x/train/a.wav", "x/my-eval/b.wav"], ["train", "test"]),
        (["train_2/a.wav", "valid.0/test_b.wav"], ["train", "val"]),  # folders before files
        (["training_a.wav", "a-validation.wav"], ["train", "val"]),
        (["train01.wav", "7test.wav"], ["train", "test"]),
        (["latest/a.wav", "contest/b.wav"], [None, None]),
        (["Train/a.wav", "TEST/b.wav"], [None, None]),  # capitals matter to the library
        (["train/a.wav", "train/b.wav"], [None, None]),  # one split is none
    ],
)
def test_splits_are_words_in_names(paths, splits):
    found, note = splits_by_name(paths)
    assert [found.get(path) for path in paths] == splits
    assert note is None


def test_a_word_in_some_names_only_is_no_split():
    found, note = splits_by_name(["wav/test_1.wav", "wav/a.wav"])
    assert found == {}
    assert note == (
        "1 file of 2 have the word of a split in their names (such as 'wav/test_1.wav') and the others have none (such "
        "as 'wav/a.wav'): no splits are taken from names"
    )


def test_a_file_in_two_splits():
    with pytest.raises(InputError, match=r"train/test/a\.wav has words for several splits in it \(train, test\)"):
        splits_by_name(["train/test/a.wav"])


def test_several_tests_are_numbered():
    assert name_splits(["train", "dev", "test-clean", "test-other"]) == {
        "train": "train",
        "dev": "val",
        "test-clean": "test1",
        "test-other": "test2",
    }
    assert name_splits(["train", "test", "german"]) == {"train": "train", "test": "test"}
    assert name_splits(["test1", "test-a", "test-b"]) == {"test1": "test1", "test-a": "test2", "test-b": "test3"}


# ---- Parquet files with the audio inside


def sound(rate: int, seconds: float = 0.25, kind: str = "wav") -> bytes:
    data = io.BytesIO()
    soundfile.write(data, np.linspace(-0.5, 0.5, int(rate * seconds)), rate, format=kind)
    return data.getvalue()


def write_shard(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes a Parquet file as `push_to_hub` does: a struct for the audio, and the features in the schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("audio", audio), ("label", pa.int64()), ("speaker_id", pa.string())])
    features = {
        "audio": {"sampling_rate": 16000, "_type": "Audio"},  # what the library decodes to, not what is inside
        "label": {"names": ["anger", "joy"], "_type": "ClassLabel"},
        "speaker_id": {"dtype": "string", "_type": "Value"},
    }
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def parquet() -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.table({"label": ["label"]}), data)
    return data.getvalue()


PARQUET = parquet()


def row(path: str | None, rate: int, label: int, speaker: str | None, data: bytes | None = b"") -> dict[str, Any]:
    return {
        "audio": {"bytes": sound(rate) if data == b"" else data, "path": path},
        "label": label,
        "speaker_id": speaker,
    }


def unpack(folder: Path, cache: Path) -> Path:
    return Path(prepare_audio_folder(str(folder), str(cache), {}))


def test_parquet_files_are_unpacked_once_byte_for_byte(tmp_path, capsys):
    folder, cache = tmp_path / "repository", tmp_path / "cache"
    write_shard(
        folder / "data/train-00000-of-00002.parquet", [row("a/x 1.wav", 8000, 1, "s1"), row(None, 11025, 0, "s2")]
    )
    write_shard(folder / "data/train-00001-of-00002.parquet", [row("x 1.wav", 8000, 0, None)])
    write_shard(folder / "data/test-00000-of-00001.parquet", [row("y.flac", 44100, 0, "s4", sound(44100, kind="flac"))])
    unpacked = unpack(folder, cache)
    assert "its Parquet files are unpacked to" in capsys.readouterr().err
    assert unpacked.parent == cache
    corpus = read(unpacked)
    found = {u.id: (u.label, u.speaker, u.split, u.speaker_known, u.duration) for u in corpus.utterances}
    assert found == {
        "train/00000-000000-x_1": ("joy", "s1", "train", True, 0.25),
        "train/00000-000001": ("anger", "s2", "train", True, pytest.approx(0.25, abs=1e-4)),
        "train/00001-000000-x_1": ("anger", "unknown-train/00001-000000-x_1", "train", False, 0.25),
        "test/00000-000000-y": ("anger", "s4", "test", True, 0.25),
    }
    paths = {u.id: Path(u.path) for u in corpus.utterances}
    assert paths["test/00000-000000-y"].read_bytes() == sound(44100, kind="flac")
    assert soundfile.info(paths["train/00000-000001"]).samplerate == 11025
    # A second time nothing is written; a changed file is unpacked anew, beside the first.
    written = {path: path.stat().st_mtime_ns for path in cache.rglob("*.wav")}
    assert unpack(folder, cache) == unpacked
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.wav")} == written
    assert capsys.readouterr().err == ""
    write_shard(folder / "data/test-00000-of-00001.parquet", [row("z.wav", 8000, 0, "s4")])
    assert unpack(folder, cache) != unpacked
    assert read(unpack(folder, cache)).utterances[0].id == "test/00000-000000-z"


def test_a_study_unpacks_by_itself_and_a_folder_without_parquet_stays(tmp_path):
    assert CORPORA["audio_folder"].prepare is prepare_audio_folder
    write_audio(tmp_path, "a.wav")
    assert unpack(tmp_path, tmp_path / "cache") == tmp_path
    assert prepare_audio_folder("", str(tmp_path / "cache"), {}) == ""
    assert not (tmp_path / "cache").exists()


def test_splits_of_parquet_files_by_their_own_names(tmp_path):
    for name in ("train", "test_clean", "test_other"):
        write_shard(tmp_path / f"{name}-00000-of-00001.parquet", [row("a.wav", 8000, 0, name)])
    unpack(tmp_path, tmp_path / "cache")
    corpus = read(unpack(tmp_path, tmp_path / "cache"))  # a cache inside the folder is not read as a part of it
    assert {u.speaker: u.split for u in corpus.utterances} == {
        "train": "train",
        "test_clean": "test1",
        "test_other": "test2",
    }
    assert "splits: test_clean is test1, test_other is test2" in corpus.notes


def test_names_that_are_no_splits_are_none(tmp_path):
    for name in ("train", "german"):
        write_shard(tmp_path / f"{name}-00000-of-00001.parquet", [row("a.wav", 8000, 0, name)])
    corpus = read(unpack(tmp_path, tmp_path / "cache"))
    assert {u.split for u in corpus.utterances} == {None}
    assert any("have the splits german, train: not all have the word of one" in note for note in corpus.notes)


def test_files_beside_parquet_files_count_more(tmp_path):
    write_audio(tmp_path, "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.wav,x\n")
    pq.write_table(pa.table({"feature": [1.0]}), tmp_path / "features.parquet")
    assert unpack(tmp_path, tmp_path / "cache") == tmp_path
    assert len(read(tmp_path).utterances) == 1


def test_audio_that_is_damaged_inside_parquet(tmp_path):
    path = tmp_path / "train-00000-of-00001.parquet"
    write_shard(path, [row("a.wav", 8000, 0, "s")] * 3)
    data = bytearray(path.read_bytes())
    data[20:50] = b"\xff" * 30
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"train-00000-of-00001\.parquet is damaged \("):
        unpack(tmp_path, tmp_path / "cache")


def test_a_row_without_bytes_is_missed_and_named(tmp_path):
    write_audio(tmp_path, "elsewhere.wav")
    rows = [
        row("a.wav", 8000, 0, "s"),
        row("gone.wav", 8000, 0, "s", None),
        row(str(tmp_path / "elsewhere.wav"), 8000, 0, "s", None),
    ]
    write_shard(tmp_path / "train-00000-of-00001.parquet", rows)
    corpus = read(unpack(tmp_path, tmp_path / "cache"))
    assert [Path(u.path).name for u in corpus.utterances] == ["elsewhere.wav", "00000-000000-a.wav"]
    assert [lost.kind for lost in corpus.dropped] == [Loss.ABSENT]


def test_parquet_files_that_are_none(tmp_path):
    path = tmp_path / "train-00000-of-00001.parquet"
    for data, said in (
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a git-lfs pointer"),
        (b"PAR1 and more", "is damaged ("),
        (PARQUET.replace(b"label", b"lab\xb1l"), "is damaged ("),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            unpack(tmp_path, tmp_path / "cache")
        assert said in str(caught.value) and str(path) in str(caught.value)
        assert not list((tmp_path / "cache").glob("audio-folder-*[!k]"))
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), path)
    with pytest.raises(
        InputError, match="has no column with audio in it, found text, label, expected a struct of bytes"
    ):
        unpack(tmp_path, tmp_path / "cache")
    fails(tmp_path, "FOLDER holds Parquet files with the audio inside, expected the folder that they are unpacked to")


def test_the_extra_is_named_where_pyarrow_is_absent(tmp_path, monkeypatch):
    write_shard(tmp_path / "train-00000-of-00001.parquet", [row("a.wav", 8000, 0, "s")])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'sejax\[datasets\]'"):
        unpack(tmp_path, tmp_path / "cache")


# ---- bad input


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "FOLDER has neither metadata.csv, metadata.jsonl, metadata.parquet nor audio files in it"),
        ({"metadata.csv": "path,label\na.wav,x\n"}, "has the columns 'path', 'label', expected file_name among them"),
        (
            {"metadata.csv": "file_name,emotion\na.wav,x\n"},
            "FOLDER/metadata.csv has the columns 'file_name', 'emotion', expected label, votes:<class> or valence, "
            "arousal, dominance among them, or their names as config.labels=label=COLUMN",
        ),
        ({"metadata.csv": "x", "metadata.jsonl": "x"}, "has metadata.csv and metadata.jsonl, expected metadata of one"),
        ({"metadata.jsonl": "{]\n"}, "FOLDER/metadata.jsonl, line 1: is no JSON"),
        ({"metadata.jsonl": "\n[1]\n"}, "FOLDER/metadata.jsonl, line 2: is [1], expected an object like {...}"),
        (
            {"metadata.jsonl": '{"file_name": "a.wav", "label": ["x"]}\n'},
            "FOLDER/metadata.jsonl, line 1: label is ['x'], expected text or a number",
        ),
        ({"metadata.parquet": "PAR1"}, "FOLDER/metadata.parquet is damaged ("),
        ({"metadata.csv": "file_name,label,valence\na.wav,x,high\n"}, "line 2: valence 'high' is not a number"),
        ({"metadata.csv": "file_name,label,split\na.wav,x,german\n"}, "line 2: split 'german', expected train, val"),
    ],
)
def test_bad_folders(tmp_path, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    fails(tmp_path, said)


def test_no_folder(tmp_path):
    fails(tmp_path / "gone", "FOLDER is not there, expected a folder of audio files with metadata.csv")
    (tmp_path / "file").touch()
    fails(tmp_path / "file", "FOLDER is a file, expected a folder")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("wide", "config.labels is 'wide', expected default or the scale"),
        (
            "path=file",
            "config.labels has the part 'path=file', expected column=THEIRS, each column once, of speaker, id",
        ),
        ("lable=x", "config.labels has the part 'lable=x'"),
        ("label=x,label=y", "config.labels has the part 'label=y'"),
        ("label=", "config.labels has the part 'label='"),
        ("1..5,1..7", "config.labels is '1..5,1..7', expected one scale"),
        (
            "label=emotion",
            "FOLDER/metadata.csv has no column 'emotion', which config.labels names for label, found 'file",
        ),
    ],
)
def test_bad_options(tmp_path, labels, said):
    write_audio(tmp_path, "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.wav,x\n")
    fails(tmp_path, said, labels=labels)


def test_names_of_columns_need_metadata(tmp_path):
    write_audio(tmp_path, "x/a.wav", "y/b.wav")
    fails(tmp_path, "config.labels is 'label=x', but FOLDER has no metadata", labels="label=x")
    assert parse_options("default") == ({}, None)
