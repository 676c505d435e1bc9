"""predictions.csv: the test predictions of all runs."""

import csv
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from sejax.corpora.schema import DIMENSIONS
from sejax.errors import InputError

_FLOAT = "%.6g"


_KEYS = ("run", "fold", "seed", "setting", "id", "speaker")


_INTEGERS = ("run", "seed")


@dataclass(frozen=True)
class Predictions:
    """The rows of predictions.csv: test utterances of all runs. `classes` names the columns of `prob`.

    `vad` and `pred_vad` are in the corpus's own scale and in the order of `DIMENSIONS`.
    """

    classes: tuple[str, ...]
    run: Int[np.ndarray, " row"]
    fold: Shaped[np.ndarray, " row"]  # text
    seed: Int[np.ndarray, " row"]
    setting: Shaped[np.ndarray, " row"]  # text
    id: Shaped[np.ndarray, " row"]  # text
    speaker: Shaped[np.ndarray, " row"]  # text
    label: Int[np.ndarray, " row"]  # index into classes, -1 where there is no label
    prob: Float[np.ndarray, "row class"]  # NaN where there is no prediction
    vad: Float[np.ndarray, "row 3"]  # NaN where a dimension is missing
    pred_vad: Float[np.ndarray, "row 3"]  # NaN where there is no prediction


def write_predictions(path: str, predictions: Predictions) -> None:
    """Writes predictions.csv, whole or not at all. The same predictions give the same bytes.

    Floats have six significant digits, NaN is an empty field, the label is the name of its class or empty.
    """
    names = np.array([*predictions.classes, ""])  # the label -1 is the last
    columns = [
        *(getattr(predictions, key).tolist() for key in _KEYS),
        names[predictions.label].tolist(),
        *(
            ["" if math.isnan(value) else _FLOAT % value for value in column]
            for block in (predictions.prob, predictions.vad, predictions.pred_vad)
            for column in block.T.tolist()
        ),
    ]
    partial = f"{path}.partial"
    with open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_header(predictions.classes))
        writer.writerows(zip(*columns, strict=True))
    os.replace(partial, path)


def read_predictions(path: str) -> Predictions:
    """Reads what `write_predictions` wrote. Raises InputError for a file that is missing or another."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table of predictions: {error}.") from error
    if not rows:
        raise InputError(f"{path} is empty, but a table of predictions has at least a header.")
    header = rows.pop(0)
    classes = tuple(name.removeprefix("prob_") for name in header if name.startswith("prob_"))
    if header != _header(classes):
        raise InputError(
            f"{path} has the columns {', '.join(header)}, but predictions have {', '.join(_header(classes))}."
        )
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(f"{path} has {len(row)} fields in line {line}, but {len(header)} in its header.")
    columns = dict(zip(header, zip(*rows, strict=True) if rows else ((),) * len(header), strict=True))

    def parsed(name: str, parse: Callable[[str], Any], dtype: type, expected: str) -> np.ndarray:
        values = []
        for line, text in enumerate(columns[name], start=2):
            try:
                values.append(parse(text))
            except (ValueError, KeyError):
                raise InputError(
                    f"{path} has {text!r} as {name} in line {line}, but it has to be {expected}."
                ) from None
        return np.array(values, dtype=dtype)

    def block(names: Sequence[str]) -> np.ndarray:
        read = [parsed(name, lambda text: float(text or "nan"), float, "a number or empty") for name in names]
        return np.stack(read, axis=-1) if read else np.zeros((len(rows), 0))

    index = {name: number for number, name in enumerate(classes)} | {"": -1}
    return Predictions(
        classes=classes,
        **{key: np.array(columns[key], dtype=str) for key in _KEYS if key not in _INTEGERS},
        **{key: parsed(key, int, int, "a whole number") for key in _INTEGERS},
        label=parsed("label", index.__getitem__, int, f"empty or one of {', '.join(classes)}"),
        prob=block([f"prob_{name}" for name in classes]),
        vad=block(DIMENSIONS),
        pred_vad=block([f"pred_{name}" for name in DIMENSIONS]),
    )


def _header(classes: Sequence[str]) -> list[str]:
    return [
        *_KEYS,
        "label",
        *(f"prob_{name}" for name in classes),
        *DIMENSIONS,
        *(f"pred_{name}" for name in DIMENSIONS),
    ]


def _as_written(predictions: Predictions) -> Predictions:
    """The predictions with the digits that predictions.csv keeps."""

    def rounded(block: np.ndarray) -> np.ndarray:
        return np.char.mod(_FLOAT, block).astype(np.float64)

    return replace(
        predictions,
        prob=rounded(predictions.prob),
        vad=rounded(predictions.vad),
        pred_vad=rounded(predictions.pred_vad),
    )


def average_seeds(predictions: Predictions) -> Predictions:
    """One run per setting and fold, whose predictions are the means over the seeds; its seed is -1.

    An ensemble of networks that differ in initialisation and order alone. The digits are those of the CSV.
    """
    predictions = _as_written(predictions)
    key = np.char.add(np.char.add(predictions.setting, "\n"), np.char.add(predictions.fold, "\n"))
    _, first, group = np.unique(np.char.add(key, predictions.id), return_index=True, return_inverse=True)
    count = np.bincount(group)[:, None]

    def mean(block: np.ndarray) -> np.ndarray:
        total = np.zeros((len(first), block.shape[1]))
        np.add.at(total, group, block)
        return total / count

    averaged = _rows(predictions, first)
    averaged = replace(
        averaged,
        seed=np.full(len(first), -1),
        prob=mean(predictions.prob),
        pred_vad=mean(predictions.pred_vad),
    )
    return _rows(averaged, np.argsort(first, kind="stable"))


def _rows(predictions: Predictions, mask: np.ndarray) -> Predictions:
    columns = [*_KEYS, "label", "prob", "vad", "pred_vad"]
    return replace(predictions, **{name: getattr(predictions, name)[mask] for name in columns})


def _predicted_class(predictions: Predictions) -> Int[np.ndarray, " row"]:
    """The most probable class, the first of equals; -1 where a row has no finite probabilities."""
    if not predictions.classes:
        return np.full(predictions.label.shape, -1)
    finite = np.isfinite(predictions.prob).all(axis=1)
    return np.where(finite, np.argmax(predictions.prob, axis=1), -1)
