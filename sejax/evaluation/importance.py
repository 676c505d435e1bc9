"""Permutation importance (Breiman, 2001): how much worse validation speakers are predicted without a part of the input.

A part is exchanged among the utterances of a fold's validation speakers, so that it keeps its values and loses what it
says about each. No test speaker has a say. Streams that say the same stand in for each other, so that each has little
importance; and exchanging one makes inputs that no utterance has.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sejax.engine.importance import Part, Permuted
from sejax.engine.program import Program
from sejax.evaluation.selection import validate_runs
from sejax.evaluation.tables import COLUMNS

METRICS = ("ua", "ccc_mean")
ALL = "all"
"""The part that is a whole stream."""


class Importance(NamedTuple):
    """How a run predicts its validation speakers, and how with a part of their input exchanged among them."""

    run: int
    setting: str
    stream: str
    part: str  # `ALL`, "frames" or a group of statistics
    whole: Mapping[str, float]  # of `METRICS`, those that the run has
    permuted: Mapping[str, float]  # means over the permutations


def importance_of(
    program: Program, parts: Sequence[Part], permuted: Permuted, label: Int[np.ndarray, " utterance"]
) -> list[Importance]:
    """Returns the importance of each part for each run that has metrics on validation speakers.

    Args:
      program: of the runs.
      parts: that were exchanged.
      permuted: the predictions.
      label: the class of every utterance, -1 without one.
    """
    target, vad = np.asarray(program.data.target), np.asarray(program.data.vad)
    scores = [
        validate_runs(
            program.runs,
            program.learnable,
            permuted.utterance,
            prob,
            predicted,
            target,
            vad,
            label=label,
            vad_loss=program.network.recipe.vad_loss,
        )
        for prob, predicted in zip(permuted.prob, permuted.vad, strict=True)
    ]
    repeats = (len(scores) - 1) // len(parts)
    found = []
    for number, part in enumerate(parts):
        first = 1 + number * repeats
        for place, run in enumerate(program.runs):
            of_run = [of_variant[place] for of_variant in (scores[0], *scores[first : first + repeats])]
            # With a part exchanged a dimension may be predicted constant, and has no CCC.
            names = [name for name in METRICS if all(f"val_{name}" in metrics for metrics in of_run)]
            whole, *others = ({name: metrics[f"val_{name}"] for name in names} for metrics in of_run)
            means = {name: float(np.mean([other[name] for other in others])) for name in names}
            if names:
                found.append(Importance(run.number, run.setting.name, part.stream, part.name, whole, means))
    return found


def drops(found: Sequence[Importance], metric: str) -> dict[tuple[str, str], Float[np.ndarray, " run"]]:
    """Returns by how much each part's exchange lowers a metric in each run that has it, by stream and part."""
    collected: dict[tuple[str, str], list[float]] = {}
    for each in found:
        if metric in each.whole:
            collected.setdefault((each.stream, each.part), []).append(each.whole[metric] - each.permuted[metric])
    return {key: np.array(values) for key, values in collected.items()}


def measure(metric: str) -> str:
    """Returns in which measure a fall of a metric is written: `points of UA`, `CCC mean`."""
    column = COLUMNS[metric]
    return f"{'points of ' * bool(column.unit)}{column.title}"


def describe_importance(found: Sequence[Importance]) -> Iterator[str]:
    """Yields a line for each setting and metric: the streams, those of the greatest importance first."""
    for setting in dict.fromkeys(each.setting for each in found):
        for metric in METRICS:
            own = drops([each for each in found if each.setting == setting and each.part == ALL], metric)
            ordered = sorted(own.items(), key=lambda item: -item[1].mean())
            column = COLUMNS[metric]
            words = [f"{stream} {column.number(x.mean())} +- {column.number(x.std())}" for (stream, _), x in ordered]
            if words:
                yield (
                    f"{setting}: {measure(metric)} that validation speakers lose when a stream is shuffled among their "
                    f"utterances (the more, the more it is used; mean +- deviation over runs): {', '.join(words)}"
                )
