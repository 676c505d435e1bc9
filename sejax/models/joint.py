"""The joint model: parallel streams, attention within and between them, one fused representation, two heads."""

from collections.abc import Mapping
from itertools import permutations
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sejax.models.encoders import ENCODERS
from sejax.models.heads import Heads
from sejax.nn.attention import AttentivePooling, Block, CoAttention, GuidedPooling
from sejax.nn.layers import Dense, Dropout, LayerMix, LayerNorm
from sejax.pretrained.finetune import Tuning, side_by_side


class StreamSpec(NamedTuple):
    """How one stream is encoded. `encoder` is a key of `ENCODERS`, or "none": its statistics alone are used."""

    name: str
    encoder: str
    layers: int
    stride: int
    mixed: int = 1  # hidden states of a pretrained model that lie side by side in a frame and are mixed
    tuning: Tuning | None = None  # of a pretrained model that is part of this one; the frames are what it "hears"


class Rates(NamedTuple):
    """Dropout rates, possibly traced: within the network, and on the statistics that enter the fusion."""

    hidden: Float[Array, ""]
    statistics: Float[Array, ""]


def mixing_scores(model: "JointModel", params: Mapping[str, Any]) -> dict[str, Array]:
    """Returns the scores whose softmax weighs the hidden states of each pretrained stream, by stream."""
    return {s.name: params["trunk"][f"{s.name}_mix"]["layer_weights"] for s in model.streams if s.mixed > 1}


class Trunk(nn.Module):
    """Streams to the fused representation `[batch, fused]`.

    Per stream: what is above the cut of a pretrained model that is tuned, the mixing of its hidden states,
    encoder, self-attention, then co-attention over every other stream (each ordered pair has its
    own; what a stream finds is added to it), attentive pooling. Beside it the stream's statistics (means,
    deviations and percentiles of frames and deltas, normalised) go straight to the fusion: on a few hundred
    utterances they carry most of what can be learned. The stream named by `guided` is pooled by what the others'
    pooled vectors look for instead. `dtype` is what the products are computed in; the representation is float32.
    """

    streams: tuple[StreamSpec, ...]
    width: int
    fused: int
    heads: int
    self_attention: bool
    co_attention: bool
    statistics: bool
    guided: str = ""
    deviations: bool = True  # of mixed hidden states: their deviations over time beside their means
    activation: bool = True  # behind the fusion; without it and without encoders the model is a linear probe
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        frames: Mapping[str, Float[Array, "batch _time _feature"]],
        masks: Mapping[str, Bool[Array, "batch _time"]],
        statistics: Mapping[str, Float[Array, "batch _statistic"]],
        rates: Rates,
    ) -> Float[Array, "batch {self.fused}"]:
        mix = {s.name: LayerMix(s.mixed, name=f"{s.name}_mix") for s in self.streams if s.mixed > 1}
        encoded, valid = {}, {}
        for stream in self.streams:
            if stream.encoder == "none":
                continue
            x, mask = frames[stream.name], masks[stream.name]
            if stream.tuning is not None:
                x = self._tuned(stream.name, stream.tuning, x, mask, rates)
            if stream.name in mix:
                x = mix[stream.name](x)
            encoder = ENCODERS[stream.encoder](
                self.width, stream.layers, stream.stride, dtype=self.dtype, name=f"{stream.name}_encoder"
            )
            x, mask = encoder(x, mask, rates.hidden)
            if self.self_attention:
                block = Block(self.width, self.heads, dtype=self.dtype, name=f"{stream.name}_self")
                x = block(x, mask, rates.hidden)
            encoded[stream.name], valid[stream.name] = x, mask

        informed = dict(encoded)
        if self.co_attention:
            for name, other in permutations(encoded, 2):
                co_attention = CoAttention(self.width, self.heads, self.dtype, name=f"{name}_over_{other}")
                found = co_attention(encoded[name], encoded[other], valid[other], rates.hidden)
                informed[name] = informed[name] + found

        parts = {}
        for name, x in informed.items():
            if name != self.guided:
                pooled = AttentivePooling(self.dtype, name=f"{name}_pooling")(x, valid[name])
                pooled = LayerNorm(dtype=self.dtype, name=f"{name}_pooled_norm")(pooled)
                parts[name] = Dropout()(pooled, rates.hidden)
        if self.guided:
            guides = jnp.concatenate(list(parts.values()), axis=-1)
            pooling = GuidedPooling(self.dtype, name=f"{self.guided}_pooling")
            parts[self.guided] = pooling(informed[self.guided], valid[self.guided], guides)
        fusion = list(parts.values())
        if self.statistics:
            for stream in self.streams:
                x = statistics[stream.name]
                if stream.name in mix:
                    x = mix[stream.name](x)
                    x = x if self.deviations else x[..., : x.shape[-1] // 2]
                fusion.append(Dropout()(x, rates.statistics))
        joined = jnp.concatenate([x.astype(self.dtype) for x in fusion], axis=-1)
        fused = Dense(self.fused, dtype=self.dtype, name="fusion")(joined).astype(jnp.float32)
        return nn.gelu(fused) if self.activation else fused

    def _tuned(
        self,
        name: str,
        tuning: Tuning,
        heard: Float[Array, "batch time _feature"],
        mask: Bool[Array, "batch time"],
        rates: Rates,
    ) -> Float[Array, "batch time _feature_out"]:
        """The hidden states of a tuned model, side by side: those heard below its cut, and those above it."""
        upper = tuning.upper(f"{name}_ssl")
        if upper is None:
            return heard
        a = tuning.architecture
        width = a.hidden if tuning.cut > 1 else a.conv_dim[-1]
        own = side_by_side(upper(heard[..., -width:], mask.sum(axis=1, dtype=jnp.int32), rates.hidden), tuning)
        own = own.astype(heard.dtype)
        return jnp.concatenate([heard, own], axis=-1) if tuning.layer is None and tuning.cut > 1 else own


class JointModel(nn.Module):
    """Trunk and heads. `represent` and `predict` are apart so that each task's gradient at the fused
    representation can be weighed before the trunk is walked back once. The trunk computes in `dtype`, the heads in
    float32."""

    streams: tuple[StreamSpec, ...]
    classes: int
    dimensions: int
    width: int
    fused: int
    heads: int
    self_attention: bool
    co_attention: bool
    statistics: bool
    guided: str = ""
    deviations: bool = True
    activation: bool = True
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.trunk = Trunk(
            self.streams,
            self.width,
            self.fused,
            self.heads,
            self.self_attention,
            self.co_attention,
            self.statistics,
            self.guided,
            self.deviations,
            self.activation,
            self.dtype,
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
