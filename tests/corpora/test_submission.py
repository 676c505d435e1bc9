"""The challenge's formats of the predictions of a hidden test set."""

import csv
from pathlib import Path

import numpy as np
import pytest

from sejax.corpora.submission import SCORE_ORDER, Submission, write_submission
from sejax.errors import InputError

CLASSES = ("neutral", "happiness", "anger", "sadness", "contempt", "disgust", "fear", "surprise")
SUBMISSION = Submission(
    ids=("MSP-PODCAST_test3_0002", "MSP-PODCAST_test3_0001"),
    classes=CLASSES,
    probabilities=np.array(
        [[0.30, 0.10, 0.25, 0.05, 0.05, 0.05, 0.10, 0.10], [0.00, 0.05, 0.10, 0.05, 0.05, 0.05, 0.05, 0.65]]
    ),
    vad=np.array([[4.5, 2.0, 3.25], [0.5, 7.5, 1.0]]),
)


def rows(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def changed(**changes) -> Submission:
    return Submission(**{**vars(SUBMISSION), **changes})


def test_classes_are_letters_in_the_order_of_the_ids(tmp_path):
    path = tmp_path / "task1.csv"
    write_submission(SUBMISSION, str(path), "classes")
    assert path.read_bytes() == (b"FileName,EmoClass\nMSP-PODCAST_test3_0002.wav,N\nMSP-PODCAST_test3_0001.wav,U\n")


def test_scores_are_in_the_order_of_the_challenge(tmp_path):
    path = tmp_path / "task1.csv"
    write_submission(SUBMISSION, str(path), "scores")
    header, first, _ = rows(path)
    assert header == ["Filename", "Prediction"]
    assert SCORE_ORDER == ("anger", "sadness", "happiness", "surprise", "fear", "disgust", "contempt", "neutral")
    assert first[0] == "MSP-PODCAST_test3_0002.wav"
    assert [float(score) for score in first[1:]] == [0.25, 0.05, 0.10, 0.10, 0.10, 0.05, 0.05, 0.30]


def test_dimensions_are_arousal_valence_dominance_within_the_scale(tmp_path):
    path = tmp_path / "task2.csv"
    write_submission(SUBMISSION, str(path), "dimensions")
    assert rows(path) == [
        ["FileName", "EmoAct", "EmoVal", "EmoDom"],
        ["MSP-PODCAST_test3_0002.wav", "2.000000", "4.500000", "3.250000"],
        ["MSP-PODCAST_test3_0001.wav", "7.000000", "1.000000", "1.000000"],  # clipped
    ]


@pytest.mark.parametrize(
    ("header", "first"), [((), "MSP-PODCAST_test3_0002.wav"), (("Filename", "Prediction"), "Filename")]
)
def test_the_header_is_an_option(tmp_path, header, first):
    path = tmp_path / "task1.csv"
    write_submission(SUBMISSION, str(path), "classes", header)
    assert rows(path)[0][0] == first


def test_a_model_of_fewer_classes_has_letters_and_no_scores(tmp_path):
    four = changed(classes=CLASSES[:4], probabilities=SUBMISSION.probabilities[:, :4])
    path = tmp_path / "task1.csv"
    write_submission(four, str(path), "classes")
    assert [row[1] for row in rows(path)[1:]] == ["N", "A"]
    with pytest.raises(
        InputError, match="the predictions lack surprise, fear, disgust, contempt, expected a score for"
    ):
        write_submission(four, str(path), "scores")
    assert [row[1] for row in rows(path)[1:]] == ["N", "A"]  # the file is as it was


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("task1", {}, r"kind is 'task1', expected one of classes, scores, dimensions"),
        ("classes", {"ids": ("a", "a")}, r"the utterance a occurs twice in the predictions, expected once"),
        ("classes", {"ids": ("a",)}, r"probabilities has the shape \(2, 8\), expected \(1, 8\)"),
        (
            "classes",
            {"classes": ("angry", *CLASSES[1:])},
            r"the class 'angry' is none of the challenge's, expected anger",
        ),
        ("dimensions", {"ids": ("a",)}, r"vad has the shape \(2, 3\), expected \(1, 3\)"),
        ("dimensions", {"vad": np.array([[1, 2, 3], [np.nan, 2, 3]])}, r"vad of MSP-PODCAST_test3_0001 are not finite"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path, kind, changes, message):
    path = tmp_path / "out.csv"
    with pytest.raises(InputError, match=message):
        write_submission(changed(**changes), str(path), kind)
    assert list(tmp_path.iterdir()) == []
