"""The arrays of a corpus: streams, buckets, orders and batches."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

AnyArray = Any
"""A numpy array while it is built on the host, a jax array on the device."""


class Scale(NamedTuple):
    """The normalisation of one stream in one run, from its training speakers: (x - mean) * inverse."""

    mean: Float[AnyArray, " feature"]
    inverse: Float[AnyArray, " feature"]


class Batch(NamedTuple):
    """Utterances of one length bucket as they are stored: not normalised, the same for all runs."""

    utterance: Int[AnyArray, " batch"]  # row in the corpus
    frames: dict[str, Num[AnyArray, "batch _time _feature"]]  # raw audio: int16, one sample per frame
    lengths: dict[str, Int[AnyArray, " batch"]]  # valid frames
    statistics: dict[str, Float[AnyArray, "batch _statistic"]]
    target: Float[AnyArray, "batch class"]  # one-hot, or the raters' distribution; all 0 where there is no label
    vad: Float[AnyArray, "batch dim"]  # -1 to 1 over the corpus's scale, NaN where missing


class Bucket(NamedTuple):
    """Utterances of similar length. `view` counts the augmented copies of an utterance; view 0 is the original."""

    utterance: Int[AnyArray, " row"]  # row in the corpus
    frames: dict[str, Num[AnyArray, "row view _time _feature"]]  # of the encoded streams; `Padded` until they are read
    lengths: dict[str, Int[AnyArray, "row view"]]  # valid frames


class Data(NamedTuple):
    """A corpus, shared by all runs."""

    buckets: tuple[Bucket, ...]
    statistics: dict[str, Float[AnyArray, "utterance view _statistic"]]
    target: Float[AnyArray, "utterance class"]
    vad: Float[AnyArray, "utterance dim"]


class Order(NamedTuple):
    """The batches of one epoch. There are several orders; each round takes some steps on every bucket in turn.

    An order takes the first `taken` of the steps that there is room for. Where all orders take as many, they share one
    count.
    """

    rows: tuple[Int[AnyArray, "order round _step batch"], ...]  # per bucket, rows of that bucket
    view: tuple[Int[AnyArray, "order round _step batch"], ...]
    taken: tuple[Int[AnyArray, "*order_or_none round"], ...]  # per bucket

    @property
    def first(self) -> tuple[Int[np.ndarray, "*order_or_none round"], ...]:
        """The number in the epoch of the first step of each round, per bucket."""
        counts = np.stack(self.taken, axis=-1)
        flat = counts.reshape(*counts.shape[:-2], -1)
        first = (np.cumsum(flat, axis=-1) - flat).reshape(counts.shape).astype(np.int32)
        return tuple(first[..., bucket] for bucket in range(len(self.taken)))


class Stream(NamedTuple):
    """One stream of a corpus on the host: the frames and statistics of each view and utterance.

    Float32; float16 for hidden states of pretrained models; int16 for raw audio, which has one sample per frame and no
    statistics. An utterance has 0 frames where statistics alone are kept.
    """

    frames: list[list[Num[AnyArray, "_frames _feature"]]]  # [view][utterance], arrays or `Stored`
    statistics: Float[np.ndarray, "utterance view statistic"]
