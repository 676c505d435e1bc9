"""The readers of MSP-Podcast and BIIC-Podcast on small trees in the layouts of their releases."""

import math
import os
from collections import Counter
from pathlib import Path

import pytest

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Corpus, Loss, Utterance
from sejax.errors import InputError

HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
ROWS = (
    "MSP-PODCAST_0001_0008.wav,A,5.4,2.2,5.0,12,Female,Train",
    "MSP-PODCAST_0001_0009.wav,S,3.0,2.4,3.5,12,Female,Train",
    "MSP-PODCAST_0002_0001.wav,H,4.9,5.5,4.6,Unknown,Unknown,Train",
    "MSP-PODCAST_0002_0002.wav,X,4.0,4.1,4.2,13,Male,Development",
    "MSP-PODCAST_0003_0001.wav,O,4.0,4.1,,14,Male,Test1",
    "MSP-PODCAST_0003_0002.wav,U,4.5,4.4,4.3,14,Male,Test2",
    "MSP-PODCAST_1023_0235.wav,C,4.5,3.4,4.3,15,Male,Validation",
)
DETAILED = """FileName,Annotation
"MSP-PODCAST_0001_0008.wav","WORKER00000001; Angry; Angry,Frustrated; A:6; V:2; D:5;"
"MSP-PODCAST_0001_0008.wav","WORKER00000002; Angry; A:5; V:2; D:5;"
"MSP-PODCAST_0001_0008.wav","WORKER00000003; Contempt; Dissapointed,Other-tired; A:5; V:3; D:5;"
"MSP-PODCAST_0002_0002.wav","WORKER00000001; Other-sarcastic; ; A:5; V:3; D:5;"
"MSP-PODCAST_0002_0002.wav","WORKER00000002; Happy; ; A:5; V:3; D:5;"
"MSP-PODCAST_0002_0002.wav","WORKER00000003; Hapy; ; A:5; V:3; D:5;"
"MSP-PODCAST_0002_0002.wav","WORKER00000004; Happy; ; A:5; V:3; D:5;"
"MSP-PODCAST_0002_0002.wav","WORKER00000002; Happy; ; A:5; V:3; D:5;"
"MSP-PODCAST_0003_0001.wav","WORKER00000002; Other-bored; ; A:5; V:3; D:5;"
"""
HIDDEN = ("MSP-PODCAST_test3_0001.wav", "MSP-PODCAST_test3_0002.wav")


def write_tree(
    root: Path,
    rows: tuple[str, ...] = ROWS,
    *,
    header: str = HEADER,
    table: str = "Labels/labels_consensus.csv",
    audio: str = "Audios",
    hidden: tuple[str, ...] = HIDDEN,
) -> str:
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_text("\n".join((header, *rows)) + "\n", "utf-8")
    (root / audio).mkdir()
    for name in (*(row.partition(",")[0] for row in rows), *hidden):
        (root / audio / name).touch()
    return str(root)


def by_id(corpus: Corpus) -> dict[str, Utterance]:
    return {utterance.id.partition("_")[2]: utterance for utterance in corpus.utterances}


def test_everything_of_a_release_is_read(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "Labels" / "labels_detailed.csv").write_text(DETAILED, "utf-8")
    corpus = read_corpus("msp_podcast", str(tmp_path))
    assert corpus.classes == (
        "anger",
        "sadness",
        "happiness",
        "surprise",
        "fear",
        "disgust",
        "contempt",
        "neutral",
    )
    assert corpus.vad_scale == (1.0, 7.0)
    assert corpus.label_source == "perceived: plurality of at least 5 raters, no class for a tie"
    utterances = by_id(corpus)
    angry = utterances["0001_0008"]
    assert (angry.label, angry.speaker, angry.gender, angry.split) == ("anger", "12", "F", "train")
    assert angry.speaker_known and not angry.hidden
    assert angry.vad == (2.2, 5.4, 5.0)  # the columns are arousal, valence, dominance
    assert angry.distribution is not None
    shares = {name: share for name, share in angry.distribution.items() if share}
    assert shares == pytest.approx({"anger": 2 / 3, "contempt": 1 / 3})
    assert angry.secondary == pytest.approx(
        {"anger": 1 / 3, "frustration": 1 / 3, "disappointed": 1 / 3, "other": 1 / 3}
    )
    assert {name: u.split for name, u in utterances.items()} == {
        "0001_0008": "train",
        "0001_0009": "train",
        "0002_0001": "train",
        "0002_0002": "val",
        "0003_0001": "test1",
        "0003_0002": "test2",
        "1023_0235": "val",
        "test3_0001": "test3",
        "test3_0002": "test3",
    }
    assert corpus.dropped == ()


def test_no_agreement_and_other_are_kept_for_their_ratings(tmp_path):
    corpus = read_corpus("msp_podcast", write_tree(tmp_path))
    utterances = by_id(corpus)
    assert utterances["0002_0002"].label is None and utterances["0002_0002"].vad == (4.1, 4.0, 4.2)
    assert utterances["0003_0001"].label is None
    assert utterances["0003_0001"].vad[:2] == (4.1, 4.0) and math.isnan(utterances["0003_0001"].vad[2])
    assert "dominance is missing in 1 utterances" in corpus.notes  # the hidden ones do not count
    assert "utterances outside the label scheme eight, kept without a class: no agreement 1, other 1" in corpus.notes


def test_four_classes_leave_the_others_out(tmp_path):
    corpus = read_corpus("msp_podcast", write_tree(tmp_path), labels="four")
    assert corpus.classes == ("anger", "happiness", "sadness", "neutral")
    assert {u.label for u in corpus.utterances if not u.hidden} == {"anger", "happiness", "sadness"}
    assert any("left out: contempt 1, no agreement 1, other 1, surprise 1" in note for note in corpus.notes)
    assert sum(u.hidden for u in corpus.utterances) == 2


def test_own_words_of_raters_are_other_and_doubled_lines_count_once(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "Labels" / "labels_detailed.csv").write_text(DETAILED, "utf-8")
    corpus = read_corpus("msp_podcast", str(tmp_path), labels="soft")
    tied = by_id(corpus)["0002_0002"]  # other 2, happy 2
    assert tied.label is None and tied.distribution is not None
    assert tied.distribution["happiness"] == 1.0  # of the votes for a class
    assert "1 line of a rater stand twice under an utterance: counted once" in corpus.notes
    assert "1 vote for a word that is not of the questionnaire count as other" in corpus.notes
    assert by_id(corpus)["0003_0001"].distribution is None
    assert not any("is not the plurality" in note for note in corpus.notes)


def test_an_unknown_speaker_is_nobody_else(tmp_path):
    rows = (*ROWS, "MSP-PODCAST_0002_0009.wav,N,4.0,4.0,4.0,Unknown,Unknown,Test1")
    corpus = read_corpus("msp_podcast", write_tree(tmp_path, rows))
    one, other = (by_id(corpus)[name] for name in ("0002_0001", "0002_0009"))
    assert not one.speaker_known and not other.speaker_known and one.gender is None
    assert one.speaker == "unknown-MSP-PODCAST_0002_0001" != other.speaker
    assert any("the speakers of 4 utterances are unknown (test1 1, test3 2, train 1)" in n for n in corpus.notes)


def test_hidden_labels_are_kept_without_labels(tmp_path):
    rows = (
        *ROWS,
        "MSP-PODCAST_test3_0001.wav,,,,,Unknown,Unknown,Test3",
        "MSP-PODCAST_0005_0001.wav,,,,,Unknown,Unknown,",
    )
    write_tree(tmp_path, rows, hidden=("MSP-PODCAST_test3_0003.wav",))
    (tmp_path / "Partitions.txt").write_text(
        "Train; MSP-PODCAST_0001_0008.wav\nTest3; MSP-PODCAST_test3_0001.wav\nTest3; MSP-PODCAST_test3_0002.wav\n"
        "Test3; MSP-PODCAST_0005_0001.wav\n"
    )
    corpus = read_corpus("msp_podcast", str(tmp_path))
    hidden = {name: u for name, u in by_id(corpus).items() if u.hidden}
    assert sorted(hidden) == ["0005_0001", "test3_0001", "test3_0003"]  # by the list, the table, the name
    for utterance in hidden.values():
        assert utterance.label is None and utterance.distribution is None and not utterance.has_truth
        assert utterance.split == "test3" and all(map(math.isnan, utterance.vad))
    (dropped,) = corpus.dropped  # by the list, without audio
    assert (dropped.id, dropped.kind) == ("MSP-PODCAST_test3_0002", Loss.ABSENT)
    assert "4 utterances of test3 with hidden labels: predicted, not scored" in corpus.notes


def test_a_test3_with_labels_is_not_hidden(tmp_path):
    rows = (*ROWS, "MSP-PODCAST_test3_0001.wav,N,4.0,4.0,4.0,7,Male,Test3")
    rows = (*rows, "MSP-PODCAST_test3_0002.wav,N,,,,7,Male,Test3", "MSP-PODCAST_test3_0003.wav,,4.0,4.0,,7,Male,Test3")
    utterances = by_id(read_corpus("msp_podcast", write_tree(tmp_path, rows, hidden=())))
    assert [(u.hidden, u.label) for name, u in utterances.items() if u.split == "test3"] == [
        (False, "neutral"),
        (False, "neutral"),
        (False, None),
    ]


def test_files_without_a_row_and_rows_without_a_file(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "Audios" / "MSP-PODCAST_9999_0001.wav").touch()
    (tmp_path / "Audios" / "._MSP-PODCAST_0001_0008.wav").touch()
    os.remove(tmp_path / "Audios" / "MSP-PODCAST_0001_0009.wav")
    detailed = '"MSP-PODCAST_9999_0002.wav","WORKER00000001; Angry; A:6; V:2; D:5;"'
    (tmp_path / "Labels" / "labels_detailed.csv").write_text(f"{DETAILED}{detailed}\n", "utf-8")
    corpus = read_corpus("msp_podcast", str(tmp_path))
    (dropped,) = corpus.dropped
    assert "labels_consensus.csv, line 3: MSP-PODCAST_0001_0009 is listed, but there is no audio file" in dropped.reason
    assert "1 wav file without a label left out (the first: MSP-PODCAST_9999_0001.wav)" in corpus.notes
    assert "raters of 1 file without a label left out (the first: MSP-PODCAST_9999_0002)" in corpus.notes


def test_counts_are_compared_with_the_nearest_release(tmp_path):
    corpus = read_corpus("msp_podcast", write_tree(tmp_path))
    (note,) = [note for note in corpus.notes if note.startswith("counts")]
    assert note.startswith(
        "counts that are not the published ones of MSP-Podcast 1.7, the nearest of the known releases: utterances "
        "expected 62,140, found 9"
    )
    assert any(note.startswith("MSP-PODCAST_1023_0235 is stereo at 44.1 kHz") for note in corpus.notes)


def test_a_full_release_has_the_published_counts(tmp_path, monkeypatch):
    from sejax.corpora.podcasts import Release
    from sejax.corpora.readers import msp_podcast

    release = Release("of the test", 7, {"train": 3, "val": 2, "test1": 1, "anger": 1, "other": 1}, labelled_only=True)
    corpus = msp_podcast.MSP_PODCAST
    monkeypatch.setattr(msp_podcast, "MSP_PODCAST", type(corpus)(**{**vars(corpus), "releases": (release,)}))
    notes = read_corpus("msp_podcast", write_tree(tmp_path)).notes
    assert (
        "counts as published for MSP-Podcast of the test, the nearest of the known releases: utterances 7, train 3, "
        "val 2, test1 1, anger 1, other 1" in notes
    )


@pytest.mark.parametrize(
    ("table", "audio"),
    [
        ("Labels/labels_concensus.csv", "Audios"),
        ("label/labels_consensus.csv", "Audio"),
        ("labels_consensus.csv", "Audios"),
    ],
)
def test_other_spellings_and_places(tmp_path, table, audio):
    corpus = read_corpus("msp_podcast", write_tree(tmp_path, table=table, audio=audio))
    assert len(corpus.utterances) == 9 and corpus.dropped == ()


def test_an_old_release_lists_labels_and_raters_as_text(tmp_path):
    (tmp_path / "Labels").mkdir()
    (tmp_path / "Labels" / "Labels.txt").write_text(
        "MSP-PODCAST_0001_0008.wav; A; A:5.2; V:2.0; D:4.6;\n"
        "WORKER1; Angry; Annoyed; A:5; V:2; D:5;\nWORKER2; Neutral; A:5; V:2; D:5;\nWORKER3; Angry; A:5; V:2; D:5;\n\n"
        "MSP-PODCAST_0001_0019.wav; X; A:2.2; V:4.0; D:2.6;\nWORKER1; Angry; Annoyed; A:5; V:2; D:5;\n"
    )
    (tmp_path / "Partitions.txt").write_text("Train; MSP-PODCAST_0001_0008.wav\nTest1; MSP-PODCAST_0001_0019.wav\n")
    (tmp_path / "Speaker_ids.txt").write_text(
        "Speaker_1; Female\nMSP-PODCAST_0001_0008.wav; Speaker_1\nMSP-PODCAST_0001_0019.wav; Unknown\n"
    )
    (tmp_path / "Audio").mkdir()
    for name in ("MSP-PODCAST_0001_0008.wav", "MSP-PODCAST_0001_0019.wav"):
        (tmp_path / "Audio" / name).touch()
    corpus = read_corpus("msp_podcast", str(tmp_path))
    angry, tied = corpus.utterances
    assert (angry.label, angry.vad, angry.split) == ("anger", (2.0, 5.2, 4.6), "train")
    assert (angry.speaker, angry.gender, angry.speaker_known) == ("Speaker_1", "F", True)
    assert angry.distribution is not None and angry.distribution["neutral"] == pytest.approx(1 / 3)
    assert (tied.label, tied.split, tied.speaker_known) == (None, "test1", False)
    assert any("the label of 1 utterance is not the plurality" in note for note in corpus.notes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",A,5.4", ",Q,5.4", r"line 2: the row has the label 'Q', expected one of A, S, H, U"),
        (",A,5.4", ",A,high", r"line 2: arousal is 'high', expected a number from 1 to 7"),
        (",A,5.4", ",A,54", r"line 2: arousal is '54', expected a number from 1 to 7"),
        ("Female,Train", "Female,Training", r"line 2: the split is 'Training', expected Train, Development"),
        ("0001_0008.wav", "0001_0008", r"line 2: the file is 'MSP-PODCAST_0001_0008', expected a name"),
        ("0001_0009.wav", "0001_0008.wav", r"line 3: MSP-PODCAST_0001_0008 occurs twice, first in .*line 2"),
        ("EmoAct", "Act", r"line 1: the column EmoAct is missing"),
        ("EmoClass", "Class", r"line 2: the row has neither EmoClass nor a share of a class"),
    ],
)
def test_a_row_that_cannot_be_read_is_quoted(tmp_path, old, new, message):
    write_tree(tmp_path, tuple(row.replace(old, new) for row in ROWS), header=HEADER.replace(old, new))
    with pytest.raises(InputError, match=f"labels_consensus.csv, {message}"):
        read_corpus("msp_podcast", str(tmp_path))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("Labels/labels_detailed.csv", 'FileName,A\n"M_1.wav","W1; Angry"\n', r"line 2: found 'W1; Angry', expected"),
        ("Labels/labels_detailed.csv", 'FileName,A\n"M_1.wav"\n', r"line 2: found 'M_1.wav', expected a file and"),
        ("Partitions.txt", "Train, M_1.wav\n", r"line 1: found 'Train, M_1.wav', expected two fields"),
        ("Partitions.txt", "Test3; M\0_1.wav\n", r"line 1: the file is 'M.x00_1.wav', expected a name"),
        ("Partitions.txt", "Dev; M_1.wav\n", r"line 1: the split is 'Dev', expected Train"),
        ("Speaker_ids.txt", "M_1; Speaker_3\n", r"line 1: found 'M_1' and 'Speaker_3', expected a wav file"),
    ],
)
def test_a_line_of_the_other_lists_that_cannot_be_read_is_quoted(tmp_path, file, text, message):
    write_tree(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=f"{Path(file).name}, {message}"):
        read_corpus("msp_podcast", str(tmp_path))


def test_a_folder_without_the_corpus(tmp_path):
    with pytest.raises(InputError, match=r"no MSP-Podcast in .*: expected Audios or Audio"):
        read_corpus("msp_podcast", str(tmp_path))
    (tmp_path / "Audios").mkdir()
    with pytest.raises(InputError, match=r"no MSP-Podcast in .*: expected Labels/labels_consensus.csv or Labels/lab"):
        read_corpus("msp_podcast", str(tmp_path))


# ---- BIIC-Podcast


def test_biic_podcast_with_classes(tmp_path):
    rows = (
        "BIIC-PODCAST_1000_0321_0003.wav,A,5.4,2.2,5.0,Unknown,Unknown,Train",
        "BIIC-PODCAST_1000_0321_0004.wav,Sad,3.0,2.4,3.5,Unknown,Unknown,Development",
        "BIIC-PODCAST_1000_0321_0005.wav,X,4.9,5.5,4.6,Unknown,Unknown,Test",
    )
    corpus = read_corpus("biic_podcast", write_tree(tmp_path, rows, hidden=()))
    assert [(u.label, u.split) for u in corpus.utterances] == [("anger", "train"), ("sadness", "val"), (None, "test")]
    assert not any(u.speaker_known for u in corpus.utterances)
    assert len({u.speaker for u in corpus.utterances}) == 3
    assert corpus.label_source == "perceived: plurality of 3.3 raters on average (students), no class for a tie"
    assert any("BIIC-Podcast 1.01" in note and "train expected 48,815, found 1" in note for note in corpus.notes)


def test_biic_podcast_with_shares_of_classes(tmp_path):
    header = "FileName,Angry,Sad,Happy,Surprise,Fear,Disgust,Contempt,Neutral,EmoAct,EmoVal,EmoDom,Gender,Split_Set"
    rows = (
        "BIIC-PODCAST_1.wav,0.61,0.01,0.01,0.01,0.01,0.01,0.01,0.33,5,2,5,Unknown,Train",
        "BIIC-PODCAST_2.wav,0.01,0.47,0.47,0.01,0.01,0.01,0.01,0.01,3,2,5,Unknown,Train",
    )
    corpus = read_corpus("biic_podcast", write_tree(tmp_path, rows, header=header, hidden=()))
    assert [u.label for u in corpus.utterances] == ["anger", None]
    assert Counter(u.distribution is None for u in corpus.utterances) == {True: 2}  # the shares are smoothed
