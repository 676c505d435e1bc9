"""Published emotion models: a checkpoint and the head with which it was fine-tuned.

Two layouts are supported, distinguished by the arrays of the head:
- `AutoModelForAudioClassification`: the last hidden state, or all of them mixed by softmax weights
  (`use_weighted_layer_sum`); a linear projection of each frame; the mean over frames; a linear output.
- Dimensional models (`Wav2Vec2ForSpeechClassification`): the last hidden state's mean over frames; a dense layer with
  tanh; a linear output. Arousal, dominance and valence are about 0 to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float, Int

from sejax.corpora.schema import DIMENSIONS
from sejax.errors import InputError
from sejax.nn.layers import mask_frames
from sejax.pretrained.base import Backbone, Output
from sejax.pretrained.convert import Checkpoint, load_checkpoint, read_labels
from sejax.pretrained.hub import read_json

PROJECTED = 256  # transformers' default of `classifier_proj_size`


@dataclass(frozen=True)
class Classifier:
    """An emotion model: its checkpoint (arrays on the device), and the meaning of its outputs."""

    checkpoint: Checkpoint
    labels: tuple[str, ...]
    kind: str  # "classification": the labels exclude each other; "regression": each has a value


class Scores(NamedTuple):
    """The outputs of a head for each utterance."""

    values: Float[Array, "batch label"]  # probabilities of a classification, values of a regression
    logits: Float[Array, "batch label"]
    pooled: Float[Array, "batch feature"]  # the mean over frames that the head's last part sees


def load_classifier(source: str, *, revision: str = "main") -> Classifier:
    """Loads an emotion model in Hugging Face's layout: a local folder, or a hub id.

    Raises:
      InputError: what `load_checkpoint` refuses; the checkpoint has no head, or another one than its config.json
        describes (all differences in one sentence); or its outputs are neither classes nor values.
    """
    checkpoint = load_checkpoint(source, revision=revision)
    path = checkpoint.folder / "config.json"
    config = read_json(path)
    if not checkpoint.head:
        raise InputError(
            f"{checkpoint.folder}: has no head (no array called classifier), expected a model fine-tuned for emotion, "
            "not a pretrained one"
        )
    labels = read_labels(checkpoint.folder)
    if not labels:
        raise InputError(f"{path}: has no id2label, expected the names of the head's outputs")
    _check_head(checkpoint, labels, config)
    head, params = jax.device_put((checkpoint.head, checkpoint.params))
    return Classifier(replace(checkpoint, head=head, params=params), labels, _kind(labels, config, str(path)))


def classify(classifier: Classifier, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"]) -> Scores:
    """Computes the outputs of a batch. Padding changes no utterance's outputs.

    Args:
      classifier: the model.
      waveform: samples at 16 kHz, as recorded.
      lengths: valid samples, at least `Backbone.window`.
    """
    checkpoint = classifier.checkpoint
    return _forward(
        checkpoint.params, checkpoint.head, waveform, lengths, backbone=checkpoint.backbone, kind=classifier.kind
    )


@partial(jax.jit, static_argnames=("backbone", "kind"))
def _forward(
    params: Any,
    head: Any,
    waveform: Float[Array, "batch samples"],
    lengths: Int[Array, " batch"],
    *,
    backbone: Backbone,
    kind: str,
) -> Scores:
    output: Any = backbone.module().apply({"params": params}, backbone.prepare(waveform, lengths), lengths)
    pooled, logits = _apply_head(head, output)
    return Scores(jax.nn.softmax(logits) if kind == "classification" else logits, logits, pooled)


def _apply_head(
    head: Mapping[str, Any], output: Output
) -> tuple[Float[Array, "batch feature"], Float[Array, "batch label"]]:
    """Returns the pooled features and the logits, in either layout."""
    if "layer_weights" in head:
        x = jnp.tensordot(jax.nn.softmax(head["layer_weights"]), output.hidden, axes=1)
    else:
        x = output.hidden[-1]
    if "projector" in head:
        x = _linear(head["projector"], x)
    count = jnp.maximum(output.mask.sum(axis=1, dtype=x.dtype), 1.0)[:, None]
    pooled = mask_frames(x, output.mask).sum(axis=1) / count
    x = jnp.tanh(_linear(head["dense"], pooled)) if "dense" in head else pooled
    return pooled, _linear(head["output"], x)


def _linear(layer: Mapping[str, Any], x: Float[Array, "*batch feature"]) -> Float[Array, "*batch feature_out"]:
    return x @ layer["kernel"] + layer["bias"].reshape(*[1] * (x.ndim - 1), -1)


def _check_head(checkpoint: Checkpoint, labels: tuple[str, ...], config: Mapping[str, Any]) -> None:
    """Compares the head's arrays with those that the config describes."""
    hidden = checkpoint.backbone.hidden
    shapes = {path: x.shape for path, x in traverse_util.flatten_dict(checkpoint.head, sep="/").items()}
    named = config.get("architectures") or ()
    expected: dict[str, tuple[int, ...]] = {}
    if "dense" in checkpoint.head or any(str(name).endswith("ForSpeechClassification") for name in named):
        if (pooling := config.get("pooling_mode", "mean")) != "mean":
            raise InputError(f"{checkpoint.folder / 'config.json'}: pooling_mode is {pooling!r}, expected mean")
        width = hidden
        expected |= {"dense/kernel": (hidden, hidden), "dense/bias": (hidden,)}
    else:
        width = config.get("classifier_proj_size", PROJECTED)
        expected |= {"projector/kernel": (hidden, width), "projector/bias": (width,)}
        if config.get("use_weighted_layer_sum", False):
            expected["layer_weights"] = (checkpoint.backbone.layers + 1,)
    expected |= {"output/kernel": (width, len(labels)), "output/bias": (len(labels),)}
    wrong = [f"{name} is missing" for name in expected if name not in shapes]
    for name, shape in shapes.items():
        if name not in expected:
            wrong.append(f"{name} is unexpected")
        elif shape != expected[name]:
            wrong.append(f"{name} is {list(shape)}, expected {list(expected[name])}")
    if wrong:
        raise InputError(
            f"{checkpoint.folder}: its head is not that of its config.json ({len(labels)} labels: "
            f"{', '.join(labels)}): {'; '.join(wrong)}"
        )


def _kind(labels: tuple[str, ...], config: Mapping[str, Any], path: str) -> str:
    """Returns whether the outputs are classes or values, by their names if the config does not say."""
    problem = config.get("problem_type")
    if problem is None:
        values = len(labels) == 1 or {label.lower() for label in labels} <= set(DIMENSIONS)
        return "regression" if values else "classification"
    kinds = {"regression": "regression", "single_label_classification": "classification"}
    if problem not in kinds:
        raise InputError(f"{path}: problem_type is {problem!r}, expected one of {', '.join(kinds)}")
    return kinds[problem]
