"""The comparison: which differences of which settings, and the sentences without which they would mislead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from sejax.comparison.rows import MOST_NAMES, Row, find_row
from sejax.comparison.same_tests import require_same_tests
from sejax.errors import InputError
from sejax.evaluation.paired import DRAWS, Difference, Pair, compare, smallest_p
from sejax.evaluation.tables import COLUMNS, Column
from sejax.host.wording import count, first_names
from sejax.report.page import Mark
from sejax.report.read import Protocol, Study

LEVEL = 0.05
METRICS = ("ua", "ccc_mean")
"""What is compared unless other metrics are named. Every further metric is a further test for Holm's correction."""


@dataclass(frozen=True)
class Comparison:
    """Settings, the differences between them, and what has to be said of both."""

    studies: Mapping[str, Study]  # by name
    rows: Sequence[Row]
    columns: Sequence[Column]  # the metrics that are compared
    against: Row | None  # None: all pairs
    differences: Sequence[Difference]
    warnings: Sequence[str]  # what makes a difference another one than that of the settings
    notes: Sequence[str]  # how to read the numbers

    def difference(self, setting: str, against: str, metric: str) -> Difference | None:
        """Returns a difference by the names of its rows; None where it is not defined."""
        return self._by_pair.get(Pair(setting, against, metric))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The names of the rows that are compared, each with the one that it is compared with."""
        return list(dict.fromkeys((of.pair.setting, of.pair.against) for of in self.differences))

    @property
    def marks(self) -> list[Mark]:
        """The marks of any row."""
        return list(dict.fromkeys(mark for row in self.rows for mark in row.marks))

    @cached_property
    def _by_pair(self) -> dict[Pair, Difference]:
        return {difference.pair: difference for difference in self.differences}


def make_comparison(
    studies: Mapping[str, Study],
    rows: Sequence[Row],
    *,
    against: str | None = None,
    all_pairs: bool = False,
    metrics: Sequence[str] = METRICS,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Returns the comparison of settings with one of them, or of each with each.

    Args:
      studies: by name.
      rows: settings of these studies.
      against: names the setting that the others are compared with; None: the first.
      all_pairs: compare each with each, and none in particular.
      metrics: keys of `COLUMNS`; those that fewer than two settings have are left out.
      draws: of exchanges at most, and of the bootstrap.
      seed: of both.

    Raises:
      InputError: there are fewer than two settings, no metric that two have, or the test utterances differ.
    """
    if len(rows) < 2:
        names = first_names([row.name for row in rows], MOST_NAMES)
        raise InputError(f"{names} is the only setting, expected two or more")
    rows = require_same_tests(rows)
    reference = None if all_pairs else find_row(rows, against) if against is not None else rows[0]
    if reference is None:
        pairs = [(second.name, first.name) for first, second in combinations(rows, 2)]
    else:
        pairs = [(row.name, reference.name) for row in rows if row.name != reference.name]
    differences = compare(
        {row.name: row.predictions for row in rows},
        [Pair(setting, other, metric) for metric in metrics for setting, other in pairs],
        draws=draws,
        seed=seed,
    )
    if not differences:
        whose = "of no two settings" if reference is None else f"of {reference.name} and another setting"
        raise InputError(
            f"the metrics {', '.join(metrics)} are defined {whose}, expected one that both have: --metrics or --against"
        )
    return Comparison(
        studies=studies,
        rows=rows,
        columns=[COLUMNS[key] for key in metrics if any(of.pair.metric == key for of in differences)],
        against=reference,
        differences=differences,
        warnings=[*_protocols(studies, rows), *_incomplete(studies, rows), *_few_speakers(differences, draws)],
        notes=_notes(studies, rows, reference, differences, draws, chosen_by_default=against is None),
    )


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Returns the comparison as a tree for JSON."""
    return {
        "studies": [
            {
                "name": name,
                "corpus": study.corpus.name,
                "protocol": describe(study.protocol),
                "normalisation": study.protocol.normalisation,
                "folds": study.protocol.folds,
                "seeds": study.protocol.seeds,
            }
            for name, study in comparison.studies.items()
        ],
        "settings": [
            {
                "name": row.name,
                "study": row.study,
                "setting": row.setting,
                "marks": [mark.word for mark in row.marks],
                "metrics": {column.key: row.metrics[column.key] for column in shown_of(row, comparison.columns)},
            }
            for row in comparison.rows
        ],
        "against": comparison.against.name if comparison.against else None,
        "differences": [
            {
                **of.pair._asdict(),
                "difference": of.value,
                **({"ci95": list(of.ci95)} if of.ci95 else {}),
                "p": of.p,
                "p_holm": of.p_holm,
                "smallest_p": of.smallest_p,
                "exact": of.exact,
                "speakers": of.speakers,
                "speakers_that_differ": of.differing,
            }
            for of in comparison.differences
        ],
        "warnings": list(comparison.warnings),
        "notes": list(comparison.notes),
    }


def shown_of(row: Row, columns: Sequence[Column]) -> list[Column]:
    """Returns the columns that a row has."""
    return [column for column in columns if column.key in row.metrics]


def describe(protocol: Protocol) -> str:
    """Returns the line with which the numbers of a study are quoted."""
    return f"{protocol.description}; {count(protocol.folds, 'fold')}, {count(protocol.seeds, 'seed')}"


# ---- What else differs, and what is missing


def _protocols(studies: Mapping[str, Study], rows: Sequence[Row]) -> list[str]:
    """Returns a sentence about the conditions in which the studies of the rows differ, and one about their seeds."""
    protocols = {row.study: studies[row.study].protocol for row in rows}
    found = []
    if len({(p.name, p.description, p.normalisation) for p in protocols.values()}) > 1:
        found.append(
            "The studies differ in protocol or normalisation (said of each below), and a difference between them is of "
            "that too"
        )
    if len({p.seeds for p in protocols.values()}) > 1:
        which = ", ".join(f"{name}: {p.seeds:,}" for name, p in protocols.items())
        found.append(f"The studies have different numbers of seeds ({which}); each number is the mean over its seeds")
    return found


def _incomplete(studies: Mapping[str, Study], rows: Sequence[Row]) -> list[str]:
    """Returns what the studies say is missing in the numbers of these rows, and whose voices nobody knows."""
    found = []
    for name, study in studies.items():
        others = {setting.name for setting in study.settings} - {row.setting for row in rows if row.study == name}
        of_others = tuple(f"{other}{mark}" for other in others for mark in (":", ", trained on", ", tested on"))
        of_study = f"{name}: " if len(studies) > 1 else ""
        found += [f"{of_study}{remark}" for remark in study.remarks if not remark.startswith(of_others)]
        predicted = set(study.predictions.setting.tolist())
        if absent := [setting.name for setting in study.settings if setting.name not in predicted]:
            names = first_names(absent, MOST_NAMES)
            found.append(f"{of_study}predictions.csv has no predictions of {names}, which cannot be compared")
    unknown = [fold["test"] for study in studies.values() for fold in study.audit.unknown_speakers]
    if any(unknown):
        found.append(
            "The corpus does not say who speaks in some test utterances, and each of these counts as a speaker: p is "
            "too small if one person speaks in several"
        )
    return found


def _few_speakers(differences: Sequence[Difference], draws: int) -> list[str]:
    """Returns what so few speakers cannot show."""
    speakers, number = differences[0].speakers, len(differences)
    smallest = smallest_p(speakers, draws)
    if smallest >= LEVEL:
        return [
            f"With {count(speakers, 'speaker')} no p can be below {_p(smallest)}, however large the difference: "
            f"{LEVEL:g} needs 6 speakers or more"
        ]
    if smallest * number >= LEVEL:
        most = int(LEVEL / smallest)
        return [
            f"With {count(speakers, 'speaker')} the smallest p is {_p(smallest)}, and corrected for {number:,} "
            f"comparisons at least {_p(min(1.0, smallest * number))}: compare fewer settings or metrics (at most "
            f"{most:,} comparisons) to find anything at {LEVEL:g}"
        ]
    return []


def _notes(
    studies: Mapping[str, Study],
    rows: Sequence[Row],
    reference: Row | None,
    differences: Sequence[Difference],
    draws: int,
    *,
    chosen_by_default: bool,
) -> list[str]:
    """Returns how to read the numbers."""
    speakers, number = differences[0].speakers, len(differences)
    notes = []
    if reference is not None:
        why = ", the first setting (--against names another)" if chosen_by_default else ""
        notes.append(f"Differences are to {reference.name}{why}")
    ways = (
        f"all {2**speakers:,} ways" if 2**speakers <= draws else f"{draws:,} random ways, the observed one counted with"
    )
    notes += [
        "Metrics are pooled over all test utterances (mean over seeds); [95 % interval, bootstrap over speakers, of a "
        "difference paired and not corrected]",
        f"p: two-sided permutation test that exchanges the predictions of two settings speaker by speaker ({ways} of "
        f"exchanging {count(speakers, 'speaker')}; the smallest p is {_p(smallest_p(speakers, draws))})",
        f"Holm: p corrected for {count(number, 'comparison')}, which are all of this table; * below {LEVEL:g}",
    ]
    lacking = {
        COLUMNS[key].title: [row.name for row in rows if key not in row.metrics]
        for key in dict.fromkeys(of.pair.metric for of in differences)
    }
    notes += [
        f"No {title} of {first_names(names, MOST_NAMES)}: not predicted, or not everywhere"
        for title, names in lacking.items()
        if names
    ]
    for row in rows:
        notes += [
            f"{row.name}: {s.about_choice}" for s in studies[row.study].settings if s.choice and s.name == row.setting
        ]
    if len(rows) > 2:
        notes.append("These are test results: the best row is the best in hindsight, and no choice of a setting")
    return notes


def _p(p: float) -> str:
    return f"{p:.2g}"
