"""The heads of transformers, and the dimensional one that is as common.

- `AutoModelForAudioClassification`: the last hidden state, or all of them mixed by softmax weights
  (`use_weighted_layer_sum`); a linear projection of each frame; the mean over frames; a linear output. Whisper's has
  the mean over all 30 s that the encoder reads, silence behind the utterance included.
- `Wav2Vec2ForSpeechClassification`: the last hidden state's mean over frames; a dense layer with tanh; a linear output,
  called `classifier.out_proj` (audeering's dimensional models) or `classifier.output` (ehcalabres').
"""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from sejax.errors import InputError
from sejax.pretrained.base import Backbone, Section
from sejax.pretrained.convert import Checkpoint
from sejax.pretrained.fields import FLAG, WORD, read_fields, whole
from sejax.pretrained.heads.base import Group, Head, check_arrays, config_path, linear, mix, name_labels
from sejax.pretrained.labels import read_labels, read_problem_type

FIELDS = {"use_weighted_layer_sum": FLAG, "classifier_proj_size": whole(1, 1 << 16), "pooling_mode": WORD}
DEFAULTS = {"use_weighted_layer_sum": False, "classifier_proj_size": 256, "pooling_mode": "mean"}  # transformers'
UNTIED_SINCE = (5, 16)
"""The first transformers whose weighted sum of a pre-norm model mixes the last layer's output before the final norm."""
DIMENSIONAL_SCALE = "that of its training, about 0 to 1 in audeering's models"
OTHER_SCALE = "that of its training, which config.json does not say"


@dataclass(frozen=True)
class LinearHead(Head):
    """A linear or a dense head behind the mean over frames; its arrays say which."""

    final_norm: bool
    every_frame: bool  # the mean is over all that the encoder reads

    @property
    def section(self) -> Section:
        return Section(final_norm=self.final_norm)

    def frames(
        self, arrays: Mapping[str, Any], hidden: Float[Array, "layer batch time hidden"]
    ) -> Float[Array, "batch time feature"]:
        x = mix(arrays["layer_weights"], hidden) if "layer_weights" in arrays else hidden[-1]
        return linear(arrays["projector"], x) if "projector" in arrays else x

    def outputs(self, arrays: Mapping[str, Any], pooled: Float[Array, "batch feature"]) -> Float[Array, "batch label"]:
        x = jnp.tanh(linear(arrays["dense"], pooled)) if "dense" in arrays else pooled
        return linear(arrays["output"], x)

    def in_its_context(self, backbone: Backbone) -> Backbone:
        return backbone.in_context("padded") if self.every_frame else backbone

    def pooled_frames(self, backbone: Backbone, samples: Any) -> Any:
        if self.every_frame and backbone.longest is not None:
            samples = samples * 0 + backbone.longest
        return backbone.frames(samples)


def read_head(checkpoint: Checkpoint, config: Mapping[str, Any], problem_type: str | None) -> LinearHead:
    """Returns the head that a checkpoint's config.json and arrays describe.

    Raises:
      InputError: there is no head, it is another than config.json describes, or nothing says what its outputs are.
    """
    path = config_path(checkpoint)
    output = checkpoint.head.get("output", {})
    if "kernel" not in output:
        others = f", besides the encoder are {checkpoint.others}" if checkpoint.others else ""
        raise InputError(
            f"{checkpoint.folder}: has no head (no array called classifier{others}), expected a model fine-tuned for "
            "emotion, not a pretrained one or one of another task"
        )
    labels = read_labels(config, path, output["kernel"].shape[-1] if output["kernel"].ndim else 0)
    _check_head(checkpoint, labels, config)
    found, said_by = read_problem_type(labels, config, path, problem_type)
    scale = DIMENSIONAL_SCALE if "dense" in checkpoint.head else OTHER_SCALE
    return LinearHead(
        groups=(Group(labels, found, said_by, scale),),
        final_norm="layer_weights" not in checkpoint.head or _normalises_last(config, path),
        every_frame="padded" in checkpoint.backbone.CONTEXTS,
    )


def _normalises_last(config: Mapping[str, Any], path: Path) -> bool:
    """Returns whether the last of the mixed hidden states of a pre-norm model is that behind the final norm.

    It was in transformers before 5.16, and is in later versions where `tie_last_hidden_states` is true.
    """
    tied = config.get("tie_last_hidden_states")
    if isinstance(tied, bool):
        return tied
    version = config.get("transformers_version", "4")
    numbers = re.match(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?", version) if isinstance(version, str) else None
    if tied is not None or numbers is None:
        raise InputError(
            f"{path}: transformers_version is {reprlib.repr(version)} and tie_last_hidden_states {reprlib.repr(tied)}, "
            "expected a version such as 4.30.2, or true or false: they say whether the last of the mixed hidden states "
            "is normalised"
        )
    return (int(numbers[1]), int(numbers[2] or 0)) < UNTIED_SINCE


def _check_head(checkpoint: Checkpoint, labels: tuple[str, ...], config: Mapping[str, Any]) -> None:
    """Compares the head's arrays with those that the config describes."""
    path, hidden = config_path(checkpoint), checkpoint.backbone.hidden
    c = read_fields(config, FIELDS, DEFAULTS, path)
    named = config.get("architectures")
    dimensional = isinstance(named, list) and any(str(name).endswith("ForSpeechClassification") for name in named)
    expected: dict[str, tuple[int, ...]] = {}
    if "dense" in checkpoint.head or dimensional:
        if c["pooling_mode"] != "mean":
            raise InputError(f"{path}: pooling_mode is {c['pooling_mode']!r}, expected mean")
        width = hidden
        expected |= {"dense/kernel": (hidden, hidden), "dense/bias": (hidden,)}
    else:
        width = c["classifier_proj_size"]
        expected |= {"projector/kernel": (hidden, width), "projector/bias": (width,)}
        if c["use_weighted_layer_sum"]:
            expected["layer_weights"] = (checkpoint.backbone.layers + 1,)
    expected |= {"output/kernel": (width, len(labels)), "output/bias": (len(labels),)}
    check_arrays(checkpoint, expected, name_labels(labels))
