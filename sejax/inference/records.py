"""What a model says about an utterance: a record, and its row in a table."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

UNSURE = "unsure"
"""The label of an utterance whose confidence is below the one that was asked for."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of the runs of a model for one utterance; NaN where a run does not predict.

    `tempered` are the probabilities after temperature scaling, and `half_width` that of each dimension's interval.
    """

    prob: Float[np.ndarray, "run class"]
    tempered: Float[np.ndarray, "run class"]
    values: Float[np.ndarray, "run dimension"]
    half_width: Float[np.ndarray, " dimension"]
    note: str = ""

    def of(self, runs: Sequence[int]) -> "Outputs":
        """Returns the outputs of the runs at these places."""
        places = np.array(runs, int)
        return replace(self, prob=self.prob[places], tempered=self.tempered[places], values=self.values[places])


class Names(NamedTuple):
    """The names of a model's outputs."""

    classes: tuple[str, ...]
    dimensions: tuple[str, ...]
    intervals: bool  # whether dimensions have intervals
    spread: bool  # whether several runs predict


@dataclass(frozen=True)
class Record:
    """What a model says about an utterance, a part of a file, or a window over time.

    A record with an `error` has nothing else. Mappings are by class or by dimension.
    """

    file: str
    start: float | None = None  # seconds
    end: float | None = None
    label: str = ""  # the most probable class, "unsure" if it is not probable enough; empty without classes
    confidence: float = math.nan  # the probability of the most probable class, after temperature scaling
    probabilities: Mapping[str, float] = field(default_factory=dict)  # as the study's, before temperature scaling
    dimensions: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)  # deviation over the runs, of the label and dimensions
    note: str = ""
    error: str = ""
    explanation: Mapping[str, Any] = field(default_factory=dict)  # as `sejax.evaluation.explanation` returns it

    def row(self, names: Names) -> dict[str, Any]:
        """Returns the record as a flat row with `columns(names)`; what there is not is None.

        An explanation is one more value, a mapping.
        """
        row: dict[str, Any] = {"file": self.file, "start": self.start, "end": self.end}
        if names.classes:
            row |= {"label": self.label or None, "confidence": _finite(self.confidence)}
            row |= {f"prob_{name}": _finite(self.probabilities.get(name)) for name in names.classes}
        row |= {name: _finite(self.dimensions.get(name)) for name in names.dimensions}
        if names.intervals:
            for name in names.dimensions:
                low, high = self.intervals.get(name, (None, None))
                row |= {f"{name}_low": _finite(low), f"{name}_high": _finite(high)}
        if names.spread:
            row |= {f"spread_{name}": _finite(self.spread.get(name)) for name in _spread_names(names)}
        row |= {"note": self.note or None, "error": self.error or None}
        return row | ({"explanation": self.explanation} if self.explanation else {})


def columns(names: Names) -> list[str]:
    """Returns the columns of a table of records."""
    return list(Record("").row(names))


def _spread_names(names: Names) -> Iterator[str]:
    if names.classes:
        yield "label"
    yield from names.dimensions


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def make_record(
    names: Names, outputs: Outputs, *, file: str, start: float | None, end: float | None, abstain: float = 0.0
) -> Record:
    """Returns the record of an utterance: means over the runs that predict, and deviations over them.

    Args:
      names: of the outputs.
      outputs: of the runs.
      file: of the utterance.
      start: seconds, where the utterance is a part of a file.
      end: likewise.
      abstain: the least confidence with which a class is named.
    """
    label, confidence, probabilities = "", math.nan, {}
    spread: dict[str, float] = {}
    if names.classes:
        prob, tempered = _mean(outputs.prob), _mean(outputs.tempered)
        best = int(np.argmax(prob))
        confidence = float(tempered[best])
        label = names.classes[best] if confidence >= abstain else UNSURE
        probabilities = dict(zip(names.classes, prob.tolist(), strict=True))
        spread["label"] = float(_deviation(outputs.prob)[best])
    values = _mean(outputs.values)
    spread |= dict(zip(names.dimensions, _deviation(outputs.values).tolist(), strict=True))
    half = outputs.half_width
    bounds = zip((values - half).tolist(), (values + half).tolist(), strict=True)
    return Record(
        file=file,
        start=start,
        end=end,
        label=label,
        confidence=confidence,
        probabilities=probabilities,
        dimensions=dict(zip(names.dimensions, values.tolist(), strict=True)),
        intervals=dict(zip(names.dimensions, bounds, strict=True)) if names.intervals else {},
        spread=spread if names.spread else {},
        note=outputs.note,
    )


def _mean(runs: Float[np.ndarray, "run output"]) -> Float[np.ndarray, " output"]:
    """Returns the means over the runs that predict: NaN if none does, 0 without outputs."""
    whole = runs[np.isfinite(runs).all(axis=1)]
    if not len(whole):
        return np.full(runs.shape[1], np.nan)
    return whole.mean(axis=0)


def _deviation(runs: Float[np.ndarray, "run output"]) -> Float[np.ndarray, " output"]:
    return runs[np.isfinite(runs).all(axis=1)].std(axis=0) if runs.size else np.zeros(runs.shape[1])


def shown(row: Mapping[str, Any]) -> Sequence[str]:
    """Returns the cells of a row: six significant digits, times to a millisecond, empty for None."""
    return [_cell(name, value) for name, value in row.items()]


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return shown_time(value) if name in ("start", "end") else f"{value:.6g}"
    return str(value)


def shown_time(seconds: float) -> str:
    """Returns a time as a table shows it, to a millisecond."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
