"""The readers of KEMDy19 and KEMDy20 on small trees in the layouts of the releases."""

import csv
import math
import os
from pathlib import Path

import pytest

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Corpus, Loss, Utterance
from sejax.errors import InputError

RATERS = 10
HEADS_19 = (
    ["Numb", "Wav", "", "ECG", "", "E4-EDA", "", "E4-TEMP", "", "Segment ID", "Total Evaluation", *[""] * 32],
    ["", *["start", "end"] * 4, "", *["Emotion", "Valence", "Arousal"] * (1 + RATERS)],
)
HEADS_20 = (
    ["Numb", "Wav", "", "Segment ID", "Total Evaluation", *[""] * 32],
    ["", "start", "end", "", *["Emotion", "Valence", "Arousal"] * (1 + RATERS)],
)


def cells(segment: str, total: str, valence: str, arousal: str, raters: str, lead: int) -> list[str]:
    """A row whose raters name the emotions in `raters`, separated by blanks and repeated up to ten."""
    named = raters.split()
    votes = [cell for i in range(RATERS) for cell in (named[i % len(named)], valence.split(".")[0], "3")]
    return ["1", *["0.5"] * (lead - 1), segment, total, valence, arousal, *votes]


def row19(segment: str, total: str, valence: str, arousal: str, raters: str) -> list[str]:
    return cells(segment, total, valence, arousal, raters, 9)


def row20(segment: str, total: str, valence: str, arousal: str, raters: str) -> list[str]:
    return cells(segment, total, valence, arousal, raters, 3)


ANGRY = row19("Sess01_script01_F001", "angry", "1.8", "3.9", "angry angry angry angry neutral")
SAD = row19("Sess01_script01_M001", "sad", "1.9", "2.6", "sad")
HAPPY = row19("Sess01_impro03_F002", "happy", "4.3", "3.8", "happy")
TIE = row19("Sess01_impro03_M002", "neutral;disqust", "2.5", "3.0", "neutral disgust")
DISGUST = row19("Sess02_script01_F001", "disqust", "2.2", "3.1", "disgust")
ROWS = (ANGRY, SAD, HAPPY, TIE)


def write_csv(path: Path, heads: tuple, rows: tuple) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([*heads, *rows])


def write_19(root: Path, rows: tuple = ROWS, names: tuple = ("Sess01_F_res.csv", "Sess01_M_res.csv")) -> str:
    """Both files of a session have the rows of both actors."""
    for name in names:
        write_csv(root / "annotation" / name, HEADS_19, rows)
    write_csv(root / "annotation" / "Sess02_F_res_v1.csv", HEADS_19, (DISGUST,))
    for segment in (*(row[9] for row in rows), DISGUST[9]):
        folder = root / "wav" / f"Session{segment[4:6]}" / segment[:-5]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{segment}.wav").touch()
        (folder / f"{segment}.txt").write_text("왜 그랬어?" if "script" in segment else "응.", "utf-8")
    return str(root)


def by_id(corpus: Corpus) -> dict[str, Utterance]:
    return {utterance.id: utterance for utterance in corpus.utterances}


def test_everything_of_a_segment_is_read(tmp_path):
    corpus = read_corpus("kemdy19", write_19(tmp_path))
    assert corpus.classes == ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
    assert corpus.vad_scale == (1.0, 5.0)
    assert corpus.label_source == "perceived: majority of 10 raters, no class for a tie"
    angry = by_id(corpus)["Sess01_script01_F001"]
    assert (angry.label, angry.speaker, angry.session, angry.gender) == ("anger", "Sess01F", "Sess01", "F")
    assert angry.vad[:2] == (1.8, 3.9)  # valence comes first in the file
    assert math.isnan(angry.vad[2])  # missing, not zero
    assert angry.distribution is not None
    assert {name: share for name, share in angry.distribution.items() if share} == pytest.approx(
        {"anger": 0.8, "neutral": 0.2}
    )
    assert angry.path == str(tmp_path / "wav/Session01/Sess01_script01/Sess01_script01_F001.wav")
    assert "dominance is missing in 5 utterances" in corpus.notes
    assert "KEMDy19 has 20 sessions and about 10,280 segments, found 2 and 5" in corpus.notes
    assert any("papers leave out Sess01_impro03 for gaps" in note for note in corpus.notes)


def test_each_actor_is_read_from_their_own_file(tmp_path):
    write_19(tmp_path)
    wrong = tuple([*row[:10], "fear", *row[11:]] for row in ROWS)  # what the other actor's file says of both
    write_csv(tmp_path / "annotation" / "Sess01_M_res.csv", HEADS_19, (wrong[0], SAD, wrong[2], TIE))
    utterances = by_id(read_corpus("kemdy19", str(tmp_path)))
    assert sorted(utterances) == sorted([*(row[9] for row in ROWS), DISGUST[9]])
    assert utterances["Sess01_script01_F001"].label == "anger"
    assert utterances["Sess01_script01_M001"].speaker == "Sess01M"


def test_rows_of_an_actor_without_a_file_are_counted(tmp_path):
    corpus = read_corpus("kemdy19", write_19(tmp_path, names=("Session01_F_res.csv",)))
    assert sorted(by_id(corpus)) == ["Sess01_impro03_F002", "Sess01_script01_F001", "Sess02_script01_F001"]
    (note,) = [note for note in corpus.notes if "only in the other actor's file" in note]
    assert note.startswith("2 segments") and "Sess01_impro03_M002" in note and "Session01_F_res.csv, line 6" in note


def test_ties_have_no_class_and_stay_for_their_ratings(tmp_path):
    corpus = read_corpus("kemdy19", write_19(tmp_path))
    tie = by_id(corpus)["Sess01_impro03_M002"]
    assert tie.label is None and tie.vad[:2] == (2.5, 3.0)
    assert tie.distribution is not None and tie.distribution["disgust"] == tie.distribution["neutral"] == 0.5
    assert "utterances outside the label scheme seven, kept without a class: no agreement 1" in corpus.notes


def test_disqust_is_disgust(tmp_path):
    disgust = by_id(read_corpus("kemdy19", write_19(tmp_path)))["Sess02_script01_F001"]
    assert disgust.label == "disgust" and disgust.distribution is not None
    assert disgust.distribution["disgust"] == 1.0


def test_scripted_words_have_one_text_id_in_every_session_and_encoding(tmp_path):
    write_19(tmp_path)
    folder = tmp_path / "wav" / "Session01" / "Sess01_script01"
    (folder / "Sess01_script01_M001.txt").write_bytes("왜 그랬어".encode("cp949"))
    utterances = by_id(read_corpus("kemdy19", str(tmp_path)))
    one = utterances["Sess01_script01_F001"].text
    assert one is not None and one.startswith("script01_")
    assert utterances["Sess02_script01_F001"].text == utterances["Sess01_script01_M001"].text == one
    assert utterances["Sess01_impro03_F002"].text is None
    os.remove(folder / "Sess01_script01_M001.txt")
    corpus = read_corpus("kemdy19", str(tmp_path))
    assert by_id(corpus)["Sess01_script01_M001"].text is None
    assert "1 scripted segment without a transcript have no text id" in corpus.notes


def test_missing_audio_is_dropped_with_a_sentence(tmp_path):
    write_19(tmp_path)
    os.remove(tmp_path / "wav/Session01/Sess01_impro03/Sess01_impro03_F002.wav")
    (dropped,) = read_corpus("kemdy19", str(tmp_path)).dropped
    assert (dropped.id, dropped.kind) == ("Sess01_impro03_F002", Loss.ABSENT)
    assert "Sess01_F_res.csv, line 5: Sess01_impro03_F002 is listed, but there is no audio file" in dropped.reason


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        (10, "grumpy", r"line 3: the emotion is 'grumpy', expected one of angry, disgust, disqust"),
        (13, "grumpy", r"line 3: the emotion is 'grumpy'"),
        (11, "eleven", r"line 3: valence is 'eleven', expected a number from 1 to 5"),
        (12, "39", r"line 3: arousal is '39', expected a number from 1 to 5"),
        (9, "Sess01_script01", r"line 3: the segment is 'Sess01_script01', expected one like Sess01_script01_F001"),
        (9, "Sess01_impro03_F002", r"line 5: Sess01_impro03_F002 occurs twice, first in .*line 3"),
    ],
)
def test_a_row_that_cannot_be_read_is_quoted(tmp_path, column, cell, message):
    write_19(tmp_path)
    bad = list(ANGRY)
    bad[column] = cell
    write_csv(tmp_path / "annotation" / "Sess01_F_res.csv", HEADS_19, (bad, *ROWS[1:]))
    with pytest.raises(InputError, match=f"Sess01_F_res.csv, {message}"):
        read_corpus("kemdy19", str(tmp_path))


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ((HEADS_19[0][:9], HEADS_19[1]), "line 1: found Numb, Wav,.*, expected Segment ID and Total Evaluation"),
        ((HEADS_19[0], HEADS_19[1][:-1]), "line 2: found .*, expected emotion, valence and arousal of the total"),
        ((HEADS_19[0], []), "line 2: found , expected emotion, valence and arousal of the total"),
    ],
)
def test_headers_that_cannot_be_read_are_quoted(tmp_path, heads, message):
    write_19(tmp_path)
    write_csv(tmp_path / "annotation" / "Sess01_F_res.csv", heads, ROWS)
    with pytest.raises(InputError, match=f"Sess01_F_res.csv, {message}"):
        read_corpus("kemdy19", str(tmp_path))


def test_columns_are_found_by_their_words(tmp_path):
    write_19(tmp_path)
    heads = (HEADS_19[0], [*HEADS_19[1][:10], *["Emotion", "Arousal", "Valence"] * (1 + RATERS)])
    write_csv(
        tmp_path / "annotation" / "Sess01_F_res.csv",
        heads,
        (row19("Sess01_script01_F001", "angry", "3.9", "1.8", "angry"),),
    )
    assert by_id(read_corpus("kemdy19", str(tmp_path)))["Sess01_script01_F001"].vad[:2] == (1.8, 3.9)


def test_trees_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"no KEMDy20 in .*: expected annotation in it"):
        read_corpus("kemdy20", str(tmp_path))
    write_19(tmp_path)
    with pytest.raises(InputError, match=r"annotation has no row of a segment, expected files such as"):
        read_corpus("kemdy20", str(tmp_path))  # of the other edition


def test_kemdy20(tmp_path):
    rows = (
        row20("Sess01_script01_User001F_001", "angry", "1.8", "3.9", "angry"),
        row20("Sess01_script01_User002M_001", "sad", "1.9", "2.6", "sad"),
        row20("Sess01_script01_User002M_002", "happy", "4.3", "3.8", "happy"),
    )
    write_csv(tmp_path / "annotation" / "Sess01_eval.csv", HEADS_20, rows)
    folder = tmp_path / "wav" / "Session01"
    folder.mkdir(parents=True)
    for row in rows:
        (folder / f"{row[3]}.wav").touch()
        (folder / f"{row[3]}.txt").write_bytes("응".encode("cp949"))
    corpus = read_corpus("kemdy20", str(tmp_path))
    assert [(u.speaker, u.gender, u.session, u.label, u.vad[:2], u.text) for u in corpus.utterances] == [
        ("User001F", "F", "Sess01", "anger", (1.8, 3.9), None),
        ("User002M", "M", "Sess01", "sadness", (1.9, 2.6), None),
        ("User002M", "M", "Sess01", "happiness", (4.3, 3.8), None),
    ]
    assert corpus.utterances[0].path == str(folder / "Sess01_script01_User001F_001.wav")
    assert "KEMDy20 has 40 sessions and about 13,460 segments, found 1 and 3" in corpus.notes
