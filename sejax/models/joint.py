"""The joint model: parallel streams, attention within and between them, one fused representation, two heads."""

from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Bool, Float

from sejax.models.encoders import ENCODERS
from sejax.models.heads import Heads
from sejax.nn.attention import INTERMEDIATES, AttentivePooling, Block, CoAttention, GuidedPooling
from sejax.nn.layers import LAYER_WEIGHTS, Dense, Dropout, LayerMix, LayerNorm
from sejax.pretrained.finetune import Tuning, side_by_side


class StreamSpec(NamedTuple):
    """How the model reads one stream."""

    name: str
    encoder: str  # a key of `ENCODERS`, or "none": the stream's statistics alone are used
    layers: int
    stride: int
    mixed: int = 1  # hidden states of a pretrained model that stand side by side in a frame and are mixed
    tuning: Tuning | None = None  # of a pretrained model in this one; the frames are then its `frozen_forward`


class Rates(NamedTuple):
    """Dropout rates, possibly traced."""

    hidden: Float[Array, ""]  # within the network
    statistics: Float[Array, ""]  # on the statistics that enter the fusion


def tuned_name(stream: str) -> str:
    """Returns the name of a stream's fine-tuned pretrained model in the trunk's parameters."""
    return f"{stream}_ssl"


def mix_name(stream: str) -> str:
    """Returns the name of the mixing of a stream's hidden states in the trunk's parameters."""
    return f"{stream}_mix"


def mixing_scores(streams: Iterable[StreamSpec], params: Mapping[str, Any]) -> dict[str, Array]:
    """Returns the scores of the hidden states, before the softmax, of each stream whose states are mixed.

    Args:
      streams: the model's.
      params: of a `JointModel`, with any leading axes.
    """
    trunk = params["trunk"]
    return {s.name: trunk[mix_name(s.name)][LAYER_WEIGHTS] for s in streams if mix_name(s.name) in trunk}


def attention_of(
    streams: Iterable[StreamSpec], collections: Mapping[str, Any]
) -> dict[str, dict[str, Float[Array, "batch _time"]]]:
    """Returns the weights of each layer of attention over the frames of a stream, by stream and by layer in words.

    A frame is one behind the encoder's stride; the weights of an utterance's frames sum to 1. Attention inside of a
    fine-tuned pretrained model is not among them.

    Args:
      streams: the model's.
      collections: of a `JointModel` that was applied with mutable `INTERMEDIATES`.
    """
    left = traverse_util.flatten_dict(dict(collections.get(INTERMEDIATES, {}).get("trunk", {})))
    found = {path[:-1]: weights for path, (weights,) in left.items()}
    names = [stream.name for stream in streams if stream.encoder != "none"]
    attention = {}
    for name in names:
        layers = {
            path: f"encoder, block {path[1].rpartition('_')[2]}" for path in found if path[0] == f"{name}_encoder"
        }
        layers[f"{name}_self", "attention"] = "self-attention"
        layers |= {(f"{other}_over_{name}", "attention"): f"co-attention from {other}" for other in names}
        layers[f"{name}_pooling",] = "pooling"
        attention[name] = {layer: found[path] for path, layer in layers.items() if path in found}
    return attention


class Trunk(nn.Module):
    """The network from the streams to the fused representation `[batch, fused]`.

    A stream passes through these parts: the upper section of a tuned pretrained model, the mixing of hidden states, the
    encoder, self-attention, co-attention over every other stream (one for each ordered pair; the result is added to the
    stream), attentive pooling. Its statistics (means, deviations and percentiles of frames and deltas, normalised) go
    straight to the fusion: on a few hundred utterances they carry most of what can be learned. Products are computed in
    `dtype`; the representation is float32.
    """

    streams: tuple[StreamSpec, ...]
    width: int
    fused: int
    heads: int
    self_attention: bool
    co_attention: bool
    statistics: bool
    guided: str = ""  # the stream whose frames are weighted by the pooled vectors of the others
    joined_states: bool = False  # whether statistics of all hidden states go on side by side; else their mixture
    deviations: bool = True  # whether statistics of hidden states include deviations over time beside means
    activation: bool = True  # after the fusion; without it and without encoders the model is a linear probe
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        frames: Mapping[str, Float[Array, "batch _time _feature"]],
        masks: Mapping[str, Bool[Array, "batch _time"]],
        statistics: Mapping[str, Float[Array, "batch _statistic"]],
        rates: Rates,
    ) -> Float[Array, "batch {self.fused}"]:
        mix = {s.name: LayerMix(s.mixed, name=mix_name(s.name)) for s in self.streams if s.mixed > 1}
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
                attended = co_attention(encoded[name], valid[name], encoded[other], valid[other], rates.hidden)
                informed[name] = informed[name] + attended

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
                if stream.name not in statistics:  # raw audio has none
                    continue
                x = statistics[stream.name]
                if stream.name in mix:
                    x = x if self.deviations else _means(x, stream.mixed)
                    x = x if self.joined_states else mix[stream.name](x)
                fusion.append(Dropout()(x, rates.statistics))
        joined = jnp.concatenate([x.astype(self.dtype) for x in fusion], axis=-1)
        fused = Dense(self.fused, dtype=self.dtype, name="fusion")(joined).astype(jnp.float32)
        return nn.gelu(fused) if self.activation else fused

    def _tuned(
        self,
        name: str,
        tuning: Tuning,
        below: Float[Array, "batch time _feature"],
        mask: Bool[Array, "batch time"],
        rates: Rates,
    ) -> Float[Array, "batch time _feature_out"]:
        """Returns the hidden states of a tuned model, side by side: those from below its cut, and those above it."""
        upper = tuning.upper(tuned_name(name))
        if upper is None:
            return below
        output: Any = upper(below[..., -tuning.cut_size :], mask.sum(axis=1, dtype=jnp.int32))
        # What a family keeps behind the frames (`Output`) ends here.
        above = side_by_side(output, tuning)[:, : below.shape[1]].astype(below.dtype)
        return jnp.concatenate([below, above], axis=-1) if tuning.joins_states else above


def _means(x: Float[Array, "batch _statistic"], states: int) -> Float[Array, "batch _mean"]:
    """Returns the means of hidden states out of their statistics: of each state the means, then the deviations."""
    of_states = x.reshape(x.shape[0], states, 2, -1)
    return of_states[:, :, 0].reshape(x.shape[0], -1)


class JointModel(nn.Module):
    """Trunk and heads.

    `represent` and `predict` are separate, so that the tasks' gradients at the fused representation can be weighted
    before the backward pass through the trunk. The trunk computes in its `dtype`, the heads in float32.
    """

    trunk: Trunk
    head: Heads

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        """The streams that the model reads."""
        return self.trunk.streams

    def represent(
        self,
        frames: Mapping[str, Float[Array, "batch _time _feature"]],
        masks: Mapping[str, Bool[Array, "batch _time"]],
        statistics: Mapping[str, Float[Array, "batch _statistic"]],
        rates: Rates,
    ) -> Float[Array, "batch {self.trunk.fused}"]:
        """Returns the fused representation of a batch; arguments as for `Trunk`."""
        return self.trunk(frames, masks, statistics, rates)

    def predict(
        self, fused: Float[Array, "batch {self.trunk.fused}"], rates: Rates
    ) -> tuple[Float[Array, "batch {self.head.classes}"], Float[Array, "batch {self.head.dimensions}"]]:
        """Returns logits and dimensions from the fused representation."""
        return self.head(fused, rates.hidden)

    def __call__(
        self,
        frames: Mapping[str, Float[Array, "batch _time _feature"]],
        masks: Mapping[str, Bool[Array, "batch _time"]],
        statistics: Mapping[str, Float[Array, "batch _statistic"]],
        rates: Rates,
    ) -> tuple[Float[Array, "batch {self.head.classes}"], Float[Array, "batch {self.head.dimensions}"]]:
        """Returns logits, and dimensions in half scales; arguments as for `Trunk`."""
        return self.predict(self.represent(frames, masks, statistics, rates), rates)
