"""How sure a setting's models are and how right they are then: a table, facts and two figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from sejax.corpora.schema import DIMENSIONS
from sejax.evaluation.calibration import temper_folds
from sejax.evaluation.confidence import BINS, reliability, risk_coverage
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.tables import DISTRIBUTION_COLUMNS
from sejax.report.figures import Figure, Figures, reliability_panel, risk_panel
from sejax.report.read import Estimate
from sejax.report.results import Cell, exact_number

_SCORES = {
    "ece": "expected calibration error (ECE)",
    "brier": "Brier score",
    "nll": "negative log likelihood",
}
_SCORES_AID = (
    "The temperature of a fold comes from its validation speakers; the scores are of test speakers, and less is "
    "better. ECE: the mean gap between confidence and accuracy. AURC: the area under the curve of errors."
)
_INTERVALS_AID = (
    "The width of a fold's intervals comes from its validation speakers; what they cover is counted on test speakers."
)
_VOTES_AID = (
    "Raters' doubt: how the entropy of their votes correlates with that of the predictions, over utterances of test "
    "speakers."
)
_DISTRIBUTIONS_AID = (
    "Against raters' votes, utterances without a majority too: the mean Jensen-Shannon divergence (logarithms to base "
    "2, so from 0 to 1), the mean Kullback-Leibler divergence of the prediction from the votes, and how many "
    "predictions are a class that at least one rater named; beside a model that always predicts the mean votes of its "
    "training speakers."
)
_RELIABILITY_AID = (
    "How many are right of the predictions that are about equally sure, on test speakers, before and after scaling by "
    "the temperature from validation speakers; on the diagonal a model is as sure as it is right. Below: the number of "
    f"predictions in each of {BINS} bins."
)
_RISK_AID = (
    "Errors on test speakers among the predictions that are kept if the least sure ones are left out; the temperature "
    "comes from validation speakers."
)


@dataclass(frozen=True)
class PairTable:
    """A table of two numbers in each row, with the titles of its three columns."""

    head: tuple[str, str, str]
    rows: Sequence[tuple[str, Cell, Cell]]


@dataclass(frozen=True)
class CalibrationView:
    """Scores before and after temperature scaling, intervals, facts, and a sentence that says how to read them."""

    tables: Sequence[PairTable]
    facts: Sequence[tuple[str, str]]
    aid: str


def view_calibration(
    calibration: Mapping[str, Any], distributions: Mapping[str, Any], mean_votes: Mapping[str, Estimate]
) -> CalibrationView | None:
    """Returns the numbers of the keys `calibration` and `distributions` of metrics.json; None where they have none.

    Args:
      calibration: of the setting.
      distributions: of the setting.
      mean_votes: the baseline of `distributions`.
    """
    tables, aids = [], []
    scores = [
        (title, _cell(calibration[key]["before"]), _cell(calibration[key]["after"]))
        for key, title in _SCORES.items()
        if key in calibration
    ]
    if scores:
        tables.append(PairTable(("confidence", "before", "after scaling"), scores))
        aids.append(_SCORES_AID)
    intervals = calibration.get("intervals", {})
    if "coverage" in intervals:
        widths, covered = intervals["mean_width"], intervals["coverage"]
        rows = [(name, _cell(widths[name]), _cell(covered[name], 100, 1)) for name in DIMENSIONS if name in covered]
        tables.append(PairTable((f"{100 * intervals['level']:g} % interval", "mean width", "covers %"), rows))
        aids.append(_INTERVALS_AID)
    if distributions:
        tables.append(_distributions(distributions, mean_votes))
        aids.append(_DISTRIBUTIONS_AID)
    if "votes" in calibration:
        aids.append(_VOTES_AID)
    facts = _facts(calibration)
    return CalibrationView(tables, facts, " ".join(aids)) if tables or facts else None


def _cell(value: float, scale: int = 1, digits: int = 3) -> Cell:
    return Cell(f"{scale * value:.{digits}f}", repr(value))


def _distributions(distributions: Mapping[str, Any], mean_votes: Mapping[str, Estimate]) -> PairTable:
    """Returns a row of each score of the probabilities, and of the tempered ones, beside the mean votes."""
    rows = []
    for column in DISTRIBUTION_COLUMNS:
        prior = exact_number(column, mean_votes[column.key].pooled) if mean_votes else Cell("–", "")
        for key, more in (("metrics", ""), ("tempered", ", after scaling")):
            if column.key in distributions.get(key, {}):
                value = distributions[key][column.key]["pooled"]
                title = f"{column.title}{more}, {column.unit}"
                rows.append((title, exact_number(column, value), prior))
    return PairTable(("against raters' votes", "model", "mean votes"), rows)


def _facts(calibration: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if "temperature" in calibration:
        of_folds = calibration["temperature"]["folds"].values()
        facts.append(("temperature of folds", f"{min(of_folds):.2f} to {max(of_folds):.2f}"))
        facts.append(("of all speakers", f"{calibration['temperature']['all']:.2f}"))
    if "aurc" in calibration:
        facts.append(("AURC", f"{calibration['aurc']:.3f}"))
    if votes := calibration.get("votes"):
        facts.append(("raters' doubt, Spearman", f"{votes['spearman']:.3f}"))
        facts.append(("raters' doubt, Pearson", f"{votes['pearson']:.3f}"))
        facts.append(("utterances with votes", f"{votes['utterances']:,}"))
    spread = calibration.get("spread", {})
    return facts + [(f"seeds differ by, {name}", f"{value:.3f}") for name, value in spread.items()]


def calibration_figures(rows: Predictions, calibration: Mapping[str, Any], anchor: str) -> list[Figures]:
    """Returns the reliability diagram and the risk-coverage curve of a setting's test rows.

    Args:
      rows: the test predictions of the setting.
      calibration: the key of metrics.json.
      anchor: of the setting's section.
    """
    if "ece" not in calibration:  # no temperature, or rows without predictions
        return []
    labelled = rows.select(rows.label >= 0)
    correct = labelled.predicted_class() == labelled.label
    before, after = labelled.prob.max(axis=1), temper_folds(labelled, calibration["temperature"]["folds"]).max(axis=1)
    panel = reliability_panel(
        {"s2": reliability(before, correct), "s3": reliability(after, correct)},
        key=f"{anchor}-reliability",
        label="Accuracy by confidence, before and after temperature scaling",
    )
    legend = (("s2", "before"), ("s3", "after"))
    curve = risk_coverage(after, correct)
    # The page stays small: as many points as its pixels can show.
    shown = np.unique(np.linspace(0, len(curve.risk) - 1, 200).astype(int))
    risk = risk_panel(
        curve.coverage[shown], curve.risk[shown], key=f"{anchor}-risk", label="Errors by the share of predictions kept"
    )
    return [
        Figures("Confidence and accuracy", [Figure("Reliability", Markup(panel), legend)], _RELIABILITY_AID),
        Figures("Leaving out the unsure", [Figure("Risk and coverage", Markup(risk))], _RISK_AID),
    ]
