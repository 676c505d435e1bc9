"""How the streams that a model reads are made from audio: what prediction has to do as training did."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from sejax.data.buckets import rounded
from sejax.features.registry import FEATURES
from sejax.features.settings import Setting
from sejax.pretrained.base import Backbone

VECTORS = "vectors"
"""What a stream reads that is of a feature file: it cannot be made from audio."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One stream of a model."""

    feature: str  # a key of `sejax.data.compute.CONTENTS`, or `VECTORS`
    settings: Mapping[str, Setting]  # complete
    limit: int | None  # frames that are kept, from the first; None: all
    dtype: str  # of the frames that the model reads
    statistics: tuple[int, int] | None = None  # the part of the statistics that is read; None: all

    def read_frames(self, frames: Num[np.ndarray, "_time feature"]) -> Num[np.ndarray, "_kept feature"]:
        """Returns an utterance's frames as a bucket holds them, without padding."""
        return rounded(frames[: self.limit], jnp.dtype(self.dtype))

    def read_statistics(self, statistics: Float[np.ndarray, " _statistic"]) -> Float[np.ndarray, " _read"]:
        """Returns the statistics of an utterance that the model reads."""
        return statistics[slice(*self.statistics)] if self.statistics else statistics

    def hop_length(self, backbone: Backbone | None) -> int:
        """Returns the samples at 16 kHz from one frame to the next.

        Args:
          backbone: of a pretrained stream.
        """
        if self.feature == "raw":
            return 1
        return int(self.settings["hop_length"]) if backbone is None else backbone.hop_length

    def statistic_groups(self, size: int, backbone: Backbone | None) -> list[str]:
        """Returns the group of each of `size` statistics, in words; a feature that names none has one, `statistics`.

        Those of a pretrained model are grouped by layer, or by mean and deviation where they are of one layer.

        Args:
          size: the number of statistics that the model reads.
          backbone: of a pretrained stream.
        """
        if backbone is not None:
            states = size // (2 * backbone.hidden)
            kinds = ["mean"] * backbone.hidden + ["deviation"] * backbone.hidden
            return kinds if states == 1 else [f"layer {state}" for state in range(states) for _ in kinds]
        named = None if self.feature == VECTORS else FEATURES[self.feature].groups
        return ["statistics"] * size if named is None else list(named(self.settings))

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> "Input":
        """Returns the input that `dataclasses.asdict` described."""
        statistics = tree["statistics"]
        return Input(**{**tree, "statistics": tuple(statistics) if statistics else None})
