"""The reader of Quechua Collao on small trees in the layout of the release."""

import math
import os
import sys
from pathlib import Path

import openpyxl
import pytest

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Corpus, Loss, Utterance
from sejax.errors import InputError

MAP = (
    (10001, "a1_T001_1", "a1", "angry"),
    (10002, "a2_T001_1", "a2", "anger"),
    (10003, "a3_To43_1", "a3", "happy"),
    (10004, "a4_T043_1", "a4", "bored"),
    (10005, "a5_T002_1", "a5", "Sleepy"),
    (22210, "a6_T002_1", "a6", "sadness"),
    (22415, "a6_T003_1", "a6", "sadness"),
    (11817, "?", "a1", "calm"),
    (14197, "x_T004_1", "", "calm"),
    (20888, "x_T005_1", "a9", "calm"),
    (10006, "x_T005_1", "a7", "calm"),
)
# Audio -> the ratings of four raters.
VALENCE = {10001: (1, 2, 1, 2), 10002: (2, 2, 2, 2), 10003: (5, 4, 5, 4), 22210: (2, 3, 2, 3), 22415: (2, 2, 55, 2)}
AROUSAL = {10001: (5, 4, 5, 5), 10002: (5, 5, 5, 4), 10003: (4, 4, 4, ""), 22210: (2, 2, 1, 1)}
DOMINANCE = {10001: (4, 4, 4, 4), 10002: (3, 3, 3, 3), 10003: (3, 3, 3, 3), 22210: (2, 2, 2, 2)}
LABELS = (
    "Audio,Valence,Arousal,Dominance,Emotion",
    "10001,1.5,4.75,4,angry",
    "10002,2.5,4.75,3,angry",
    "22210,4444.0,1.5,2,sadness",
)


def write_map(
    path: Path, rows: tuple = MAP, sheet: str = "map", header: tuple = ("Audio", "File", "Actor", "Emotion")
) -> None:
    workbook = openpyxl.Workbook()
    workbook.active.title = "notes"
    page = workbook.create_sheet(sheet)
    for row in (header, *rows):
        page.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    workbook.save(path)


def write_tree(root: Path, valence: dict = VALENCE) -> str:
    write_map(root / "Data/Data/Data.xlsx")
    labels = root / "Labels/Labels"
    labels.mkdir(parents=True)
    for name, ratings in (("Valence", valence), ("Arousal", AROUSAL), ("Dominance", DOMINANCE)):
        lines = [f"{audio},{','.join(map(str, row))}" for audio, row in ratings.items()]
        (labels / f"{name}.csv").write_text("\n".join(("Audio,N1,N2,N3,N4", *lines)) + "\n")
    (labels / "Labels.csv").write_text("\n".join(LABELS) + "\n")
    (root / "Audios").mkdir()
    for audio, *_ in MAP:
        (root / "Audios" / f"{audio}.wav").touch()
    return str(root)


def by_id(corpus: Corpus) -> dict[str, Utterance]:
    return {utterance.id: utterance for utterance in corpus.utterances}


def test_everything_of_the_release_is_read(tmp_path):
    corpus = read_corpus("quechua", write_tree(tmp_path))
    assert corpus.classes == (
        "happiness",
        "sleepiness",
        "calm",
        "excitement",
        "anger",
        "boredom",
        "sadness",
        "fear",
        "neutral",
    )
    assert (corpus.vad_scale, corpus.label_source) == ((1.0, 5.0), "intended")
    utterances = by_id(corpus)
    assert {id: (u.speaker, u.gender, u.label, u.text) for id, u in utterances.items()} == {
        "10001": ("a1", "F", "anger", "T001"),
        "10002": ("a2", "M", "anger", "T001"),  # "anger" in the map
        "10003": ("a3", "F", "happiness", "T043"),  # "To43"
        "10004": ("a4", "F", "boredom", "T043"),
        "10005": ("a5", "M", "sleepiness", "T002"),
        "22210": ("a6", "M", "sadness", "T002"),
    }
    assert utterances["10001"].vad == (1.5, 4.75, 4.0)
    assert utterances["10001"].path == str(tmp_path / "Audios" / "10001.wav")
    assert all(map(math.isnan, utterances["10004"].vad))  # nobody rated it
    assert any("rows expected 12,420, found 11" in note for note in corpus.notes)
    assert "the classes are intended, valence, arousal and dominance are perceived" in corpus.notes


def test_the_valence_of_22210_is_that_of_its_raters(tmp_path):
    corpus = read_corpus("quechua", write_tree(tmp_path))
    assert by_id(corpus)["22210"].vad == (2.5, 1.5, 2.0)
    assert "valence of 22210 is 4444 in Labels.csv, the mean of its raters 2.5 is used" in corpus.notes
    assert any("valence in Labels.csv is not the mean of the raters in 1 row" in note for note in corpus.notes)  # 10002


def test_the_mean_is_over_the_raters_who_answered(tmp_path):
    assert by_id(read_corpus("quechua", write_tree(tmp_path)))["10003"].vad == (4.5, 4.0, 3.0)


def test_faulty_rows_are_left_out_by_name(tmp_path):
    dropped = {lost.id: lost for lost in read_corpus("quechua", write_tree(tmp_path)).dropped}
    assert sorted(dropped) == ["10006", "11817", "14197", "20888", "22415"]
    assert all(lost.kind is Loss.UNLABELLED for lost in dropped.values())
    assert dropped["22415"].reason.endswith("sheet map, row 8: 22415 is left out: its third rater filled it in wrongly")
    assert dropped["10006"].reason.endswith("row 12: 10006 is left out: its actor is 'a7', expected a1 to a6")


def test_a_map_in_csv_is_preferred_and_needs_no_openpyxl(tmp_path, monkeypatch):
    write_tree(tmp_path)
    (tmp_path / "Data/Data/Data.csv").write_text("audio,File,Actor,Emotion\n10001,a1_T009_1,a1,fear\n")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (utterance,) = read_corpus("quechua", str(tmp_path)).utterances
    assert (utterance.label, utterance.text) == ("fear", "T009")


def test_without_openpyxl_the_workbook_is_refused_with_the_extra(tmp_path, monkeypatch):
    write_tree(tmp_path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"Data.xlsx is an Excel workbook, .*pip install 'sejax\[excel\]'.* sheet map"):
        read_corpus("quechua", str(tmp_path))


def test_missing_audio_is_dropped_with_a_sentence(tmp_path):
    write_tree(tmp_path)
    os.remove(tmp_path / "Audios/10002.wav")
    (absent,) = [d for d in read_corpus("quechua", str(tmp_path)).dropped if d.kind is Loss.ABSENT]
    assert "sheet map, row 3: 10002 is listed, but there is no audio file" in absent.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": ((10001, "a1_T001_1", "a1", "furious"),)}, r"row 2: the emotion is 'furious', expected one of happy"),
        ({"rows": (("ten", "a1_T001_1", "a1", "happy"),)}, r"row 2: Audio is 'ten', expected the number of a file"),
        ({"rows": (MAP[0], MAP[0])}, r"row 3: 10001 occurs twice, first in .*row 2, expected once"),
        ({"sheet": "Map1"}, r"has the sheets notes, Map1, expected one called map"),
        (
            {"header": ("Audio", "File", "Who", "Emotion")},
            r"sheet map: found audio, file, who, emotion, expected the colu",
        ),
    ],
)
def test_a_map_that_cannot_be_read_is_quoted(tmp_path, options, message):
    write_tree(tmp_path)
    write_map(tmp_path / "Data/Data/Data.xlsx", **options)
    with pytest.raises(InputError, match=f"Data.xlsx.*{message}"):
        read_corpus("quechua", str(tmp_path))


def test_ratings_that_cannot_be_read_are_quoted(tmp_path):
    with pytest.raises(InputError, match=r"Valence.csv, line 2: valence is '77', expected a number from 1 to 5"):
        read_corpus("quechua", write_tree(tmp_path, valence={10001: (77, 1, 1, 1)}))
    (tmp_path / "Data/Data/Data.xlsx").write_bytes(b"no workbook")
    with pytest.raises(InputError, match=r"Data.xlsx cannot be read as an Excel workbook"):
        read_corpus("quechua", str(tmp_path))
    os.remove(tmp_path / "Labels/Labels/Valence.csv")
    write_map(tmp_path / "Data/Data/Data.xlsx")
    with pytest.raises(InputError, match=r"no Quechua Collao in .*: expected Labels/Labels/Valence.csv or"):
        read_corpus("quechua", str(tmp_path))
