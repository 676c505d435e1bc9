"""The reader of ESD: numbers, parts and transcripts."""

from pathlib import Path

import pytest

from sejax.corpora.read import read_corpus


def write(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


def test_the_number_says_emotion_and_sentence(tmp_path):
    numbers = ("000001", "000350", "000351", "000701", "001051", "001401", "001750")
    corpus = read_corpus("esd", write(tmp_path, *(f"0012/x/0012_{number}.wav" for number in numbers)))
    assert [(u.label, u.text) for u in corpus.utterances] == [
        ("neutral", "en001"),
        ("neutral", "en350"),
        ("anger", "en001"),
        ("happiness", "en001"),
        ("sadness", "en001"),
        ("surprise", "en001"),
        ("surprise", "en350"),
    ]
    assert {u.gender for u in corpus.utterances} == {"M"}
    assert {u.split for u in corpus.utterances} == {None}


def test_the_official_parts_are_folders(tmp_path):
    names = ("0003/Angry/train/0003_000400", "0003/Angry/evaluation/0003_000351", "0003/Angry/test/0003_000371")
    corpus = read_corpus("esd", write(tmp_path, *(f"{name}.wav" for name in names)))
    assert [(u.id, u.split, u.label) for u in corpus.utterances] == [
        ("0003_000351", "val", "anger"),
        ("0003_000371", "test", "anger"),
        ("0003_000400", "train", "anger"),
    ]
    assert {u.text[:2] for u in corpus.utterances} == {"zh"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb2312", "utf-16"])
def test_transcripts_in_any_encoding_show_whether_sentences_are_parallel(tmp_path, encoding):
    folder = write(
        tmp_path, *(f"{who}/{who}_{n}.wav" for who in ("0001", "0002") for n in ("000001", "000351", "000352"))
    )
    lines = ["{}_000001\t打远一看\t中立", "{}_000351 打远一看。 生气", "{}_000352\t他们的\t生气"]
    text = "\n".join(lines)
    (tmp_path / "0001" / "0001.txt").write_text(text.format(*3 * ["0001"]), encoding=encoding)
    (tmp_path / "0002" / "0002.txt").write_text(text.format(*3 * ["0002"]), encoding="utf-8")
    assert read_corpus("esd", folder).notes[2:] == ()
    text = text.replace("打远一看。", "另一句话")
    (tmp_path / "0002" / "0002.txt").write_text(text.format(*3 * ["0002"]), encoding=encoding)
    (note,) = read_corpus("esd", folder).notes[2:]
    assert note == (
        "1 utterance with other words in the transcripts than most of the same sentence (the first: 0002_000351); the "
        "number decides the text"
    )


def test_a_latin_1_apostrophe_is_no_error(tmp_path):
    folder = write(tmp_path, "0016/0016_000001.wav", "0016/0016_000351.wav")
    lines = b"0016_000001\tI don\x92t know.\tNeutral\n0016_000351\tI DON\x92T know\tAngry\n"
    (tmp_path / "0016" / "0016.txt").write_bytes(lines)
    assert read_corpus("esd", folder).notes[2:] == ()


def test_missing_and_broken_transcripts_are_notes(tmp_path):
    folder = write(tmp_path, "0016/0016_000001.wav", "0017/0017_000001.wav", "0018/0018_000001.wav")
    (tmp_path / "0016" / "0016.txt").write_bytes(b"\xff\xfe\x00\xd8 no\x00text")
    (tmp_path / "0017" / "0017.txt").mkdir()
    corpus = read_corpus("esd", folder)
    assert len(corpus.utterances) == 3
    notes = corpus.notes[2:]
    assert notes[0] == "no transcripts of the speakers 0018: their texts are known by the numbers only"
    assert notes[1].startswith("a transcript is left out: ") and "0017.txt is a folder" in notes[1]
    assert notes[2] == "2 utterances without a readable line in the transcripts (the first: 0016_000001)"
