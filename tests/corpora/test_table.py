"""The reader of one's own CSV file."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sejax.corpora.read import read_corpus
from sejax.errors import InputError


def write(folder: Path, text: str, files: tuple[str, ...] = ("a.wav", "b.wav", "c.wav")) -> str:
    for name in files:
        (folder / name).touch()
    path = folder / "table.csv"
    path.write_text(text, "utf-8")
    return str(path)


def fails(folder: Path, text: str, *sentences: str, labels: str = "default") -> None:
    path = write(folder, text)
    with pytest.raises(InputError) as caught:
        read_corpus("table", path, labels=labels)
    for sentence in sentences:
        assert sentence.replace("FILE", path) in str(caught.value)


def test_every_column_is_read(tmp_path):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "long.flac", np.zeros((88_200, 2)), 44_100)
    path = write(
        tmp_path,
        "path,speaker,id,start,end,session,text,gender,label,valence,arousal,dominance,fold,split\n"
        "audio/long.flac, 07 ,z,0.5,1.25,s1,t1,female,joy,2,3.5,4,f1,train\n"
        f'{tmp_path}/a.wav,8,y,,,s2,,M,"fear, or so",,,,f2,test\n',
    )
    corpus = read_corpus("table", path)
    assert corpus.name == "table"
    assert corpus.classes == ("fear, or so", "joy")
    assert corpus.vad_scale == (1.0, 5.0)
    second, first = corpus.utterances  # sorted by id: y, z
    assert (first.corpus, second.corpus) == ("table", "table")
    assert (first.id, first.speaker, first.session, first.text) == ("z", "07", "s1", "t1")
    assert first.path == str(tmp_path / "audio" / "long.flac")
    assert (first.start, first.end, first.duration) == (0.5, 1.25, 0.75)
    assert (first.gender, first.label, first.vad) == ("F", "joy", (2.0, 3.5, 4.0))
    assert (first.fold, first.split) == ("f1", "train")
    assert first.distribution is None
    assert second.path == str(tmp_path / "a.wav")
    assert (second.start, second.end, second.text, second.gender) == (None, None, None, "M")
    assert all(math.isnan(value) for value in second.vad)


def test_the_two_columns_and_a_label_are_enough(tmp_path):
    corpus = read_corpus("table", write(tmp_path, "\ufeffspeaker,path,label\r\ns,b.wav,sad\r\n\r\ns,a.wav,sad\r\n"))
    assert [utterance.id for utterance in corpus.utterances] == ["a", "b"]
    assert [utterance.session for utterance in corpus.utterances] == [None, None]
    assert corpus.classes == ("sad",)
    assert corpus.notes == ()


def test_cuts_of_one_file_have_ids_of_their_own(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(32_000), 16_000)
    text = "path,speaker,start,end,label\na.wav,s,0,0.5,x\na.wav,s,0.5,,x\na.wav,s,,0.25,x\na.wav,s,1.5,9,x\n"
    (tmp_path / "table.csv").write_text(text)
    corpus = read_corpus("table", str(tmp_path / "table.csv"))
    found = {utterance.id: utterance.duration for utterance in corpus.utterances}
    assert found == {"a#0-0.5": 0.5, "a#0.5-": 1.5, "a#-0.25": 0.25, "a#1.5-9": 0.5}


def test_an_unreadable_file_has_no_duration(tmp_path):
    corpus = read_corpus("table", write(tmp_path, "path,speaker,label\na.wav,s,x\n"))
    assert corpus.utterances[0].duration is None


def test_rows_without_labels_and_rows_without_audio_are_dropped_with_a_sentence(tmp_path):
    text = "path,speaker,label,valence\na.wav,s,x,\nb.wav,s,,\nc.wav,s,,2\nd.wav,s,x,1\n"
    path = write(tmp_path, text)
    corpus = read_corpus("table", path)
    assert [utterance.id for utterance in corpus.utterances] == ["a", "c"]
    assert corpus.utterances[1].label is None
    assert corpus.utterances[1].vad[0] == 2.0
    assert math.isnan(corpus.utterances[1].vad[1])
    reasons = {dropped.id: dropped.reason for dropped in corpus.dropped}
    assert reasons == {
        "b": f"{path}, line 3: the row has no label and no valence, arousal or dominance",
        "d": f"{path}, line 5: there is no audio file {tmp_path}/d.wav",
    }


# ---- the scale


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (("1", "5"), (1.0, 5.0)),
        (("1.5", "2.5"), (1.0, 5.0)),
        (("1", "5.5"), (1.0, 7.0)),
        (("0.25", "1"), (0.0, 1.0)),
        (("-0.5", "1"), (-1.0, 1.0)),
        (("nan", "3"), (1.0, 5.0)),
    ],
)
def test_the_scale_is_guessed_from_the_values_and_the_guess_is_told(tmp_path, values, scale):
    text = f"path,speaker,label,arousal\na.wav,s,x,{values[0]}\nb.wav,s,x,{values[1]}\n"
    corpus = read_corpus("table", write(tmp_path, text))
    assert corpus.vad_scale == scale
    (note,) = corpus.notes
    assert f"taken to be on the scale {scale[0]:g} to {scale[1]:g}" in note


@pytest.mark.parametrize(("labels", "scale"), [("1..7", (1.0, 7.0)), ("-1..1", (-1.0, 1.0)), ("0..100", (0.0, 100.0))])
def test_the_scale_can_be_given(tmp_path, labels, scale):
    text = "path,speaker,arousal,valence\na.wav,s,0.5,\nb.wav,s,5.5,1\n"
    corpus = read_corpus("table", write(tmp_path, text), labels=labels)
    assert corpus.vad_scale == scale
    outside = sum(not scale[0] <= value <= scale[1] for value in (0.5, 5.5, 1))
    assert len(corpus.notes) == bool(outside)
    assert [utterance.vad[1] for utterance in corpus.utterances] == [0.5, 5.5]
    if outside:
        assert corpus.notes[0].startswith(f"{outside} values")


def test_values_on_no_known_scale(tmp_path):
    text = "path,speaker,valence\na.wav,s,0.5\nb.wav,s,5.5\n"
    fails(
        tmp_path, text, "FILE: valence, arousal and dominance run from 0.5 to 5.5", "as config.labels (lowest..highest)"
    )


@pytest.mark.parametrize("labels", ["four", "7..1", "1-5", "1..1"])
def test_a_scale_that_is_none(tmp_path, labels):
    fails(
        tmp_path,
        "path,speaker,label\na.wav,s,x\n",
        f"config.labels is {labels!r}",
        "such as 1..7",
        labels=labels,
    )


# ---- bad input


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"no table at .*expected a CSV file with the columns path and speaker"):
        read_corpus("table", str(tmp_path / "table.csv"))
    with pytest.raises(InputError, match="no table at"):
        read_corpus("table", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "FILE, line 1: the column path and speaker is missing, found nothing"),
        ("path,label\na.wav,x\n", "FILE, line 1: the column speaker is missing, found path, label"),
        (
            "path;speaker\na.wav;x\n",
            "FILE, line 1: the column path and speaker is missing, found path;speaker",
        ),
        (
            "path,speaker,emotion\n",
            "FILE, line 1: unknown column 'emotion', expected columns out of path, speaker, id, start",
        ),
        ("path,speaker,\n", "FILE, line 1: unknown column ''"),
        ("path,speaker,path\n", "FILE, line 1: the column path occurs twice"),
        ("path,speaker,label\na.wav,s,x\nb.wav,s\n", "FILE, line 3: 2 cells, expected the 3 columns of the header"),
        ("path,speaker,label\na.wav,s,x,y\n", "FILE, line 2: 4 cells, expected the 3 columns of the header"),
        ("path,speaker,label\n,s,x\n", "FILE, line 2: path is blank"),
        ("path,speaker,label\na.wav, ,x\n", "FILE, line 2: speaker is blank"),
        (
            "path,speaker,id,label\na.wav,s,1,x\nb.wav,s,2,x\nc.wav,s,1,x\n",
            "FILE, line 4: the id '1' occurs twice, first in FILE, line 2",
        ),
        ("path,speaker,label\na.wav,s,x\na.wav,s,x\n", "FILE, line 3: the id 'a' occurs twice"),
        ("path,speaker,valence\na.wav,s,high\n", "FILE, line 2: valence 'high' is not a number"),
        ('path,speaker,valence\na.wav,s,"3,5"\n', "FILE, line 2: valence '3,5' is not a number"),
        ("path,speaker,dominance\na.wav,s,inf\n", "FILE, line 2: dominance 'inf' is not a number"),
        ("path,speaker,label,start,end\na.wav,s,x,one,2\n", "FILE, line 2: start 'one' is not a number"),
        ("path,speaker,label,start,end\na.wav,s,x,2,1\n", "FILE, line 2: start '2' and end '1' are no span"),
        (
            "path,speaker,label,start,end\na.wav,s,x,-1,1\n",
            "FILE, line 2: start '-1' and end '1' are no span",
        ),
        ("path,speaker,label,end\na.wav,s,x,0\n", "FILE, line 2: start None and end '0' are no span"),
        (
            "path,speaker,label,gender\na.wav,s,x,w\n",
            "FILE, line 2: gender 'w', expected F, M or a blank cell",
        ),
        ("path,speaker,label,split\na.wav,s,x,dev\n", "FILE, line 2: split 'dev', expected train, val, test"),
        (
            "path,speaker,label,fold\na.wav,s,x,1\nb.wav,s,x,\n",
            "FILE, line 3: fold is blank, unlike in FILE, line 2, expected a value in every row or in none",
        ),
        (
            "path,speaker,label,split\na.wav,s,x,\nb.wav,s,x,val\n",
            "FILE, line 3: split is filled, unlike in FILE, line 2",
        ),
        ("path,speaker,label\n", "FILE has no usable row, 0 were dropped"),
        (
            "path,speaker,label\nz.wav,s,x\n",
            "FILE has no usable row, 1 were dropped (the first: FILE, line 2",
        ),
        ('path,speaker,label\na.wav,s,"x"y\n', "FILE, line 2: cannot be read as CSV"),
    ],
)
def test_each_mistake_has_its_sentence(tmp_path, text, sentence):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_corpus("table", path)
    assert sentence.replace("FILE", path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("path,speaker,label\na.wav,s,Ärger\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_corpus("table", str(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    text=st.lists(
        st.sampled_from(["a.wav,s,x,1,\n", "b.wav", "s", "x", "1", "nan", ",", '"', "\n", "\r", " ", "-", "é", "\x00"])
    ).map("".join)
)
def test_whatever_stands_below_the_header_there_is_a_sentence_or_a_corpus(tmp_path, text):
    path = write(tmp_path, "path,speaker,label,valence,start\n" + text)
    try:
        corpus = read_corpus("table", path)
    except InputError as error:
        assert path in str(error)
    else:
        assert corpus.utterances
        assert all(utterance.label in (None, *corpus.classes) for utterance in corpus.utterances)
