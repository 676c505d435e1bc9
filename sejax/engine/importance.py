"""Predictions of utterances that have a part of their input from others: what permutation importance compares."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sejax.data.one_length import OneLength
from sejax.data.order import even_batches
from sejax.data.types import Bucket, Data
from sejax.engine.epoch import predict_batch
from sejax.engine.feed import Feed
from sejax.models.joint import JointModel

_MOST_ROWS = 64  # of a fold in a batch


class Part(NamedTuple):
    """A part of what a model reads of an utterance, in one stream."""

    stream: str
    name: str  # "all", "frames", or a group of the statistics
    frames: bool
    statistics: Bool[np.ndarray, " statistic"]  # those that belong to it


def parts_of(model: JointModel, groups: Mapping[str, Sequence[str]]) -> list[Part]:
    """Returns the parts of a model's input: of each stream all, and its frames and groups of statistics where it has
    several of these.

    Args:
      model: that reads them.
      groups: of the statistics of each stream, in words.
    """
    parts = []
    for stream in model.streams:
        named = np.array(groups[stream.name] if model.trunk.statistics else [], str)
        encoded, none = stream.encoder != "none", np.zeros(len(groups[stream.name]), bool)
        own = [Part(stream.name, "frames", True, none)] if encoded else []
        own += [Part(stream.name, name, False, named == name) for name in dict.fromkeys(named.tolist())]
        parts += [Part(stream.name, "all", encoded, none if not len(named) else ~none), *own * (len(own) > 1)]
    return parts


class Permuted(NamedTuple):
    """Predictions of each fold's utterances, first as they are, then part by part, and of a part repeat by repeat."""

    utterance: Int[np.ndarray, "fold column"]  # -1: none
    prob: Float[np.ndarray, "variant run column class"]
    vad: Float[np.ndarray, "variant run column dim"]  # half scales


def predict_permuted(
    feed: Feed, params: Float[Array, "chunk slot parameter"], parts: Sequence[Part], *, split: str, repeats: int
) -> Permuted:
    """Predicts the utterances of a split of each run's fold, with parts of their input exchanged among them.

    All parts, and all runs of a fold, have the same permutations. Frames are padded to one length, so that one
    compiled program serves all; nothing is read of utterances outside of the split.

    Args:
      feed: of the runs.
      params: on the devices, `[chunk, slot, ...]`.
      parts: of the model's input.
      split: "val".
      repeats: permutations of each part.
    """
    program, layout, reader = feed.program, feed.layout, OneLength(feed.program.data)
    utterance = _front(program.columns[split])
    partners = [_permuted(utterance, repeat) for repeat in range(repeats)]
    size = _batch_size(reader, utterance.shape)
    model, per_run = program.network.model, np.arange(size, dtype=np.int32)
    rows = feed.put_runs(feed.placed.fold[..., None].astype(np.int32) * size + per_run)

    def read(taken: Int[np.ndarray, "fold row"], streams: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns frames with their numbers, and statistics, of the rows of all folds."""
        flat = np.maximum(taken, 0).ravel()
        frames = {name: reader.frames(name, flat) for name in streams if name in reader.encoded}
        return frames, {name: reader.statistics(name, flat) for name in streams}

    def predict(frames: Mapping[str, Any], statistics: Mapping[str, Any]) -> Any:
        n = len(utterance) * size
        targets = (
            np.zeros((n, program.data.target.shape[1]), np.float32),
            np.zeros((n, program.data.vad.shape[1]), np.float32),
        )
        data = Data((), {name: x[:, None] for name, x in statistics.items()}, *targets)
        bucket = Bucket(
            np.arange(n, dtype=np.int32),
            {name: x[:, None] for name, (x, _) in frames.items()},
            {name: length[:, None] for name, (_, length) in frames.items()},
        )
        data, bucket = feed.replicate((data, bucket))
        shared = feed.shared._replace(data=data)
        return predict_batch(params, feed.chunk.runs, shared, bucket, rows, model=model, leaves=feed.leaves)

    batches = []
    for begin in range(0, utterance.shape[1], size):
        cut = slice(begin, begin + size)
        frames, statistics = read(_filled(utterance[:, cut], size), list(program.data.statistics))
        outputs = [predict(frames, statistics)]
        for part in parts:
            for partner in partners:
                other_frames, other = read(_filled(partner[:, cut], size), [part.stream])
                exchanged = np.where(part.statistics[None], other[part.stream], statistics[part.stream])
                of_frames = {**frames, **(other_frames if part.frames else {})}
                outputs.append(predict(of_frames, {**statistics, part.stream: exchanged}))
        batches.append(layout.collect(outputs))
    prob, vad = (
        np.stack(
            [np.concatenate([batch[variant][kind] for batch in batches], axis=1) for variant in range(len(outputs))]
        )
        for kind in (0, 1)
    )
    width = utterance.shape[1]
    return Permuted(utterance, prob[:, :, :width], vad[:, :, :width])


def _front(columns: Int[np.ndarray, "fold column"]) -> Int[np.ndarray, "fold _kept"]:
    """Returns the utterances of each fold without gaps, -1 behind them."""
    ordered = [np.sort(column[column >= 0]) for column in columns]
    found = np.full((len(columns), max(map(len, ordered))), -1)
    for fold, utterances in enumerate(ordered):
        found[fold, : len(utterances)] = utterances
    return found


def _permuted(utterance: Int[np.ndarray, "fold column"], repeat: int) -> Int[np.ndarray, "fold column"]:
    """Returns the utterances of each fold in another order."""
    found = utterance.copy()
    for fold, own in enumerate(utterance):
        there = own >= 0
        found[fold, there] = np.random.default_rng((repeat, fold)).permutation(own[there])
    return found


def _filled(utterance: Int[np.ndarray, "fold column"], size: int) -> Int[np.ndarray, "fold row"]:
    """Returns so many columns, -1 in those that are added."""
    return np.pad(utterance, ((0, 0), (0, size - utterance.shape[1])), constant_values=-1)


def _batch_size(reader: OneLength, shape: tuple[int, int]) -> int:
    """Returns how many utterances of each fold are predicted at once, in batches of about equal size."""
    folds, columns = shape
    frames = reader.data.buckets[0].frames
    per_row = sum(math.prod(reader.shape(name)) * frames[name].dtype.itemsize for name in reader.encoded)
    return even_batches(columns, folds * per_row, _MOST_ROWS)[1]
