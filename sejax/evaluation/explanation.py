"""An explanation: what the runs of a model look at in an utterance, as plain JSON values.

task, output      what is explained: the class that is named, by its logit, or a dimension
value, at_mean    that output, and what it is where every input is the mean of the training speakers; means over runs
sum               of gradient times input over all inputs: where the model is linear it is value - at_mean
runs              how many it is the mean of
seconds, level    of the audio; its level in decibel, a step every `hop` seconds
streams           `share` and `sum` of each, and those of its `frames` (over time) and `statistics` (by group) alone
attention         of each layer, the weights of a stream's frames over time, of sum 1

A `share` is the part of the sum of the absolute products, those of all single numbers that the model reads. A `sum` has
signs, which cancel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from sejax.corpora.schema import DIMENSIONS, SAMPLING_RATE
from sejax.data.inputs import Input
from sejax.engine.explain import Looked, Part
from sejax.features.level import LEVEL_SECONDS, level
from sejax.models.joint import JointModel
from sejax.pretrained.base import Backbone

_DIGITS = 4  # significant ones


@dataclass(frozen=True)
class Explained:
    """The output that is explained.

    Attributes:
      task: "class", or a dimension.
      output: the class or the dimension.
      place: among the model's outputs, logits and then dimensions.
      slope: units of the output in one of the model's.
      offset: of a dimension, the middle of its scale.
    """

    task: str
    output: str
    place: int
    slope: float = 1.0
    offset: float = 0.0

    @staticmethod
    def of_class(classes: Sequence[str], place: int) -> "Explained":
        """Returns the logit of a class."""
        return Explained("class", classes[place], place)

    @staticmethod
    def of_dimension(name: str, model: JointModel, scale: tuple[float, float]) -> "Explained":
        """Returns a dimension, in the scale of the corpus."""
        low, high = scale
        place = model.head.classes + DIMENSIONS.index(name)
        return Explained(name, name, place, (high - low) / 2, (low + high) / 2)

    def direction(self, model: JointModel) -> Float32[np.ndarray, "1 output"]:
        """Returns what `sejax.engine.explain.look` takes for one utterance."""
        found = np.zeros((1, model.head.classes + model.head.dimensions), np.float32)
        found[0, self.place] = self.slope
        return found


class Reader(NamedTuple):
    """A model and what it reads, by stream."""

    model: JointModel
    inputs: Mapping[str, Input]
    backbones: Mapping[str, Backbone]  # of pretrained streams


def explain(
    explained: Explained,
    looked: Looked,
    runs: Int[np.ndarray, " chosen"],
    *,
    reader: Reader,
    read: Mapping[str, int],
    samples: Float32[np.ndarray, " samples"],
) -> dict[str, Any]:
    """Returns the explanation of the one utterance that was looked at.

    Args:
      explained: the output.
      looked: on the host, of a batch whose first utterance it is.
      runs: the places of the runs that are averaged.
      reader: the model of the runs.
      read: the frames (of raw audio samples) that each encoded stream reads.
      samples: of the utterance at 16 kHz.
    """
    model, inputs, backbones = reader
    frames, statistics = (
        {name: _mean(part, runs) for name, part in parts.items()} for parts in (looked.frames, looked.statistics)
    )
    parts = [*frames.values(), *statistics.values()]
    whole = float(sum(part.magnitude for part in parts)) or 1.0
    hops = {
        name: read[name] * inputs[name].hop_length(backbones.get(name)) / SAMPLING_RATE / int(length[0])
        for name, length in looked.lengths.items()
    }
    streams: dict[str, Any] = {}
    for name, given in inputs.items():
        own: dict[str, Any] = {}
        if name in frames:
            values = frames[name].signed[: int(looked.lengths[name][0])]
            own["frames"] = _totals(frames[name], whole) | {"hop": _short(hops[name]), "values": _list(values)}
        if name in statistics and statistics[name].magnitude:
            groups = np.array(given.statistic_groups(len(statistics[name].signed), backbones.get(name)))
            own["statistics"] = _totals(statistics[name], whole) | {
                "groups": {
                    str(group): _short(statistics[name].signed[groups == group].sum())
                    for group in dict.fromkeys(groups.tolist())
                }
            }
        streams[name] = {key: _short(sum(kind[key] for kind in own.values())) for key in ("share", "sum")} | own
    strides = {stream.name: stream.stride for stream in model.streams}
    attention = []
    for name, layers in looked.attention.items():
        valid = -(-int(looked.lengths[name][0]) // strides[name])
        for layer, weights in layers.items():
            values = _list(weights[runs, 0, :valid].mean(axis=0))
            attention.append(
                {"stream": name, "layer": layer, "hop": _short(strides[name] * hops[name]), "weights": values}
            )
    return {
        "task": explained.task,
        "output": explained.output,
        "runs": len(runs),
        "value": _short(looked.output[runs, 0].mean() + explained.offset),
        "at_mean": _short(looked.at_mean[runs, 0].mean() + explained.offset),
        "sum": _short(sum(part.signed.sum() for part in parts)),
        "seconds": _short(len(samples) / SAMPLING_RATE),
        "level": {"hop": LEVEL_SECONDS, "values": _list(level(samples))},
        "streams": streams,
        "attention": attention,
    }


def _mean(part: Part, runs: Int[np.ndarray, " chosen"]) -> Part:
    """Returns the mean over the runs, of the first utterance."""
    return Part(part.signed[runs, 0].mean(axis=0), part.magnitude[runs, 0].mean(axis=0))


def _totals(part: Part, whole: float) -> dict[str, float]:
    return {"share": _short(part.magnitude / whole), "sum": _short(part.signed.sum())}


def _list(values: Float[np.ndarray, " place"]) -> list[float]:
    return [_short(value) for value in values.tolist()]


def _short(value: Any) -> float:
    return float(f"{float(value):.{_DIGITS}g}")
