"""The joint model: parallel streams, attention within and between them, one fused representation, two heads."""

from collections.abc import Mapping
from itertools import permutations
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sejax.models.attention import AttentivePooling, Block, CoAttention
from sejax.models.encoders import ENCODERS
from sejax.models.heads import Heads
from sejax.models.layers import Dropout


class StreamSpec(NamedTuple):
    """How one stream is encoded. `encoder` is a key of `ENCODERS`, or "none": its statistics alone are used."""

    name: str
    encoder: str
    layers: int
    stride: int


class Rates(NamedTuple):
    """Dropout rates, possibly traced: within the network, and on the statistics that enter the fusion."""

    hidden: Float[Array, ""]
    statistics: Float[Array, ""]


class Trunk(nn.Module):
    """Streams to the fused representation `[batch, fused]`.

    Per stream: encoder, self-attention, then co-attention over every other stream (each ordered pair has its
    own; what a stream finds is added to it), attentive pooling. Beside it the stream's statistics (means,
    deviations and percentiles of frames and deltas, normalised) go straight to the fusion: on a few hundred
    utterances they carry most of what can be learned.
    """

    streams: tuple[StreamSpec, ...]
    width: int
    fused: int
    heads: int
    self_attention: bool
    co_attention: bool
    statistics: bool

    @nn.compact
    def __call__(
        self,
        frames: Mapping[str, Float[Array, "batch _time _feature"]],
        masks: Mapping[str, Bool[Array, "batch _time"]],
        statistics: Mapping[str, Float[Array, "batch _statistic"]],
        rates: Rates,
    ) -> Float[Array, "batch {self.fused}"]:
        encoded, valid = {}, {}
        for stream in self.streams:
            if stream.encoder == "none":
                continue
            encoder = ENCODERS[stream.encoder](self.width, stream.layers, stream.stride, name=f"{stream.name}_encoder")
            x, mask = encoder(frames[stream.name], masks[stream.name], rates.hidden)
            if self.self_attention:
                x = Block(self.width, self.heads, name=f"{stream.name}_self")(x, mask, rates.hidden)
            encoded[stream.name], valid[stream.name] = x, mask

        informed = dict(encoded)
        if self.co_attention:
            for name, other in permutations(encoded, 2):
                block = CoAttention(self.width, self.heads, name=f"{name}_over_{other}")
                found = block(encoded[name], encoded[other], valid[other], rates.hidden)
                informed[name] = informed[name] + found

        parts = []
        for name, x in informed.items():
            pooled = AttentivePooling(name=f"{name}_pooling")(x, valid[name])
            pooled = nn.LayerNorm(name=f"{name}_pooled_norm")(pooled)
            parts.append(Dropout()(pooled, rates.hidden))
        if self.statistics:
            parts += [Dropout()(statistics[stream.name], rates.statistics) for stream in self.streams]
        fused = nn.Dense(self.fused, name="fusion")(jnp.concatenate(parts, axis=-1))
        return nn.gelu(fused)


class JointModel(nn.Module):
    """Trunk and heads. `represent` and `predict` are apart so that each task's gradient at the fused
    representation can be weighed before the trunk is walked back once."""

    streams: tuple[StreamSpec, ...]
    classes: int
    dimensions: int
    width: int
    fused: int
    heads: int
    self_attention: bool
    co_attention: bool
    statistics: bool

    def setup(self) -> None:
        self.trunk = Trunk(
            self.streams,
            self.width,
            self.fused,
            self.heads,
            self.self_attention,
            self.co_attention,
            self.statistics,
        )
        self.head = Heads(self.classes, self.dimensions)

    def represent(self, frames, masks, statistics, rates: Rates) -> Float[Array, "batch {self.fused}"]:
        """The fused representation of a batch; arguments as for `Trunk`."""
        return self.trunk(frames, masks, statistics, rates)

    def predict(
        self, fused: Float[Array, "batch {self.fused}"], rates: Rates
    ) -> tuple[Float[Array, "batch {self.classes}"], Float[Array, "batch {self.dimensions}"]]:
        """Logits and dimensions from the fused representation."""
        return self.head(fused, rates.hidden)

    def __call__(self, frames, masks, statistics, rates: Rates):
        return self.predict(self.represent(frames, masks, statistics, rates), rates)
