"""What outputs are called, and whether they are classes or values; nothing is guessed where nothing says it."""

from pathlib import Path
from typing import Any

import pytest

from sejax.errors import InputError
from sejax.pretrained.labels import dimension, read_labels, read_problem_type

PATH = Path("model/config.json")


def refused_labels(labels: Any, outputs: int = 3) -> str:
    with pytest.raises(InputError) as caught:
        read_labels({"id2label": labels}, PATH, outputs)
    return str(caught.value)


def test_labels_are_in_the_order_of_their_numbers():
    labels = {str(i): f"e{i}" for i in reversed(range(12))}
    assert read_labels({"id2label": labels}, PATH, 12) == tuple(f"e{i}" for i in range(12))


def test_numbers_are_names():
    assert read_labels({"id2label": {"0": 3, "1": 7}}, PATH, 2) == ("3", "7")


@pytest.mark.parametrize("config", [{}, {"id2label": None}, {"id2label": {}}, {"num_labels": 2}])
def test_two_outputs_need_no_names(config: dict[str, Any]):
    """transformers leaves them out, because two is its default."""
    assert read_labels(config, PATH, 2) == ("LABEL_0", "LABEL_1")
    with pytest.raises(InputError, match="has no id2label, expected the names of the head's 3 outputs"):
        read_labels(config, PATH, 3)


@pytest.mark.parametrize(
    "labels",
    [["neu", "hap"], {"1": "neu", "2": "hap"}, {"0": "neu", "2": "hap"}, {"neu": 0}, {"00": "neu"}, "neu", 3, True],
)
def test_labels_without_their_numbers(labels: Any):
    said = refused_labels(labels)
    assert said.startswith(f"{PATH}: id2label is ") and said.endswith(
        "expected names of the outputs by their numbers from 0"
    )


@pytest.mark.parametrize("name", [None, True, 0.5, ["sad"], {}, "", "  ", "sad\ncalm", "sad\r", "a\x00b"])
def test_names_that_are_none(name: Any):
    assert "id2label calls output 1 " in refused_labels({"0": "neu", "1": name}, 2)


def test_a_name_twice():
    said = refused_labels({"0": "neu", "1": "sad", "2": "neu"})
    assert said == f"{PATH}: id2label calls outputs 0 and 2 both 'neu', expected two names"


@pytest.mark.parametrize(
    ("label", "found"),
    [
        *((name, "arousal") for name in ("arousal", "Activation", "A", "EmoAct", "pred_arousal", "Erregung", "唤醒度")),
        *((name, "valence") for name in ("VALENCE", "V", "EmoVal", "valence (1-7)", "valence/pleasure", "valência")),
        *((name, "dominance") for name in ("Dominance", "d", "dominanceScore", "control", "Dominanz", "支配度")),
        *(
            (name, None)
            for name in ("happy", "low arousal", "angry", "LABEL_0", "1", "positive", "activation dominance")
        ),
    ],
)
def test_dimensions_by_their_names(label: str, found: str | None):
    assert dimension(label) == found


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (("Activation", "Dominance", "Valence"), "regression"),
        (("V", "A", "D"), "regression"),
        (("EmoAct", "EmoDom", "EmoVal"), "regression"),
        (("val", "aro"), "regression"),
        (("valence", "arousal", "dominance", "liking"), "regression"),
        (("LABEL_0",), "regression"),  # transformers' convention
        (("neu", "hap", "ang", "sad"), "single_label_classification"),
        (("a", "d", "f", "h", "n", "sa", "su"), "single_label_classification"),  # of SAVEE
        (("low arousal", "high arousal"), "single_label_classification"),
        (("W", "L", "E", "A", "F", "T", "N"), "single_label_classification"),  # of EmoDB
        (("VAD_valence", "VAD_arousal", "VAD_dominance"), "regression"),
        (("EMOVAL", "EMOACT", "EMODOM"), "regression"),
        (("PAD_P", "PAD_A", "PAD_D"), "regression"),
        (("reg_valence", "reg_arousal"), "regression"),
        (("negative", "neutral", "positive"), "single_label_classification"),
        (("female_angry", "male_angry", "female_calm", "male_calm"), "single_label_classification"),
        (("生气/angry", "开心/happy", "其他/other", "<unk>"), "single_label_classification"),
        (("Wut", "Freude", "Trauer"), "single_label_classification"),
        (("anger", "disgust", "enthusiasm", "fear", "happiness", "neutral", "sadness"), "single_label_classification"),
        (("Angry", "Sad", "Happy", "Surprise", "Fear", "Disgust", "Contempt"), "single_label_classification"),
        (("colère", "joie", "peur", "tristesse"), "single_label_classification"),
        (("anger", "pleasant surprise", "ps", "noia"), "single_label_classification"),
    ],
)
def test_what_the_names_say(labels: tuple[str, ...], found: str):
    assert read_problem_type(labels, {}, PATH) == (found, "by the names of the labels")


@pytest.mark.parametrize(
    "labels",
    [
        ("LABEL_0", "LABEL_1", "LABEL_2"),
        ("LABEL_0", "LABEL_1"),
        ("0", "1", "2", "3"),
        ("output 1", "output 2"),
        ("valence", "arousal", "happy"),
        ("a", "d"),  # arousal and dominance, or anger and disgust
        ("valence_z", "arousal_z"),
        ("self-valence", "self-arousal"),
        ("valence_iemocap", "arousal_iemocap"),
        ("valance", "arousel", "dominence"),
        ("Vale", "Arou", "Domi"),
        ("Positive", "Active", "Dominant"),
        ("anger_intensity", "joy_intensity"),
        ("target_0", "target_1", "target_2"),
        ("y0", "y1"),
        ("class_0", "class_1"),
        ("regression_0", "regression_1"),
        ("#0", "#1", "#2"),
        ("foo", "bar", "baz"),
        ("x", "y", "z"),
        ("happy", "sad", "score"),
    ],
)
def test_where_the_names_say_nothing(labels: tuple[str, ...]):
    with pytest.raises(
        InputError, match=r"has no problem_type, and its labels .* give it as the option --problem_type$"
    ):
        read_problem_type(labels, {}, PATH)
    for given in ("regression", "multi_label_classification"):
        assert read_problem_type(labels, {}, PATH, given)[0] == given
        assert read_problem_type(labels, {"problem_type": given}, PATH)[0] == given


def test_the_user_goes_before_the_config():
    config = {"problem_type": "single_label_classification"}
    assert read_problem_type(("x", "y"), config, PATH, "regression") == (
        "regression",
        "as the option --problem_type says",
    )
    assert read_problem_type(("arousal", "valence"), config, PATH)[0] == "single_label_classification"


@pytest.mark.parametrize("stated", ["ranking", "", 3, True, ["regression"], {}])
def test_a_problem_type_of_its_own(stated: Any):
    with pytest.raises(InputError, match=r"problem_type is .*, expected one of regression, single_label"):
        read_problem_type(("neu", "hap"), {"problem_type": stated}, PATH)


def test_one_class_is_none():
    with pytest.raises(InputError, match="has the single label 'happy', expected two or more"):
        read_problem_type(("happy",), {"problem_type": "single_label_classification"}, PATH)
