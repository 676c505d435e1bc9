"""The classes of a model as those of a corpus: which are the same, sums, what is left out."""

import numpy as np
import pytest

from sejax.corpora.common_classes import COMMON_SCHEMES, CommonScheme
from sejax.errors import InputError
from sejax.evaluation.class_map import match_classes


def test_equal_words_and_spellings_of_one_word_are_the_same_class():
    found = match_classes(("Angry", "hap", "boredom", "calm"), ("anger", "happiness", "Boredom", "neutral"))
    assert found.class_of == {"Angry": "anger", "hap": "happiness", "boredom": "Boredom"}
    assert found.shared == ("anger", "happiness", "Boredom") and found.outside == ("calm",)


def test_words_that_no_list_knows_are_compared_as_they_are():
    assert match_classes(("LABEL_0", "wut"), ("Wut", "label_1")).class_of == {"wut": "Wut"}


def test_a_common_scheme_maps_the_models_words_as_it_maps_the_corpus():
    four = COMMON_SCHEMES["four"]
    words = ("anger", "boredom", "neutral", "happiness", "fear", "sadness", "disgust")
    found = match_classes(words, ("angry", "happy", "sad", "neutral"), four)
    assert found.class_of == {"anger": "angry", "neutral": "neutral", "happiness": "happy", "sadness": "sad"}
    # A model that has the classes of the scheme already.
    assert match_classes(four.classes, ("sad", "angry"), four).class_of == {"sad": "sad", "angry": "angry"}
    assert match_classes(("low", "high"), ("low", "high"), COMMON_SCHEMES["arousal"]).shared == ("low", "high")


@pytest.mark.parametrize(("trained_on", "outside"), [("iemocap", ()), ("", ("excited",))])
def test_a_scheme_has_rows_for_the_corpus_that_the_model_was_trained_on(trained_on: str, outside: tuple[str, ...]):
    found = match_classes(("happy", "excited"), ("happy", "sad"), COMMON_SCHEMES["four"], trained_on=trained_on)
    assert found.outside == outside and found.class_of["happy"] == "happy"


def test_a_scheme_says_what_a_word_is_also_where_the_corpus_has_the_word():
    """Labels of the corpus `swapped` that are exchanged."""
    by_corpus = {"swapped": {"sad": "angry", "angry": "sad"}}
    scheme = CommonScheme("mine", ("angry", "sad"), {"sad": "sad", "angry": "angry"}, "a test", by_corpus)
    assert match_classes(("angry", "sad"), ("angry", "sad"), scheme).class_of == {"angry": "angry", "sad": "sad"}
    found = match_classes(("angry", "sad"), ("angry", "sad"), scheme, trained_on="swapped")
    assert found.class_of == {"angry": "sad", "sad": "angry"}


def test_probabilities_of_one_class_are_summed_and_the_rest_is_scaled():
    scheme = CommonScheme("mine", ("bad", "good"), {"anger": "bad", "fear": "bad", "happiness": "good"}, "a test")
    found = match_classes(("anger", "surprise", "happiness", "fear"), ("good", "bad", "mixed"), scheme)
    prob = np.array([[0.2, 0.5, 0.1, 0.2], [0.0, 1.0, 0.0, 0.0], [0.25, 0.0, 0.5, 0.25], [np.nan] * 4])
    expected = [[0.2, 0.8, 0], [0.5, 0.5, 0], [0.5, 0.5, 0], [np.nan] * 3]  # nothing left: equal shares of both
    np.testing.assert_allclose(found.apply(prob), expected, rtol=1e-12)
    np.testing.assert_allclose(found.apart(prob)[:3], [0.5, 1.0, 0.0], rtol=1e-12)


def test_without_a_shared_class_there_is_no_prediction():
    found = match_classes(("wut",), ("anger", "fear"))
    assert np.isnan(found.apply(np.ones((2, 1)))).all() and found.shared == ()
    assert match_classes((), ("anger",)).apply(np.zeros((3, 0))).shape == (3, 1)
    assert match_classes(("anger",), ()).apply(np.ones((3, 1))).shape == (3, 0)


def test_a_word_that_may_be_two_classes():
    assert match_classes(("joy",), ("joy", "happy")).class_of == {"joy": "joy"}
    with pytest.raises(InputError, match=r"^the model's class 'happiness' may be 'joy' or 'happy' of the corpus"):
        match_classes(("happiness",), ("joy", "happy"))
