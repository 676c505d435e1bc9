"""Several corpora as one: names, scales, classes, and what is refused."""

import math
from pathlib import Path

import pytest

from sejax.corpora.join import Source, is_joined, members, parse_sources, read_corpora
from sejax.errors import InputError


def table(folder: Path, name: str, rows: str, header: str = "path,speaker,label,valence,arousal,text") -> str:
    for row in rows.splitlines():
        (folder / row.partition(",")[0]).touch()
    (folder / name).write_text(f"{header}\n{rows}", "utf-8")
    return f"table:{folder / name}"


@pytest.fixture
def two(tmp_path):
    one = table(tmp_path, "one.csv", "a.wav,s1,anger,1,5,hello\nb.wav,s2,joy,5,4,bye\nc.wav,s1,boredom,3,1,hello\n")
    other = table(tmp_path, "other.csv", "a.wav,s1,angry,-1,0.5,hello\nb.wav,s2,,1,1,\n")
    return one, other


def test_ids_and_speakers_are_unique_by_corpus_and_texts_of_tables_are_not(two):
    corpus = read_corpora(two, "four")
    assert corpus.name == "one+other"
    assert [(u.id, u.speaker, u.corpus, u.text) for u in corpus.utterances] == [
        ("one:a", "one:s1", "one", "hello"),
        ("one:b", "one:s2", "one", "bye"),
        ("other:a", "other:s1", "other", "hello"),
        ("other:b", "other:s2", "other", None),
    ]
    assert corpus.classes == ("angry", "happy")
    assert [u.label for u in corpus.utterances] == ["angry", "happy", "angry", None]
    assert is_joined(corpus.utterances)
    assert "one: the labels four leave 1 of 3 utterances out: boredom 1" in corpus.notes
    assert corpus.label_source == "one: unknown; other: unknown"


def test_different_scales_are_brought_to_one(two):
    corpus = read_corpora(two, "four")
    assert corpus.vad_scale == (0.0, 1.0)
    assert [u.vad[:2] for u in corpus.utterances] == [(0.0, 1.0), (1.0, 0.75), (0.0, 0.75), (1.0, 1.0)]
    assert any("one 1 to 5, other -1 to 1" in note for note in corpus.notes)


def test_equal_scales_stay(two):
    one, _ = two
    corpus = read_corpora((one, one.replace("table:", "again=table:")), "four")
    assert corpus.vad_scale == (1.0, 5.0)
    assert corpus.utterances[0].vad[:2] == (1.0, 5.0)
    assert math.isnan(corpus.utterances[0].vad[2])


def test_members_have_their_own_ids_again(two):
    parts = members(read_corpora(two, "four"))
    assert {prefix: [u.id for u in part.utterances] for prefix, part in parts.items()} == {
        "one:": ["a", "b"],
        "other:": ["a", "b"],
    }


def test_the_words_of_the_corpora_have_to_be_spelled_alike(two):
    with pytest.raises(
        InputError, match="one has the class 'anger' and other the class 'angry', expected one spelling"
    ):
        read_corpora(two, "default")
    with pytest.raises(InputError, match=r"config\.labels is 'seven', expected for several corpora one of four"):
        read_corpora(two, "seven")


def test_sources_are_parsed():
    assert parse_sources(("emodb:a.zip", "table/1..7:x/mine.csv", "late=cremad/perceived_voice:/c")) == (
        Source("emodb", "emodb", "default", "a.zip"),
        Source("mine", "table", "1..7", "x/mine.csv"),
        Source("late", "cremad", "perceived_voice", "/c"),
    )
    assert parse_sources(("audio_folder/label=emotion,1..7:/f/mine",)) == (
        Source("mine", "audio_folder", "label=emotion,1..7", "/f/mine"),
    )
    (synthetic,) = parse_sources(("synthetic:",))
    assert synthetic.labels == "words"


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        (("emodb",), "has 'emodb', expected [name=]reader[/labels]:path"),
        (("emo:x",), "with a reader out of"),
        (("=emodb:x",), "expected [name=]reader"),
        (("emodb/:x",), "expected [name=]reader"),
        (("emodb:",), "expected emodb.zip or its unpacked folder behind the colon"),
        (("emodb:a", "emodb:b"), "names two corpora 'emodb', expected a name for each"),
        (("x>y=emodb:a",), "names a corpus 'x>y', expected a name without : and >"),
    ],
)
def test_wrong_sources_are_refused(sources, sentence):
    with pytest.raises(InputError) as caught:
        parse_sources(sources)
    assert sentence in str(caught.value)
