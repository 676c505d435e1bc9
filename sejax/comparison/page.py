"""A comparison as one self-contained page, in the form of a study's report."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sejax.comparison.compare import LEVEL, Comparison, describe
from sejax.comparison.tables import tables_of
from sejax.evaluation.tables import Column
from sejax.report.figures import Estimated, Figure, forest_panel
from sejax.report.templating import style, template


@dataclass(frozen=True)
class StudyView:
    """The conditions of a study."""

    name: str
    facts: Sequence[tuple[str, str]]
    command: str


def render(comparison: Comparison) -> str:
    """Returns the page."""
    corpora = list(dict.fromkeys(study.corpus.name for study in comparison.studies.values()))
    of_studies = f" of {len(comparison.studies):,} studies" if len(comparison.studies) > 1 else ""
    return template("comparison.html.j2").render(
        style=style(),
        title=f"{', '.join(corpora)}: {len(comparison.rows):,} settings{of_studies}",
        marks=comparison.marks,
        marks_of={row.name: row.marks for row in comparison.rows},
        warnings=comparison.warnings,
        notes=comparison.notes,
        tables=tables_of(comparison),
        figures=[_forest(comparison, column) for column in comparison.columns],
        against=comparison.against.name if comparison.against else "",
        studies=[
            StudyView(
                name,
                [
                    ("corpus", f"{study.corpus.name}, labels {study.corpus.labels}"),
                    ("protocol", f"{study.protocol.name}: {describe(study.protocol)}"),
                    ("normalisation", study.protocol.normalised_by),
                    ("started", study.provenance.started),
                    ("git revision", study.provenance.git or "none"),
                ],
                study.provenance.command,
            )
            for name, study in comparison.studies.items()
        ],
    )


def _forest(comparison: Comparison, column: Column) -> Figure:
    """Returns the figure of all differences of a metric."""
    against = comparison.against
    shown = [of for of in comparison.differences if of.pair.metric == column.key]
    estimates = [
        Estimated(
            name=of.pair.setting if against else f"{of.pair.setting} − {of.pair.against}",
            value=column.scale * of.value,
            interval=tuple(column.scale * bound for bound in of.ci95 or ()),
            colour="s3" if of.p_holm < LEVEL else "s1",
        )
        for of in shown
    ]
    unit = f" ({column.unit})" if column.unit else ""
    svg = forest_panel(
        estimates,
        key=f"forest-{column.key}",
        label=f"Differences of {column.title} with 95 % intervals",
        unit=f"difference of {column.title}{', percentage points' if column.unit else ''}",
    )
    legend = [("s3", f"p < {LEVEL:g} after Holm"), ("s1", "not below")]
    title = f"{column.title}{unit}: difference{f' to {against.name}' if against else ''}"
    return Figure(title, Markup(svg), legend)
