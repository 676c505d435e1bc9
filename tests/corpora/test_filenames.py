"""The declarative reader, on a corpus in which the file names also say session and split."""

import re
from pathlib import Path

import pytest

from sejax.corpora.filenames import FileNames, read_by_filename
from sejax.corpora.labels import LabelScheme
from sejax.corpora.read import CORPORA, read_corpus
from sejax.errors import InputError

TOY = FileNames(
    name="toy",
    title="Toy",
    example="Actor_01/01-s1-train-F-1.wav",
    parts="actor, session, split, gender, emotion",
    pattern=re.compile(
        r"(?P<speaker>\d\d)-(?P<session>s\d)-(?P<split>train|val|test)-(?P<gender>[FM])-(?P<emotion>\d)"
    ),
    lookups={"label": ("emotion", {"1": "calm", "2": "joy", "3": "rage"})},
    folders=("Actor_*", "."),
    schemes={
        "two": LabelScheme("two", ("low", "high"), {"calm": "low", "rage": "high"}),
    },
    counts={"calm": 2, "joy": 1, "rage": 1},
)


def write(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


NAMES = (
    "Actor_02/02-s2-test-M-1.wav",
    "Actor_01/01-s1-train-F-1.wav",
    "Actor_01/01-s1-val-F-2.wav",
    "Actor_01/01-s1-train-F-3.wav",
)


def test_groups_and_lookups_set_the_fields(tmp_path):
    corpus = read_by_filename(TOY, write(tmp_path, *NAMES), "default")
    assert (corpus.name, corpus.classes) == ("toy", ("calm", "joy", "rage"))
    assert [utterance.id for utterance in corpus.utterances] == sorted(Path(name).stem for name in NAMES)
    last = corpus.utterances[-1]
    assert (last.corpus, last.speaker, last.session, last.split) == ("toy", "02", "s2", "test")
    assert (last.gender, last.label, last.text, last.duration) == ("M", "calm", None, None)
    assert last.path == str(tmp_path / NAMES[0])
    assert corpus.notes == ("full corpus: 4 utterances with the published counts per class",)


def test_a_scheme_merges_labels_and_counts_those_outside_it(tmp_path):
    corpus = read_by_filename(TOY, write(tmp_path, *NAMES), "two")
    assert [utterance.label for utterance in corpus.utterances] == ["low", "high", "low"]
    assert corpus.classes == ("low", "high")
    assert corpus.notes[-1] == "utterances outside the label scheme two, left out: joy 1"


def test_the_first_pattern_of_folders_with_a_match_is_used(tmp_path):
    write(tmp_path, "03-s3-val-F-1.wav", "other/04-s3-val-F-1.wav")
    assert [utterance.speaker for utterance in read_by_filename(TOY, str(tmp_path), "default").utterances] == ["03"]
    write(tmp_path, *NAMES)
    assert {utterance.speaker for utterance in read_by_filename(TOY, str(tmp_path), "default").utterances} == {
        "01",
        "02",
    }


def test_an_unknown_scheme_and_other_names(tmp_path):
    with pytest.raises(InputError, match=r"config\.labels is 'three', expected a label scheme of toy: default, two"):
        read_by_filename(TOY, str(tmp_path), "three")
    corpus = read_by_filename(TOY, write(tmp_path, *NAMES, "Actor_01/noise.wav"), "default")
    (dropped,) = corpus.dropped
    assert dropped.reason == f"noise.wav is not named like 01-s1-train-F-1.wav ({TOY.parts})"


@pytest.mark.parametrize("name", sorted(CORPORA.keys() - {"synthetic", "audformat"}))  # its kinds stand in its files
def test_every_reader_refuses_an_unknown_scheme(tmp_path, name):
    with pytest.raises(InputError, match=r"config\.labels is 'unknown'"):
        read_corpus(name, str(tmp_path / "nowhere"), labels="unknown")
