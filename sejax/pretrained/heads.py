"""Published emotion models: a checkpoint and the head with which it was fine-tuned.

Two layouts are supported, distinguished by the arrays of the head:
- `AutoModelForAudioClassification`: the last hidden state, or all of them mixed by softmax weights
  (`use_weighted_layer_sum`); a linear projection of each frame; the mean over frames; a linear output.
- Dimensional models (`Wav2Vec2ForSpeechClassification`): the last hidden state's mean over frames; a dense layer with
  tanh; a linear output. Arousal, dominance and valence are about 0 to 1.
"""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float, Float32, Int

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.nn.layers import mask_frames
from sejax.pretrained.base import WHOLE, Backbone, Section
from sejax.pretrained.convert import Checkpoint, load_checkpoint, not_finite
from sejax.pretrained.extract import padded_length, plan_windows
from sejax.pretrained.fields import FLAG, WORD, read_fields, whole
from sejax.pretrained.hub import read_json
from sejax.pretrained.labels import PROBLEM_TYPES, read_labels, read_problem_type

FIELDS = {"use_weighted_layer_sum": FLAG, "classifier_proj_size": whole(1, 1 << 16), "pooling_mode": WORD}
DEFAULTS = {"use_weighted_layer_sum": False, "classifier_proj_size": 256, "pooling_mode": "mean"}  # transformers'
UNTIED_SINCE = (5, 16)
"""The first transformers whose weighted sum of a pre-norm model mixes the last layer's output before the final norm."""
WINDOW_SECONDS = 58.0
"""Longer audio is read in windows; no more than the twenty-second of the lengths that audio is padded to."""


@dataclass(frozen=True)
class Classifier:
    """An emotion model: its checkpoint (arrays on the device), and the meaning of its outputs."""

    checkpoint: Checkpoint
    labels: tuple[str, ...]
    problem_type: str  # a key of `labels.PROBLEM_TYPES`
    notes: tuple[str, ...] = ()  # sentences: what the outputs are, and what is unusual about the checkpoint
    section: Section = WHOLE  # how the backbone is run


class Scores(NamedTuple):
    """The outputs of a head for each utterance."""

    values: Float[Array, "batch label"]  # probabilities of a classification, values of a regression
    logits: Float[Array, "batch label"]
    pooled: Float[Array, "batch feature"]  # the mean over frames that the head's last part sees


def load_classifier(source: str, *, revision: str = "main", problem_type: str | None = None) -> Classifier:
    """Loads an emotion model in Hugging Face's layout: a local folder, or a hub id.

    Args:
      source: the folder or the hub id.
      revision: branch, tag or commit on the hub.
      problem_type: what the outputs are, a key of `labels.PROBLEM_TYPES`; None: as the checkpoint says.

    Raises:
      InputError: what `load_checkpoint` refuses; the checkpoint has no head, or another one than its config.json
        describes (all differences in one sentence); or nothing says whether its outputs are classes or values.
    """
    checkpoint = load_checkpoint(source, revision=revision)
    path = checkpoint.folder / "config.json"
    config = read_json(path)
    output = checkpoint.head.get("output", {})
    if "kernel" not in output:
        others = f", besides the encoder are {checkpoint.others}" if checkpoint.others else ""
        raise InputError(
            f"{checkpoint.folder}: has no head (no array called classifier{others}), expected a model fine-tuned for "
            "emotion, not a pretrained one or one of another task"
        )
    labels = read_labels(config, path, output["kernel"].shape[-1] if output["kernel"].ndim else 0)
    c = read_fields(config, FIELDS, DEFAULTS, path)
    _check_head(checkpoint, labels, config, c)
    found, source_of_it = read_problem_type(labels, config, path, problem_type)
    notes = (*checkpoint.notes, f"columns are {PROBLEM_TYPES[found]} ({source_of_it})")
    section = Section(final_norm="layer_weights" not in checkpoint.head or _normalises_last(config, path))
    head, params = jax.device_put((checkpoint.head, checkpoint.params))
    return Classifier(replace(checkpoint, head=head, params=params), labels, found, notes, section)


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


def classify(classifier: Classifier, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"]) -> Scores:
    """Computes the outputs of a batch of utterances, each as a whole. Padding changes no utterance's outputs.

    Args:
      classifier: the model.
      waveform: samples at 16 kHz, as recorded.
      lengths: valid samples, at least `Backbone.window`.
    """
    prepared = _prepare(waveform, lengths, backbone=classifier.checkpoint.backbone)
    kept = jnp.stack([jnp.zeros_like(lengths), jnp.full_like(lengths, waveform.shape[1])], axis=1)
    return _score_frames(classifier, *_sum_frames(classifier, prepared, lengths, kept))


def classify_utterance(classifier: Classifier, samples: Float32[np.ndarray, " samples"]) -> Scores:
    """Computes the outputs of one utterance of any length, as a batch of one.

    Audio longer than `WINDOW_SECONDS` is cut into overlapping windows (`extract.plan_windows`), which bounds the
    memory; the mean is over the frames of all windows.

    Args:
      classifier: the model.
      samples: at 16 kHz, as recorded, at least `Backbone.window` of them.
    """
    backbone = classifier.checkpoint.backbone
    prepared = backbone.prepare_utterance(samples)
    total, count = jnp.zeros(()), jnp.zeros(())
    for start, stop, first, last in plan_windows(len(samples), backbone, int(WINDOW_SECONDS * SAMPLING_RATE)):
        padded = np.zeros((1, padded_length(stop - start)), np.float32)
        padded[0, : stop - start] = prepared[start:stop]
        lengths, kept = jnp.asarray([stop - start], jnp.int32), jnp.asarray([[first, last]], jnp.int32)
        frames = _sum_frames(classifier, jnp.asarray(padded), lengths, kept)
        total, count = total + frames[0], count + frames[1]
    return _score_frames(classifier, total, count)


@partial(jax.jit, static_argnames=("backbone",))
def _prepare(
    waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"], *, backbone: Backbone
) -> Float[Array, "batch samples"]:
    return backbone.prepare(waveform, lengths)


def _sum_frames(
    classifier: Classifier,
    waveform: Float[Array, "batch samples"],
    lengths: Int[Array, " batch"],
    kept: Int[Array, "batch 2"],
) -> tuple[Float[Array, "batch feature"], Float[Array, " batch"]]:
    checkpoint = classifier.checkpoint
    return _summed(
        checkpoint.params,
        checkpoint.head,
        waveform,
        lengths,
        kept,
        backbone=checkpoint.backbone,
        section=classifier.section,
    )


def _score_frames(
    classifier: Classifier, total: Float[Array, "batch feature"], count: Float[Array, " batch"]
) -> Scores:
    return _scored(classifier.checkpoint.head, total, count, problem_type=classifier.problem_type)


@partial(jax.jit, static_argnames=("backbone", "section"))
def _summed(
    params: Any,
    head: Any,
    waveform: Float[Array, "batch samples"],
    lengths: Int[Array, " batch"],
    kept: Int[Array, "batch 2"],
    *,
    backbone: Backbone,
    section: Section,
) -> tuple[Float[Array, "batch feature"], Float[Array, " batch"]]:
    """Returns the sum over the kept frames of what the head pools, and their number."""
    output: Any = backbone.module(section).apply({"params": params}, waveform, lengths)
    if "layer_weights" in head:
        x = jnp.tensordot(jax.nn.softmax(head["layer_weights"]), output.hidden, axes=1)
    else:
        x = output.hidden[-1]
    if "projector" in head:
        x = _linear(head["projector"], x)
    time = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    mask = output.mask & (time >= kept[:, :1]) & (time < kept[:, 1:])
    return mask_frames(x, mask).sum(axis=1), mask.sum(axis=1, dtype=x.dtype)


@partial(jax.jit, static_argnames=("problem_type",))
def _scored(
    head: Mapping[str, Any],
    total: Float[Array, "batch feature"],
    count: Float[Array, " batch"],
    *,
    problem_type: str,
) -> Scores:
    """Returns what the part of a head behind the pooling makes of the sum over frames and their number."""
    pooled = total / jnp.maximum(count, 1.0)[:, None]
    x = jnp.tanh(_linear(head["dense"], pooled)) if "dense" in head else pooled
    logits = _linear(head["output"], x)
    values = {
        "regression": lambda x: x,
        "single_label_classification": jax.nn.softmax,
        "multi_label_classification": jax.nn.sigmoid,
    }
    return Scores(values[problem_type](logits), logits, pooled)


def _linear(layer: Mapping[str, Any], x: Float[Array, "*batch feature"]) -> Float[Array, "*batch feature_out"]:
    return x @ layer["kernel"] + layer["bias"].reshape(*[1] * (x.ndim - 1), -1)


def _check_head(
    checkpoint: Checkpoint, labels: tuple[str, ...], config: Mapping[str, Any], c: Mapping[str, Any]
) -> None:
    """Compares the head's arrays with those that the config describes.

    Args:
      checkpoint: the model.
      labels: the names of its outputs.
      config: the content of its config.json.
      c: its checked fields.
    """
    hidden = checkpoint.backbone.hidden
    arrays = traverse_util.flatten_dict(checkpoint.head, sep="/")
    named = config.get("architectures")
    dimensional = isinstance(named, list) and any(str(name).endswith("ForSpeechClassification") for name in named)
    expected: dict[str, tuple[int, ...]] = {}
    if "dense" in checkpoint.head or dimensional:
        if c["pooling_mode"] != "mean":
            raise InputError(
                f"{checkpoint.folder / 'config.json'}: pooling_mode is {c['pooling_mode']!r}, expected mean"
            )
        width = hidden
        expected |= {"dense/kernel": (hidden, hidden), "dense/bias": (hidden,)}
    else:
        width = c["classifier_proj_size"]
        expected |= {"projector/kernel": (hidden, width), "projector/bias": (width,)}
        if c["use_weighted_layer_sum"]:
            expected["layer_weights"] = (checkpoint.backbone.layers + 1,)
    expected |= {"output/kernel": (width, len(labels)), "output/bias": (len(labels),)}
    wrong = [f"{name} is missing" for name in expected if name not in arrays]
    infinite = [name for name, x in arrays.items() if x.dtype == np.float32 and not np.isfinite(x).all()]
    for name, x in arrays.items():
        if name not in expected:
            wrong.append(f"{name} is unexpected")
        elif x.dtype != np.float32:
            wrong.append(f"{name} holds {x.dtype}, expected floats")
        elif x.shape != expected[name]:
            wrong.append(f"{name} is {list(x.shape)}, expected {list(expected[name])}")
    if wrong:
        few = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
        raise InputError(
            f"{checkpoint.folder}: its head differs from that expected by its config.json ({len(labels)} labels: "
            f"{few}): {'; '.join(wrong)}"
        )
    if infinite:
        raise not_finite([f"{name} of its head" for name in infinite], checkpoint.folder)
