"""The VAM-Audio reader on small trees in the layout of the release."""

from pathlib import Path

import pytest

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Loss
from sejax.errors import InputError


def write_tree(root: Path, ratings: dict[str, str]) -> str:
    """Writes sentences (folder/name -> text of the .ewe file) with their audio and their raters."""
    for name, text in ratings.items():
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".wav").touch()
        path.with_suffix(".ewe").write_text(text)
        path.with_suffix(".eva").write_text("0.9 0.9 0.9\n0.8 0.8 0.8\n")
    return str(root)


RATINGS = {
    "Speaker01/Satz01001": "-0.5 0.25 0.125\n",
    "Speaker01/Satz01002": "Valence Activation Dominance\n-0.1\t0.2\t0.3\n\n",
    "Speaker47/Satz47001": "dominance;valence;arousal\n0.3; -0.1; 0.2\n",
}


def test_merged_ratings_are_read_in_the_order_of_the_file(tmp_path):
    corpus = read_corpus("vam", write_tree(tmp_path, RATINGS))
    assert {u.id: (u.speaker, u.vad) for u in corpus.utterances} == {
        "Satz01001": ("01", (-0.5, 0.25, 0.125)),  # not the raters' .eva
        "Satz01002": ("01", (-0.1, 0.2, 0.3)),
        "Satz47001": ("47", (-0.1, 0.2, 0.3)),
    }
    assert all(u.label is None and u.distribution is None and u.gender is None for u in corpus.utterances)
    assert (corpus.classes, corpus.vad_scale) == ((), (-1.0, 1.0))
    assert corpus.label_source == "perceived: mean of 6 or 17 raters weighted by their reliability"
    assert corpus.utterances[0].path == str(tmp_path / "data/Speaker01/Satz01001.wav")
    assert any("utterances expected 947, found 3; speakers expected 47, found 2" in note for note in corpus.notes)


def test_a_sentence_without_merged_ratings_is_dropped(tmp_path):
    write_tree(tmp_path, RATINGS)
    (tmp_path / "data/Speaker01/Satz01001.ewe").unlink()
    (tmp_path / "data/Speaker01/noise.wav").touch()
    corpus = read_corpus("vam", str(tmp_path))
    (dropped,) = corpus.dropped
    assert (dropped.id, dropped.kind) == ("Satz01001", Loss.UNLABELLED)
    assert dropped.reason.endswith("Satz01001.wav has no file Satz01001.ewe with the merged ratings beside it")
    assert any(note.startswith("1 wav files that are not called like Satz01001.wav") for note in corpus.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1 0.2\n", r"line 1: found '0.1 0.2', expected one line with valence, activation, dominance"),
        ("0.1 0.2 0.3\n0.1 0.2 0.3\n", r"line 2: found '0.1 0.2 0.3', expected one line"),
        ("0.1 5 0.3\n", r"line 1: arousal is '5', expected a number from -1 to 1"),
        ("a b c\n", r"line 1: valence is 'a', expected a number"),
        ("\n", r" is empty, expected a line with valence"),
    ],
)
def test_ratings_that_cannot_be_read_are_quoted(tmp_path, text, message):
    with pytest.raises(InputError, match=f"Satz01001.ewe,?{'' if message.startswith(' ') else ' '}{message}"):
        read_corpus("vam", write_tree(tmp_path, {"Speaker01/Satz01001": text}))


def test_trees_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"no VAM-Audio in .*: expected data/<folder>/Satz01001.wav in it"):
        read_corpus("vam", str(tmp_path))
    with pytest.raises(InputError, match=r"Satz01001.wav: Satz01001 occurs twice, first in .*Satz01001.wav"):
        read_corpus("vam", write_tree(tmp_path, {"a/Satz01001": "0 0 0", "b/Satz01001": "0 0 0"}))
