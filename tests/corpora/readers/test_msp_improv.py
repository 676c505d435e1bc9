"""The MSP-IMPROV reader on small trees in the layout of the release."""

import math
import os
from pathlib import Path

import pytest

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Corpus, Loss, Utterance
from sejax.errors import InputError

ANGRY = """UTD-IMPROV-S01A-F01-T-FM01.avi; A; A:4.2; V:1.5; D:4.0 ; N:3.2;
WORKER00000001; Angry; Frustrated, Other (fed; up, and: tired); A:5.0; V:1.0; D:4.0; N:3.0;
WORKER00000002; Angry; A:4.0; V:2.0; D:4.0; N:NaN;
WORKER00000003; Sad; Angry,Frustrated; A:3.0; V:2.0; D:4.0; N:4.0;
WORKER00000002; Angry; A:4.0; V:2.0; D:4.0; N:NaN;
WORKER00000003; Happy; ; A:1.0; V:5.0; D:4.0; N:4.0;
"""
SAD = """UTD-IMPROV-S01A-M01-R-MF02.avi; S; A:2.0; V:2.0; D:NaN ; N:3.2;
WORKER00000001; Sad; ; A:2.0; V:2.0; D:NaN; N:3.0;
"""
HAPPY = """UTD-IMPROV-S02H-M01-P-FM03.avi; H; A:3.4; V:4.5; D:3.0 ; N:3.2;
WORKER00000001; Happy; Excited; A:3.0; V:4.0; D:3.0; N:3.0;
"""
NONE = """UTD-IMPROV-S02N-F02-S-FF04.avi; X; A:2.2; V:3.1; D:3.0 ; N:3.2;
WORKER00000001; Happy; ; A:3.0; V:4.0; D:3.0; N:3.0;
WORKER00000002; Other-bored; ; A:3.0; V:4.0; D:3.0; N:3.0;
WORKER00000003; Bored; ; A:3.0; V:4.0; D:3.0; N:3.0;
WORKER00000004; Neutral; ; A:3.0; V:4.0; D:3.0; N:3.0;
WORKER00000005; Happy; ; A:3.0; V:4.0; D:3.0; N:3.0;
"""
BLOCKS = (ANGRY, SAD, HAPPY, NONE)
WAVS = (
    "session1/S01A/T/MSP-IMPROV-S01A-F01-T-FM01.wav",
    "session1/S01A/R/MSP-IMPROV-S01A-M01-R-MF02.wav",
    "session1/S02H/P/MSP-IMPROV-S02H-M01-P-FM03.wav",
    "session2/S02N/S/MSP-IMPROV-S02N-F02-S-FF04.wav",
)


def write_tree(root: Path, text: str = "\n".join(BLOCKS), table: str = "Evaluation.txt", audio: str = "") -> str:
    root.mkdir(exist_ok=True)
    (root / table).write_text(text, "utf-8")
    for name in WAVS:
        path = root / audio / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(root)


def by_id(corpus: Corpus) -> dict[str, Utterance]:
    return {utterance.id.removeprefix("MSP-IMPROV-"): utterance for utterance in corpus.utterances}


def test_everything_of_an_utterance_is_read(tmp_path):
    corpus = read_corpus("msp_improv", write_tree(tmp_path))
    assert corpus.classes == ("anger", "happiness", "sadness", "neutral")
    assert corpus.vad_scale == (1.0, 5.0)
    assert corpus.label_source == "perceived: plurality of at least 5 raters, no class for a tie"
    angry = by_id(corpus)["S01A-F01-T-FM01"]
    assert (angry.label, angry.speaker, angry.session, angry.gender) == ("anger", "F01", "session1", "F")
    assert angry.vad == (1.5, 4.2, 4.0)  # the file has A V D
    assert angry.path == str(tmp_path / WAVS[0])
    # Two of three raters: the doubled lines do not count.
    assert angry.distribution == pytest.approx({"anger": 2 / 3, "happiness": 0, "sadness": 1 / 3, "neutral": 0})
    assert angry.secondary == pytest.approx({"frustration": 2 / 3, "other": 1 / 3, "anger": 1 / 3})
    assert angry.place == f"{tmp_path / 'Evaluation.txt'}, line 1"
    expected = "utterances expected 8,438, found 4; anger expected 792, found 1; sadness expected 885, found 1"
    assert any(expected in note for note in corpus.notes)
    assert "1 line of a rater stand twice under an utterance: counted once" in corpus.notes
    assert any("1 line of a rater who stands twice under an utterance with other words" in n for n in corpus.notes)


def test_speakers_of_one_number_are_two_people(tmp_path):
    utterances = by_id(read_corpus("msp_improv", write_tree(tmp_path))).values()
    assert {(u.speaker, u.session) for u in utterances} == {
        ("F01", "session1"),
        ("M01", "session1"),
        ("F02", "session2"),
    }


def test_no_agreement_is_kept_for_its_ratings(tmp_path):
    corpus = read_corpus("msp_improv", write_tree(tmp_path))
    tied = by_id(corpus)["S02N-F02-S-FF04"]
    assert tied.label is None and tied.vad == (3.1, 2.2, 3.0)
    # "Other-bored" and "Bored" are other.
    assert tied.distribution == pytest.approx({"anger": 0, "happiness": 2 / 3, "sadness": 0, "neutral": 1 / 3})
    assert "utterances outside the label scheme perceived, kept without a class: no agreement 1" in corpus.notes
    assert "1 vote for a word that is not of the questionnaire count as other" in corpus.notes


def test_nan_is_a_missing_dimension_not_a_number(tmp_path):
    corpus = read_corpus("msp_improv", write_tree(tmp_path))
    sad = by_id(corpus)["S01A-M01-R-MF02"]
    assert sad.vad[:2] == (2.0, 2.0) and math.isnan(sad.vad[2])
    assert "dominance is missing in 1 utterances" in corpus.notes


def test_target_sentences_have_one_text_for_all(tmp_path):
    utterances = by_id(read_corpus("msp_improv", write_tree(tmp_path)))
    assert utterances["S01A-F01-T-FM01"].text == utterances["S01A-M01-R-MF02"].text == "sentence01"
    assert utterances["S02H-M01-P-FM03"].text is None


def test_the_acted_label_is_that_of_the_name(tmp_path):
    corpus = read_corpus("msp_improv", write_tree(tmp_path), labels="acted")
    labels = {name: u.label for name, u in by_id(corpus).items()}
    assert labels == {
        "S01A-F01-T-FM01": "anger",
        "S01A-M01-R-MF02": "anger",  # perceived as sad
        "S02H-M01-P-FM03": "happiness",
        "S02N-F02-S-FF04": "neutral",
    }
    assert corpus.label_source == "intended"
    assert all(u.distribution is None and u.secondary is None for u in corpus.utterances)  # those are perceived
    assert "the classes are intended, valence, arousal and dominance are perceived" in corpus.notes


@pytest.mark.parametrize(("table", "audio"), [("Evalution.txt", ""), ("Evaluation.txt", "Audio")])
def test_other_spellings_and_places(tmp_path, table, audio):
    corpus = read_corpus("msp_improv", write_tree(tmp_path, table=table, audio=audio))
    assert len(corpus.utterances) == 4 and corpus.dropped == ()
    assert corpus.utterances[0].path == str(tmp_path / audio / WAVS[0])


def test_missing_audio_is_dropped_with_a_sentence(tmp_path):
    write_tree(tmp_path)
    os.remove(tmp_path / WAVS[2])
    (dropped,) = read_corpus("msp_improv", str(tmp_path)).dropped
    assert (dropped.id, dropped.kind) == ("MSP-IMPROV-S02H-M01-P-FM03", Loss.ABSENT)
    assert dropped.reason.startswith(
        f"{tmp_path / 'Evaluation.txt'}, line 11: MSP-IMPROV-S02H-M01-P-FM03 is listed, but"
    )


def test_a_label_that_is_no_plurality_is_counted(tmp_path):
    text = "\n".join(BLOCKS).replace("FM03.avi; H;", "FM03.avi; N;")
    corpus = read_corpus("msp_improv", write_tree(tmp_path, text))
    assert any("the label of 1 utterance is not the plurality of the raters" in note for note in corpus.notes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("WORKER00000002; Angry; A", "WORKER00000002 Angry; A", "line 3: found 'WORKER00000002 Angry; A:4.0"),
        ("FM01.avi; A; A:4.2;", "FM01.avi; Q; A:4.2;", "line 1: 'UTD.*' has the label 'Q', expected one of A, S, H"),
        ("FM01.avi; A; A:4.2;", "FM01.avi; A; A:42;", "line 1: arousal is '42', expected a number from 1 to 5"),
        ("FM01.avi; A; A:4.2;", "FM01.avi; A;", "line 1: .* has no rating A:, expected A:, V: and D:"),
        ("FM01.avi; A; A:4.2;", "FM01.avi; A; x; A:4.2;", "line 1: 'x' in 'UTD.*' is no rating"),
        (
            "UTD-IMPROV-S01A-F01-T-FM01",
            "UTD-IMPROV-S01A-F01-T",
            "line 1: found 'UTD-IMPROV-S01A-F01-T', expected a name",
        ),
        ("UTD-IMPROV-S01A-F01-T-FM01.avi; A", "UTD-IMPROV-S01A-F01-T-FM01.avi; AA", "line 1: found 'UTD-IMPROV"),
        ("S02H-M01-P-FM03", "S01A-F01-T-FM01", "line 11: MSP-IMPROV-S01A-F01-T-FM01 occurs twice, first in .*line 1"),
    ],
)
def test_a_line_that_cannot_be_read_is_quoted(tmp_path, old, new, message):
    with pytest.raises(InputError, match=f"Evaluation.txt, {message}"):
        read_corpus("msp_improv", write_tree(tmp_path, "\n".join(BLOCKS).replace(old, new)))


def test_a_folder_without_the_corpus(tmp_path):
    with pytest.raises(InputError, match=r"no MSP-IMPROV in .*: expected Evaluation.txt or Evalution.txt in it"):
        read_corpus("msp_improv", str(tmp_path))
    with pytest.raises(InputError, match=r"no MSP-IMPROV at .*: expected the folder with Evaluation.txt"):
        read_corpus("msp_improv", str(tmp_path / "nothing"))
