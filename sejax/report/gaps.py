"""How unequal a setting's scores are: between genders, and from speaker to speaker."""

from collections.abc import Sequence
from dataclasses import dataclass

from sejax.evaluation.tables import COLUMNS, Column
from sejax.host.wording import count
from sejax.report.read import Scores, Setting
from sejax.report.results import Cell, exact_number

_COLUMNS = tuple(COLUMNS[key] for key in ("ua", "ccc_mean"))
_GENDERS = {"F": "female", "M": "male"}
_AID = (
    "UA of a speaker is over the classes that this speaker has. The lowest and the highest of many scores of few "
    "utterances are partly chance."
)


@dataclass(frozen=True)
class GapRow:
    """The scores of a gender or speaker, or a difference of two; None is a metric that is not there."""

    name: str
    utterances: str
    cells: Sequence[Cell | None]


@dataclass(frozen=True)
class GapView:
    """Scores by gender and the extreme speakers, and sentences that say what stands behind each."""

    columns: Sequence[str]
    rows: Sequence[GapRow]
    sentences: Sequence[str]
    aid: str


def view_gaps(setting: Setting) -> GapView | None:
    """Returns the gaps of a setting; None with one speaker, or without scores."""
    genders = setting.genders if len(setting.genders) > 1 else []
    groups = [*genders, *setting.speakers]
    columns = [column for column in _COLUMNS if sum(column.key in each.metrics for each in setting.speakers) > 1]
    if not columns or len(groups) < 2:
        return None
    rows = [_row(_GENDERS.get(each.name, each.name), each, columns) for each in genders]
    if len(genders) == 2:
        rows.append(_difference(genders[0], genders[1], columns))
    sentences = [sentence for column in columns if (sentence := _of_genders(genders, column))]
    for column in columns:
        least, middle, most = _spread(setting.speakers, column)
        titles = (f"lowest {column.title}", f"median {column.title}", f"highest {column.title}")
        for title, speaker in zip(titles, (least, middle, most), strict=True):
            rows.append(_row(f"{title}: {speaker.name}", speaker, columns))
        sentences.append(
            f"{column.title} goes from {_told(least, column)} to {_told(most, column)} over "
            f"{count(sum(column.key in each.metrics for each in setting.speakers), 'speaker')}; the median speaker has "
            f"{_told(middle, column)}."
        )
    return GapView([column.title for column in columns], rows, sentences, _AID)


def _row(name: str, scores: Scores, columns: Sequence[Column]) -> GapRow:
    cells = [exact_number(c, scores.metrics[c.key]) if c.key in scores.metrics else None for c in columns]
    return GapRow(name, f"{scores.utterances:,}", cells)


def _difference(first: Scores, second: Scores, columns: Sequence[Column]) -> GapRow:
    cells = [
        exact_number(column, abs(first.metrics[column.key] - second.metrics[column.key]))
        if column.key in first.metrics and column.key in second.metrics
        else None
        for column in columns
    ]
    return GapRow("gap between genders", "", cells)


def _of_genders(genders: Sequence[Scores], column: Column) -> str:
    scored = [each for each in genders if column.key in each.metrics]
    if len(scored) != 2:
        return ""
    low, high = sorted(scored, key=lambda each: each.metrics[column.key])
    gap = column.number(high.metrics[column.key] - low.metrics[column.key])
    unit = " points" if column.unit else ""
    names = (f"{_GENDERS.get(each.name, each.name)} speakers ({each.utterances:,} utterances)" for each in (high, low))
    return f"{column.title} is {gap}{unit} higher for {' than for '.join(names)}."


def _spread(speakers: Sequence[Scores], column: Column) -> tuple[Scores, Scores, Scores]:
    """Returns the lowest, the median (the lower of two) and the highest speaker, the first of equals."""
    scored = sorted(
        (each for each in speakers if column.key in each.metrics), key=lambda each: each.metrics[column.key]
    )
    most = scored[-1].metrics[column.key]
    return scored[0], scored[(len(scored) - 1) // 2], next(s for s in scored if s.metrics[column.key] == most)


def _told(scores: Scores, column: Column) -> str:
    value = f"{column.number(scores.metrics[column.key])}{' ' if column.unit else ''}{column.unit}"
    return f"{value} (speaker {scores.name}, {count(scores.utterances, 'utterance')})"
