"""The contract between a kind of head and the module that loads and runs emotion models."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float

from sejax.errors import InputError
from sejax.pretrained.base import WHOLE, Backbone, Section
from sejax.pretrained.convert import NAMED, Checkpoint, not_finite
from sejax.pretrained.labels import PROBLEM_TYPES, dimension

ORDER = ("valence", "arousal", "dominance")
"""The columns of these dimensions come first and in this order, whatever a checkpoint's order is."""


class Group(NamedTuple):
    """Outputs of a head that have a meaning together."""

    labels: tuple[str, ...]
    problem_type: str  # a key of `labels.PROBLEM_TYPES`
    said_by: str  # what says so, a part of a sentence
    scale: str = ""  # of values, a part of a sentence

    @property
    def columns(self) -> tuple[tuple[str, int], ...]:
        """The column names, in their order, and the output that each holds.

        Values of the dimensions of emotion are called `valence`, `arousal` and so on, whatever the checkpoint calls
        them, and are in the order of `ORDER`, others behind them.
        """
        dimensions = [dimension(label) for label in self.labels]
        if self.problem_type != "regression" or None in dimensions or len(set(dimensions)) < len(dimensions):
            return tuple((label, i) for i, label in enumerate(self.labels))
        named = [(str(name), i) for i, name in enumerate(dimensions)]
        return tuple(sorted(named, key=lambda column: (*ORDER, column[0]).index(column[0])))

    @property
    def meaning(self) -> str:
        """What its columns are, a part of a sentence."""
        scale = f"; their scale: {self.scale}" if self.scale and self.problem_type == "regression" else ""
        return f"{PROBLEM_TYPES[self.problem_type]} ({self.said_by}){scale}"


@dataclass(frozen=True)
class Head(ABC):
    """One checkpoint's head, without its arrays. Hashable: programs are compiled for it."""

    TRAINED_SECONDS: ClassVar[tuple[float, float] | None] = None  # the least and the most of training audio

    groups: tuple[Group, ...]  # in the order of the outputs

    @property
    def section(self) -> Section:
        """How the backbone is run."""
        return WHOLE

    @abstractmethod
    def frames(
        self, arrays: Mapping[str, Any], hidden: Float[Array, "layer batch time hidden"]
    ) -> Float[Array, "batch time feature"]:
        """Returns, of all hidden states, the features that are averaged over frames."""

    def weigh(
        self, arrays: Mapping[str, Any], hidden: Float[Array, "layer batch time hidden"]
    ) -> Float[Array, "batch time"]:
        """Returns the logarithm of each frame's weight in the average; by default all are the same."""
        return jnp.zeros(hidden.shape[1:3], hidden.dtype)

    @abstractmethod
    def outputs(self, arrays: Mapping[str, Any], pooled: Float[Array, "batch feature"]) -> Float[Array, "batch label"]:
        """Returns the checkpoint's outputs of averaged features."""

    def in_its_context(self, backbone: Backbone) -> Backbone:
        """Returns the backbone whose frames see what they saw in training."""
        return backbone

    def pooled_frames(self, backbone: Backbone, samples: Any) -> Any:
        """Returns how many frames of an utterance that is read as a whole are averaged, a number or an array."""
        return backbone.frames(samples)

    def rescale(self, samples: Any) -> Any:
        """Returns float32 samples (of numpy or jax) as the checkpoint's recipe scales them, whatever an utterance is.

        The backbone's own normalisation follows.
        """
        return samples


def check_arrays(checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]], described: str) -> None:
    """Compares a head's arrays with those that its config.json describes.

    Args:
      checkpoint: the model.
      expected: the shape of each array, by path.
      described: what the shapes follow from, a part of the sentence.

    Raises:
      InputError: arrays are missing, unexpected, of another shape or no floats (all of them in one sentence), or hold
        NaN.
    """
    arrays = traverse_util.flatten_dict(checkpoint.head, sep="/")
    wrong = [f"{name} is missing" for name in expected if name not in arrays]
    for name, x in arrays.items():
        if name not in expected:
            wrong.append(f"{name} is unexpected")
        elif x.dtype != np.float32:
            wrong.append(f"{name} holds {x.dtype}, expected floats")
        elif x.shape != expected[name]:
            wrong.append(f"{name} is {list(x.shape)}, expected {list(expected[name])}")
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise InputError(
            f"{checkpoint.folder}: its head differs from that expected by its config.json ({described}): "
            f"{'; '.join(wrong[:NAMED])}{more}"
        )
    if infinite := [name for name, x in arrays.items() if not np.isfinite(x).all()]:
        raise not_finite([f"{name} of its head" for name in infinite], checkpoint.folder)


def name_labels(labels: tuple[str, ...]) -> str:
    """Returns the number of labels and the first of them, a part of a sentence."""
    return f"{len(labels)} labels: {', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''}"


def linear(layer: Mapping[str, Any], x: Float[Array, "*batch feature"]) -> Float[Array, "*batch feature_out"]:
    """Returns `x @ kernel + bias`."""
    return x @ layer["kernel"] + layer["bias"].reshape(*[1] * (x.ndim - 1), -1)


def mix(
    weights: Float[Array, " layer"], hidden: Float[Array, "layer batch time hidden"]
) -> Float[Array, "batch time hidden"]:
    """Returns the hidden states' mean, weighted by the softmax of `weights`."""
    return jnp.tensordot(jax.nn.softmax(weights), hidden, axes=1)


def config_path(checkpoint: Checkpoint) -> Path:
    """Returns the path of a checkpoint's config.json, which errors name."""
    return checkpoint.folder / "config.json"
