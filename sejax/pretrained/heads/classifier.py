"""Loads and runs published emotion models, whatever their kind of head."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from sejax.corpora.schema import SAMPLING_RATE
from sejax.nn.layers import mask_frames
from sejax.pretrained.base import Backbone
from sejax.pretrained.convert import Checkpoint, load_checkpoint
from sejax.pretrained.extract import padded_length, plan_windows
from sejax.pretrained.heads import linear, odyssey, vox_profile
from sejax.pretrained.heads.base import Head, config_path
from sejax.pretrained.hub import read_json

WINDOW_SECONDS = 58.0
"""Longer audio is read in windows; no more than the twenty-second of the lengths that audio is padded to."""
WRAPPERS = {odyssey.WRAPPER: odyssey.read_head, vox_profile.WRAPPER: vox_profile.read_head}
"""The kinds of checkpoints beside those of transformers, and how the head of each is read."""


@dataclass(frozen=True)
class Classifier:
    """An emotion model: its checkpoint (arrays on the device), and the meaning of its outputs."""

    checkpoint: Checkpoint
    head: Head

    @property
    def columns(self) -> tuple[tuple[str, int], ...]:
        """The name of each column of `Scores.values`, and the output of the checkpoint that it is made of."""
        columns: list[tuple[str, int]] = []
        for group in self.head.groups:
            before = len(columns)
            columns += [(name, before + i) for name, i in group.columns]
        return tuple(columns)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name for name, _ in self.columns)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences: what is unusual about the checkpoint, and what its columns are."""
        groups = self.head.groups
        if len(groups) == 1:
            return (*self.checkpoint.notes, f"columns are {groups[0].meaning}")
        named = [f"columns {g.columns[0][0]} to {g.columns[-1][0]} are {g.meaning}" for g in groups]
        return (*self.checkpoint.notes, *named)

    @property
    def window_seconds(self) -> float:
        """Longer audio is read in windows of this length."""
        longest = self.checkpoint.backbone.longest
        return WINDOW_SECONDS if longest is None else min(WINDOW_SECONDS, longest / SAMPLING_RATE)


class Scores(NamedTuple):
    """The outputs of a head for each utterance."""

    values: Float[Array, "batch column"]  # probabilities of classes, values of dimensions: see `Classifier.columns`
    logits: Float[Array, "batch label"]  # the checkpoint's own outputs, in its order
    pooled: Float[Array, "batch feature"]  # the mean over frames that the head's last part sees


class Pool(NamedTuple):
    """Sums over frames. A frame whose weight is exp(w) counts exp(w - shift), which keeps them finite."""

    shift: Float[Array, " batch"]
    weight: Float[Array, " batch"]
    total: Float[Array, "batch feature"]


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
    checkpoint = load_checkpoint(source, revision=revision, wrappers=tuple(WRAPPERS))
    config = read_json(config_path(checkpoint))
    readers = [reader for wrapper, reader in WRAPPERS.items() if wrapper.holds(config)]
    head = (*readers, linear.read_head)[0](checkpoint, config, problem_type)
    arrays, params = jax.device_put((checkpoint.head, checkpoint.params))
    backbone = head.in_its_context(checkpoint.backbone)
    return Classifier(replace(checkpoint, backbone=backbone, head=arrays, params=params), head)


def classify(classifier: Classifier, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"]) -> Scores:
    """Computes the outputs of a batch of utterances, each as a whole. Padding changes no utterance's outputs.

    Args:
      classifier: the model.
      waveform: samples at 16 kHz, as recorded.
      lengths: valid samples, at least `Backbone.window`.
    """
    backbone, head = classifier.checkpoint.backbone, classifier.head
    prepared = _prepare(head.rescale(waveform), lengths, backbone=backbone)
    kept = jnp.stack([jnp.zeros_like(lengths), head.pooled_frames(backbone, lengths)], axis=1)
    return _score(classifier, _pool(classifier, prepared, lengths, kept))


def classify_utterance(classifier: Classifier, samples: Float32[np.ndarray, " samples"]) -> Scores:
    """Computes the outputs of one utterance of any length, as a batch of one.

    Audio longer than `Classifier.window_seconds` is cut into overlapping windows (`extract.plan_windows`), which bounds
    the memory; the mean is over the frames of all windows.

    Args:
      classifier: the model.
      samples: at 16 kHz, as recorded, at least `Backbone.window` of them.
    """
    backbone, head = classifier.checkpoint.backbone, classifier.head
    prepared = backbone.prepare_utterance(head.rescale(samples))
    windows = plan_windows(len(samples), backbone, int(classifier.window_seconds * SAMPLING_RATE))
    if len(windows) == 1:
        windows = [windows[0]._replace(last=int(head.pooled_frames(backbone, len(samples))))]
    pools = []
    for start, stop, first, last in windows:
        padded = np.zeros((1, padded_length(max(stop - start, backbone.least))), np.float32)
        padded[0, : stop - start] = prepared[start:stop]
        lengths, kept = jnp.asarray([stop - start], jnp.int32), jnp.asarray([[first, last]], jnp.int32)
        pools.append(_pool(classifier, jnp.asarray(padded), lengths, kept))
    return _score(classifier, reduce(_join, pools))


@partial(jax.jit, static_argnames=("backbone",))
def _prepare(
    waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"], *, backbone: Backbone
) -> Float[Array, "batch samples"]:
    return backbone.prepare(waveform, lengths)


def _pool(
    classifier: Classifier,
    waveform: Float[Array, "batch samples"],
    lengths: Int[Array, " batch"],
    kept: Int[Array, "batch 2"],
) -> Pool:
    checkpoint = classifier.checkpoint
    return _pooled(
        checkpoint.params,
        checkpoint.head,
        waveform,
        lengths,
        kept,
        backbone=checkpoint.backbone,
        head=classifier.head,
    )


def _score(classifier: Classifier, pool: Pool) -> Scores:
    order = tuple(i for _, i in classifier.columns)
    return _scored(classifier.checkpoint.head, pool, head=classifier.head, order=order)


def _join(one: Pool, other: Pool) -> Pool:
    """Returns the sums over the frames of both."""
    shift = jnp.maximum(one.shift, other.shift)
    of_one, of_other = jnp.exp(one.shift - shift), jnp.exp(other.shift - shift)
    weight = of_one * one.weight + of_other * other.weight
    return Pool(shift, weight, of_one[:, None] * one.total + of_other[:, None] * other.total)


@partial(jax.jit, static_argnames=("backbone", "head"))
def _pooled(
    params: Any,
    arrays: Any,
    waveform: Float[Array, "batch samples"],
    lengths: Int[Array, " batch"],
    kept: Int[Array, "batch 2"],
    *,
    backbone: Backbone,
    head: Head,
) -> Pool:
    """Returns the sums over the kept frames of what the head pools."""
    output: Any = backbone.module(head.section).apply({"params": params}, waveform, lengths)
    x, logits = head.frames(arrays, output.hidden), head.weigh(arrays, output.hidden)
    time = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    mask = (time >= kept[:, :1]) & (time < kept[:, 1:])
    shift = jnp.where(mask, logits, jnp.finfo(logits.dtype).min).max(axis=1)
    weights = jnp.where(mask, jnp.exp(logits - shift[:, None]), 0.0)
    return Pool(shift, weights.sum(axis=1), mask_frames(weights[..., None] * x, mask).sum(axis=1))


@partial(jax.jit, static_argnames=("head", "order"))
def _scored(arrays: Mapping[str, Any], pool: Pool, *, head: Head, order: tuple[int, ...]) -> Scores:
    """Returns what the part of a head behind the pooling makes of the sums over frames."""
    least = jnp.finfo(pool.weight.dtype).tiny
    pooled = pool.total / jnp.maximum(pool.weight, least)[:, None]
    logits = head.outputs(arrays, pooled)
    activations = {
        "regression": lambda x: x,
        "single_label_classification": jax.nn.softmax,
        "multi_label_classification": jax.nn.sigmoid,
    }
    values, first = [], 0
    for group in head.groups:
        last = first + len(group.labels)
        values.append(activations[group.problem_type](logits[:, first:last]))
        first = last
    return Scores(jnp.concatenate(values, axis=1)[:, np.array(order)], logits, pooled)
