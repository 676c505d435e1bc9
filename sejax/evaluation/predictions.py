"""The predictions of all runs for their held-out utterances: the rows of predictions.csv."""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sejax.corpora.schema import DIMENSIONS
from sejax.errors import InputError
from sejax.host.atomic import atomic_write

_FLOAT = "%.6g"
_KEYS = ("run", "fold", "seed", "setting", "split", "id", "speaker")
_INTEGERS = ("run", "seed")
_SPLITS = ("val", "test")
_COLUMNS = (*_KEYS, "label", "prob", "vad", "pred_vad")


@dataclass(frozen=True)
class Predictions:
    """Rows of predictions.csv. `classes` names the columns of `prob`.

    `vad` and `pred_vad` are in the corpus's own scale and in the order of `DIMENSIONS`.
    """

    classes: tuple[str, ...]
    run: Int[np.ndarray, " row"]
    fold: Shaped[np.ndarray, " row"]  # text
    seed: Int[np.ndarray, " row"]
    setting: Shaped[np.ndarray, " row"]  # text
    split: Shaped[np.ndarray, " row"]  # "val" or "test"; metrics are of the rows of "test" alone
    id: Shaped[np.ndarray, " row"]  # text
    speaker: Shaped[np.ndarray, " row"]  # text
    label: Int[np.ndarray, " row"]  # index into classes, -1 where there is no label
    prob: Float[np.ndarray, "row class"]  # NaN where there is no prediction
    vad: Float[np.ndarray, "row 3"]  # NaN where a dimension is missing
    pred_vad: Float[np.ndarray, "row 3"]  # NaN where there is no prediction

    def select(self, rows: Bool[np.ndarray, " row"] | Int[np.ndarray, " chosen"]) -> "Predictions":
        """Returns the rows of a mask, or the rows at these places in this order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _COLUMNS})

    def named(self, setting: str) -> "Predictions":
        """Returns the same rows as those of a setting of this name."""
        return replace(self, setting=np.full(len(self.setting), setting))

    def of(self, split: str) -> "Predictions":
        """Returns the rows of a split, "val" or "test"."""
        return self.select(self.split == split)

    @staticmethod
    def concatenate(parts: "Sequence[Predictions]") -> "Predictions":
        """Returns the rows of all parts, which have the same classes, in order."""
        columns: dict[str, Any] = {name: np.concatenate([getattr(x, name) for x in parts]) for name in _COLUMNS}
        return replace(parts[0], **columns)

    def by(self, column: str) -> "dict[Any, Predictions]":
        """Returns the rows of each value of a key column, in the order in which the values first occur."""
        values = getattr(self, column)
        return {value: self.select(values == value) for value in dict.fromkeys(values.tolist())}

    def predicted_class(self) -> Int[np.ndarray, " row"]:
        """Returns the most probable class, the first of equals; -1 where a row has no finite probabilities."""
        if not self.classes:
            return np.full(self.label.shape, -1)
        finite = np.isfinite(self.prob).all(axis=1)
        return np.where(finite, np.argmax(self.prob, axis=1), -1)

    def rounded(self) -> "Predictions":
        """Returns the predictions with the digits that predictions.csv keeps: six significant ones."""

        def as_written(block: np.ndarray) -> np.ndarray:
            return np.char.mod(_FLOAT, block).astype(np.float64)

        return replace(self, prob=as_written(self.prob), vad=as_written(self.vad), pred_vad=as_written(self.pred_vad))

    def average_seeds(self) -> "Predictions":
        """Returns one run per setting and fold, whose predictions are the means over the seeds; its seed is -1.

        The mean is an ensemble of networks that differ only in initialisation and order of batches. It is taken over
        the digits of predictions.csv.
        """
        predictions = self.rounded()
        key = np.char.add(np.char.add(predictions.setting, "\n"), np.char.add(predictions.fold, "\n"))
        _, first, group = np.unique(np.char.add(key, predictions.id), return_index=True, return_inverse=True)
        count = np.bincount(group)[:, None]

        def mean(block: np.ndarray) -> np.ndarray:
            total = np.zeros((len(first), block.shape[1]))
            np.add.at(total, group, block)
            return total / count

        averaged = replace(
            predictions.select(first),
            seed=np.full(len(first), -1),
            prob=mean(predictions.prob),
            pred_vad=mean(predictions.pred_vad),
        )
        return averaged.select(np.argsort(first, kind="stable"))

    def write(self, path: str) -> None:
        """Writes predictions.csv, whole or not at all. Equal predictions give equal bytes.

        Floats have six significant digits, NaN is an empty field, and the label is the name of its class or empty.
        """
        names = np.array([*self.classes, ""])  # the label -1 is the last
        columns = [
            *(getattr(self, key).tolist() for key in _KEYS),
            names[self.label].tolist(),
            *(
                ["" if math.isnan(value) else _FLOAT % value for value in column]
                for block in (self.prob, self.vad, self.pred_vad)
                for column in block.T.tolist()
            ),
        ]
        with atomic_write(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_header(self.classes))
            writer.writerows(zip(*columns, strict=True))

    @classmethod
    def read(cls, path: str, *, split: str | None = "test") -> "Predictions":
        """Reads predictions.csv as `write` left it. A file of an older version has no column `split`: all is "test".

        Args:
          path: of the file.
          split: whose rows are returned: "test", on which every metric is, "val", or None for all.

        Raises:
          InputError: if the file is missing, has other columns, or has a line that cannot be parsed.
        """
        header, rows = _read_table(path)
        classes = tuple(name.removeprefix("prob_") for name in header if name.startswith("prob_"))
        older = header == [name for name in _header(classes) if name != "split"]
        if not older and header != _header(classes):
            raise InputError(
                f"{path}: has the columns {', '.join(header)}, expected those of predictions: "
                f"{', '.join(_header(classes))}"
            )
        for line, row in enumerate(rows, start=2):
            if len(row) != len(header):
                raise InputError(
                    f"{path}: has {len(row)} fields in line {line}, expected {len(header)} as in its header"
                )
        columns = dict(zip(header, zip(*rows, strict=True) if rows else ((),) * len(header), strict=True))
        if older:
            columns["split"] = ("test",) * len(rows)

        def parsed(name: str, parse: Callable[[str], Any], dtype: type, expected: str) -> np.ndarray:
            values = []
            for line, text in enumerate(columns[name], start=2):
                try:
                    values.append(parse(text))
                except (ValueError, KeyError):
                    raise InputError(f"{path}: has {text!r} as {name} in line {line}, expected {expected}") from None
            return np.array(values, dtype=dtype)

        def block(names: Sequence[str]) -> np.ndarray:
            read = [parsed(name, lambda text: float(text or "nan"), float, "a number or empty") for name in names]
            return np.stack(read, axis=-1) if read else np.zeros((len(rows), 0))

        index = {name: number for number, name in enumerate(classes)} | {"": -1}
        predictions = cls(
            classes=classes,
            **{key: np.array(columns[key], dtype=str) for key in _KEYS if key not in (*_INTEGERS, "split")},
            split=parsed("split", {name: name for name in _SPLITS}.__getitem__, str, " or ".join(_SPLITS)),
            **{key: parsed(key, int, int, "a whole number") for key in _INTEGERS},
            label=parsed("label", index.__getitem__, int, f"empty or one of {', '.join(classes)}"),
            prob=block([f"prob_{name}" for name in classes]),
            vad=block(DIMENSIONS),
            pred_vad=block([f"pred_{name}" for name in DIMENSIONS]),
        )
        return predictions if split is None else predictions.of(split)


def _read_table(path: str) -> tuple[list[str], list[list[str]]]:
    """Reads the header and the rows of a CSV file."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected a table of predictions") from error
    if not header:
        raise InputError(f"{path}: is empty, expected a table of predictions with a header")
    return header, rows


def _header(classes: Sequence[str]) -> list[str]:
    return [
        *_KEYS,
        "label",
        *(f"prob_{name}" for name in classes),
        *DIMENSIONS,
        *(f"pred_{name}" for name in DIMENSIONS),
    ]
