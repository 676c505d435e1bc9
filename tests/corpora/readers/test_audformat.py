"""Databases in audformat: written by the package audformat, and one by hand."""

import math
import subprocess
import sys
from pathlib import Path

import audformat
import numpy as np
import pandas as pd
import pytest
import soundfile

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Corpus, Loss
from sejax.errors import InputError

FILES = [f"audio/{name}.wav" for name in "abcdef"]
SPEAKERS = ["s1", "s1", "s2", "s2", "s3", "s3"]
SPLITS = {"train": FILES[:2], "dev": FILES[2:4], "test": FILES[4:]}
WORDS = ("joy", "anger", "no_agreement")
NO_CODE = ["anger", "joy", "anger", "joy", "anger", "joy"]


def write_audio(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.zeros(8000), 16_000)


def database() -> audformat.Database:
    """Returns a database with speakers, as the package writes it."""
    db = audformat.Database("mine", source="internal")
    db.schemes["emotion"] = audformat.Scheme(labels={word: {"original": word} for word in WORDS})
    db.schemes["gender"] = audformat.Scheme(labels=["female", "male", "other"])
    db.schemes["votes"] = audformat.Scheme("int", minimum=0)
    db["speaker"] = audformat.MiscTable(pd.Index(["s1", "s2", "s3"], dtype="string", name="speaker"))
    db["speaker"]["gender"] = audformat.Column(scheme_id="gender")
    db["speaker"]["gender"].set(["female", "male", "other"])
    db.schemes["speaker"] = audformat.Scheme("str", labels="speaker")
    db.schemes["transcription"] = audformat.Scheme(labels={"t1": "Guten Tag", "t2": "Auf Wiedersehen"})
    db["files"] = audformat.Table(audformat.filewise_index(FILES))
    add(db["files"], "speaker", SPEAKERS)
    add(db["files"], "transcription", ["t1", "t2"] * 3)
    return db


def add(table: audformat.Table, column: str, values: list, scheme: str | None = None) -> None:
    table[column] = audformat.Column(scheme_id=scheme or column)
    table[column].set(values)


def add_emotions(db: audformat.Database, kind: str, words: dict[str, str | None], *, declare: bool = True) -> None:
    for split, files in SPLITS.items():
        db.splits[split] = audformat.Split(type=split)
        name = f"emotion.categories.{split}.{kind}"
        db[name] = audformat.Table(audformat.filewise_index(files), split_id=split if declare else None)
        add(db[name], "emotion", [words[file] for file in files])


def add_votes(db: audformat.Database, votes: list[tuple[int, int]], kind: str = "votes") -> None:
    for split, files in SPLITS.items():
        db[f"emotion.categories.{split}.{kind}"] = audformat.Table(audformat.filewise_index(files))
        for column, word in enumerate(("joy", "anger")):
            numbers = [votes[FILES.index(file)][column] for file in files]
            add(db[f"emotion.categories.{split}.{kind}"], word, numbers, "votes")


def save(db: audformat.Database, folder: Path, storage: str = "parquet") -> Path:
    write_audio(folder, *FILES)
    db.save(folder, storage_format=storage)
    return folder


def read(folder: Path, labels: str = "default") -> Corpus:
    return read_corpus("audformat", str(folder), labels=labels)


def fails(folder: Path, *sentences: str, labels: str = "default") -> None:
    with pytest.raises(InputError) as caught:
        read(folder, labels)
    for sentence in sentences:
        assert sentence.replace("FOLDER", str(folder)) in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- labels, votes and their source


@pytest.mark.parametrize("storage", ["parquet", "csv"])
def test_intended_labels_with_speakers_texts_and_splits(tmp_path, storage):
    db = database()
    add_emotions(db, "desired", dict(zip(FILES, NO_CODE, strict=True)))
    corpus = read(save(db, tmp_path, storage))
    assert (corpus.name, corpus.classes, corpus.label_source) == ("audformat", ("joy", "anger"), "intended")
    found = [(u.id, u.label, u.speaker, u.gender, u.text, u.split) for u in corpus.utterances]
    assert found == [
        ("audio/a", "anger", "s1", "F", "t1", "train"),
        ("audio/b", "joy", "s1", "F", "t2", "train"),
        ("audio/c", "anger", "s2", "M", "t1", "val"),
        ("audio/d", "joy", "s2", "M", "t2", "val"),
        ("audio/e", "anger", "s3", None, "t1", "test"),
        ("audio/f", "joy", "s3", None, "t2", "test"),
    ]
    first = corpus.utterances[0]
    assert (first.path, first.duration, first.corpus) == (str(tmp_path / FILES[0]), 0.5, "audformat")
    assert (first.speaker_known, first.distribution, first.start, first.end) == (True, None, None, None)
    assert first.place == f"{tmp_path}/db.emotion.categories.train.desired.{storage}, " + (
        "row 1" if storage == "parquet" else "line 2"
    )


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    """A database in the layout of Emozionalmente: intended classes, votes, and what the votes say."""
    db = database()
    add_emotions(db, "desired", dict.fromkeys(FILES, "joy"))
    gold = ["joy", "anger", "no_agreement", "joy", "joy", "anger"]
    add_emotions(db, "gold_standard", dict(zip(FILES, gold, strict=True)), declare=False)
    add_votes(db, [(4, 1), (0, 5), (2, 2), (3, 2), (5, 0), (1, 4)])
    return save(db, tmp_path_factory.mktemp("several"))


def test_several_kinds_have_to_be_chosen_from(several):
    fails(
        several,
        "FOLDER has labels of the kinds desired, gold_standard, expected one of them as config.labels",
    )
    fails(
        several,
        "config.labels is 'wanted', expected a kind of labels of this database: desired, gold_standard",
        labels="wanted",
    )


def test_intended_labels_stand_without_votes(several):
    corpus = read(several, "desired")
    assert corpus.label_source == "intended"
    assert {(u.label, u.distribution) for u in corpus.utterances} == {("joy", None)}


def test_perceived_labels_have_the_votes_and_no_agreement_is_no_class(several):
    corpus = read(several, "gold_standard")
    assert corpus.label_source == "perceived: the database's gold standard, no class where it is no_agreement"
    assert corpus.classes == ("joy", "anger")
    assert [u.label for u in corpus.utterances] == ["joy", "anger", None, "joy", "joy", "anger"]
    assert corpus.utterances[0].distribution == {"joy": 0.8, "anger": 0.2}
    assert corpus.utterances[2].distribution == {"joy": 0.5, "anger": 0.5}
    assert [u.split for u in corpus.utterances] == ["train", "train", "val", "val", "test", "test"]  # by tables' names
    assert any("kept without a class: no agreement 1" in note for note in corpus.notes)


def test_without_votes_there_is_nothing_to_learn_where_raters_did_not_agree(tmp_path):
    db = database()
    words: dict[str, str | None] = dict.fromkeys(FILES, "joy")
    add_emotions(db, "gold_standard", words | {FILES[0]: "no_agreement", FILES[1]: None})
    corpus = read(save(db, tmp_path))
    assert [u.id for u in corpus.utterances] == ["audio/c", "audio/d", "audio/e", "audio/f"]
    assert [(lost.id, lost.kind) for lost in corpus.dropped] == [("audio/b", Loss.UNLABELLED)]
    assert "audio/b.wav has no emotion, votes and ratings" in corpus.dropped[0].reason
    assert any("left out: no agreement 1" in note for note in corpus.notes)


def test_votes_alone_and_columns_of_raters(tmp_path):
    for folder, by_rater in ((tmp_path / "votes", False), (tmp_path / "raters", True)):
        db = database()
        votes = [(2, 1), (0, 3), (1, 1), (3, 0), (3, 0), (1, 2)]
        if by_rater:
            db["emotion"] = audformat.Table(audformat.filewise_index(FILES))
            for rater in range(3):
                words = [(["joy"] * joy + ["anger"] * anger + [None] * 3)[rater] for joy, anger in votes]
                add(db["emotion"], f"rater{rater}", words, "emotion")
        else:
            add_votes(db, votes)
        corpus = read(save(db, folder))
        assert corpus.label_source == "perceived: plurality of the votes, no class for a tie"
        assert [u.label for u in corpus.utterances] == ["joy", "anger", None, "joy", "joy", "anger"]
        assert corpus.utterances[0].distribution == {"joy": pytest.approx(2 / 3), "anger": pytest.approx(1 / 3)}


def test_labels_of_a_modality(tmp_path):
    db = database()
    for kind, word in (("gold_standard", "joy"), ("gold_standard.face", "anger")):
        add_emotions(db, kind, dict.fromkeys(FILES, word))
    add_votes(db, [(3, 1)] * 6)
    add_votes(db, [(1, 3)] * 6, "votes.face")
    folder = save(db, tmp_path)
    fails(folder, "has labels of the kinds gold_standard, gold_standard.face, expected one of them")
    face = read(folder, "gold_standard.face")
    assert (face.utterances[0].label, face.utterances[0].distribution) == ("anger", {"joy": 0.25, "anger": 0.75})
    assert face.label_source == "perceived: the database's gold standard of face, no class where it is no_agreement"
    assert read(folder, "gold_standard").utterances[0].distribution == {"joy": 0.75, "anger": 0.25}


def test_kinds_that_agree_in_every_label_are_one(tmp_path):
    """As in EmoDB, which has its labels in one table and in a table for each split."""
    db = database()
    words = dict(zip(FILES, NO_CODE, strict=True))
    db["emotion"] = audformat.Table(audformat.filewise_index(FILES))
    add(db["emotion"], "emotion", list(words.values()))
    add_emotions(db, "gold_standard", words)
    corpus = read(save(db, tmp_path))
    assert corpus.utterances[0].split == "train"
    assert corpus.label_source.startswith("perceived: the database's gold standard")
    plain = read(tmp_path, "emotion")
    assert (plain.utterances[0].split, plain.label_source) == (None, "unknown")


def test_numbers_that_stand_for_words(tmp_path):
    db = database()
    db.schemes["emotion"] = audformat.Scheme("int", labels={0: "neutral", 1: "anger"})
    db["emotion"] = audformat.Table(audformat.filewise_index(FILES))
    add(db["emotion"], "emotion", [0, 1, 0, 1, 0, None])
    corpus = read(save(db, tmp_path))
    assert corpus.classes == ("neutral", "anger")
    assert [u.label for u in corpus.utterances] == ["neutral", "anger", "neutral", "anger", "neutral"]


# ---- ratings


def test_ratings_on_the_scale_of_their_scheme(tmp_path):
    db = database()
    for dimension in ("valence", "arousal"):
        db.schemes[dimension] = audformat.Scheme("float", minimum=0, maximum=1)
    db["emotion.dimensions.gold_standard"] = audformat.Table(audformat.filewise_index(FILES))
    add(db["emotion.dimensions.gold_standard"], "valence", [0.1, 0.2, 0.3, 0.4, 0.5, None])
    db["arousal"] = audformat.Table(audformat.filewise_index(FILES))  # one column for each rater
    add(db["arousal"], "rater1", [0.0, 0.2, 0.4, None, None, None], "arousal")
    add(db["arousal"], "rater2", [0.5, 0.2, None, None, None, None], "arousal")
    add_emotions(db, "desired", dict.fromkeys(FILES, "joy"))
    corpus = read(save(db, tmp_path))  # gold_standard is the default of ratings
    assert corpus.vad_scale == (0.0, 1.0)
    assert [u.vad[0] for u in corpus.utterances[:5]] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert all(math.isnan(value) for value in corpus.utterances[5].vad)
    raters = read(tmp_path, "emotion")
    assert [u.vad[1] for u in raters.utterances[:3]] == [0.25, 0.2, 0.4]
    assert read(tmp_path, "desired,-1..1").vad_scale == (-1.0, 1.0)


def test_ratings_alone_and_a_scale_that_is_guessed(tmp_path):
    db = database()
    db.schemes["valence"] = audformat.Scheme("float")
    db["valence"] = audformat.Table(audformat.filewise_index(FILES))
    add(db["valence"], "valence", [1.0, 2, 3, 4, 5, 6])
    corpus = read(save(db, tmp_path))
    assert (corpus.classes, corpus.vad_scale, corpus.label_source) == ((), (1.0, 7.0), "unknown")
    assert len(corpus.utterances) == 6


def test_ratings_on_different_scales(tmp_path):
    db = database()
    db.schemes["valence"] = audformat.Scheme("float", minimum=-1, maximum=1)
    db.schemes["arousal"] = audformat.Scheme("float", minimum=0, maximum=1)
    db["emotion.dimensions"] = audformat.Table(audformat.filewise_index(FILES))
    for dimension in ("valence", "arousal"):
        add(db["emotion.dimensions"], dimension, [0.5] * 6)
    folder = save(db, tmp_path)
    fails(
        folder,
        "has ratings on different scales (emotion.dimensions.valence from -1.0 to 1.0, emotion.dimensions.arousal from",
    )
    assert read(folder, "-1..1").vad_scale == (-1.0, 1.0)


# ---- segments, splits, speakers, files


@pytest.mark.parametrize("storage", ["parquet", "csv"])
def test_segments_are_parts_of_files(tmp_path, storage):
    db = database()
    index = audformat.segmented_index(
        [FILES[0]] * 3 + [FILES[2]], ["0s", "0.1s", "0.25s", "0s"], ["0.1s", "0.25s", pd.NaT, pd.NaT]
    )
    db["emotion.categories.desired"] = audformat.Table(index)
    add(db["emotion.categories.desired"], "emotion", ["joy", "anger", "joy", "joy"])
    corpus = read(save(db, tmp_path, storage))
    found = {u.id: (u.start, u.end, u.speaker, u.duration) for u in corpus.utterances}
    assert found == {
        "audio/a#-0.1": (None, 0.1, "s1", pytest.approx(0.1)),
        "audio/a#0.1-0.25": (0.1, 0.25, "s1", pytest.approx(0.15)),
        "audio/a#0.25-": (0.25, None, "s1", pytest.approx(0.25)),
        "audio/c": (None, None, "s2", 0.5),
    }


def test_several_tests_are_numbered(tmp_path):
    db = database()
    for split, (kind, files) in {
        "train": ("train", FILES[:2]),
        "test-2": ("test", FILES[2:4]),
        "test-1": ("test", FILES[4:]),
    }.items():
        db.splits[split] = audformat.Split(type=kind)
        db[f"emotion.categories.{split}.desired"] = audformat.Table(audformat.filewise_index(files), split_id=split)
        add(db[f"emotion.categories.{split}.desired"], "emotion", ["joy", None if split == "test-1" else "anger"])
    corpus = read(save(db, tmp_path))
    assert [u.split for u in corpus.utterances] == ["train", "train", "test2", "test2", "test1", "test1"]
    assert [u.hidden for u in corpus.utterances] == [False] * 5 + [True]
    assert "1 row of test splits without emotion, votes and ratings: predicted, not scored" in corpus.notes
    assert "splits: test-1 is test1, test-2 is test2" in corpus.notes


def test_a_split_of_another_kind_leaves_no_splits(tmp_path):
    db = database()
    add_emotions(db, "desired", dict.fromkeys(FILES, "joy"))
    db.splits["dev"] = audformat.Split(type="other")
    corpus = read(save(db, tmp_path))
    assert {u.split for u in corpus.utterances} == {None}
    assert "2 files of 6 are in no split for training or tests: no splits are used" in corpus.notes


def test_a_file_in_two_splits_or_with_two_labels(tmp_path):
    for split, word, said in (
        (
            "test",
            "joy",
            "audio/a.wav is in the split test, and in train (FOLDER/db.emotion.categories.train.desired.csv, ",
        ),
        (
            "train",
            "anger",
            "audio/a.wav is anger, and joy (FOLDER/db.emotion.categories.train.desired.csv, line 2), exp",
        ),
    ):
        db = database()
        add_emotions(db, "desired", dict.fromkeys(FILES, "joy"))
        db["emotion.more.desired"] = audformat.Table(audformat.filewise_index(FILES[:1]), split_id=split)
        add(db["emotion.more.desired"], "emotion", [word])
        folder = save(db, tmp_path / split, "csv")
        header = (folder / "db.yaml").read_text()
        (folder / "db.yaml").write_text(header.replace("emotion.more.desired", "emotion.emotion.desired"))
        (folder / "db.emotion.more.desired.csv").rename(folder / "db.emotion.emotion.desired.csv")
        fails(folder, said)


def test_speakers_whom_the_database_does_not_know(tmp_path):
    db = database()
    add(db["files"], "speaker", ["s1", None, "s2", "s2", "s3", "s3"])
    add_emotions(db, "desired", dict.fromkeys(FILES, "joy"))
    corpus = read(save(db, tmp_path))
    assert [(u.speaker, u.speaker_known) for u in corpus.utterances[:2]] == [("s1", True), ("unknown-audio/b", False)]
    assert any(note.startswith("1 utterance of unknown speakers") for note in corpus.notes)


def test_files_without_their_folder_are_found_and_absent_ones_dropped(tmp_path):
    """As in Quechua Collao, whose tables of emotions name files without the folder."""
    db = database()
    db["emotion.categories.desired"] = audformat.Table(audformat.filewise_index(["a.wav", "b.wav", "gone.wav"]))
    add(db["emotion.categories.desired"], "emotion", ["joy", "anger", "joy"])
    corpus = read(save(db, tmp_path))
    assert [(u.id, u.speaker) for u in corpus.utterances] == [("audio/a", "s1"), ("audio/b", "s1")]
    assert [(lost.id, lost.kind) for lost in corpus.dropped] == [("gone", Loss.ABSENT)]
    assert "2 files named without their folder, found by their names (such as 'a.wav': audio/a.wav)" in corpus.notes


# ---- a database written by hand

HEADER = """
name: hand
schemes:
  emotion: {dtype: str, labels: [joy, anger]}
  speaker: {dtype: str, labels: {1: {sex: female}, 2: {sex: male}}}
tables:
  emotion: {type: segmented, columns: {emotion: {scheme_id: emotion}, speaker: {scheme_id: speaker}, note: {}}}
"""
ROWS = """file,start,end,emotion,speaker,note
a b.wav,0 days 00:00:00.000000,0 days 00:00:00.25,joy,1,x
a b.wav,0.25,,anger,2,
c.wav,00:00:00,0 days 00:00:00.3,fear,2,y
c.wav,0 days,0 days 00:00:00.4,anger,3,y
"""


def write_by_hand(folder: Path, header: str = HEADER, rows: str = ROWS, base: str = "db") -> Path:
    write_audio(folder, "a b.wav", "c.wav")
    (folder / f"{base}.yaml").write_text(header)
    (folder / f"{base}.emotion.csv").write_text(rows)
    return folder


@pytest.mark.parametrize("base", ["db", "speech"])
def test_a_database_written_by_hand(tmp_path, base):
    corpus = read(write_by_hand(tmp_path, base=base))
    found = [(u.id, u.start, u.end, u.label, u.speaker, u.gender) for u in corpus.utterances]
    assert found == [
        ("a b#-0.25", None, 0.25, "joy", "1", "F"),
        ("a b#0.25-", 0.25, None, "anger", "2", "M"),
        ("c#-0.4", None, 0.4, "anger", "unknown-c#-0.4", None),  # no speaker of its scheme
    ]
    assert [lost.id for lost in corpus.dropped] == ["c#-0.3"]  # fear is no label of the scheme
    assert corpus.label_source == "unknown"
    place = f"emotion 'fear', {tmp_path}/{base}.emotion.csv, line 4"
    assert f"2 values not among the labels of the scheme, taken as missing (such as {place})" in corpus.notes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("labels: [joy, anger]", "labels: !!python/object/apply:os.getcwd []"),
            "FOLDER/db.yaml cannot be read as plain YA",
        ),
        (("name: hand", "name: [hand"), "FOLDER/db.yaml cannot be read as plain YAML in UTF-8"),
        (
            ("labels: [joy, anger]", "labels: words"),
            "schemes.emotion: labels is 'words', expected one of misc_tables (none)",
        ),
        (
            ("labels: [joy, anger]", "labels: 3"),
            "schemes.emotion: labels is 3, expected a list, names with values, or a",
        ),
        (("tables:", "table:"), "FOLDER/db.yaml has no tables, expected the header of an audformat database"),
        (("type: segmented", "type: files"), "tables.emotion.type is 'files', expected filewise or segmented"),
        (("{type: segmented,", "{type: segmented, x: ["), "cannot be read as plain YAML"),
        (
            ("schemes:", "schemes: 1\nother:"),
            "FOLDER/db.yaml: schemes is 1, expected names with values, as in audformat",
        ),
        (
            ("emotion: {scheme_id: emotion}", "e: {scheme_id: x}"),
            "has no table with emotions or ratings, found emotion, ex",
        ),
        (
            ("0.25,,anger", "soon,,anger"),
            "FOLDER/db.emotion.csv, line 3: start 'soon' is no time, expected one such as 0 days",
        ),
        (
            ("a b.wav,0.25,,", "a b.wav,0.25,0.25,"),
            "line 3: start '0.25' and end '0.25' are no span, expected start before",
        ),
        (("a b.wav,0.25", ",0.25"), "FOLDER/db.emotion.csv, line 3: file is blank, expected a path"),
        (
            ("start,end,emotion", "start,end,emotions"),
            "line 2: no column 'emotion', found 'file', 'start', 'end', 'emotions'",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_databases(tmp_path, change, said):
    header, rows = HEADER.replace(*change), ROWS.replace(*change)
    assert (header, rows) != (HEADER, ROWS)
    write_by_hand(tmp_path, header, rows)
    fails(tmp_path, said)


def test_no_database(tmp_path):
    fails(tmp_path / "gone", "FOLDER is not there, expected a folder with the header db.yaml of an audformat database")
    (tmp_path / "file").touch()
    fails(tmp_path / "file", "FOLDER is a file, expected a folder")
    fails(tmp_path, "FOLDER has no db.yaml (other headers: none), expected the header of an audformat database")


def test_a_pickled_table_is_refused_with_the_command_that_rewrites_it(tmp_path):
    db = database()
    add_emotions(db, "desired", dict.fromkeys(FILES, "joy"))
    folder = save(db, tmp_path, "pkl")
    with pytest.raises(InputError) as caught:
        read(folder)
    said = str(caught.value)
    assert "pkl is a pickle, which can run any code when it is read" in said
    command = said.split("`")[1]
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    assert len(read(folder).utterances) == 6
    (folder / "db.files.parquet").unlink()
    (folder / "db.files.pkl").unlink()
    fails(folder, "FOLDER/db.files.parquet is not there, nor is .csv, expected one of them: the header lists the table")


@pytest.mark.parametrize(
    ("votes", "said"), [("0.5", "joy is 0.5, expected the number of raters"), ("x", "is not a numb")]
)
def test_votes_that_are_no_numbers_of_raters(tmp_path, votes, said):
    header = "schemes: {}\ntables:\n  emotion.votes: {type: filewise, columns: {joy: {}, anger: {}}}\n"
    write_audio(tmp_path, "a.wav")
    (tmp_path / "db.yaml").write_text(header)
    (tmp_path / "db.emotion.votes.csv").write_text(f"file,joy,anger\na.wav,{votes},2\n")
    fails(tmp_path, said)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("emotion,desired", "config.labels is 'emotion,desired', expected one kind of labels, one scale, or both"),
        ("1..5,1..7", "config.labels is '1..5,1..7', expected one kind of labels, one scale, or both"),
        ("7..1", "config.labels is '7..1', expected default or the scale"),
        ("emotion,", "expected one kind"),
    ],
)
def test_bad_options(tmp_path, labels, said):
    fails(write_by_hand(tmp_path), said, labels=labels)


def test_the_extra_is_named_where_its_packages_are_absent(tmp_path, monkeypatch):
    db = database()
    add_emotions(db, "desired", dict.fromkeys(FILES, "joy"))
    folder = save(db, tmp_path)
    for package in ("pyarrow", "yaml"):
        with monkeypatch.context() as context:
            context.setitem(sys.modules, package, None)
            fails(folder, "pip install 'sejax[audformat]'")
