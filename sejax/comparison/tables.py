"""A comparison as tables of texts, and these for the terminal, in Markdown and in LaTeX."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sejax.comparison.compare import LEVEL, Comparison, describe
from sejax.evaluation.paired import Difference
from sejax.evaluation.tables import COLUMNS, Column
from sejax.report.read import Estimate

_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "−": "$-$",
    "–": r"\textendash{}",
    "…": r"\ldots{}",
}

VALUE = "value"


@dataclass(frozen=True)
class Line:
    """A row of a table: the words that mark its name, and its cells."""

    name: str
    marks: Sequence[str]
    cells: Sequence[str]

    @property
    def marked(self) -> str:
        """The name with its marks behind it."""
        return " ".join([self.name, *(f"({word})" for word in self.marks)])


@dataclass(frozen=True)
class Table:
    """A table whose columns stand in groups, one for each metric."""

    head: str  # of the first column
    groups: Sequence[tuple[str, Sequence[str]]]
    lines: Sequence[Line]
    baselines: Sequence[Line] = ()

    @property
    def heads(self) -> list[str]:
        """The heads of all columns but the first, in one line: each group begins by its title."""
        firsts = [title if names[0] == VALUE else f"{title} {names[0]}" for title, names in self.groups]
        return [head for first, (_, names) in zip(firsts, self.groups, strict=True) for head in (first, *names[1:])]


def tables_of(comparison: Comparison) -> list[Table]:
    """Returns one table of settings with their differences to the reference; or one of settings and one of pairs."""
    columns, against = comparison.columns, comparison.against
    titles = [f"{column.title}{f' {column.unit}' * bool(column.unit)}" for column in columns]
    paired = ("difference", "p", "Holm")
    baselines = [
        Line(name, (), [cell for column in columns for cell in (_estimate(metrics, column), *[""] * 3 * bool(against))])
        for name, metrics in _baselines(comparison).items()
    ]
    lines = []
    for row in comparison.rows:
        cells = []
        for column in columns:
            cells.append(_estimate(row.metrics, column))
            if row is against:
                cells += ["reference", "", ""]
            elif against:
                cells += paired_cells(comparison.difference(row.name, against.name, column.key))
        lines.append(Line(row.name, [mark.word for mark in row.marks], cells))
    settings = Table("setting", [(title, (VALUE, *(paired if against else ()))) for title in titles], lines, baselines)
    if against:
        return [settings]
    pairs = [
        Line(
            f"{setting} − {other}",
            (),
            [c for column in columns for c in paired_cells(comparison.difference(setting, other, column.key))],
        )
        for setting, other in comparison.pairs
    ]
    return [settings, Table("pair", [(title, paired) for title in titles], pairs)]


def sentences(comparison: Comparison) -> list[str]:
    """Returns what is said below the tables, for text: protocols, what marks mean, and how to read the numbers."""
    several = len(comparison.studies) > 1
    lines = [f"{f'{name}: ' * several}{describe(study.protocol)}" for name, study in comparison.studies.items()]
    lines += [f"({mark.word}) {mark.sentence.removesuffix('.')}" for mark in comparison.marks]
    return [*lines, *comparison.notes]


def as_text(comparison: Comparison) -> str:
    """Returns the comparison for the terminal."""
    lines = []
    for table in tables_of(comparison):
        head = [table.head, *table.heads]
        rows = [[line.marked, *line.cells] for line in (*table.lines, *table.baselines)]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for first, *cells in (head, *rows):
            padded = [cell.center(width) for cell, width in zip(cells, widths[1:], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *padded]).rstrip())
        lines.append("")
    lines += [f"warning: {warning}" for warning in comparison.warnings]
    return "\n".join([*lines, *sentences(comparison)])


def as_markdown(comparison: Comparison) -> str:
    """Returns the comparison as Markdown tables with the sentences as a list."""
    parts = []
    for table in tables_of(comparison):
        head = [table.head, *table.heads]
        rows = [[line.marked, *line.cells] for line in (*table.lines, *table.baselines)]
        lines = ["".join(f"| {_markdown(cell)} " for cell in row) + "|" for row in (head, *rows)]
        parts.append("\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]]))
    said = [*(f"**{warning}.**" for warning in comparison.warnings), *(f"{line}." for line in sentences(comparison))]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in said)]) + "\n"


def as_latex(comparison: Comparison) -> str:
    """Returns the comparison as a LaTeX table, which needs the package booktabs."""
    titles = " and ".join(_latex(column.title) for column in comparison.columns)
    caption = (
        rf"\caption{{{titles} of {len(comparison.rows)} settings, with differences that are paired over speakers.}}"
    )
    parts = [r"\begin{table}", r"\centering", caption]
    for table in tables_of(comparison):
        widths = [len(names) for _, names in table.groups]
        starts = [2 + sum(widths[:number]) for number in range(len(widths))]
        heads = [rf"\multicolumn{{{len(names)}}}{{c}}{{{_latex(title)}}}" for title, names in table.groups]
        rules = [rf"\cmidrule(lr){{{start}-{start + width - 1}}}" for start, width in zip(starts, widths, strict=True)]
        names = [_latex(name) for _, names in table.groups for name in names]
        parts += [
            rf"\begin{{tabular}}{{l{'r' * sum(widths)}}}",
            r"\toprule",
            rf" & {' & '.join(heads)} \\",
            " ".join(rules),
            rf"{table.head} & {' & '.join(names)} \\",
            r"\midrule",
            *(_latex_line(line) for line in table.lines),
            *([r"\midrule"] if table.baselines else []),
            *(_latex_line(line) for line in table.baselines),
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\medskip",
        ]
    said = [*(rf"\textbf{{{_latex(warning)}.}}" for warning in comparison.warnings)]
    said += [f"{_latex(line)}." for line in sentences(comparison)]
    return "\n".join(
        [*parts, r"\begin{minipage}{\linewidth}\footnotesize", *said, r"\end{minipage}", r"\end{table}", ""]
    )


def paired_cells(difference: Difference | None) -> list[str]:
    """Returns the cells of a difference: with its interval, p, and p corrected, with a star below `LEVEL`."""
    if difference is None:
        return ["-", "", ""]
    column = COLUMNS[difference.pair.metric]
    interval = f" {column.interval(difference.ci95, signed=True)}" if difference.ci95 else ""
    star = "*" * (difference.p_holm < LEVEL)
    return [
        column.number(difference.value, signed=True) + interval,
        _p_text(difference.p),
        _p_text(difference.p_holm) + star,
    ]


def _markdown(cell: str) -> str:
    """Returns the text of a cell with what would end it, or begin an emphasis, escaped."""
    return re.sub(r"([|*_`<])", r"\\\1", cell)


def _p_text(p: float) -> str:
    """Returns a p with three digits."""
    return f"{p:.3f}" if p >= 0.0005 else "<0.001"


def _baselines(comparison: Comparison) -> dict[str, Mapping[str, Any]]:
    """Returns the metrics of the majority class and of the look-ups of the rows, by name."""
    studies, columns = comparison.studies, comparison.columns
    majority = {name: _metrics(study.majority) for name, study in studies.items()}
    texts = {tuple(_estimate(metrics, column) for column in columns) for metrics in majority.values()}
    if len(texts) == 1:  # as it is of studies with the same folds
        found = {"majority class": next(iter(majority.values()))}
    else:
        found = {f"majority class, {name}": metrics for name, metrics in majority.items()}
    for row in comparison.rows:
        of_row = [setting.lookup for setting in studies[row.study].settings if setting.name == row.setting]
        found |= {f"class-mean look-up, {row.name}": _metrics(lookup) for lookup in of_row}
    return {name: metrics for name, metrics in found.items() if any(column.key in metrics for column in columns)}


def _metrics(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Returns estimates in the form of metrics.json."""
    return {key: {"pooled": e.pooled, **({"ci95": e.ci95} if e.ci95 else {})} for key, e in estimates.items()}


def _estimate(metrics: Mapping[str, Any], column: Column) -> str:
    return column.estimate(metrics[column.key]) if column.key in metrics else "-"


def _latex_line(line: Line) -> str:
    return rf"{' & '.join(map(_latex, (line.marked, *line.cells)))} \\"


def _latex(text: str) -> str:
    """Returns a text with LaTeX's own characters escaped, and minus signs in front of numbers."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", escaped.replace("--", "-{}-"))
