"""What raters and organisers add to a table: votes, several test sets, hidden labels, speakers whom nobody knows."""

import math
from pathlib import Path

import pytest

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Corpus, Loss
from sejax.errors import InputError


def write(folder: Path, text: str) -> str:
    for name in ("a.wav", "b.wav", "c.wav", "d.wav"):
        (folder / name).touch()
    path = folder / "table.csv"
    path.write_text(text, "utf-8")
    return str(path)


def read(folder: Path, text: str) -> Corpus:
    return read_corpus("table", write(folder, text))


# ---- votes


def test_votes_are_shares_and_give_the_class_where_no_label_stands(tmp_path):
    corpus = read(
        tmp_path,
        "path,speaker,votes:joy,votes:anger,votes: fear \n"
        "a.wav,s,3,1,\nb.wav,s,0.25,0.5,0.25\nc.wav,s,2,2,0\nd.wav,s,nan,1,1e-1\n",
    )
    assert corpus.classes == ("anger", "fear", "joy")
    assert [utterance.label for utterance in corpus.utterances] == ["joy", "anger", None, "anger"]
    assert [utterance.distribution for utterance in corpus.utterances] == [
        {"anger": 0.25, "fear": 0.0, "joy": 0.75},
        {"anger": 0.5, "fear": 0.25, "joy": 0.25},
        {"anger": 0.5, "fear": 0.0, "joy": 0.5},
        {"anger": 1 / 1.1, "fear": pytest.approx(0.1 / 1.1), "joy": 0.0},
    ]
    assert corpus.label_source == "perceived: plurality of the votes in the table, no class for a tie"
    assert corpus.notes == ("1 row without a label whose votes are a tie: kept without a class",)


def test_a_label_counts_more_than_the_votes(tmp_path):
    corpus = read(
        tmp_path, "path,speaker,label,votes:joy,votes:anger\na.wav,s,anger,3,0\nb.wav,s,,2,1\nc.wav,s,sad,,\n"
    )
    assert corpus.classes == ("anger", "joy", "sad")
    assert [utterance.label for utterance in corpus.utterances] == ["anger", "joy", "sad"]
    assert corpus.utterances[0].distribution == {"anger": 0.0, "joy": 1.0, "sad": 0.0}
    assert corpus.utterances[2].distribution is None
    assert corpus.label_source == (
        "unknown: the column label where it is filled, else the plurality of the votes in the table, no class for a tie"
    )


def test_a_table_without_votes_does_not_say_where_its_labels_come_from(tmp_path):
    assert read(tmp_path, "path,speaker,label\na.wav,s,x\n").label_source == "unknown"


def test_votes_alone_are_enough_and_zeros_are_none(tmp_path):
    path = write(tmp_path, "path,speaker,votes:joy\na.wav,s,1\nb.wav,s,0\nc.wav,s,\n")
    corpus = read_corpus("table", path)
    assert [utterance.id for utterance in corpus.utterances] == ["a"]
    assert [(lost.id, lost.kind) for lost in corpus.dropped] == [("b", Loss.UNLABELLED), ("c", Loss.UNLABELLED)]
    assert corpus.dropped[0].reason == f"{path}, line 3: the row has no label, votes, valence, arousal or dominance"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "path,speaker,votes:joy\na.wav,s,-1\n",
            "FILE, line 2: votes:joy '-1' are no votes, expected their number or share, from 0 to 10,000, or a blank",
        ),
        ("path,speaker,votes:joy\na.wav,s,10001\n", "FILE, line 2: votes:joy '10001' are no votes"),
        ("path,speaker,votes:joy\na.wav,s,many\n", "FILE, line 2: votes:joy 'many' is not a number"),
        ("path,speaker,votes:joy\na.wav,s,inf\n", "FILE, line 2: votes:joy 'inf' is not a number"),
        (
            "path,speaker,votes:\na.wav,s,1\n",
            "FILE, line 2: the column 'votes:' names no class, expected votes:<class>, such as votes:joy",
        ),
        ("path,speaker,vote:joy\na.wav,s,1\n", "FILE, line 1: unknown column 'vote:joy'"),
        ("path,speaker,vote:joy\na.wav,s,1\n", "dominance, fold, split, votes:..."),
        ("path,speaker,votes:joy,votes:joy\na.wav,s,1,1\n", "FILE, line 1: the column votes:joy occurs twice"),
        (
            "path,speaker,votes:joy,votes:Joy\na.wav,s,1,1\n",
            "FILE, line 2: the column votes:joy and the column votes:Joy are spellings of one class, expected one",
        ),
        (
            "path,speaker,label,votes:joy\na.wav,s,,1\nb.wav,s,Joy,\n",
            "FILE, line 2: the column votes:joy and the label 'Joy' (FILE, line 3) are spellings of one class",
        ),
        (
            "path,speaker,votes:joy\na.wav,s,0\n",
            "FILE has no row with a label or a rating, expected a filled column label, votes, valence, arousal or",
        ),
    ],
)
def test_votes_that_are_none(tmp_path, text, sentence):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_corpus("table", path)
    assert sentence.replace("FILE", path) in str(caught.value)


# ---- splits and hidden labels


def test_several_test_sets_and_hidden_labels(tmp_path):
    corpus = read(
        tmp_path,
        "path,speaker,label,valence,split\na.wav,s,x,,train\nb.wav,t,x,,test1\nc.wav,u,,,test2\nd.wav,v,,,val\n",
    )
    found = [(u.id, u.split, u.label, u.hidden, u.has_truth) for u in corpus.utterances]
    assert found == [
        ("a", "train", "x", False, True),
        ("b", "test1", "x", False, True),
        ("c", "test2", None, True, False),
    ]
    assert [lost.id for lost in corpus.dropped] == ["d"]
    assert "1 row of test splits without label, valence, arousal or dominance: predicted, not scored" in corpus.notes


def test_a_rating_is_not_hidden_and_a_hidden_row_needs_its_file(tmp_path):
    corpus = read(tmp_path, "path,speaker,label,valence,split\na.wav,s,x,,train\nb.wav,t,,3,test\ngone.wav,t,,,test\n")
    assert [utterance.hidden for utterance in corpus.utterances] == [False, False]
    assert [lost.kind for lost in corpus.dropped] == [Loss.ABSENT]


def test_a_table_whose_labels_are_all_hidden_teaches_nothing(tmp_path):
    path = write(tmp_path, "path,speaker,label,split\na.wav,s,,test\nb.wav,s,,train\n")
    with pytest.raises(InputError, match="has no row with a label or a rating"):
        read_corpus("table", path)


@pytest.mark.parametrize("split", ["dev", "Test", "test-1", "test 1", "testing"])
def test_a_split_that_is_none(tmp_path, split):
    path = write(tmp_path, f"path,speaker,label,split\na.wav,s,x,{split}\n")
    with pytest.raises(InputError) as caught:
        read_corpus("table", path)
    assert str(caught.value) == (
        f"{path}, line 2: split {split!r}, expected train, val, test, a numbered test (test1, test2, ...) or a blank "
        "cell"
    )


# ---- speakers


def test_unknown_speakers_are_each_their_own(tmp_path):
    corpus = read(tmp_path, "path,speaker,label\na.wav,unknown,x\nb.wav,Unknown,x\nc.wav,UNKNOWN,x\nd.wav,anna,x\n")
    found = [(utterance.speaker, utterance.speaker_known) for utterance in corpus.utterances]
    assert found == [("unknown-a", False), ("unknown-b", False), ("unknown-c", False), ("anna", True)]
    assert corpus.notes == (
        "3 utterances of unknown speakers, each taken as a speaker of its own: nobody can say whether others have the "
        "same voice",
    )


def test_unknown_speakers_of_ids_that_differ_in_case_are_no_spellings_of_one(tmp_path):
    corpus = read(tmp_path, "path,speaker,label,id\na.wav,unknown,x,u1\nb.wav,unknown,x,U1\nc.wav,unknown,x,1.0\n")
    assert {utterance.speaker for utterance in corpus.utterances} == {"unknown-u1", "unknown-U1", "unknown-1.0"}


@pytest.mark.parametrize(("cell", "said"), [("", "(unknown if nobody knows who speaks)"), ("nan", "a word for a miss")])
def test_a_blank_speaker_is_a_mistake(tmp_path, cell, said):
    path = write(tmp_path, f"path,speaker,label\na.wav,{cell},x\n")
    with pytest.raises(InputError) as caught:
        read_corpus("table", path)
    assert said in str(caught.value)


def test_nothing_changes_for_a_table_of_labels(tmp_path):
    (utterance,) = read(tmp_path, "path,speaker,label\na.wav,s,x\n").utterances
    assert (utterance.distribution, utterance.hidden, utterance.speaker_known, utterance.split) == (
        None,
        False,
        True,
        None,
    )
    assert all(map(math.isnan, utterance.vad))
