"""The reader of one's own CSV file."""

import math
import os
import re
import socket
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Loss
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
    reasons = {dropped.id: (dropped.kind, dropped.reason) for dropped in corpus.dropped}
    assert reasons == {
        "b": (Loss.UNLABELLED, f"{path}, line 3: the row has no label, valence, arousal or dominance"),
        "d": (Loss.ABSENT, f"{path}, line 5: there is no audio file {tmp_path}/d.wav"),
    }
    assert corpus.describe_losses() == (
        f"table: 2 of 4 utterances dropped: no label 1 (the first: {tmp_path}/b.wav); no such file 1 (the first: "
        f"{tmp_path}/d.wav); the report lists them"
    )
    # The blank row is the choice of whoever wrote the table: only the missing file counts.
    assert any("1 row without label" in note for note in corpus.notes)
    corpus.require_usable(0.34)
    with pytest.raises(InputError, match=r"at least 1 of 3 utterances \(no such file 1\), expected at most 33 %"):
        corpus.require_usable(0.33)


# ---- what is no audio file


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


def make_circle(path: Path) -> None:
    path.symlink_to(path)


NFC = "Müller.wav"
NFD = unicodedata.normalize("NFD", NFC)


@pytest.mark.parametrize(
    ("cell", "there", "kind", "said"),
    [
        ("gone.wav", None, Loss.ABSENT, "there is no audio file FOLDER/gone.wav"),
        ("a.wav/gone.wav", None, Loss.ABSENT, "there is no audio file FOLDER/a.wav/gone.wav"),
        ("x" * 300 + ".wav", None, Loss.ABSENT, "cannot be looked up (File name too long)"),
        ("wav\\a.wav", None, Loss.ABSENT, "(folders are separated by /, not by \\)"),
        ("~/a.wav", None, Loss.ABSENT, "(~ is not replaced here: write the whole path)"),
        ("$HOME/a.wav", None, Loss.ABSENT, "($HOME is not replaced here: write the whole path)"),
        ("${DATA}/a.wav", None, Loss.ABSENT, "(${DATA} is not replaced here: write the whole path)"),
        ("a.zip::b.wav", None, Loss.ABSENT, "(an archive has to be unpacked)"),
        ("A.WAV", None, Loss.ABSENT, "(capitals matter: there is FOLDER/a.wav)"),
        ("https://example.org/a.wav", None, Loss.URL, "https://example.org/a.wav is a URL, expected a file on this"),
        ("s3://bucket/a.wav", None, Loss.URL, "s3://bucket/a.wav is a URL"),
        ("file:///a.wav", None, Loss.URL, "file:///a.wav is a URL"),
        ("d/" * 1500 + "a.wav", None, Loss.ABSENT, "there is no audio file"),
        ("a.wav/", None, Loss.ABSENT, "there is no audio file FOLDER/a.wav/"),
        (".", None, Loss.FOLDER, "FOLDER/. is a folder"),
        ("sub.wav", Path.mkdir, Loss.FOLDER, "FOLDER/sub.wav is a folder"),
        ("fifo.wav", make_fifo, Loss.SPECIAL, "FOLDER/fifo.wav is a FIFO"),
        ("socket.wav", make_socket, Loss.SPECIAL, "FOLDER/socket.wav is a socket"),
        ("/dev/zero", None, Loss.SPECIAL, "/dev/zero is a device"),
        ("loop.wav", make_circle, Loss.LINK, "FOLDER/loop.wav cannot be looked up (Too many levels of symbolic links)"),
        (
            "link.wav",
            lambda path: path.symlink_to("nowhere.wav"),
            Loss.LINK,
            "FOLDER/link.wav is a link to nowhere.wav, which is not there",
        ),
        (NFC, lambda path: path.with_name(NFD).touch(), Loss.OTHER_FORM, "in another Unicode form (NFD) is there"),
        (NFD, lambda path: path.with_name(NFC).touch(), Loss.OTHER_FORM, "in another Unicode form (NFC) is there"),
        ("Jürgen/" + NFD, lambda path: (path.parent.mkdir(), (path.parent / NFC).touch()), Loss.OTHER_FORM, "(NFC)"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value[:20]) if isinstance(value, str) else "",
)
def test_what_is_no_audio_file_is_dropped_by_kind_and_never_opened(tmp_path, cell, there, kind, said):
    if there is not None:
        there(tmp_path / cell)
    path = write(tmp_path, f"path,speaker,label\na.wav,s,x\n{cell},s,x\n")
    corpus = read_corpus("table", path)
    assert [utterance.id for utterance in corpus.utterances] == ["a"]
    (dropped,) = corpus.dropped
    assert dropped.kind is kind
    assert dropped.reason.startswith(f"{path}, line 3: ")
    assert said.replace("FOLDER", str(tmp_path)) in dropped.reason
    assert "\n" not in dropped.reason and not dropped.reason.endswith(".")


def test_a_table_of_absent_files_names_the_first(tmp_path):
    path = write(tmp_path, "path,speaker,label\n" + "".join(f"gone/{i}.wav,s,x\n" for i in range(5)))
    with pytest.raises(InputError) as caught:
        read_corpus("table", path)
    assert str(caught.value) == (
        "the corpus table has no usable audio for at least 5 of 5 utterances (no such file 5), expected audio for at "
        f"least one; the first: {path}, line 2: there is no audio file {tmp_path}/gone/0.wav"
    )


def test_a_path_is_used_as_it_is_written(tmp_path):
    """In its own Unicode form, with blanks if the file has them, and outside the folder."""
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in (NFD, " blank.wav", "zero\u200b.wav", "../outside.wav"):
        (inside / name).touch()
    names = (NFD, " blank.wav", "zero\u200b.wav", "../outside.wav", " a.wav", "\u00a0b.wav\ufeff")
    corpus = read_corpus("table", write(inside, "path,speaker,label\n" + "".join(f"{name},s,x\n" for name in names)))
    assert corpus.dropped == ()
    found = {utterance.id: utterance.path for utterance in corpus.utterances}
    assert found == {
        "Müller": f"{inside}/{NFD}",
        "blank": f"{inside}/ blank.wav",
        "zero": f"{inside}/zero\u200b.wav",
        "../outside": f"{inside}/../outside.wav",
        "a": f"{inside}/a.wav",
        "b": f"{inside}/b.wav",
    }


def test_commas_slashes_and_colons_in_an_id(tmp_path):
    text = 'path,speaker,label,id\na.wav,s,x,"a,b/c::d ""e"""\n'
    assert read_corpus("table", write(tmp_path, text)).utterances[0].id == 'a,b/c::d "e"'


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
    text = "path,speaker,arousal,valence\na.wav,s,0.5,\nb.wav,s,2.5,1\n"
    corpus = read_corpus("table", write(tmp_path, text), labels=labels)
    assert corpus.vad_scale == scale
    outside = sum(not scale[0] <= value <= scale[1] for value in (0.5, 2.5, 1))
    assert len(corpus.notes) == bool(outside)
    assert [utterance.vad[1] for utterance in corpus.utterances] == [0.5, 2.5]
    if outside:
        assert corpus.notes[0].startswith(f"{outside} values")


def test_values_on_no_known_scale(tmp_path):
    text = "path,speaker,valence\na.wav,s,0.5\nb.wav,s,5.5\n"
    fails(
        tmp_path, text, "FILE: valence, arousal and dominance run from 0.5 to 5.5", "as config.labels (lowest..highest)"
    )


@pytest.mark.parametrize("labels", ["three", "7..1", "1-5", "1..1"])
def test_a_scale_that_is_none(tmp_path, labels):
    fails(
        tmp_path,
        "path,speaker,label\na.wav,s,x\n",
        f"config.labels is {labels!r}",
        "such as 1..7",
        labels=labels,
    )


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("0.." + 300 * "9", " ..., expected a scale from -10,000 or more to 10,000 or less"),
        ("0.." + 400 * "9", " ..., expected a scale from -10,000 or more to 10,000 or less"),
        (
            "0..0." + 55 * "0" + "1",
            "1', expected a scale from -10,000 or more to 10,000 or less, of which the ends are",
        ),
        ("-1000000..0", "config.labels is '-1000000..0', expected a scale from -10,000"),
    ],
)
def test_a_scale_that_nobody_has(tmp_path, labels, said):
    fails(tmp_path, "path,speaker,label\na.wav,s,x\n", said, labels=labels)


@pytest.mark.parametrize(
    ("labels", "rating", "shown"), [("1..5", "1e300", "1e+300"), ("1..5", "55", "55"), ("-1..1", "4", "4")]
)
def test_a_rating_far_outside_the_scale(tmp_path, labels, rating, shown):
    low, high = labels.split("..")
    fails(
        tmp_path,
        f"path,speaker,arousal\na.wav,s,1\nb.wav,s,{rating}\n",
        f"FILE, line 3: arousal {shown} is far outside the scale {low} to {high} of config.labels, expected a",
        labels=labels,
    )


# ---- bad input


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"no table at .*expected a CSV file with the columns path and speaker"):
        read_corpus("table", str(tmp_path / "table.csv"))
    with pytest.raises(InputError, match="is a folder, expected a CSV file"):
        read_corpus("table", str(tmp_path))
    os.mkfifo(tmp_path / "table.csv")
    with pytest.raises(InputError, match=r"table\.csv is a FIFO, expected a CSV file"):
        read_corpus("table", str(tmp_path / "table.csv"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "FILE is an empty file, expected a CSV file"),
        ("\n\n", "FILE, line 1: has no names of columns, expected path, speaker and others"),
        (
            "Path,Speaker\na.wav,x\n",
            "line 1: the columns path and speaker are missing, found Path, Speaker (names are in ",
        ),
        (
            "path,SPEAKER\na.wav,x\n",
            "line 1: the column speaker is missing, found path, SPEAKER (names are in lower case",
        ),
        ("path,speaker,Label\na.wav,s,x\n", "unknown column 'Label' (names are in lower case)"),
        ("path,speaker,lable\na.wav,s,x\n", "unknown column 'lable' (is label meant?)"),
        (",path,speaker\n0,a.wav,s\n", "unknown column '' (pandas writes its index so: to_csv(..., index=False))"),
        ("Unnamed: 0,path,speaker\n0,a.wav,s\n", "(pandas writes its index so: to_csv(..., index=False))"),
        ("path\tspeaker\tlabel\na.wav\ts\tx\n", "FILE, line 1: the columns are separated by tabs, expected commas"),
        ("speaker|path\ns|a.wav\n", "FILE, line 1: the columns are separated by bars, expected commas"),
        ("Path;Speaker\na.wav;s\n", "FILE, line 1: the columns are separated by semicolons, expected commas"),
        ("path,label\na.wav,x\n", "FILE, line 1: the column speaker is missing, found path, label"),
        (
            "path;speaker\na.wav;x\n",
            "FILE, line 1: the columns are separated by semicolons, expected commas",
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
        (
            "path,speaker,valence\na.wav,s,high\n",
            "FILE, line 2: valence 'high' is not a number, expected one such as 1.5",
        ),
        (
            'path,speaker,valence\na.wav,s,"3,5"\n',
            "FILE, line 2: valence '3,5' is not a number, expected one such as 1.5, with a point for the decimals",
        ),
        ("path,speaker,dominance\na.wav,s,inf\n", "FILE, line 2: dominance 'inf' is not a number"),
        ("path,speaker,dominance\na.wav,s,-Infinity\n", "FILE, line 2: dominance '-Infinity' is not a number"),
        ("path,speaker,dominance\na.wav,s,1e999\n", "FILE, line 2: dominance '1e999' is not a number"),
        ("path,speaker,dominance\na.wav,s,1_0\n", "FILE, line 2: dominance '1_0' is not a number"),
        ("path,speaker,dominance\na.wav,s,０\n", "FILE, line 2: dominance '０' is not a number"),
        ("path,speaker,label,start,end\na.wav,s,x,one,2\n", "FILE, line 2: start 'one' is not a number of seconds"),
        (
            "path,speaker,label,start,end\na.wav,s,x,0 days 00:00:00,2\n",
            "FILE, line 2: start '0 days 00:00:00' is not a number of seconds, expected one such as 1.5",
        ),
        ("path,speaker,label,start,end\na.wav,s,x,2,1\n", "FILE, line 2: start '2' and end '1' are no span"),
        (
            "path,speaker,label,start,end\na.wav,s,x,-1,1\n",
            "FILE, line 2: start '-1' and end '1' are no span",
        ),
        ("path,speaker,label,end\na.wav,s,x,0\n", "FILE, line 2: start '' and end '0' are no span"),
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
        ("path,speaker,label\n", "FILE has no row below its header, expected one per utterance"),
        (
            "path,speaker,label\na.wav,s,\n",
            "FILE has no row with a label or a rating, expected a filled column label, ",
        ),
        ('path,speaker,label\na.wav,s,"x"y\n', "FILE, line 2: cannot be read as CSV"),
        (
            'path,speaker,label\na.wav,s,x\nb.wav,s,"x\nc.wav,s,x\n',
            "FILE, line 3: cannot be read as CSV (a quote is opened and never closed)",
        ),
        ("path,speaker,label\na.wav,s," + "x" * 200_000, "FILE, line 2: cannot be read as CSV (field larger than"),
    ],
)
def test_each_mistake_has_its_sentence(tmp_path, text, sentence):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_corpus("table", path)
    assert sentence.replace("FILE", path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["path", "speaker", "label", "id", "session", "text", "fold"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sa\rd", "a carriage return"),
        ("sa\nd", "a line break"),
        ("sa\r\nd", "a carriage return"),
        ("sa\td", "a tab"),
        ("sa\0d", "a NUL"),
        ("\0sad", "a NUL"),
        ("sa\x1bd", "the control character U+001B"),
        ("sa\x7fd", "the control character U+007F"),
        ("sa\x85d", "the control character U+0085"),
        ("sa\u2028d", "the control character U+2028"),
        ("sa\u2029d", "the control character U+2029"),
    ],
    ids=ascii,
)
def test_control_characters_are_refused_where_they_stand(tmp_path, column, text, said):
    row = {"path": "b.wav", "speaker": "s", "label": "x", column: text}
    cells = ",".join(f'"{cell}"' for cell in row.values())
    path = tmp_path / "table.csv"
    path.write_text(f"{','.join(row)}\n\na.wav,s,x{',y' * (len(row) - 3)}\n{cells}\n", "utf-8", newline="")
    (tmp_path / "a.wav").touch()
    with pytest.raises(InputError) as caught:
        read_corpus("table", str(path))
    assert f"{path}, line 4: {column} {text!r} has {said} in it" in str(caught.value)
    assert not set(str(caught.value)) & set("\n\r\0\x85\u2028\u2029")


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "<NA>", "NA", "N/A", "null", "NaT"])
@pytest.mark.parametrize("column", ["path", "speaker", "label", "id", "session", "text", "gender", "fold", "split"])
def test_words_for_a_missing_value_are_no_names(tmp_path, column, word):
    row = {"path": "a.wav", "speaker": "s", "label": "x", column: word}
    fails(
        tmp_path,
        f"{','.join(row)}\n{','.join(row.values())}\n",
        f"FILE, line 2: {column} {word!r} is a word for a missing value, as in pandas, expected a blank cell",
    )


def test_words_for_a_missing_value_are_missing_numbers_and_none_is_a_name(tmp_path):
    text = "path,speaker,label,start,end,valence\na.wav,Nan,none,NaN,<NA>,None\n"
    (utterance,) = read_corpus("table", write(tmp_path, text)).utterances
    assert (utterance.start, utterance.end, utterance.label, utterance.speaker) == (None, None, "none", "Nan")
    assert math.isnan(utterance.vad[0])


TABLE = "path,speaker,label\na.wav,s,Ärger\n"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            TABLE.encode("latin-1"),
            "FILE, line 2: is not UTF-8 text (the byte 0xc4, the letter Ä if it is Windows-1252)",
        ),
        (TABLE.replace("Ä", "€").encode("cp1252"), "the byte 0x80, the letter €"),
        (
            TABLE.encode("utf-16"),
            "FILE is text in UTF-16, expected UTF-8 (in Excel: save as 'CSV UTF-8'; elsewhere: iconv",
        ),
        (TABLE.encode("utf-16-be"), "FILE is text in UTF-16"),
        (TABLE.encode("utf-16-le"), "FILE is text in UTF-16"),
        (TABLE.encode("utf-32"), "FILE is text in UTF-32"),
        (
            b"PK\x03\x04\x14\x00\x06\x00[Content_Types].xml",
            "FILE is a zip archive, expected a CSV file (in Excel: save as",
        ),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(8) + b"\xfe\xff" * 300, "FILE is no text, expected a CSV file"),
        (b"\x1f\x8b\x08\x00abc", "FILE is a gzip archive"),
        (b"<!DOCTYPE html><html>", "FILE is a web page"),
        (b'{"path": ["a.wav"]}', "FILE is JSON"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "FILE is a wav file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "FILE is a git-lfs pointer"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value[:30],
)
def test_files_that_are_no_table_in_utf8(tmp_path, data, sentence):
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_corpus("table", str(path))
    assert sentence.replace("FILE", str(path)) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends_of_other_programs(tmp_path, encoding, end):
    path = tmp_path / "table.csv"
    path.write_bytes("\ufeffpath,\u00a0speaker,label\na.wav,s,\u00c4rger\n".replace("\n", end).encode(encoding))
    (tmp_path / "a.wav").touch()
    (utterance,) = read_corpus("table", str(path)).utterances
    assert (utterance.speaker, utterance.label, utterance.place) == ("s", "Ärger", f"{path}, line 2")


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
        assert path in str(error) or "the corpus table has no usable audio" in str(error) or "spelling" in str(error)
        assert str(error).isprintable()
    else:
        assert corpus.utterances
        assert all(utterance.label in (None, *corpus.classes) for utterance in corpus.utterances)
