"""The importance of parts of the input: bars for the streams, and for the groups inside of each."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from sejax.evaluation.importance import ALL, METRICS, Importance, drops, measure
from sejax.evaluation.tables import COLUMNS
from sejax.report.figures import Bar, Figure, Figures, bar_panel

_MOST_BARS = 30  # of a figure; importance.csv has the rest
_AID = (
    "How much of the score validation speakers lose when a stream, its frames or a group of its statistics is "
    "shuffled among their utterances (permutation importance). The more they lose, the more the model uses it; about "
    "0, or below: it does as well without. Mean over the runs, folds and seeds, with one standard deviation; grey "
    "bars are parts of the stream above them. No test speaker has a say. Streams that say the same stand in for each "
    "other, so that each has little importance of its own, and the groups of a stream do not add up to it."
)


def importance_figures(found: Sequence[Importance], anchor: str) -> Figures:
    """Returns the bars of a setting, a figure for each metric.

    Args:
      found: of the setting.
      anchor: of its section.
    """
    figures = []
    for metric in METRICS:
        by_part, column = drops(found, metric), COLUMNS[metric]
        streams = sorted((key for key in by_part if key[1] == ALL), key=lambda key: -by_part[key].mean())
        bars = []
        for stream, _ in streams:
            inside = [key for key in by_part if key[0] == stream and key[1] != ALL]
            inside.sort(key=lambda key: -by_part[key].mean())
            for key in ((stream, ALL), *inside):
                name = stream if key[1] == ALL else key[1]
                values = column.scale * np.asarray(by_part[key])
                bars.append(Bar(name, float(values.mean()), float(values.std()), key[1] != ALL))
        if bars:
            lost = f"{measure(metric)} lost"
            label = f"{column.title} lost when a part of the input is shuffled"
            svg = bar_panel(bars[:_MOST_BARS], key=f"{anchor}-importance-{metric}", label=label, unit=lost)
            figures.append(Figure(label, Markup(svg)))
    return Figures("Which input matters", figures, _AID)
