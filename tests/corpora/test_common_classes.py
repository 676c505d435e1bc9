"""Common classes: what each word becomes, what is left out, votes and ratings."""

import math
from dataclasses import replace

import pytest

from sejax.corpora.common_classes import COMMON_SCHEMES, SPELLINGS, find_common, with_common_classes
from sejax.corpora.common_classes import without_empty_classes as occupied
from sejax.corpora.direction import wrong_directions
from sejax.corpora.schema import Corpus, Utterance
from sejax.errors import InputError


def corpus(*labels: str | None, name: str = "toy", **changes) -> Corpus:
    utterances = tuple(Utterance(f"u{i}", f"u{i}.wav", f"s{i}", name, label=label) for i, label in enumerate(labels))
    classes = tuple(dict.fromkeys(label for label in labels if label))
    return replace(Corpus(name, classes, (1.0, 5.0), utterances), **changes)


def labels_of(corpus: Corpus) -> list[str | None]:
    return [utterance.label for utterance in corpus.utterances]


def test_words_become_classes_and_the_others_are_counted():
    mapped = with_common_classes(corpus("anger", "Angry", "joy", "boredom", "calm", "boredom"), COMMON_SCHEMES["four"])
    assert labels_of(mapped) == ["angry", "angry", "happy"]
    assert mapped.classes == ("angry", "happy", "sad", "neutral")
    assert mapped.notes == ("the labels four leave 3 of 6 utterances out: boredom 2, calm 1",)
    assert occupied(mapped).classes == ("angry", "happy")


def test_only_iemocaps_excitement_is_happy():
    for name in ("iemocap", "synthetic"):
        assert labels_of(with_common_classes(corpus("excited", name=name), COMMON_SCHEMES["four"])) == ["happy"]
    assert labels_of(with_common_classes(corpus("excited", "joy", name="jl"), COMMON_SCHEMES["four"])) == ["happy"]


def test_pleasant_surprise_is_no_surprise():
    mapped = with_common_classes(corpus("pleasant_surprise", "surprise"), COMMON_SCHEMES["eight"])
    assert len(mapped.utterances) == 1


@pytest.mark.parametrize("name", COMMON_SCHEMES)
def test_schemes_name_their_classes_and_known_words(name):
    scheme = COMMON_SCHEMES[name]
    assert set(scheme.merge.values()) == set(scheme.classes)
    assert set(scheme.merge) <= set(SPELLINGS.values())
    assert scheme.source


def test_votes_are_summed_and_those_for_other_words_left_out():
    votes = {"anger": 0.25, "happiness": 0.25, "boredom": 0.5}
    one = corpus("anger", None)
    one = replace(one, utterances=tuple(replace(u, distribution=votes) for u in one.utterances))
    mapped = with_common_classes(one, COMMON_SCHEMES["four"])
    assert labels_of(mapped) == ["angry", None]  # votes without a majority stay
    assert mapped.utterances[1].distribution == {"angry": 0.5, "happy": 0.5, "sad": 0.0, "neutral": 0.0}
    assert occupied(mapped).utterances[0].distribution == {"angry": 0.5, "happy": 0.5}


def test_ratings_without_a_label_stay_and_nothing_at_all_does_not():
    rated = corpus("anger", None, None)
    first, second, third = rated.utterances
    rated = replace(rated, utterances=(first, replace(second, vad=(2.0, math.nan, math.nan)), third))
    mapped = with_common_classes(rated, COMMON_SCHEMES["four"])
    assert labels_of(mapped) == ["angry", None]
    assert "no agreement 1" in mapped.notes[0]
    hidden = replace(rated, utterances=(first, replace(third, hidden=True)))
    assert len(with_common_classes(hidden, COMMON_SCHEMES["four"]).utterances) == 2


def test_a_corpus_of_ratings_has_halves_around_the_middle():
    values = (1.5, 3.0, 4.0, math.nan)
    rated = corpus(*[None] * 4)
    rated = replace(
        rated,
        utterances=tuple(replace(u, vad=(math.nan, v, 2.0)) for u, v in zip(rated.utterances, values, strict=True)),
    )
    mapped = with_common_classes(rated, COMMON_SCHEMES["arousal"])
    assert labels_of(mapped) == ["low", None, "high", None]
    assert mapped.label_source == "perceived: mean rating below or above 3, no class at it"


def test_no_word_of_the_scheme_is_an_error():
    with pytest.raises(InputError, match="no utterance of toy has a class of the labels four: its words are 'wut'"):
        with_common_classes(corpus("wut"), COMMON_SCHEMES["four"])


def test_a_users_mapping(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("label,class,corpus\nWut,hot,\nTrauer,cold,\nWut,cold,other\n", "utf-8")
    scheme = find_common(str(path))
    assert scheme is not None and scheme.classes == ("hot", "cold")
    assert labels_of(with_common_classes(corpus("Wut", "Trauer"), scheme)) == ["hot", "cold"]
    assert labels_of(with_common_classes(corpus("Wut"), scheme, called="other")) == ["cold"]
    assert find_common("three") is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("label,class\na,x\na,y\nb,x\n", "line 3: the label 'a' becomes 'y', above it becomes 'x'"),
        ("label,class\na,\n", "line 2: label 'a' and class '', expected both"),
        ("label,class\na,x\nb,x\n", "maps onto the classes x, expected two classes or more"),
        ("label\na\n", "the column class is missing"),
    ],
)
def test_a_wrong_mapping_is_refused(tmp_path, text, sentence):
    path = tmp_path / "mine.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        find_common(str(path))
    assert sentence in str(caught.value)


def test_a_scale_upside_down_is_told():
    def rated(**arousal: float) -> Corpus:
        toy = corpus(*arousal)
        values = zip(toy.utterances, arousal.values(), strict=True)
        return replace(toy, utterances=tuple(replace(u, vad=(3.0, v, math.nan)) for u, v in values))

    assert wrong_directions(rated(angry=4.0, sad=2.0)) == []
    (sentence,) = wrong_directions(rated(angry=2.0, sad=4.0))
    assert "the mean arousal of anger is 2 and of sadness 4" in sentence
    assert wrong_directions(rated(angry=2.0, neutral=4.0)) == []  # nothing to compare
