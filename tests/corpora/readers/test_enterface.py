"""The eNTERFACE'05 reader on small trees in the layout of the release."""

from pathlib import Path

import pytest

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Loss
from sejax.errors import InputError


def write(root: Path, *names: str) -> str:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(root)


FILES = (
    "subject 1/anger/sentence 1/s1_an_1.avi",
    "subject 1/anger/sentence 1/s1_an_1.wav",
    "subject 2/anger/sentence 1/s2_an_2.wav",  # the names of two sentences are swapped
    "subject 2/anger/sentence 2/s2_an_1.wav",
    "subject 3/fear/sentence 4/s_3_fe_4.wav",
    "subject 11/happiness/sentence 5/s12_ha_5.wav",
    "subject 16/surprise/sentence 3/s16_su_3avi.wav",
    "subject 6/sadness/s6_sa.avi",
    "subject 1/anger/sentence 1/Thumbs.db",
)


@pytest.mark.parametrize("top", ["", "enterface database"])
def test_subject_emotion_and_sentence_are_those_of_the_folders(tmp_path, top):
    write(tmp_path / top, *FILES)
    corpus = read_corpus("enterface", str(tmp_path))
    assert corpus.classes == ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
    assert corpus.label_source == "elicited"
    assert {u.id: (u.speaker, u.label, u.text) for u in corpus.utterances} == {
        "s01_an_1": ("s01", "anger", "anger_1"),
        "s02_an_1": ("s02", "anger", "anger_1"),
        "s02_an_2": ("s02", "anger", "anger_2"),
        "s03_fe_4": ("s03", "fear", "fear_4"),
        "s11_ha_5": ("s11", "happiness", "happiness_5"),
        "s16_su_3": ("s16", "surprise", "surprise_3"),
    }
    assert corpus.utterances[1].path == str(tmp_path / top / FILES[2])
    assert corpus.dropped == ()


def test_notes_count_the_recordings_that_are_not_cut(tmp_path):
    notes = read_corpus("enterface", write(tmp_path, *FILES)).notes
    assert any(
        "utterances expected 1,257, found 6; subjects expected 42, found 5; anger expected 210" in n for n in notes
    )
    assert any(
        n.startswith("1 recording outside the folders of sentences left out, as those of subject 6") for n in notes
    )
    assert "each sentence belongs to one class: the words give the class away" in notes


def test_a_video_without_its_wav_is_dropped(tmp_path):
    write(tmp_path, *FILES, "subject 5/disgust/sentence 2/s5_di_2.avi", "subject 23/anger/sentence 1/.keep")
    (dropped,) = read_corpus("enterface", str(tmp_path)).dropped
    assert (dropped.id, dropped.kind) == ("s05_di_2", Loss.ABSENT)
    wav = tmp_path / "subject 5/disgust/sentence 2/s5_di_2.wav"
    assert dropped.reason == f"there is no audio file {wav}, but its video: convert it with ffmpeg"


def test_videos_alone_are_refused_with_the_command(tmp_path):
    write(tmp_path, *(name for name in FILES if not name.endswith(".wav")))
    with pytest.raises(
        InputError, match=r"holds videos \(avi\) and no wav file, expected one beside each: find .*ffmpeg"
    ):
        read_corpus("enterface", str(tmp_path))


def test_trees_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"no eNTERFACE'05 in .*: expected folders subject 1 to subject 44 in it"):
        read_corpus("enterface", str(tmp_path))
    write(tmp_path / "a", "subject 1/anger/sentence 1/s1_an_1.wav", "subject 1/anger/sentence 1/s1_an_1 (2).wav")
    with pytest.raises(
        InputError, match=r"sentence 1 has the wav files s1_an_1 \(2\).wav and s1_an_1.wav, expected one"
    ):
        read_corpus("enterface", str(tmp_path / "a"))
    write(tmp_path / "b", "subject 1/rage/sentence 1/s1_an_1.wav")
    with pytest.raises(
        InputError, match=r"subject 1/rage: the folder is called 'rage', expected one of anger, disgust"
    ):
        read_corpus("enterface", str(tmp_path / "b"))
