"""The predictions of a hidden test set in the formats of the MSP-Podcast challenges (Odyssey 2024, Interspeech 2025).

Task 1 asks for one of eight classes, as a letter or as eight scores. Task 2 asks for arousal, valence and dominance
from 1 to 7, in this order.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from sejax.corpora.msp import CLASS_OF_LETTER
from sejax.errors import InputError, one_of
from sejax.host.atomic import atomic_write

CORPUS = "msp_podcast"
"""The reader whose hidden test sets have these formats."""
SCORE_ORDER = ("anger", "sadness", "happiness", "surprise", "fear", "disgust", "contempt", "neutral")
SCALE = (1.0, 7.0)
HEADERS = {
    "classes": ("FileName", "EmoClass"),
    "scores": ("Filename", "Prediction"),  # as in the sample of the 2025 challenge, whose rows have nine cells
    "dimensions": ("FileName", "EmoAct", "EmoVal", "EmoDom"),
}
"""The formats and their headers."""

_LETTERS = {name: letter for letter, name in CLASS_OF_LETTER.items() if name in SCORE_ORDER}


@dataclass(frozen=True)
class Submission:
    """The predictions for a test set.

    Args:
      ids: of the utterances, which are the names of their files without `.wav`.
      classes: of the columns of `probabilities`, in the spelling of the corpus: anger, sadness, ...
      probabilities: of the classes, one row per utterance.
      vad: valence, arousal and dominance on the scale 1 to 7, one row per utterance.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Float[np.ndarray, "utterances classes"]
    vad: Float[np.ndarray, "utterances 3"]


def write_submission(submission: Submission, path: str, kind: str, header: Sequence[str] | None = None) -> None:
    """Writes the predictions as a CSV file, the whole file or none. Rows are in the order of `ids`.

    Args:
      submission: the predictions.
      path: of the file.
      kind: `classes`: the letter of the most probable class; `scores`: the probabilities in the order of
        `SCORE_ORDER`; `dimensions`: arousal, valence, dominance, clipped to 1..7.
      header: the first line, None for the one of `HEADERS`, () for none.

    Raises:
      InputError: `kind` is unknown, an id occurs twice, the arrays have another number of rows than there are ids, a
        class is none of the challenge's eight (for `scores`: one of the eight is missing), or a number that is asked
        for is not finite.
    """
    one_of(HEADERS).require("kind", kind)
    _check(submission, kind)
    rows = {"classes": _classes, "scores": _scores, "dimensions": _dimensions}[kind](submission)
    header = HEADERS[kind] if header is None else header
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        if header:
            writer.writerow(header)
        for id, row in zip(submission.ids, rows, strict=True):
            writer.writerow([f"{id}.wav", *row])


def _check(submission: Submission, kind: str) -> None:
    repeated = [id for id, n in Counter(submission.ids).items() if n > 1]
    if repeated:
        raise InputError(f"the utterance {repeated[0]} occurs twice in the predictions, expected once")
    name, array = ("vad", submission.vad) if kind == "dimensions" else ("probabilities", submission.probabilities)
    width = 3 if kind == "dimensions" else len(submission.classes)
    if array.shape != (len(submission.ids), width):
        raise InputError(f"{name} has the shape {array.shape}, expected {(len(submission.ids), width)}")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise InputError(f"{name} of {submission.ids[bad[0]]} are not finite, expected numbers")
    if kind == "dimensions":
        return
    if unknown := [name for name in submission.classes if name not in _LETTERS]:
        raise InputError(f"the class {unknown[0]!r} is none of the challenge's, expected {', '.join(SCORE_ORDER)}")
    missing = [name for name in SCORE_ORDER if name not in submission.classes]
    if kind == "scores" and missing:
        raise InputError(f"the predictions lack {', '.join(missing)}, expected a score for each of the eight classes")


def _classes(submission: Submission) -> list[list[Any]]:
    return [[_LETTERS[submission.classes[index]]] for index in submission.probabilities.argmax(axis=1)]


def _scores(submission: Submission) -> list[list[Any]]:
    columns = [submission.classes.index(name) for name in SCORE_ORDER]
    return _numbers(submission.probabilities[:, columns])


def _dimensions(submission: Submission) -> list[list[Any]]:
    valence, arousal, dominance = submission.vad.clip(*SCALE).T
    return _numbers(np.stack([arousal, valence, dominance], axis=1))


def _numbers(array: Float[np.ndarray, "rows columns"]) -> list[list[Any]]:
    return [[f"{value:.6f}" for value in row] for row in array]
