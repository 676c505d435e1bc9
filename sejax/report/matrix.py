"""The test sets of a setting: a matrix of corpora as a heat map, or a column for each test set of a corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sejax.evaluation.tables import COLUMNS, Column
from sejax.host.wording import count

_METRICS = ("ua", "ccc_mean")
_DARK = 0.72  # share of the colour from which text on it is light


@dataclass(frozen=True)
class MatrixCell:
    """A number with its interval and what it is over, and how strongly it is coloured."""

    number: str
    interval: str
    over: str  # a title
    share: str
    dark: bool
    within: bool


@dataclass(frozen=True)
class MatrixView:
    """One metric of all test sets; a row for each corpus that is trained on, None where there is no such cell."""

    title: str
    tested: Sequence[str]
    rows: Sequence[tuple[str, Sequence[MatrixCell | None]]]
    aid: str


def view_matrices(cells: Sequence[Mapping[str, Any]]) -> list[MatrixView]:
    """Returns a matrix for UA and one for the mean CCC, of those that a setting's `tests` have."""
    columns = [COLUMNS[key] for key in _METRICS]
    return [_view(column, own) for column in columns if (own := [c for c in cells if column.key in c["metrics"]])]


def _view(column: Column, cells: Sequence[Mapping[str, Any]]) -> MatrixView:
    trained = list(dict.fromkeys(cell["train"] for cell in cells))
    tested = sorted({cell["test"] for cell in cells})
    of_pair = {(cell["train"], cell["test"]): cell for cell in cells}
    rows = [
        (train or "", [_cell(column, of_pair[train, test]) if (train, test) in of_pair else None for test in tested])
        for train in trained
    ]
    sentences = ["95 % intervals resample the tested speakers."]
    if any(cell["within"] for cell in cells):
        sentences.append("Framed: other speakers of the corpus that is trained on, each held out in turn.")
    for cell in cells:
        if column.key == "ua" and "shared" in cell and "ua" in cell["shared"]:
            whose = f"{cell['train']} to {cell['test']}" if cell["train"] else cell["test"]
            shared = column.estimate(cell["shared"]["ua"])
            sentences.append(f"{whose}: UA {shared} over the classes of both ({', '.join(cell['classes'])}).")
    unit = f" ({column.unit})" if column.unit else ""
    return MatrixView(f"{column.title}{unit}", tested, rows, " ".join(sentences))


def _cell(column: Column, cell: Mapping[str, Any]) -> MatrixCell:
    metric = cell["metrics"][column.key]
    share = min(max(metric["pooled"], 0.0), 1.0)
    over = f"{count(cell['utterances'], 'utterance')} of {count(cell['speakers'], 'speaker')}"
    correlation = cell["metrics"].get(column.key.replace("ccc", "pcc"))
    if column.key.startswith("ccc") and correlation:
        over += f", PCC {column.number(correlation['pooled'])}"
    return MatrixCell(
        number=column.number(metric["pooled"]),
        interval=column.interval(metric["ci95"]) if "ci95" in metric else "",
        over=over,
        share=f"{share:.3f}",
        dark=share >= _DARK,
        within=cell["within"],
    )
