"""The Emozionalmente reader on small trees in the layout of the release."""

import os
from pathlib import Path

import pytest

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Corpus, Loss, Utterance
from sejax.errors import InputError

ACTORS = {name: name * 32 for name in ("a1", "b2", "c3")}  # 64 digits
SAMPLES = (
    (1001, "Sono stanco.", "a1", "anger"),
    (1002, "sono stanco", "b2", "joy"),
    (1003, "Piove, oggi.", "b2", "neutrality"),
    (1004, "Piove, oggi.", "c3", "sadness"),
)
VOTES = {
    1001: "anger anger anger disgust fear",
    1002: "joy joy surprise surprise neutrality",  # a tie
    1003: "sadness sadness sadness sadness neutrality",
    1004: "sadness sadness sadness sadness sadness",
}
USERS = ("a1", "f", 34), ("b2", "m", 10), ("d4", "f", 50)  # d4 is a rater, and c3 is missing


def write_tree(root: Path, *, splits: dict[int, str] | None = None) -> str:
    metadata = root / "metadata"
    metadata.mkdir(parents=True, exist_ok=True)
    (root / "audio").mkdir()
    lines = ["file_name,sentence,sentence_language,actor,emotion_expressed" + (",split" if splits else "")]
    for number, sentence, actor, emotion in SAMPLES:
        row = f'{number}.wav,"{sentence}",italian,{ACTORS[actor]},{emotion}'
        lines.append(row + (f",{splits[number]}" if splits else ""))
        (root / "audio" / f"{number}.wav").touch()
    (metadata / "samples.csv").write_text("\n".join(lines) + "\n", "utf-8")
    users = [f"{ACTORS.get(name, name * 32)},{gender},{age},italian" for name, gender, age in USERS]
    (metadata / "users.csv").write_text("\n".join(("username,gender,age,mother_tongue", *users)) + "\n")
    rows = ["file_name,evaluator,audio_quality,emotion_recognized"]
    for number, words in VOTES.items():
        quality = "bad" if number == 1003 else "good"
        rows += [f"{number}.wav,r{i},{quality},{word}" for i, word in enumerate(words.split())]
    (metadata / "evaluations.csv").write_text("\n".join(rows) + "\n")
    return str(root)


def by_id(corpus: Corpus) -> dict[str, Utterance]:
    return {utterance.id: utterance for utterance in corpus.utterances}


def test_intended_classes(tmp_path):
    corpus = read_corpus("emozionalmente", write_tree(tmp_path))
    assert corpus.classes == ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
    assert corpus.label_source == "intended"
    utterances = by_id(corpus)
    assert [u.label for u in utterances.values()] == ["anger", "happiness", "neutral", "sadness"]
    assert [u.gender for u in utterances.values()] == ["F", "M", "M", None]
    assert utterances["1001"].speaker == ACTORS["a1"]
    assert all(u.distribution is None for u in utterances.values())  # the votes say what was perceived
    assert utterances["1001"].text == utterances["1002"].text != utterances["1003"].text
    assert utterances["1001"].path == str(tmp_path / "audio" / "1001.wav")
    assert any("utterances expected 6,902, found 4; actors expected 431, found 3" in note for note in corpus.notes)
    assert f"users.csv lacks 1 actor, whose gender is unknown (the first: {ACTORS['c3']})" in corpus.notes
    assert "5 votes for audio of bad quality count like the others" in corpus.notes
    assert any("minors" in note for note in corpus.notes)


def test_perceived_classes_and_ties(tmp_path):
    write_tree(tmp_path)
    corpus = read_corpus("emozionalmente", str(tmp_path), labels="perceived")
    assert corpus.label_source == "perceived: plurality of 5 raters, no class for a tie"
    assert {id: u.label for id, u in by_id(corpus).items()} == {"1001": "anger", "1003": "sadness", "1004": "sadness"}
    distribution = by_id(corpus)["1001"].distribution
    assert distribution is not None and distribution["anger"] == pytest.approx(0.6)
    assert "utterances outside the label scheme perceived, left out: no agreement 1" in corpus.notes
    assert any("no agreement expected 715, found 1" in note for note in corpus.notes)
    tie = by_id(read_corpus("emozionalmente", str(tmp_path), labels="soft"))["1002"]
    assert tie.label is None and tie.distribution is not None
    assert tie.distribution["happiness"] == tie.distribution["surprise"] == pytest.approx(0.4)


SPLITS = {1001: "train", 1002: "dev", 1003: "dev", 1004: "test"}


@pytest.mark.parametrize("form", ["column", "table", "tables"])
def test_official_splits(tmp_path, form):
    write_tree(tmp_path, splits=SPLITS if form == "column" else None)
    metadata = tmp_path / "metadata"
    if form == "table":
        rows = [f"{number}.wav,{split}" for number, split in SPLITS.items()]
        (metadata / "partitions.csv").write_text("\n".join(("file_name,split", *rows)) + "\n")
    elif form == "tables":
        for split in ("train", "dev", "test"):
            rows = [f"{number}.wav" for number, name in SPLITS.items() if name == split]
            (metadata / f"{split}_set.csv").write_text("\n".join(("file_name", *rows)) + "\n")
    corpus = read_corpus("emozionalmente", str(tmp_path))
    assert [u.split for u in corpus.utterances] == ["train", "val", "val", "test"]


def test_without_splits_and_with_a_table_that_names_none(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "metadata" / "ages.csv").write_text("username,age\nx,1\n")
    corpus = read_corpus("emozionalmente", str(tmp_path))
    assert {u.split for u in corpus.utterances} == {None}
    assert "metadata/ages.csv is not read: it has no column file_name, or names no split" in corpus.notes


def test_votes_for_other_files_and_missing_audio(tmp_path):
    write_tree(tmp_path)
    with open(tmp_path / "metadata" / "evaluations.csv", "a") as file:
        file.write("9999.wav,r1,good,fear\n")
    os.remove(tmp_path / "audio" / "1003.wav")
    corpus = read_corpus("emozionalmente", str(tmp_path))
    assert "votes for 1 file that samples.csv lacks left out (the first: 9999)" in corpus.notes
    (dropped,) = corpus.dropped
    assert (dropped.id, dropped.kind) == ("1003", Loss.ABSENT)
    assert "samples.csv, line 4: 1003 is listed, but there is no audio file" in dropped.reason


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("samples.csv", ",anger", ",rage", r"line 2: the emotion is 'rage', expected one of anger"),
        ("samples.csv", "1001.wav", "1001", r"line 2: file_name is '1001', expected a name such as"),
        ("samples.csv", ACTORS["a1"], "", r"line 2: actor is blank, expected a name of users.csv"),
        ("samples.csv", "emotion_expressed", "emotion", r"line 1: the column emotion_expressed is missing"),
        ("evaluations.csv", "good,anger", "good,rage", r"line 2: the emotion is 'rage'"),
    ],
)
def test_a_row_that_cannot_be_read_is_quoted(tmp_path, file, old, new, message):
    write_tree(tmp_path)
    path = tmp_path / "metadata" / file
    path.write_text(path.read_text("utf-8").replace(old, new, 1), "utf-8")
    with pytest.raises(InputError, match=f"{file}, {message}"):
        read_corpus("emozionalmente", str(tmp_path))


def test_splits_that_contradict(tmp_path):
    write_tree(tmp_path)
    for split in ("train", "test"):
        (tmp_path / "metadata" / f"{split}.csv").write_text("file_name\n1001.wav\n")
    with pytest.raises(InputError, match=r"train.csv, line 2: 1001 is in train and in test, expected one split"):
        read_corpus("emozionalmente", str(tmp_path))
