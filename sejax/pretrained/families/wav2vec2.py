"""Wav2Vec 2.0 and its relatives: one family of Linen modules, and how its checkpoints are read.

References: Baevski et al., wav2vec 2.0 (2020); Hsu et al., HuBERT (2021); Chen et al., WavLM (2022); Chen et al.,
UniSpeech-SAT (2022); Baevski et al., data2vec (2022).

The numbers equal those of transformers' PyTorch models of a single utterance, with one difference: padding never
changes an utterance's features. PyTorch's base models normalise their first convolution over all samples of a row,
padding included, and so give other features in a batch than alone. Here group norm, positions and attention see valid
samples only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sejax.nn.layers import Dense, add_bias, mask_frames, valid_frames
from sejax.pretrained.base import WHOLE, Output, Rule, Section, stage_behind
from sejax.pretrained.families.masking import mask_spans
from sejax.pretrained.families.transformer import (
    ACTIVATIONS,
    Conv,
    LayerNorm,
    Transformer,
    drop,
    join_states,
    run_layers,
)
from sejax.pretrained.families.wav2vec2_config import read_architecture

CONV_EPS = 1e-5  # of the norms in the feature encoder, independent of `layer_norm_eps`
_LAYER = r"encoder\.layers\.(?P<layer>[0-9]{1,6})\."
_ATTENTION = _LAYER + r"attention\."
_CONV = r"feature_extractor\.conv_layers\.(?P<i>[0-9]{1,6})\."
_POSITION = r"encoder\.pos_conv_embed\.conv\."
_POSITIONS = r"encoder\.pos_conv_embed\.layers\.(?P<i>[0-9]{1,6})\.conv\."


@dataclass(frozen=True)
class Wav2Vec2(Transformer):
    """The architecture and the input of a checkpoint of wav2vec 2.0 or one of its relatives."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(_CONV + r"conv\.weight", "feature_encoder/conv_{i}/kernel", "conv"),
        Rule(_CONV + r"conv\.bias", "feature_encoder/conv_{i}/bias"),
        Rule(_CONV + r"layer_norm\.weight", "feature_encoder/norm_{i}/scale"),
        Rule(_CONV + r"layer_norm\.bias", "feature_encoder/norm_{i}/bias"),
        Rule(r"feature_projection\.layer_norm\.weight", "feature_projection/norm/scale"),
        Rule(r"feature_projection\.layer_norm\.bias", "feature_projection/norm/bias"),
        Rule(r"feature_projection\.projection\.weight", "feature_projection/projection/kernel", "linear"),
        Rule(r"feature_projection\.projection\.bias", "feature_projection/projection/bias"),
        Rule(r"masked_spec_embed", "mask_embedding"),
        # Weight norm has two spellings: PyTorch's since 2.1, and the one before.
        Rule(_POSITION + r"parametrizations\.weight\.original0", "position/weight_g", "flat"),
        Rule(_POSITION + r"parametrizations\.weight\.original1", "position/weight_v", "conv"),
        Rule(_POSITION + r"weight_g", "position/weight_g", "flat"),
        Rule(_POSITION + r"weight_v", "position/weight_v", "conv"),
        Rule(_POSITION + r"bias", "position/bias"),
        Rule(_POSITIONS + r"weight", "position/conv_{i}/kernel", "conv"),
        Rule(_POSITIONS + r"bias", "position/conv_{i}/bias"),
        Rule(r"encoder\.layer_norm\.weight", "encoder_norm/scale"),
        Rule(r"encoder\.layer_norm\.bias", "encoder_norm/bias"),
        # WavLM stores the buckets of all layers in its first one.
        Rule(_ATTENTION + r"rel_attn_embed\.weight", "relative_position/embedding"),
        Rule(_ATTENTION + r"(?P<name>[qkv]|out)_proj\.weight", "layers/attention/{name}_proj/kernel", "linear"),
        Rule(_ATTENTION + r"(?P<name>[qkv]|out)_proj\.bias", "layers/attention/{name}_proj/bias"),
        Rule(_ATTENTION + r"gru_rel_pos_linear\.weight", "layers/attention/gate/kernel", "linear"),
        Rule(_ATTENTION + r"gru_rel_pos_linear\.bias", "layers/attention/gate/bias"),
        Rule(_ATTENTION + r"gru_rel_pos_const", "layers/attention/gate_constant", "flat"),
        Rule(_LAYER + r"layer_norm\.weight", "layers/attention_norm/scale"),
        Rule(_LAYER + r"layer_norm\.bias", "layers/attention_norm/bias"),
        Rule(
            _LAYER + r"feed_forward\.(?P<name>intermediate|output)_dense\.weight",
            "layers/feed_forward/{name}/kernel",
            "linear",
        ),
        Rule(_LAYER + r"feed_forward\.(?P<name>intermediate|output)_dense\.bias", "layers/feed_forward/{name}/bias"),
        Rule(_LAYER + r"final_layer_norm\.weight", "layers/final_norm/scale"),
        Rule(_LAYER + r"final_layer_norm\.bias", "layers/final_norm/bias"),
    )
    PREFIX = r"(wav2vec2|hubert|wavlm|unispeech_sat|data2vec_audio)\."
    OWN = r"(feature_extractor|feature_projection|masked_spec_embed|encoder|adapter)\b.*"
    OPTIONAL = ("mask_embedding",)  # absent where training never masked

    conv_dim: tuple[int, ...]
    conv_kernel: tuple[int, ...]
    conv_stride: tuple[int, ...]
    conv_bias: bool
    conv_norm: str  # "group": after the first convolution, over time; "layer": after each, over channels
    conv_activation: str  # a key of ACTIVATIONS
    position_width: int
    position_groups: int
    position_depth: int  # of data2vec's convolutions for positions; 0: one, whose kernel is weight-normed
    projection_norm: bool
    buckets: int  # of WavLM's relative positions; 0 in the other families
    max_distance: int

    @classmethod
    def read(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any], folder: Path) -> "Wav2Vec2":
        return cls(**read_architecture(config, preprocessor, folder))

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next: 320, 20 ms."""
        return int(np.prod(self.conv_stride))

    @property
    def window(self) -> int:
        """Samples that one frame sees: 400, 25 ms."""
        samples = 1
        for width, stride in zip(reversed(self.conv_kernel), reversed(self.conv_stride), strict=True):
            samples = (samples - 1) * stride + width
        return samples

    def frames(self, samples: Any) -> Any:
        for width, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            samples = (samples - width) // stride + 1
        return samples

    @property
    def frame_size(self) -> int:
        return self.conv_dim[-1]

    def module(self, section: Section = WHOLE, name: str | None = None) -> "Wav2Vec2Model":
        return Wav2Vec2Model(self, section, name=name)

    def select(self, params: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        parts = ["feature_encoder"] if start == 0 else []
        if start <= 1 < stop:
            parts += ["feature_projection", "mask_embedding", "position"]
        layers = self.select_layers(params, start, stop)
        if layers and self.buckets:
            parts += ["relative_position"]
        if stop == stage_behind(self.layers) if self.pre_norm else start <= 1 < stop:
            parts += ["encoder_norm"]
        return {part: params[part] for part in parts} | layers

    def depth(self, part: str) -> int:
        return {"encoder_norm": self.layers if self.pre_norm else 0, "relative_position": 1}.get(part, 0)


class MaskedGroupNorm(nn.Module):
    """A group norm with one group per channel: each channel by its mean and variance over the valid frames."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time feature"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        count = jnp.maximum(mask.sum(axis=1, dtype=jnp.float32), 1.0)[:, None, None]
        mean = mask_frames(x, mask).sum(axis=1, keepdims=True) / count
        variance = (mask_frames(x - mean, mask) ** 2).sum(axis=1, keepdims=True) / count
        slope = scale[None, None] * lax.rsqrt(variance + CONV_EPS)
        return (x * slope + (bias[None, None] - mean * slope)).astype(self.dtype)


class FeatureEncoder(nn.Module):
    """The convolutions from samples to frames (stage 0)."""

    backbone: Wav2Vec2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch time feature"], Bool[Array, "batch time"]]:
        a = self.backbone
        x = waveform.astype(self.dtype)[..., None]
        mask = valid_frames(lengths, x.shape[1])
        x = mask_frames(x, mask)
        for i, (features, width, stride) in enumerate(zip(a.conv_dim, a.conv_kernel, a.conv_stride, strict=True)):
            x = Conv(features, width, stride, a.conv_bias, self.dtype, name=f"conv_{i}")(x)
            lengths = (lengths - width) // stride + 1
            mask = valid_frames(lengths, x.shape[1])
            if a.conv_norm == "layer":
                x = LayerNorm(CONV_EPS, self.dtype, name=f"norm_{i}")(x)
            elif i == 0:
                x = MaskedGroupNorm(self.dtype, name="norm_0")(x, mask)
            x = ACTIVATIONS[a.conv_activation](x)
        return x, mask


class FeatureProjection(nn.Module):
    """The linear map from the convolutions' channels to the Transformer's."""

    backbone: Wav2Vec2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time feature"]) -> Float[Array, "batch time hidden"]:
        if self.backbone.projection_norm:
            x = LayerNorm(self.backbone.eps, self.dtype, name="norm")(x)
        x = Dense(self.backbone.hidden, dtype=self.dtype, name="projection")(x)
        return drop(x, self.backbone.noise.projection_dropout)


class PositionalConv(nn.Module):
    """A wide grouped convolution whose output, added to its input, encodes positions.

    Its kernel is `weight_g * weight_v / |weight_v|`, with one norm per tap (weight normalisation over the last axis
    of PyTorch's layout).
    """

    backbone: Wav2Vec2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time hidden"]:
        a = self.backbone
        direction = self.param("weight_v", nn.initializers.he_normal(in_axis=(0, 1)), position_kernel(a))
        size = self.param("weight_g", nn.initializers.ones, (a.position_width,))
        bias = self.param("bias", nn.initializers.zeros, (a.hidden,))
        norm = jnp.sqrt((direction**2).sum(axis=(1, 2), keepdims=True))
        kernel = (size[:, None, None] * direction / norm).astype(self.dtype)
        y = grouped_conv(mask_frames(x, mask), kernel, groups=a.position_groups)
        return ACTIVATIONS[a.conv_activation](add_bias(y, bias))


class PositionalConvs(nn.Module):
    """data2vec's grouped convolutions, each behind the other, whose output, added to the input, encodes positions."""

    backbone: Wav2Vec2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time hidden"]:
        a = self.backbone
        for i in range(a.position_depth):
            x = GroupedConv(a, self.dtype, name=f"conv_{i}")(mask_frames(x, mask))
            x = nn.LayerNorm(CONV_EPS, jnp.float32, use_scale=False, use_bias=False, use_fast_variance=False)(
                x.astype(jnp.float32)
            )
            x = ACTIVATIONS[a.conv_activation](x.astype(self.dtype))
        return x


class GroupedConv(nn.Module):
    """One convolution of `PositionalConvs`."""

    backbone: Wav2Vec2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time hidden"]) -> Float[Array, "batch time hidden"]:
        a = self.backbone
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=(0, 1)), position_kernel(a))
        bias = self.param("bias", nn.initializers.zeros, (a.hidden,))
        return add_bias(grouped_conv(x, kernel.astype(self.dtype), groups=a.position_groups), bias)


def position_kernel(backbone: Wav2Vec2) -> tuple[int, int, int]:
    """Returns the shape of a positional convolution's kernel."""
    return (backbone.position_width, backbone.hidden // backbone.position_groups, backbone.hidden)


def grouped_conv(
    x: Float[Array, "batch time hidden"], kernel: Float[Array, "width in hidden"], *, groups: int
) -> Float[Array, "batch time hidden"]:
    """Convolves groups of features over time, with zeros around the input, so that frames stay where they are."""
    left = len(kernel) // 2
    convolve = partial(
        lax.conv_general_dilated,
        window_strides=(1,),
        padding=[(left, len(kernel) - 1 - left)],
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    # On the CPU this is twice as fast as one grouped convolution, and its gradient ten times.
    parts = (jnp.split(values, groups, axis=-1) for values in (x, kernel))
    return jnp.concatenate([convolve(*part) for part in zip(*parts, strict=True)], axis=-1)


def relative_buckets(time: int, *, buckets: int, max_distance: int) -> Int[np.ndarray, "{time} {time}"]:
    """Returns WavLM's bucket of each distance from query (first axis) to key.

    Each side has half of the buckets. Within a half, the first half has one bucket per distance; the others are
    logarithmic up to `max_distance`.
    """
    distance = np.arange(time)[None] - np.arange(time)[:, None]
    half = buckets // 2
    exact = half // 2
    size = np.abs(distance)
    ratio = np.log(np.maximum(size, 1).astype(np.float32) / exact) / np.log(max_distance / exact)
    far = np.minimum((exact + ratio.astype(np.float32) * (half - exact)).astype(np.int64), half - 1)
    return ((distance > 0) * half + np.where(size < exact, size, far)).astype(np.int32)


class Wav2Vec2Model(nn.Module):
    """A whole model, or a section of its stages, with the parameters of those stages alone.

    Stage 0 is the feature encoder, stage 1 the projection and the positional convolution.
    """

    backbone: Wav2Vec2
    section: Section = WHOLE

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch samples"] | Float[Array, "batch time feature"],
        lengths: Int[Array, " batch"],
    ) -> Output:
        """Runs the section's stages: see `Backbone.module`.

        The last hidden state of a pre-norm model is normalised, the others are not, as in transformers before 5.16.
        """
        a, dtype, start = self.backbone, self.section.dtype, self.section.start
        stop = self.section.end(a.layers)
        if start == 0:
            x, mask = FeatureEncoder(a, dtype, name="feature_encoder")(x, lengths)
        else:
            x = x.astype(dtype)
            mask = valid_frames(lengths, x.shape[1])
        if stop == 1:
            return Output(x[None], mask)
        states = []
        if start <= 1:
            x = self._embed(x, mask)
            mask = jnp.pad(mask, ((0, 0), (0, x.shape[1] - mask.shape[1])))
            states.append(x[None])
        first = max(start, stage_behind(0))
        if first < stop:
            states.append(self._transform(x, mask, stop - first))
        return Output(join_states(a, self.section, states), mask)

    def _embed(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time_out hidden"]:
        """Returns hidden state 0."""
        a, section = self.backbone, self.section
        x = FeatureProjection(a, section.dtype, name="feature_projection")(x)
        embedding = self.param("mask_embedding", nn.initializers.uniform(1.0), (a.hidden,))
        x = mask_frames(mask_spans(self, a.noise, x, mask, embedding), mask)
        position = PositionalConvs if a.position_depth else PositionalConv
        x = self._extend(x + position(a, section.dtype, name="position")(x, mask))
        return drop(x if a.pre_norm else LayerNorm(a.eps, section.dtype, name="encoder_norm")(x), a.noise.dropout)

    def _extend(self, x: Float[Array, "batch time hidden"]) -> Float[Array, "batch time_out hidden"]:
        """Returns the frames and whatever else the layers see, behind them."""
        return x

    def _transform(
        self, x: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"], layers: int
    ) -> Float[Array, "layer batch time hidden"]:
        """Returns the hidden states of so many layers."""
        a, section = self.backbone, self.section
        bias = None
        if a.buckets:
            distances = relative_buckets(x.shape[1], buckets=a.buckets, max_distance=a.max_distance)
            bias = nn.Embed(a.buckets, a.heads, name="relative_position")(jnp.asarray(distances)).transpose(2, 0, 1)
        return run_layers(a, section, layers, x, mask, bias)
