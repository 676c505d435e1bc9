"""The MELD reader on small trees in the layouts of the release and of converted copies."""

import csv
import os
from pathlib import Path

import pytest

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Corpus, Loss, Utterance
from sejax.errors import InputError

COLUMNS = (
    "Sr No.",
    "Utterance",
    "Speaker",
    "Emotion",
    "Sentiment",
    "Dialogue_ID",
    "Utterance_ID",
    "Season",
    "Episode",
    "StartTime",
    "EndTime",
)


def row(
    dialogue: int, number: int, emotion: str, sentiment: str, *, speaker: str = "Monica", words: str = "Hm."
) -> list:
    return [1, words, speaker, emotion, sentiment, dialogue, number, 8, 21, "00:16:16,059", "00:16:21,731"]


# The apostrophe of the first row is the control character U+0092, as in the release.
TRAIN = (
    row(0, 0, "neutral", "neutral", speaker="Chandler", words="my company\x92s transition"),
    row(0, 1, "joy", "positive", speaker="The Interviewer", words="Really?!"),
    row(309, 0, "anger", "negative", words="Oh, \u2018now\u2019 you tell me"),
    row(125, 3, "sadness", "negative"),
    row(793, 0, "fear", "negative"),
    row(241, 2, "disgust", "negative"),
)
DEV = (row(0, 0, "surprise", "negative", speaker="the interviewer", words="really"), row(110, 7, "joy", "positive"))
TEST = (
    row(0, 0, "sadness", "negative", speaker="Chandler"),
    row(38, 4, "neutral", "neutral"),
    row(5, 1, "joy", "positive", speaker="Ross\x92s Mom", words="My companys transition"),
)
PARTS = {"train": TRAIN, "dev": DEV, "test": TEST}
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
UNUSABLE = ("train_dia125_utt3", "dev_dia110_utt7")


def write_tables(root: Path, parts: dict[str, tuple] = PARTS, folder: str = "") -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        with open(root / folder / f"{part}_sent_emo.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])


def write_tree(root: Path, place: str = "{folder}/{clip}.wav", **options) -> str:
    write_tables(root, **options)
    for part, rows in PARTS.items():
        for _, _, _, _, _, dialogue, number, *_ in rows:
            clip = f"dia{dialogue}_utt{number}"
            if f"{part}_{clip}" not in UNUSABLE:
                path = root / place.format(folder=FOLDERS[part], clip=clip, part=part)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return str(root)


def by_id(corpus: Corpus) -> dict[str, Utterance]:
    return {utterance.id: utterance for utterance in corpus.utterances}


def test_equal_numbers_in_several_parts_are_several_utterances(tmp_path):
    corpus = read_corpus("meld", write_tree(tmp_path))
    utterances = by_id(corpus)
    assert {id: (u.label, u.split) for id, u in utterances.items()} == {
        "train_dia0_utt0": ("neutral", "train"),
        "train_dia0_utt1": ("happiness", "train"),
        "train_dia793_utt0": ("fear", "train"),
        "train_dia241_utt2": ("disgust", "train"),
        "dev_dia0_utt0": ("surprise", "val"),
        "test_dia0_utt0": ("sadness", "test"),
        "test_dia5_utt1": ("happiness", "test"),
    }
    assert corpus.classes == ("neutral", "happiness", "surprise", "anger", "sadness", "disgust", "fear")
    assert utterances["dev_dia0_utt0"].path == str(tmp_path / "dev_splits_complete" / "dia0_utt0.wav")
    assert utterances["train_dia0_utt0"].session == "season08_episode21"
    assert corpus.label_source.startswith("perceived: majority of 3 annotators")


def test_broken_clips_are_dropped_by_name(tmp_path):
    dropped = {lost.id: lost for lost in read_corpus("meld", write_tree(tmp_path)).dropped}
    assert sorted(dropped) == ["dev_dia110_utt7", "test_dia38_utt4", "train_dia125_utt3", "train_dia309_utt0"]
    assert dropped["test_dia38_utt4"].reason == (
        f"{tmp_path / 'test_sent_emo.csv'}, line 3: test_dia38_utt4 is cut wrongly: the clip of one utterance lasts "
        "305 s"
    )
    assert dropped["dev_dia110_utt7"].kind is Loss.ABSENT
    assert dropped["dev_dia110_utt7"].reason.endswith("(its video is known to be missing in the release)")
    assert dropped["train_dia125_utt3"].reason.endswith("known to be unreadable)")


def test_an_unreadable_clip_that_is_there_is_used(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "train_splits" / "dia125_utt3.wav").touch()  # as another copy has it
    assert by_id(read_corpus("meld", str(tmp_path)))["train_dia125_utt3"].label == "sadness"


def test_notes_say_what_is_known_about_the_corpus(tmp_path):
    notes = read_corpus("meld", write_tree(tmp_path)).notes
    assert any("train expected 9,989, found 6; dev expected 1,109, found 2" in note for note in notes)
    assert any("plain mean of their channels" in note and "5.1" in note for note in notes)
    assert any("labels of convenience" in note for note in notes)
    assert "1 name of speakers in another spelling are taken as the first spelling" in notes
    assert "known to be noisy, kept: train_dia793_utt0" in notes
    assert any("the dialogues 241 of train" in note for note in notes)


def test_a_speaker_has_one_spelling_and_a_text_one_id(tmp_path):
    utterances = by_id(read_corpus("meld", write_tree(tmp_path)))
    assert utterances["train_dia0_utt1"].speaker == utterances["dev_dia0_utt0"].speaker == "The Interviewer"
    assert utterances["train_dia0_utt1"].text == utterances["dev_dia0_utt0"].text  # Really?! and really
    assert utterances["test_dia5_utt1"].speaker == "Ross\u2019s Mom"  # U+0092 in the table
    assert utterances["train_dia0_utt0"].text == utterances["test_dia5_utt1"].text  # U+0092 is an apostrophe
    assert utterances["train_dia0_utt0"].text != utterances["train_dia0_utt1"].text


def test_sentiments(tmp_path):
    corpus = read_corpus("meld", write_tree(tmp_path), labels="sentiment")
    assert corpus.classes == ("positive", "negative", "neutral")
    assert by_id(corpus)["dev_dia0_utt0"].label == "negative"  # a surprise


@pytest.mark.parametrize(
    "place",
    [
        "waves/{folder}/{clip}.wav",
        "{part}/{clip}.wav",
        "waves/{part}/{clip}.wav",
        "waves/{part}_{clip}.wav",
        "{part}_{clip}.wav",
    ],
)
def test_other_places(tmp_path, place):
    corpus = read_corpus("meld", write_tree(tmp_path, place, folder="data/MELD"))
    assert len(corpus.utterances) == 7
    path = by_id(corpus)["dev_dia0_utt0"].path
    assert path == str(tmp_path / place.format(folder=FOLDERS["dev"], part="dev", clip="dia0_utt0"))
    assert not any("without a row" in note for note in corpus.notes)


def test_files_without_a_row_are_named(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "dev_splits_complete" / "dia49_utt4.wav").touch()
    (tmp_path / "output_repeated_splits_test" / "final_videos_testdia0_utt0.wav").touch()
    (tmp_path / "output_repeated_splits_test" / "._dia0_utt0.wav").touch()
    notes = read_corpus("meld", str(tmp_path)).notes
    assert "1 wav file of dev without a row left out (the first: dia49_utt4.wav)" in notes
    assert "1 wav file of test without a row left out (the first: final_videos_testdia0_utt0.wav)" in notes


def test_videos_alone_are_refused_with_the_command(tmp_path):
    write_tree(tmp_path, "{folder}/{clip}.mp4")
    with pytest.raises(InputError, match=r"train_splits holds videos \(mp4\), expected wav files .*ffmpeg -i"):
        read_corpus("meld", str(tmp_path))


def test_missing_clips_and_tables(tmp_path):
    write_tables(tmp_path)
    with pytest.raises(InputError, match=r"no clips of MELD's part train in .*: expected train_splits/dia0_utt0.wav"):
        read_corpus("meld", str(tmp_path))
    write_tree(tmp_path)
    os.remove(tmp_path / "test_sent_emo.csv")
    with pytest.raises(InputError, match=r"no MELD in .*: expected test_sent_emo.csv or data/MELD/test_sent_emo.csv"):
        read_corpus("meld", str(tmp_path))


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("Emotion", "bored", r"line 2: Emotion is 'bored', expected one of neutral, joy"),
        ("Dialogue_ID", "1a", r"line 2: Dialogue_ID is '1a', expected a whole number"),
        ("Utterance_ID", 1, r"line 3: train_dia0_utt1 occurs twice, first in .*line 2"),
        ("Speaker", "a\tb", r"line 2: the speaker 'a\\tb' has a tab in it"),
        ("Speaker", "", r"line 2: Speaker is blank, expected a name"),
    ],
)
def test_a_row_that_cannot_be_read_is_quoted(tmp_path, column, cell, message):
    write_tree(tmp_path)
    bad = list(TRAIN[0])
    bad[COLUMNS.index(column)] = cell
    write_tables(tmp_path, {"train": (bad, *TRAIN[1:])})
    with pytest.raises(InputError, match=f"train_sent_emo.csv, {message}"):
        read_corpus("meld", str(tmp_path))
