"""The reader of CREMA-D: intended and perceived labels, votes, genders, and the faults of the release."""

import zipfile
from pathlib import Path

import pytest

from sejax.corpora.read import CORPORA, read_corpus
from sejax.corpora.schema import Loss
from sejax.errors import InputError

CLIPS = ("1001_IEO_ANG_HI", "1001_TIE_SAD_XX", "1002_DFA_HAP_XX")
SUMMARY = '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"\n'
VOTES = '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote","meanEmoResp"\n'
VOICE = {
    "1001_IEO_ANG_HI": (6, 0, 1, 0, 1, 0),
    "1001_TIE_SAD_XX": (0, 0, 2, 0, 1, 2),
    "1002_DFA_HAP_XX": (0, 0, 0, 1, 9, 0),
}
CHOICES = {"1001_IEO_ANG_HI": "A", "1001_TIE_SAD_XX": "F:S", "1002_DFA_HAP_XX": "N"}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Writes three clips with the tables of the repository."""
    (tmp_path / "AudioWAV").mkdir()
    (tmp_path / "processedResults").mkdir()
    for clip in CLIPS:
        (tmp_path / "AudioWAV" / f"{clip}.wav").touch()
    rows = [f'"{i}","{clip}","{CHOICES[clip]}","60:50","H","80","A:D","70:70"' for i, clip in enumerate(CLIPS, 1)]
    (tmp_path / "processedResults" / "summaryTable.csv").write_text(SUMMARY + "\n".join(rows) + "\n")
    rows = []
    for digit in "123":
        for i, clip in enumerate(CLIPS, 1):
            counts = VOICE[clip] if digit == "1" else (0, 0, 0, 7, 0, 0) if digit == "2" else (4, 4, 0, 0, 0, 0)
            cells = ",".join(f'"{n}"' for n in counts)
            rows.append(f'"{digit}{i:05d}",{cells},"{clip}","{sum(counts)}","0.5","?","60"')
    (tmp_path / "processedResults" / "tabulatedVotes.csv").write_text(VOTES + "\n".join(rows) + "\n")
    (tmp_path / "VideoDemographics.csv").write_text(
        '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","Caucasian","Not Hispanic"\n1002,21,"Female","",""\n'
    )
    return tmp_path


def test_the_intended_labels_are_the_default(release):
    corpus = read_corpus("cremad", str(release))
    assert [u.label for u in corpus.utterances] == ["anger", "sadness", "happiness"]
    assert [(u.speaker, u.gender, u.text) for u in corpus.utterances] == [
        ("1001", "M", "IEO"),
        ("1001", "M", "TIE"),
        ("1002", "F", "DFA"),
    ]
    assert corpus.label_source == "intended"
    assert all(u.distribution is None for u in corpus.utterances)
    assert read_corpus("cremad", str(release), labels="intended") == corpus
    assert CORPORA["cremad"].words == "intended"


def test_perceived_labels_leave_ties_out_and_have_votes(release):
    corpus = read_corpus("cremad", str(release), labels="perceived_voice")
    assert [(u.id, u.label) for u in corpus.utterances] == [(CLIPS[0], "anger"), (CLIPS[2], "neutral")]
    assert corpus.utterances[0].distribution == pytest.approx(
        {"anger": 6 / 8, "disgust": 0, "fear": 1 / 8, "happiness": 0, "neutral": 1 / 8, "sadness": 0}
    )
    assert corpus.label_source == "perceived: plurality of 4 to 12 raters of the voice, no class for a tie"
    assert corpus.notes[-1].endswith("perceived_voice, left out: no agreement 1")
    assert any("anger 986 (found 1)" in note and "ties 644 (found 1)" in note for note in corpus.notes)
    assert not any("another choice" in note for note in corpus.notes)


def test_each_modality_has_its_own_choices(release):
    face = read_corpus("cremad", str(release), labels="perceived_face")
    assert [u.label for u in face.utterances] == 3 * ["happiness"]
    assert face.utterances[0].distribution["happiness"] == 1
    with pytest.raises(InputError, match="the corpus cremad has 0 utterances"):  # all are ties
        read_corpus("cremad", str(release), labels="perceived_multimodal")


def test_the_soft_scheme_keeps_ties_for_their_votes(release):
    corpus = read_corpus("cremad", str(release), labels="perceived_voice_soft")
    assert [u.label for u in corpus.utterances] == ["anger", None, "neutral"]
    shares = corpus.utterances[1].distribution
    assert (shares["fear"], shares["sadness"], shares["neutral"]) == pytest.approx((0.4, 0.4, 0.2))
    assert corpus.notes[-1].endswith("perceived_voice_soft, kept without a class: no agreement 1")


def test_the_schemes_need_their_tables(release):
    (release / "processedResults" / "tabulatedVotes.csv").unlink()
    corpus = read_corpus("cremad", str(release), labels="perceived_voice")
    assert "no tabulatedVotes.csv: the raters' votes are not known, only their choices" in corpus.notes
    assert all(u.distribution is None for u in corpus.utterances)
    with pytest.raises(InputError, match=r"has no tabulatedVotes\.csv, expected processedResults/tabulatedVotes\.csv"):
        read_corpus("cremad", str(release), labels="perceived_voice_soft")
    (release / "processedResults" / "summaryTable.csv").unlink()
    with pytest.raises(InputError, match=r"has no summaryTable\.csv, .*the label scheme perceived_face is made of it"):
        read_corpus("cremad", str(release), labels="perceived_face")
    assert len(read_corpus("cremad", str(release)).utterances) == 3


def test_a_clip_without_a_row_is_left_out_by_name(release):
    table = release / "processedResults" / "summaryTable.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(keepends=True) if "DFA" not in line))
    corpus = read_corpus("cremad", str(release), labels="perceived_voice")
    (lost,) = corpus.dropped
    assert (lost.id, lost.kind) == (CLIPS[2], Loss.UNLABELLED)
    assert lost.reason == f"{CLIPS[2]} has no row in {table}"


def test_choices_that_the_votes_contradict_are_noted(release):
    table = release / "processedResults" / "summaryTable.csv"
    table.write_text(table.read_text().replace('_HI","A"', '_HI","S"'))
    corpus = read_corpus("cremad", str(release), labels="perceived_voice")
    assert corpus.utterances[0].label == "sadness"
    assert any("another choice than the votes of tabulatedVotes.csv for 1 clip" in note for note in corpus.notes)


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        (
            "summaryTable.csv",
            '"F:S"',
            '"F:Q"',
            r"summaryTable\.csv, line 3: VoiceVote 'F:Q', expected letters of A D F",
        ),
        ("tabulatedVotes.csv", '"6"', '"six"', r"tabulatedVotes\.csv, line 2: .*'six'.*expected numbers of raters"),
        ("tabulatedVotes.csv", '"8","0.5"', '"9","0.5"', r"numResponses '9', expected numbers of raters and their sum"),
        ("tabulatedVotes.csv", '"100001"', '"1"', r"line 2: the first cell is '1', expected the digit 1 \(voice\), 2"),
        ("tabulatedVotes.csv", '"fileName"', '"file"', r"the column fileName is missing"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(release, table, old, new, message):
    path = release / "processedResults" / table
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        read_corpus("cremad", str(release), labels="perceived_voice")


def test_genders_are_optional(release):
    path = release / "VideoDemographics.csv"
    path.write_text(path.read_text().replace('"Female"', '"?"'))
    corpus = read_corpus("cremad", str(release))
    assert [u.gender for u in corpus.utterances] == ["M", "M", None]
    assert any("no gender (Female or Male) for 1 actor: 1002" in note for note in corpus.notes)
    path.write_bytes(b"ActorID,Sex\n1001,M\xe4nnlich\n")
    corpus = read_corpus("cremad", str(release))
    assert {u.gender for u in corpus.utterances} == {None}
    assert any(note.startswith("the speakers' genders are not known: ") and "UTF-8" in note for note in corpus.notes)
    path.unlink()
    assert "no VideoDemographics.csv: the speakers' genders are not known" in read_corpus("cremad", str(release)).notes


def test_the_archive_of_the_repository_has_the_tables_too(release, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "cremad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(release.rglob("*.*")):
            archive.write(file, f"CREMA-D-master/{file.relative_to(release)}")
    corpus = read_corpus("cremad", str(path), labels="perceived_voice")
    assert [(u.label, u.gender) for u in corpus.utterances] == [("anger", "M"), ("neutral", "F")]


def test_a_clone_without_git_lfs_says_what_to_do(release):
    for clip in CLIPS:
        (release / "AudioWAV" / f"{clip}.wav").write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        )
    with pytest.raises(
        InputError, match=r"has no CREMA-D utterance: .*a git-lfs pointer .*\(`git lfs pull` fetches it\)"
    ):
        read_corpus("cremad", str(release))


def test_faults_of_the_release_are_named(release):
    assert not any("silent" in note or "same audio" in note for note in read_corpus("cremad", str(release)).notes)
    for clip in ("1076_MTI_SAD_XX", "1006_TIE_HAP_XX", "1006_TIE_NEU_XX", "1013_WSI_DIS_XX"):
        (release / "AudioWAV" / f"{clip}.wav").touch()
    notes = read_corpus("cremad", str(release)).notes
    assert "1076_MTI_SAD_XX is silent in the release" in notes
    assert "1006_TIE_HAP_XX and 1006_TIE_NEU_XX have the same audio under two intended labels" in notes
    assert not any("1013_WSI" in note for note in notes[2:])  # the other one of the pair is not there
