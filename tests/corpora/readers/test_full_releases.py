"""Readers by file names on the full trees of the releases: published counts, and the sentence about what is missing.

The names are made here from the published descriptions, not from the readers' declarations. The files are empty.
"""

import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import cycle, product
from pathlib import Path

import pytest

from sejax.corpora.read import CORPORA, read_corpus
from sejax.corpora.readers.esd import ESD


@dataclass
class Release:
    """A corpus as published.

    Args:
      files: all audio files, relative to the corpus's folder.
      classes: the classes of the scheme with all labels, and their numbers of utterances.
      genders: the number of speakers of each gender.
      texts: the number of texts, None where the corpus does not say it.
      removed: the file that is taken away then, its speaker, and the id that a note has to name (None: it cannot).
      example: the fields id, speaker, gender, text and label of a file.
    """

    files: list[str]
    classes: dict[str, int]
    genders: dict[str | None, int]
    texts: int | None
    removed: tuple[str, str, str | None]
    example: tuple[str, str, str | None, str | None, str]
    source: str = "intended"
    labels: str = "default"
    notes: list[str] = field(default_factory=list)


def ravdess(channel: str, codes: Iterable[int], actors: Iterable[int]) -> list[str]:
    return [
        f"Actor_{actor:02d}/03-{channel}-{code:02d}-{intensity:02d}-{statement:02d}-{take:02d}-{actor:02d}.wav"
        for code, intensity, statement, take, actor in product(codes, (1, 2), (1, 2), (1, 2), actors)
        if (code, intensity) != (1, 2)
    ]


def cremad() -> list[str]:
    sentences = ["IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI"]
    codes = ["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"]
    lacking = {"1002_TIE_NEU", "1076_ITS_NEU", "1008_MTI", "1009_ITH", "1019_WSI"}
    names = []
    for actor, sentence, code in product(range(1001, 1092), sentences, codes):
        if lacking.isdisjoint((f"{actor}_{sentence}", f"{actor}_{sentence}_{code}")):
            levels = ("LO", "MD", "HI") if sentence == "IEO" and code != "NEU" else ("XX",)
            names += [f"AudioWAV/{actor}_{sentence}_{code}_{level}.wav" for level in levels]
    return names


def shemo() -> list[str]:
    counts = {"A": 1059, "N": 1028, "S": 449, "W": 225, "H": 201, "F": 38}
    people = [f"F{n:02d}" for n in range(1, 32)] + [f"M{n:02d}" for n in range(1, 57)]
    names = []
    for code, n in counts.items():
        for i, person in zip(range(n), cycle(people), strict=False):
            names.append(f"{'female' if person[0] == 'F' else 'male'}/{person}{code}{i // len(people) + 1:02d}.wav")
    return names


def subesco() -> list[str]:
    codes = ["ANGRY", "DISGUST", "FEAR", "HAPPY", "NEUTRAL", "SAD", "SURPRISE"]
    people = [f"{gender}_{n:02d}_{'MONIKA' if n == 2 else 'NAME'}" for gender in "FM" for n in range(1, 11)]
    broken = "F_02_MONIKA_S_2_SURPRISE_3"
    names = [f"{p}_S_{s}_{c}_{t}" for p, s, c, t in product(people, range(1, 11), codes, range(1, 6))]
    return [f"{name}].wav" if name == broken else f"{name}.wav" for name in names]


def aesdd() -> list[str]:
    folders = {"a": "anger", "d": "disgust", "f": "fear", "h": "happiness", "s": "sadness"}
    names = {f"{c}{n:02d} ({s})" for c, n, s in product(folders, range(1, 21), range(1, 7))}
    names -= {"h07 (3)", "f07 (4)", "d07 (5)", "s05 (3)", "s01 (5)"}
    names |= {f"{name} (5)b" for name in ("a06", "f18", "s01", "s02", "s04", "d01", "d03", "d04")} | {"s01 (5)a"}
    for name in ("f10", "f11", "f12", "f13", "d03"):
        names = names - {f"{name} (1)"} | {f"{name} (01)"}
    return [f"{folders[name[0]]}/{name}.wav" for name in sorted(names)]


def mesd() -> list[str]:
    classes = ("Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness")
    words = [("A", f"palabra_{i}") for i in range(24)] + [("B", f"b{i}") for i in range(24)]
    lacking = {"Anger_C_A_palabra_3", "Neutral_C_A_palabra_4"}
    names = {f"{c}_{v}_{k}_{w}" for c, v, (k, w) in product(classes, "FMC", words)} - lacking
    return [f"Mexican Emotional Speech Database (MESD)/{name}.wav" for name in names]


def cafe() -> list[str]:
    folders = {"C": "Col\u0160re", "D": "D\u201agout", "J": "Joie", "P": "Peur", "S": "Surprise", "T": "Tristesse"}
    names = [f"CaFE_48k/Neutre/{actor:02d}-N-1-{s}.wav" for actor, s in product(range(1, 13), range(1, 7))]
    for code, (digit, level), actor, s in product(folders, (("1", "Faible"), ("2", "Fort")), range(1, 13), range(1, 7)):
        names.append(f"CaFE_48k/{folders[code]}/{level}/{actor:02d}-{code}-{digit}-{s}.wav")
    return names


SEVEN = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
SPOKEN = ("neutral", "calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise")
SAVEE_CODES = {"a": 15, "d": 15, "f": 15, "h": 15, "n": 30, "sa": 15, "su": 15}
TESS_CODES = ("angry", "disgust", "fear", "happy", "neutral", "ps", "sad")
TESS_FOLDERS = {"OAF": ["OAF_Fear", "OAF_Pleasant_surprise"], "YAF": ["YAF_fear", "YAF_pleasant_surprised"]}
EMOVO_SENTENCES = ["b1", "b2", "b3", "l1", "l2", "l3", "l4", "n1", "n2", "n3", "n4", "n5", "d1", "d2"]
JL_FIVE = ("angry", "sad", "neutral", "happy", "excited")
JL_OTHERS = ("anxious", "apologetic", "assertive", "concerned", "encouraging")
WORDS = [f"{a}{b}" for a in "abcdefghij" for b in "abcdefghijklmnopqrst"]

RELEASES = {
    "ravdess": Release(
        ravdess("01", range(1, 9), range(1, 25)),
        {label: 96 if label == "neutral" else 192 for label in SPOKEN},
        {"F": 12, "M": 12},
        2,
        ("Actor_08/03-01-08-02-01-02-08.wav", "08", "03-01-08-02-01-02-08"),
        ("03-01-06-01-02-01-12", "12", "F", "02", "fear"),
    ),
    "ravdess_song": Release(
        ravdess("02", range(1, 7), [actor for actor in range(1, 25) if actor != 18]),
        {label: 92 if label == "neutral" else 184 for label in SPOKEN[:6]},
        {"F": 11, "M": 12},
        2,
        ("Actor_01/03-02-01-01-01-01-01.wav", "01", "03-02-01-01-01-01-01"),
        ("03-02-02-02-01-02-05", "05", "M", "01", "calm"),
    ),
    "cremad": Release(
        cremad(),
        {label: 1087 if label == "neutral" else 1271 for label in SEVEN[:6]},
        {None: 91},
        12,
        ("AudioWAV/1076_MTI_SAD_XX.wav", "1076", "1076_MTI_SAD_XX"),
        ("1001_IEO_DIS_LO", "1001", None, "IEO", "disgust"),
    ),
    "savee": Release(
        [
            f"AudioData/{speaker}/{code}{i:02d}.wav"
            for speaker in ("DC", "JE", "JK", "KL")
            for code, n in SAVEE_CODES.items()
            for i in range(1, n + 1)
        ],
        {label: 120 if label == "neutral" else 60 for label in SEVEN},
        {"M": 4},
        120,
        ("AudioData/JK/su15.wav", "JK", "JK_su15"),
        ("KL_sa03", "KL", "M", "sa03", "sadness"),
    ),
    "tess": Release(
        [
            f"{TESS_FOLDERS[speaker][code == 'ps']}/{speaker}_{word}_{code}.wav"
            for speaker, word, code in product(("OAF", "YAF"), WORDS, TESS_CODES)
        ],
        dict.fromkeys((*SEVEN[:5], "pleasant_surprise", "sadness"), 400),
        {"F": 2},
        200,
        ("YAF_fear/YAF_cc_sad.wav", "YAF", "YAF_cc_sad"),
        ("OAF_ab_ps", "OAF", "F", "ab", "pleasant_surprise"),
    ),
    "emovo": Release(
        [
            f"EMOVO/{speaker}/{code}-{speaker}-{sentence}.wav"
            for speaker, code, sentence in product(
                ("f1", "f2", "f3", "m1", "m2", "m3"),
                ("neu", "dis", "gio", "pau", "rab", "sor", "tri"),
                EMOVO_SENTENCES,
            )
        ],
        dict.fromkeys(SEVEN, 84),
        {"F": 3, "M": 3},
        14,
        ("EMOVO/m2/tri-m2-d2.wav", "m2", "tri-m2-d2"),
        ("pau-m3-l4", "m3", "M", "l4", "fear"),
    ),
    "shemo": Release(
        shemo(),
        {"anger": 1059, "fear": 38, "happiness": 201, "neutral": 1028, "sadness": 449, "surprise": 225},
        {"F": 31, "M": 56},
        None,
        ("male/M12A03.wav", "M12", None),
        ("F03S02", "F03", "F", None, "sadness"),
        source="perceived: majority of 12 raters, utterances without one are not in the corpus",
    ),
    "subesco": Release(
        subesco(),
        dict.fromkeys(SEVEN, 1000),
        {"F": 10, "M": 10},
        10,
        ("M_02_MONIKA_S_10_SAD_5.wav", "M_02", "M_02_MONIKA_S_10_SAD_5"),
        ("F_02_MONIKA_S_2_SURPRISE_3", "F_02", "F", "2", "surprise"),
        notes=[
            "broken file names of the release are read as they are meant: F_02_MONIKA_S_2_SURPRISE_3] as "
            "F_02_MONIKA_S_2_SURPRISE_3"
        ],
    ),
    "jl": Release(
        [
            f"Raw JL corpus (unchecked and unannotated)/JL(wav+txt)/{who}_{code}_{sentence}{letter}_{digit}.wav"
            for who, code, sentence, letter, digit in product(
                ("female1", "female2", "male1", "male2"), (*JL_FIVE, *JL_OTHERS), range(1, 16), "ab", "12"
            )
        ],
        dict.fromkeys(("anger", "sadness", "neutral", "happiness", "excitement", *JL_OTHERS), 240),
        {"F": 2, "M": 2},
        15,
        (
            "Raw JL corpus (unchecked and unannotated)/JL(wav+txt)/female2_excited_1a_2.wav",
            "female2",
            "female2_excited_1a_2",
        ),
        ("female1_angry_11a_1", "female1", "F", "11", "anger"),
        labels="all",
    ),
    "cafe": Release(
        cafe(),
        {label: 72 if label == "neutral" else 144 for label in SEVEN},
        {"F": 6, "M": 6},
        6,
        ("CaFE_48k/Peur/Fort/12-P-2-5.wav", "12", "12-P-2-5"),
        ("03-C-2-5", "03", "M", "5", "anger"),
    ),
    "aesdd": Release(
        aesdd(),
        {"anger": 121, "disgust": 122, "fear": 120, "happiness": 119, "sadness": 122},
        {None: 6},
        100,
        ("happiness/h08 (4).wav", "4", None),
        ("s01 (5)b", "5", None, "s01", "sadness"),
        notes=[
            "broken file names of the release are read as they are meant: d03 (01) as d03 (1), f10 (01) as f10 (1), "
            "f11 (01) as f11 (1), f12 (01) as f12 (1), f13 (01) as f13 (1)"
        ],
    ),
    "mesd": Release(
        mesd(),
        {"anger": 143, "disgust": 144, "fear": 144, "happiness": 144, "neutral": 143, "sadness": 144},
        {"F": 1, "M": 1, None: 1},
        48,
        ("Mexican Emotional Speech Database (MESD)/Fear_M_B_b7.wav", "M", None),
        ("Sadness_C_A_palabra_3", "C", None, "palabra_3", "sadness"),
    ),
}


def write(folder: Path, names: Iterable[str]) -> str:
    for name in {os.path.dirname(name) for name in names}:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in names:
        open(folder / name, "wb").close()
    return str(folder)


@pytest.mark.parametrize("name", RELEASES)
def test_the_full_release_and_one_file_less(tmp_path, name):
    release = RELEASES[name]
    data_dir = write(tmp_path, release.files)
    corpus = CORPORA[name].read(data_dir, release.labels)
    total = sum(release.classes.values())
    assert corpus.notes[0] == f"full corpus: {total} utterances with the published counts per class"
    assert set(release.notes) <= set(corpus.notes)
    assert not any(note.startswith("expected") for note in corpus.notes)
    assert corpus.dropped == ()
    assert set(corpus.classes) == release.classes.keys()
    assert Counter(utterance.label for utterance in corpus.utterances) == release.classes
    assert Counter({u.speaker: u.gender for u in corpus.utterances}.values()) == release.genders
    assert len({utterance.text for utterance in corpus.utterances}) == (release.texts or 1)
    assert corpus.label_source == release.source
    assert all(utterance.corpus == name and utterance.speaker_known for utterance in corpus.utterances)
    (one,) = [utterance for utterance in corpus.utterances if utterance.id == release.example[0]]
    assert (one.id, one.speaker, one.gender, one.text, one.label) == release.example

    path, speaker, missing = release.removed
    (lost,) = [utterance for utterance in corpus.utterances if utterance.path == str(tmp_path / path)]
    (tmp_path / path).unlink()
    corpus = CORPORA[name].read(data_dir, release.labels)
    first = corpus.notes[0]
    assert first.startswith(f"expected {total:,} utterances of the full ") and f", found {total - 1:,}" in first
    if missing is not None:
        assert first.endswith(f": {missing} is not there")
    (second,) = [note for note in corpus.notes if note.startswith("expected as published: ")]
    n = release.classes[str(lost.label)]
    assert f"{lost.label} {n:,} (found {n - 1:,})" in second
    assert f"speaker {speaker} " in second or name == "shemo"
    assert len(corpus.utterances) == total - 1


def test_esd_has_35000_utterances_and_says_which_lack(tmp_path):
    numbers = [f"{number:06d}" for number in range(1, 1751)]
    assert len(set(ESD.names(()))) == 35_000 == sum(ESD.counts.values())
    with zipfile.ZipFile(tmp_path / "esd.zip", "w") as archive:
        for speaker in ("0001", "0020"):
            for number in numbers:
                folder = ("Neutral", "Angry", "Happy", "Sad", "Surprise")[(int(number) - 1) // 350]
                archive.writestr(f"ESD/{speaker}/{folder}/{speaker}_{number}.wav", b"")
    corpus = read_corpus("esd", str(tmp_path / "esd.zip"))
    assert Counter(utterance.label for utterance in corpus.utterances) == dict.fromkeys(corpus.classes, 700)
    assert Counter((u.speaker, u.gender) for u in corpus.utterances) == {("0001", "F"): 1750, ("0020", "M"): 1750}
    assert len({utterance.text for utterance in corpus.utterances}) == 700
    assert corpus.notes[0].startswith("expected 35,000 utterances of the full ESD, found 3,500: 0002_000001, 0002_0")
    assert corpus.notes[0].endswith(" and 31,490 more are not there")
    assert "anger 7,000 (found 700)" in corpus.notes[1]


@pytest.mark.parametrize("name", RELEASES)
def test_a_part_of_a_release_passes_the_checks_of_all_corpora(tmp_path, name):
    """Of spelling among others, which are slow under the tests' type checks."""
    release = RELEASES[name]
    files = release.files[:: max(1, len(release.files) // 70)]
    corpus = read_corpus(name, write(tmp_path, files), labels=release.labels)
    assert len(corpus.utterances) == len(files)
    assert corpus.notes[0].startswith(f"expected {len(release.files):,} utterances of the full ")
