"""The table of results: every setting with its intervals, and the baselines below."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sejax.evaluation.tables import CCC_COLUMNS, CLASS_COLUMNS, Column, classical_title
from sejax.report.read import Estimate, Setting, Study

Span = tuple[float, float]


@dataclass(frozen=True)
class Track:
    """A value on a line with its interval and the mark of a baseline, in per cent of the line's length."""

    dot: float
    bar: tuple[float, float] | None = None  # start and length
    mark: float | None = None


@dataclass(frozen=True)
class Cell:
    """A number, rounded and exact, and what is written around it; empty texts and None are not shown."""

    text: str
    exact: str
    interval: str = ""
    over_folds: str = ""
    track: Track | None = None


@dataclass(frozen=True)
class Row:
    """A setting in the table; None is a metric that it does not have."""

    name: str
    anchor: str
    best: bool
    score: str
    cells: Sequence[Cell | None]
    gain: str
    gain_kind: str  # "gain", "loss" or "none"


@dataclass(frozen=True)
class PlainRow:
    """An ensemble or a baseline."""

    name: str
    cells: Sequence[Cell | None]
    anchor: str = ""  # of its section, if it has one


@dataclass(frozen=True)
class Group:
    """Columns with a common title."""

    title: str
    columns: Sequence[str]


@dataclass(frozen=True)
class Results:
    """The table of results and the sentences that say how to read it."""

    groups: Sequence[Group]
    score_title: str  # empty with one setting
    with_gain: bool
    rows: Sequence[Row]
    ensembles: Sequence[PlainRow]
    baselines: Sequence[PlainRow]
    aid: str

    @property
    def width(self) -> int:
        """Number of columns of the table."""
        return 1 + bool(self.score_title) + sum(len(group.columns) for group in self.groups) + self.with_gain


def view_results(study: Study) -> Results:
    """Returns the table of results of a study."""
    several = len(study.settings) > 1
    groups = [
        (title, [column for column in columns if column in study.columns])
        for title, columns in (("class, %", CLASS_COLUMNS), ("concordance correlation (CCC)", CCC_COLUMNS))
    ]
    spans = {column.key: _group_span(study.settings, columns) for _, columns in groups for column in columns}
    baselines = [
        replace(_plain_row(study, classical_title(machine.name), machine.metrics), anchor=f"classical-{number}")
        for number, machine in enumerate(study.classical, start=1)
    ]
    baselines.append(_plain_row(study, "majority class", study.majority))
    baselines += [_plain_row(study, f"class-mean look-up, {s.name}", s.lookup) for s in study.settings]
    ensembles = [_plain_row(study, f"seeds averaged, {s.name}", s.seeds_averaged) for s in study.settings]
    return Results(
        groups=[Group(title, [c.title.removeprefix("CCC ") for c in columns]) for title, columns in groups if columns],
        score_title=("test score" if study.protocol.select_on_test else "val. score") if several else "",
        with_gain=any(setting.gain is not None for setting in study.settings),
        rows=[_row(study, setting, number, spans) for number, setting in enumerate(study.settings, start=1)],
        ensembles=[row for row in ensembles if any(row.cells)],
        baselines=[row for row in baselines if any(row.cells)],
        aid=_reading_aid(study),
    )


def exact_number(column: Column, value: float, track: Track | None = None) -> Cell:
    """Returns a rounded number that carries the exact one."""
    return Cell(column.number(value), repr(float(value)), track=track)


def span_of(values: Sequence[float]) -> Span:
    """Returns a little more than the range of the values, never empty."""
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05
    return low - margin, high + margin


def track_of(span: Span, value: float, interval: Sequence[float] = (), mark: float | None = None) -> Track:
    """Returns the places of a value, its interval and a mark on the line of `span`."""

    def place(number: float) -> float:
        return round(100 * (number - span[0]) / (span[1] - span[0]), 1)

    bar = None
    if interval:
        low, high = map(place, interval)
        bar = low, round(high - low, 1)
    return Track(place(value), bar, None if mark is None else place(mark))


def _group_span(settings: Sequence[Setting], columns: Sequence[Column]) -> Span:
    """Returns the scale on which a group of columns draws its tracks: that of all models, intervals and look-ups."""
    return span_of(
        [
            number
            for setting in settings
            for column in columns
            for estimates in (setting.metrics, setting.lookup)
            if column.key in estimates
            for number in (estimates[column.key].pooled, *estimates[column.key].ci95)
        ]
    )


def _row(study: Study, setting: Setting, number: int, spans: Mapping[str, Span]) -> Row:
    score = study.comparable_scores.get(setting.name)
    gain_kind = "none" if setting.gain is None else "gain" if setting.gain > 0 else "loss"
    marks = {key: estimate.pooled for key, estimate in setting.lookup.items()}
    return Row(
        name=setting.name,
        anchor=f"setting-{number}",
        best=len(study.settings) > 1 and setting is study.best and not setting.choice,
        score="–" if score is None else f"{score:.3f}",
        cells=[
            _cell(column, setting.metrics[column.key], spans[column.key], marks.get(column.key))
            if column.key in setting.metrics
            else None
            for column in study.columns
        ],
        gain="–" if setting.gain is None else f"{setting.gain:+.3f}",
        gain_kind=gain_kind,
    )


def _cell(column: Column, estimate: Estimate, span: Span, mark: float | None) -> Cell:
    over_folds = "" if estimate.fold_mean is None else column.number(estimate.fold_mean)
    if estimate.fold_sd is not None:
        over_folds += f" ± {column.number(estimate.fold_sd)}"
    track = track_of(span, estimate.pooled, estimate.ci95, mark)
    return replace(_plain_cell(column, estimate), over_folds=over_folds, track=track)


def _plain_row(study: Study, name: str, estimates: Mapping[str, Estimate]) -> PlainRow:
    return PlainRow(name, [_plain_cell(c, estimates[c.key]) if c.key in estimates else None for c in study.columns])


def _plain_cell(column: Column, estimate: Estimate) -> Cell:
    interval = column.interval(estimate.ci95) if estimate.ci95 else ""
    return replace(exact_number(column, estimate.pooled), interval=interval)


def _reading_aid(study: Study) -> str:
    seeds = study.protocol.seeds
    lines = []
    if any(column in CLASS_COLUMNS for column in study.columns):
        lines.append("WA: accuracy over utterances. UA: mean recall over classes.")
    if any(column in CCC_COLUMNS for column in study.columns):
        lines.append(
            "CCC: concordance correlation coefficient. Look-up (the upright mark): the mean VAD, in the "
            "training set, of the class that the model predicted; a model must beat it to have learned the "
            "dimensions."
        )
    if study.classical:
        lines.append(
            "Classical: a linear support vector machine on the statistics of a stream, trained on the same folds; its "
            "C (and epsilon) are chosen on validation speakers."
        )
    lines.append(
        "In a cell: the metric over all test utterances of all folds"
        + (f" (mean of {seeds} seeds)" if seeds > 1 else "")
        + ", its 95 % bootstrap interval over speakers, both drawn on one scale for all settings, and the "
        "mean ± standard deviation over folds."
    )
    if any(column.key not in setting.metrics for setting in study.settings for column in study.columns):
        lines.append(
            "A dash: the setting does not train this task (or failed to predict it), and its validation "
            "score does not compare with those of settings that train all tasks."
        )
    return " ".join(lines)
