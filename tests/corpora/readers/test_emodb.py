"""The EmoDB reader on the real archive, and on small archives and folders that the tests write."""

import io
import math
import os
import re
import wave
import zipfile
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile

from sejax.corpora.read import read_corpus
from sejax.corpora.readers.emodb import CLASS_COUNTS
from sejax.corpora.schema import Loss
from sejax.errors import InputError

ARCHIVE = Path(__file__).parents[4] / "shared" / "corpora" / "emodb.zip"
real_archive = pytest.mark.skipif(not ARCHIVE.is_file(), reason=f"the real corpus {ARCHIVE} is not here")


def write_wav(path: Path, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * round(seconds * 16_000)))


def pack(folder: Path, archive: Path) -> str:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, str(path.relative_to(folder)))
    return str(archive)


@real_archive
def test_the_real_archive():
    corpus = read_corpus("emodb", str(ARCHIVE))
    assert corpus.name == "emodb"
    assert corpus.classes == ("anger", "boredom", "neutral", "happiness", "fear", "sadness", "disgust")
    assert len(corpus.utterances) == 535
    assert corpus.dropped == ()
    assert "full corpus: 535 utterances with the published counts per class" in corpus.notes
    assert Counter(utterance.label for utterance in corpus.utterances) == CLASS_COUNTS
    men = {utterance.speaker for utterance in corpus.utterances if utterance.gender == "M"}
    women = {utterance.speaker for utterance in corpus.utterances if utterance.gender == "F"}
    assert men == {"03", "10", "11", "12", "15"}
    assert women == {"08", "09", "13", "14", "16"}
    assert len({utterance.text for utterance in corpus.utterances}) == 10
    ids = [utterance.id for utterance in corpus.utterances]
    assert ids == sorted(ids)
    seconds = sum(utterance.duration or 0 for utterance in corpus.utterances)
    assert seconds == pytest.approx(1487.09, abs=0.01)  # 0.41 h


@real_archive
def test_one_utterance_of_the_real_archive():
    corpus = read_corpus("emodb", str(ARCHIVE))
    (utterance,) = [utterance for utterance in corpus.utterances if utterance.id == "13b03Lb"]
    assert utterance.path == f"{ARCHIVE.absolute()}::wav/13b03Lb.wav"
    assert (utterance.speaker, utterance.text, utterance.gender) == ("13", "b03", "F")
    assert (utterance.corpus, utterance.label) == ("emodb", "boredom")
    assert utterance.distribution is None
    assert all(math.isnan(value) for value in utterance.vad)
    with zipfile.ZipFile(ARCHIVE) as file, file.open("wav/13b03Lb.wav") as member, wave.open(member) as audio:
        assert utterance.duration == pytest.approx(audio.getnframes() / 16_000)


@pytest.mark.parametrize("layout", ["folder of wav", "folder with wav", "archive", "archive with a top folder"])
def test_archive_and_folders_give_the_same_utterances(tmp_path, layout):
    folder = tmp_path / "emodb" / "wav"
    write_wav(folder / "16b10Td.wav", 0.75)
    write_wav(folder / "03a01Fa.wav")
    write_wav(folder / "._03a01Fa.wav")
    (tmp_path / "emodb" / "erkennung.txt").write_text("Satz\t93,75\n")
    data_dir = {
        "folder of wav": lambda: str(folder),
        "folder with wav": lambda: str(folder.parent),
        "archive": lambda: pack(folder.parent, tmp_path / "emodb.zip"),
        "archive with a top folder": lambda: pack(tmp_path, tmp_path.with_suffix(".zip")),
    }[layout]()
    corpus = read_corpus("emodb", data_dir)
    assert [utterance.id for utterance in corpus.utterances] == ["03a01Fa", "16b10Td"]
    first, second = corpus.utterances
    assert (first.speaker, first.text, first.gender, first.label) == ("03", "a01", "M", "happiness")
    assert (second.speaker, second.text, second.gender, second.label) == ("16", "b10", "F", "sadness")
    assert (first.duration, second.duration) == (0.5, 0.75)
    assert ("::" in first.path) == layout.startswith("archive")
    assert first.path.endswith("03a01Fa.wav")
    assert corpus.dropped == ()
    assert corpus.notes == ("2 utterances, the full EmoDB has 535",)


@pytest.mark.parametrize("name", ["hello", "03a01Xa", "17a01Fa", "03c01Fa", "03a01F", "03a01Fa2"])
def test_a_name_that_says_nothing_is_dropped_with_a_sentence(tmp_path, name):
    write_wav(tmp_path / "03a01Fa.wav")
    write_wav(tmp_path / f"{name}.wav")
    corpus = read_corpus("emodb", str(tmp_path))
    assert [utterance.id for utterance in corpus.utterances] == ["03a01Fa"]
    (dropped,) = corpus.dropped
    assert dropped.id == name
    assert dropped.reason.startswith(f"{name}.wav is not named like 03a01Fa.wav")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no audio at all" * 10])
def test_an_unreadable_header_leaves_the_duration_open(tmp_path, content):
    write_wav(tmp_path / "03a01Fa.wav")
    (tmp_path / "03a02Fa.wav").write_bytes(content)
    corpus = read_corpus("emodb", str(tmp_path))
    assert [utterance.duration for utterance in corpus.utterances] == [0.5, None]


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match=r"no EmoDB at .*nowhere.*expected emodb.zip or its unpacked folder"):
        read_corpus("emodb", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"has no EmoDB utterance: expected files like wav/03a01Fa\.wav"):
        read_corpus("emodb", str(tmp_path))


def test_a_file_that_is_no_archive(tmp_path):
    path = tmp_path / "emodb.zip"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"emodb\.zip is a web page .*download it again"):
        read_corpus("emodb", str(path))


def test_an_utterance_that_occurs_twice(tmp_path):
    write_wav(tmp_path / "emodb" / "first" / "wav" / "03a01Fa.wav")
    write_wav(tmp_path / "emodb" / "second" / "wav" / "03a01Fa.wav")
    archive = pack(tmp_path / "emodb", tmp_path / "emodb.zip")
    with pytest.raises(InputError, match="the utterance 03a01Fa occurs twice"):
        read_corpus("emodb", archive)


def test_an_unknown_scheme(tmp_path):
    write_wav(tmp_path / "03a01Fa.wav")
    with pytest.raises(InputError, match=r"config\.labels is 'three', expected a label scheme of emodb: default"):
        read_corpus("emodb", str(tmp_path), labels="three")


def test_the_full_number_with_other_counts_is_refused(tmp_path):
    codes = {"anger": "W", "boredom": "L", "neutral": "N", "happiness": "F", "fear": "A", "sadness": "T"}
    names = [f"{code}" for name, code in codes.items() for _ in range(CLASS_COUNTS[name])] + ["W"] * 46
    letters = "abcdefghijklmnopqrstuvwxyz"
    for i, code in enumerate(names):
        (tmp_path / f"03a{i // 26:02d}{code}{letters[i % 26]}.wav").touch()
    with pytest.raises(InputError, match="anger 173 instead of 127, disgust 0 instead of 46"):
        read_corpus("emodb", str(tmp_path))


# ---- archives


def test_the_layout_of_emodb_2_has_the_larynx_beside_the_speech(tmp_path):
    release = tmp_path / "release"
    write_wav(release / "emodb" / "wav" / "03a01Fa.wav")
    write_wav(release / "emodb" / "laryngo" / "03a01Fa.wav", 0.75)
    for archive in (pack(release / "emodb", tmp_path / "flat.zip"), pack(release, tmp_path / "top.zip")):
        corpus = read_corpus("emodb", archive)
        (utterance,) = corpus.utterances
        assert utterance.path.endswith("wav/03a01Fa.wav") and utterance.duration == 0.5
        assert corpus.dropped == ()
        assert corpus.notes[1].startswith("1 wav file outside the folder wav of the archive left out (the first: ")
        assert corpus.notes[1].endswith("laryngo/03a01Fa.wav)")


def small_archive(compression: int) -> bytes:
    random = np.random.default_rng(0)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name in ("03a01Fa", "08a02Na", "16b10Td"):
            voice = io.BytesIO()
            soundfile.write(voice, 0.1 * random.standard_normal(400), 16_000, format="WAV")
            file.writestr(f"wav/{name}.wav", voice.getvalue())
    return buffer.getvalue()


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ARCHIVES = [small_archive(method) for method in METHODS]


def mutate(archive: bytes, random: Random) -> bytes:
    """Returns an archive with a few bytes changed, mostly in its headers, or a part of it gone, repeated or zero."""
    headers = [match.start() for match in re.finditer(rb"PK[\1\3\5][\2\4\6]", archive)]
    damaged = bytearray(archive)
    if random.random() < 0.7:
        for _ in range(random.randint(1, 4)):
            place = random.choice([random.randrange(len(damaged)), random.choice(headers) + random.randrange(4, 100)])
            damaged[min(place, len(damaged) - 1)] = random.choice([0, 1, 8, 9, 12, 14, 127, 255, random.randrange(256)])
        return bytes(damaged)
    start, end = sorted(random.choices(range(len(damaged)), k=2))
    end = random.choice([end, min(start + 40, end)])
    damaged[start:end] = random.choice([b"", bytes(end - start), 2 * damaged[start:end], random.randbytes(end - start)])
    return bytes(damaged[: random.choice([start + 1, len(damaged)])])


@pytest.mark.parametrize("seed", [2, 3])
def test_a_damaged_archive_is_read_or_refused_with_a_sentence(tmp_path, seed):
    random = Random(seed)
    path = tmp_path / "emodb.zip"
    for _ in range(500):
        path.write_bytes(mutate(random.choice(ARCHIVES), random))
        try:
            corpus = read_corpus("emodb", str(path))
        except InputError as error:
            assert "emodb" in str(error) and str(error).isprintable()
        else:
            assert all(lost.reason.isprintable() and lost.path.isprintable() for lost in corpus.dropped)


def set_field(archive: bytes, offset: int, value: bytes) -> bytes:
    """Returns an archive with a field of the first entry of its directory changed."""
    place = archive.find(b"PK\x01\x02") + offset
    return archive[:place] + value + archive[place + len(value) :]


@pytest.mark.parametrize(
    ("offset", "value"),
    [(8, b"\x01\x00"), (10, b"\x63\x00"), (16, bytes(4))],
    ids=["encrypted", "unknown method", "wrong checksum"],
)
def test_a_member_that_cannot_be_unpacked_has_no_duration(tmp_path, offset, value):
    path = tmp_path / "emodb.zip"
    path.write_bytes(set_field(ARCHIVES[1], offset, value))
    corpus = read_corpus("emodb", str(path))
    assert len(corpus.utterances) == 3


def test_a_member_too_large_for_an_utterance_is_not_unpacked(tmp_path):
    path = tmp_path / "emodb.zip"
    path.write_bytes(set_field(ARCHIVES[1], 24, b"\xff\xff\xff\x7f"))
    corpus = read_corpus("emodb", str(path))
    (lost,) = corpus.dropped
    assert lost.id == "03a01Fa" and "has 2,147,483,647 bytes unpacked, expected at most 268,435,456" in lost.reason


def test_an_archive_whose_name_does_not_say_so(tmp_path):
    path = tmp_path / "download"
    path.write_bytes(ARCHIVES[0])
    with pytest.raises(InputError, match=r"download has a name that does not end in \.zip, expected emodb\.zip or its"):
        read_corpus("emodb", str(path))


# ---- what is no regular file


def test_what_is_no_regular_file_is_dropped_and_not_opened(tmp_path):
    write_wav(tmp_path / "03a01Fa.wav")
    os.mkfifo(tmp_path / "03a02Fa.wav")
    (tmp_path / "03a04Fa.wav").mkdir()
    (tmp_path / "03a05Fa.wav").symlink_to("nowhere")
    corpus = read_corpus("emodb", str(tmp_path))
    assert [utterance.id for utterance in corpus.utterances] == ["03a01Fa"]
    kinds = {lost.id: lost.kind for lost in corpus.dropped}
    assert kinds == {"03a02Fa": Loss.SPECIAL, "03a04Fa": Loss.FOLDER, "03a05Fa": Loss.LINK}
    os.mkfifo(tmp_path / "fifo.zip")
    with pytest.raises(InputError, match=r"fifo\.zip is a FIFO, expected emodb\.zip or its unpacked folder"):
        read_corpus("emodb", str(tmp_path / "fifo.zip"))


@pytest.mark.parametrize("name", [b"\xfc.wav", b"two\nlines.wav"])
def test_a_name_that_is_no_text_can_be_written_to_results(tmp_path, name):
    write_wav(tmp_path / "03a01Fa.wav")
    with open(os.fsencode(tmp_path) + b"/" + name, "wb"):
        pass
    corpus = read_corpus("emodb", str(tmp_path))
    (lost,) = corpus.dropped
    for text in (lost.id, lost.path, lost.reason, corpus.describe_losses()):
        assert text.isprintable() and text.encode()
