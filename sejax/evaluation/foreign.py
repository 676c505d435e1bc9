"""The numbers of a model on a corpus of another study: over the classes that both have, over all, and as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sejax.corpora.schema import DIMENSIONS
from sejax.evaluation.intervals import summarise
from sejax.evaluation.metrics import CLASS_METRICS, confusion_matrix, divide
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.tables import COLUMNS, Column
from sejax.host.wording import count

CLEAN = "clean"
"""The name of a test without corruption."""
_ALL = "ua_all"
_CLASS = (COLUMNS["ua"], Column(_ALL, "UA all", 100, 1, "%"), COLUMNS["wa"], COLUMNS["macro_f1"])
_DIMENSION = {"ccc": "CCC", "pcc": "PCC", "rmse": "RMSE"}


def score(
    predictions: Predictions, shared: Sequence[str], *, one_scale: bool, n_bootstrap: int
) -> list[dict[str, Any]]:
    """Returns the numbers of each test, in the order in which the tests first occur.

    `{"corruption": name, "metrics": {metric: numbers as of summarise}, "recall": {class: {"utterances", "recall"}},
    "confusion": {"classes", "counts": [true][predicted]}}`, where

    - `ua`, `wa` and `macro_f1` are over the utterances whose class the model can name;
    - `ua_all` is over all classes of the corpus: the recall of one that the model cannot name is 0;
    - CCC and RMSE are there where predictions and ratings are in one scale; PCC, which no affine map changes, always.

    Args:
      predictions: of all tests; `setting` is the name of the test, and a class that the model cannot name has the
        probability 0.
      shared: the classes that the model can name.
      one_scale: whether the predictions of dimensions are in the corpus's scale.
      n_bootstrap: draws of speakers for the intervals.
    """
    predictions = predictions.rounded()
    places = [predictions.classes.index(name) for name in shared]
    named = predictions.select(np.isin(predictions.label, places))
    of_named = summarise(named, n_bootstrap=n_bootstrap) if len(named.run) else []
    by_name = {entry["name"]: entry["metrics"] for entry in of_named}
    rows_of = predictions.by("setting")
    tests = []
    for entry in summarise(predictions, n_bootstrap=n_bootstrap):
        own = by_name.get(entry["name"], {})
        metrics = {name: own[name] for name in CLASS_METRICS if name in own}
        if metrics and "ua" in entry["metrics"]:
            metrics[_ALL] = entry["metrics"]["ua"]
        metrics |= {
            name: numbers
            for name, numbers in entry["metrics"].items()
            if name not in CLASS_METRICS and (one_scale or name.startswith("pcc_"))
        }
        rows = rows_of[entry["name"]]
        tests.append({"corruption": entry["name"], "metrics": metrics, **_by_class(rows)})
    return tests


def _by_class(rows: Predictions) -> dict[str, Any]:
    """Returns the recall of each class that occurs, and the confusion; nothing without predictions of classes."""
    predicted = rows.predicted_class()
    counted = (rows.label >= 0) & (predicted >= 0)
    if not counted.any():
        return {}
    counts = confusion_matrix(rows.label[counted], predicted[counted], len(rows.classes))
    total = counts.sum(axis=1)
    recall = divide(np.diagonal(counts), total)
    of_class = {
        name: {"utterances": int(total[place]), "recall": float(recall[place])}
        for place, name in enumerate(rows.classes)
        if total[place]
    }
    return {"recall": of_class, "confusion": {"classes": list(rows.classes), "counts": counts.tolist()}}


def baselines(predictions: Predictions, shared: Sequence[str]) -> dict[str, Any]:
    """Returns `{"chance", "majority": {"class", "wa"}}` over the utterances whose class the model can name.

    `chance` is the UA that is expected of guessing, one of the classes that occur by their number; `majority` the WA
    of always saying the most frequent one, which only the truth says. Empty without such utterances.
    """
    labels = predictions.label[predictions.setting == predictions.setting[:1]]
    counts = {name: int((labels == predictions.classes.index(name)).sum()) for name in shared}
    counts = {name: n for name, n in counts.items() if n}
    if not counts:
        return {}
    most = max(counts, key=counts.__getitem__)
    return {"chance": 1 / len(counts), "majority": {"class": most, "wa": counts[most] / sum(counts.values())}}


def format_tests(corpora: Sequence[Mapping[str, Any]]) -> str:
    """Returns the tree of evaluation.json as text for the terminal: what was tested, a table, what is to be known."""
    lines = [line for found in corpora for line in _head(found)]
    rows = [
        (found["corpus"]["name"] + " (optimistic)" * found["optimistic"], test["corruption"], test["metrics"])
        for found in corpora
        for test in found["tests"]
    ]
    columns = [column for column in _CLASS if any(column.key in metrics for _, _, metrics in rows)]
    if all(metrics.get(_ALL) == metrics.get("ua") for _, _, metrics in rows):
        columns = [column for column in columns if column.key != _ALL]
    if columns:
        cells = [[_cell(metrics, column) for column in columns] for _, _, metrics in rows]
        titles = [f"{column.title} {column.unit}" for column in columns]
        lines += _table(["corpus", "test", *titles], [[*row[:2], *own] for row, own in zip(rows, cells, strict=True)])
    of_dimensions = [
        [name, test, dimension, *(_cell(metrics, Column(f"{key}_{dimension}", "")) for key in _DIMENSION)]
        for name, test, metrics in rows
        for dimension in DIMENSIONS
        if any(f"{key}_{dimension}" in metrics for key in _DIMENSION)
    ]
    if of_dimensions:
        lines += _table(["corpus", "test", "dimension", *_DIMENSION.values()], of_dimensions)
    for found in corpora:
        lines += _tail(found)
    return "\n".join([*lines, "[95 % interval, bootstrap over speakers]"])


def _head(found: Mapping[str, Any]) -> list[str]:
    corpus, classes = found["corpus"], found["classes"]
    size = f"{count(corpus['utterances'], 'utterance')} of {count(corpus['speakers'], 'speaker')}"
    lines = [f"{corpus['name']}: {size}, labels {corpus['labels']}"]
    renamed = [f"{name} = {of}" for name, of in classes["of"].items() if name != of]
    if renamed:
        lines.append(f"  classes of the model and of the corpus: {', '.join(renamed)}")
    if classes["outside"]:
        share = 100 * classes["outside_probability"]
        lines.append(
            f"  left out of the model's classes: {', '.join(classes['outside'])}, which have {share:.1f} % of its "
            "probability; the rest is scaled to 1"
        )
    if classes["unnamed"]:
        lines.append(
            "  classes that the model cannot name, which are in UA all alone: "
            + ", ".join(f"{name} ({count(n, 'utterance')})" for name, n in classes["unnamed"].items())
        )
    return [*lines, *(f"  {note}" for note in found["notes"])]


def _tail(found: Mapping[str, Any]) -> list[str]:
    """Returns the lines below the table: what guessing reaches, and the recall of each class in the first test."""
    lines, name = [], found["corpus"]["name"]
    if base := found["baselines"]:
        most = base["majority"]
        lines.append(
            f"{name}: chance is {100 * base['chance']:.1f} % UA; always {most['class']} {100 * most['wa']:.1f} % WA"
        )
    first = found["tests"][0]
    if recalls := first.get("recall"):
        shares = (f"{key} {100 * own['recall']:.1f} ({own['utterances']:,})" for key, own in recalls.items())
        lines.append(f"{name}, {first['corruption']}: recall % (utterances) {', '.join(shares)}")
    return lines


def _cell(metrics: Mapping[str, Any], column: Column) -> str:
    return column.estimate(metrics[column.key]) if column.key in metrics else "-"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (titles, *rows)
    ]
