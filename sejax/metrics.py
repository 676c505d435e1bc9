"""Metrics of both label kinds, predictions.csv, and what metrics.json says of it.

WA is the accuracy over utterances, UA the mean recall over classes, CCC has population moments. Every number
of `summarise` is a function of the predictions as predictions.csv holds them, with six significant digits.

A bootstrap draw resamples speakers: the utterances of one speaker are not independent, and intervals from
resampled utterances would be too narrow. All metrics are functions of sums over utterances (a confusion
matrix; a few moments), so a draw is a weighted sum of the speakers' own sums, and all draws are one matrix
product.
"""

import csv
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from sejax.corpora.schema import DIMENSIONS
from sejax.errors import InputError
from sejax.folds import Fold

_FLOAT = "%.6g"
_KEYS = ("run", "fold", "seed", "setting", "id", "speaker")
_INTEGERS = ("run", "seed")
_CONFIDENCE = (2.5, 97.5)  # percent


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


# ----------------------------------------------------------------------------------------------- metrics


def confusion_matrix(
    label: Int[np.ndarray, " row"], predicted: Int[np.ndarray, " row"], n_classes: int
) -> Int[np.ndarray, "class class"]:
    """Counts `[true class, predicted class]`."""
    return np.bincount(label * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def weighted_accuracy(
    confusion: Shaped[np.ndarray, "*batch class class"],
) -> Float[np.ndarray, "*batch"]:
    """WA, the share of correct predictions, of matrices `[..., true, predicted]`; NaN of empty ones."""
    correct = np.trace(confusion, axis1=-2, axis2=-1)
    return _divide(correct, confusion.sum(axis=(-2, -1)))


def unweighted_accuracy(
    confusion: Shaped[np.ndarray, "*batch class class"],
) -> Float[np.ndarray, "*batch"]:
    """UA, the mean recall over the classes that occur in the truth, of matrices `[..., true, predicted]`.

    A class that nobody says in a test fold (or in a draw of the bootstrap) has no recall there and does not
    count there. NaN of empty matrices.
    """
    occurrences = confusion.sum(axis=-1)
    recall = _divide(np.diagonal(confusion, axis1=-2, axis2=-1), occurrences)
    return _divide(np.nansum(recall, axis=-1), (occurrences > 0).sum(axis=-1))


def macro_f1(confusion: Shaped[np.ndarray, "*batch class class"]) -> Float[np.ndarray, "*batch"]:
    """The mean F1 over the classes that occur in the truth or the predictions; NaN of empty matrices."""
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    occurrences = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    f1 = _divide(2 * correct, occurrences)
    return _divide(np.nansum(f1, axis=-1), (occurrences > 0).sum(axis=-1))


def ccc(pred: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"]) -> float:
    """The concordance correlation coefficient with population moments (Lin 1989).

    NaN for fewer than two rows, and for predictions and targets that are constant and equal.
    """
    return float(_ccc_of_moments(_moments(pred, target).sum(axis=0)))


def rmse(pred: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"]) -> float:
    """The root of the mean squared error, in the unit of its arguments; NaN for no rows."""
    return float(_rmse_of_moments(_moments(pred, target).sum(axis=0)))


def _moments(pred: Float[np.ndarray, " row"], target: Float[np.ndarray, " row"]) -> Float[np.ndarray, "row 5"]:
    """What each row adds to the sums of 1, x, y, x^2 + y^2 and (x - y)^2, in float64.

    x and y are shifted by the mean of the targets: that changes no moment below and keeps the variances'
    digits.
    """
    centre = target.mean(dtype=np.float64) if target.size else 0.0
    x, y = pred.astype(np.float64) - centre, target.astype(np.float64) - centre
    return np.stack([np.ones_like(x), x, y, x * x + y * y, (x - y) ** 2], axis=-1)


def _ccc_of_moments(sums: Float[np.ndarray, "*batch 5"]) -> Float[np.ndarray, "*batch"]:
    """CCC = 1 - E (x - y)^2 / (s_x^2 + s_y^2 + (m_x - m_y)^2)."""
    n, x, y, squares, distance = np.moveaxis(sums, -1, 0)
    denominator = squares - _divide(x * x + y * y, n) + _divide((x - y) ** 2, n)
    # What is left of equal constants is rounding error.
    spread = denominator > 1e-12 * squares
    return np.where((n > 1) & spread, 1 - _divide(distance, denominator), np.nan)


def _rmse_of_moments(sums: Float[np.ndarray, "*batch 5"]) -> Float[np.ndarray, "*batch"]:
    return np.asarray(np.sqrt(_divide(sums[..., 4], sums[..., 0])))


def _divide(numerator: np.ndarray | np.number, denominator: np.ndarray | np.number) -> np.ndarray:
    """The quotient, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=quotient, where=denominator != 0)


# --------------------------------------------------------------------------------------- predictions.csv


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


# ------------------------------------------------------------------------------------------ metrics.json


def summarise(predictions: Predictions, *, n_bootstrap: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """The metrics of each setting, in the order in which the settings first occur.

    `{"name": setting, "metrics": {"wa" | "ua" | "macro_f1" | "ccc_<dimension>" | "ccc_mean" |
    "rmse_<dimension>": {"pooled", "fold_mean", "fold_sd", "ci95": [low, high]}}}`, where

    - `pooled` is over all test utterances of all folds: the mean over seeds of each seed's own value;
    - `fold_mean` and `fold_sd` are the mean and the sample standard deviation over folds of each fold's mean
      over seeds. A fold in which a metric is undefined (a CCC of one utterance) does not count, and one fold
      has no deviation;
    - `ci95` is from the 2.5th to the 97.5th percentile of `pooled` over `n_bootstrap` draws of as many
      speakers, with replacement, the same for all settings of the same speakers. One speaker has no interval;
    - `ccc_mean` is over the dimensions that the corpus has.

    A number without data is absent, never NaN. A metric is absent too if the prediction of a row that has the
    truth is not finite: the entry then has `unpredicted`, the number of such rows of the class or the
    dimension.
    """
    predictions = _as_written(predictions)
    names = dict.fromkeys(predictions.setting.tolist())
    return [_summary(name, _rows(predictions, predictions.setting == name), n_bootstrap, seed) for name in names]


def majority_class(
    predictions: Predictions,
    label: Int[np.ndarray, " utterance"],
    folds: Sequence[Fold],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The metrics of always saying the class that is most frequent in the fold's training set, without CCC.

    `label` is that of every utterance of the corpus, -1 where there is none. Of `predictions`, the truths of
    the first setting count.
    """
    first = _rows(predictions, predictions.setting == predictions.setting[:1])
    prob = np.full(first.prob.shape, np.nan)
    for fold in folds:
        counts = np.bincount(label[fold.train & (label >= 0)], minlength=len(first.classes))
        if counts.any():
            prob[first.fold == fold.name] = np.eye(len(first.classes))[np.argmax(counts)]
    unknown = np.full(first.vad.shape, np.nan)
    baseline = replace(first, prob=prob, vad=unknown, pred_vad=unknown)
    return {
        name: metric
        for entry in summarise(baseline, n_bootstrap=n_bootstrap, seed=seed)
        for name, metric in entry["metrics"].items()
    }


def class_mean_lookup(
    predictions: Predictions,
    label: Int[np.ndarray, " utterance"],
    vad: Float[np.ndarray, "utterance 3"],
    folds: Sequence[Fold],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """For each setting, the CCC and RMSE of looking VAD up in a table: the mean of the predicted class in
    training.

    `label` (-1: none) and `vad` (NaN: missing) are those of every utterance of the corpus; the table is made
    from the fold's training set, and the class is the one that the model predicts. A class whose VAD nobody
    has rated there stands at the mean of the training set. What a joint model does not add to this table, it
    has not learned from VAD.
    """
    predictions = _as_written(predictions)
    predicted = _predicted_class(predictions)
    looked_up = np.full(predictions.vad.shape, np.nan)
    for fold in folds:
        rows = (predictions.fold == fold.name) & (predicted >= 0)
        table = _class_means(label[fold.train], vad[fold.train], len(predictions.classes))
        looked_up[rows] = table[predicted[rows]]
    baseline = replace(predictions, label=np.full_like(predictions.label, -1), pred_vad=looked_up)
    return {entry["name"]: entry["metrics"] for entry in summarise(baseline, n_bootstrap=n_bootstrap, seed=seed)}


def _class_means(
    label: Int[np.ndarray, " utterance"], vad: Float[np.ndarray, "utterance 3"], n_classes: int
) -> Float[np.ndarray, "class 3"]:
    def means(rows: np.ndarray) -> np.ndarray:
        rated = np.isfinite(vad[rows])
        return _divide(np.where(rated, vad[rows], 0.0).sum(axis=0), rated.sum(axis=0))

    table = np.stack([means(label == number) for number in range(n_classes)])
    return np.where(np.isnan(table), means(np.ones(label.shape, bool)), table)


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


@dataclass(frozen=True)
class _Sums:
    """Metrics as functions of sums over utterances; `per_row` is what each row adds."""

    per_row: Float[np.ndarray, "row *sum"]
    metrics: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    unpredicted: Mapping[str, int]  # rows with the truth and without a prediction


def _class_sums(predictions: Predictions) -> _Sums:
    n_classes = len(predictions.classes)
    predicted = _predicted_class(predictions)
    labelled = predictions.label >= 0
    missing = int((labelled & (predicted < 0)).sum())
    per_row = np.zeros((len(predicted), n_classes, n_classes))
    if missing or not labelled.any():
        return _Sums(per_row, {}, {"class": missing})
    per_row[np.flatnonzero(labelled), predictions.label[labelled], predicted[labelled]] = 1
    functions = {"wa": weighted_accuracy, "ua": unweighted_accuracy, "macro_f1": macro_f1}
    return _Sums(per_row, functions, {"class": 0})


def _dimension_sums(predictions: Predictions) -> _Sums:
    per_row = np.zeros((len(predictions.run), len(DIMENSIONS), 5))
    ccc_of: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    rmse_of: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    unpredicted: dict[str, int] = {}
    complete = []
    for dim, name in enumerate(DIMENSIONS):
        pred, target = predictions.pred_vad[:, dim], predictions.vad[:, dim]
        rated = np.isfinite(target)
        unpredicted[name] = int((rated & ~np.isfinite(pred)).sum())
        if rated.any() and not unpredicted[name]:
            per_row[rated, dim] = _moments(pred[rated], target[rated])
            ccc_of[f"ccc_{name}"] = _at(dim, _ccc_of_moments)
            rmse_of[f"rmse_{name}"] = _at(dim, _rmse_of_moments)
            complete.append(dim)
    if complete:
        ccc_of["ccc_mean"] = lambda sums: _ccc_of_moments(sums[..., complete, :]).mean(axis=-1)
    return _Sums(per_row, ccc_of | rmse_of, unpredicted)


def _at(dim: int, of_moments: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: of_moments(sums[..., dim, :])


def _summary(name: str, predictions: Predictions, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """The entry of one setting."""
    speakers, speaker = np.unique(predictions.speaker, return_inverse=True)
    _, fold = np.unique(predictions.fold, return_inverse=True)
    _, run_seed = np.unique(predictions.seed, return_inverse=True)
    # How often each speaker is drawn.
    draws = np.random.default_rng(seed).multinomial(
        len(speakers), np.full(len(speakers), 1 / len(speakers)), size=n_bootstrap
    )
    entry: dict[str, Any] = {"name": name, "metrics": {}}
    unpredicted: dict[str, int] = {}
    for sums in (_class_sums(predictions), _dimension_sums(predictions)):
        by_fold = _grouped(sums.per_row, run_seed, fold)  # [seed, fold, ...]
        by_speaker = _grouped(sums.per_row, run_seed, speaker)  # [seed, speaker, ...]
        drawn = np.moveaxis(np.tensordot(draws.astype(np.float64), by_speaker, axes=(1, 1)), 1, 0)
        for metric, of_sums in sums.metrics.items():
            numbers = {
                "pooled": _defined(of_sums(by_speaker.sum(axis=1)).mean(axis=0)[None]),
                "folds": _defined(of_sums(by_fold).mean(axis=0)),
                "draws": _defined(of_sums(drawn).mean(axis=0)),
            }
            if numbers["pooled"].size:
                entry["metrics"][metric] = _numbers(**numbers, interval=len(speakers) > 1)
        unpredicted |= {what: number for what, number in sums.unpredicted.items() if number}
    return entry | ({"unpredicted": unpredicted} if unpredicted else {})


def _numbers(
    pooled: np.ndarray, folds: np.ndarray, draws: np.ndarray, *, interval: bool
) -> dict[str, float | list[float]]:
    """What metrics.json says of one metric: each number that there are values for."""
    numbers: dict[str, float | list[float]] = {"pooled": float(pooled[0])}
    if folds.size:
        numbers["fold_mean"] = float(folds.mean())
    if folds.size > 1:
        numbers["fold_sd"] = float(folds.std(ddof=1))
    if interval and draws.size:
        numbers["ci95"] = [float(bound) for bound in np.percentile(draws, _CONFIDENCE)]
    return numbers


def _grouped(
    per_row: Float[np.ndarray, "row *sum"], first: Int[np.ndarray, " row"], second: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "first second *sum"]:
    """The sums of the rows of each pair of groups."""
    sums = np.zeros((first.max() + 1, second.max() + 1, *per_row.shape[1:]))
    np.add.at(sums, (first, second), per_row)
    return sums


def _defined(values: Float[np.ndarray, " value"]) -> Float[np.ndarray, " defined"]:
    return values[~np.isnan(values)]
