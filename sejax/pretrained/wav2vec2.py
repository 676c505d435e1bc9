"""Wav2Vec 2.0, HuBERT and WavLM: one family of Linen modules, and how its checkpoints are read.

References: Baevski et al., wav2vec 2.0 (2020); Hsu et al., HuBERT (2021); Chen et al., WavLM (2022). The numbers equal
those of transformers' PyTorch models of a single utterance, with one difference: padding never changes an utterance's
features. PyTorch's base models normalise their first convolution over all samples of a row, padding included, and so
give other features in a batch than alone. Here group norm, positions and attention see valid samples only.

Parameters are float32 in one tree, in which all Transformer layers are stacked on a leading axis. `Section.dtype` is
the dtype of the products; reductions are float32.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.nn.layers import Dropout, mask_frames
from sejax.pretrained.base import NO_LORA, STACKED, WHOLE, Backbone, Lora, Output, Rule, Section, stage_behind
from sejax.pretrained.hub import without_warnings

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_new": partial(nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
}
"""The activations that config.json may name."""

CONV_EPS = 1e-5  # of the norms in the feature encoder, independent of `layer_norm_eps`
SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
)
WAVLM_SIZES = ("num_buckets", "max_bucket_distance")
CONVOLUTIONS = ("conv_dim", "conv_kernel", "conv_stride")

_LAYER = r"encoder\.layers\.(?P<layer>\d+)\."
_ATTENTION = _LAYER + r"attention\."
_CONV = r"feature_extractor\.conv_layers\.(?P<i>\d+)\."
_POSITION = r"encoder\.pos_conv_embed\.conv\."


@dataclass(frozen=True)
class Wav2Vec2(Backbone):
    """The architecture and the input of a wav2vec 2.0, HuBERT or WavLM checkpoint."""

    RULES = (
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
    PREFIX = r"(wav2vec2|hubert|wavlm)\."
    # Heads of pre-training and of speech recognition.
    LEFT_OUT = r"(quantizer|project_q|project_hid|lm_head|final_proj|label_embs_concat|ctc_proj|dropout_features)\b.*"
    OPTIONAL = ("mask_embedding",)  # absent where training never masked

    conv_dim: tuple[int, ...]
    conv_kernel: tuple[int, ...]
    conv_stride: tuple[int, ...]
    conv_bias: bool
    conv_norm: str  # "group": after the first convolution, over time; "layer": after each, over channels
    conv_activation: str  # a key of ACTIVATIONS
    heads: int
    intermediate: int
    activation: str
    position_width: int
    position_groups: int
    pre_norm: bool  # norms before attention and feed-forward (`do_stable_layer_norm`), not after
    eps: float
    projection_norm: bool
    buckets: int  # of WavLM's relative positions; 0 in the other families
    max_distance: int

    @classmethod
    def read(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any], folder: Path) -> "Wav2Vec2":
        path = folder / "config.json"
        with without_warnings():
            from huggingface_hub.errors import StrictDataclassError
            from transformers import HubertConfig, Wav2Vec2Config, WavLMConfig

            classes: dict[str, Any] = {"wav2vec2": Wav2Vec2Config, "hubert": HubertConfig, "wavlm": WavLMConfig}
            try:
                c: Any = classes[config["model_type"]].from_dict(dict(config))
            except (AttributeError, TypeError, ValueError, StrictDataclassError) as error:
                raise InputError(f"{path}: transformers cannot read it ({' '.join(str(error).split())})") from error
        _check_supported(c, path)
        wavlm = c.model_type == "wavlm"
        return cls(
            family=c.model_type,
            layers=c.num_hidden_layers,
            hidden=c.hidden_size,
            normalise=_reads_normalised(preprocessor, folder / "preprocessor_config.json"),
            conv_dim=tuple(c.conv_dim),
            conv_kernel=tuple(c.conv_kernel),
            conv_stride=tuple(c.conv_stride),
            conv_bias=c.conv_bias,
            conv_norm=c.feat_extract_norm,
            conv_activation=c.feat_extract_activation,
            heads=c.num_attention_heads,
            intermediate=c.intermediate_size,
            activation=c.hidden_act,
            position_width=c.num_conv_pos_embeddings,
            position_groups=c.num_conv_pos_embedding_groups,
            pre_norm=c.do_stable_layer_norm,
            eps=c.layer_norm_eps,
            projection_norm=getattr(c, "feat_proj_layer_norm", True),
            buckets=c.num_buckets if wavlm else 0,
            max_distance=c.max_bucket_distance if wavlm else 0,
        )

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
        first, last = max(start, stage_behind(0)), stop
        if first < last:
            parts += [STACKED, *(["relative_position"] if self.buckets else [])]
        if stop == stage_behind(self.layers) if self.pre_norm else start <= 1 < stop:
            parts += ["encoder_norm"]
        selected = {part: params[part] for part in parts}
        if STACKED in selected:
            below = stage_behind(0)
            selected[STACKED] = jax.tree.map(lambda x: x[first - below : last - below], selected[STACKED])
        return selected

    def depth(self, part: str) -> int:
        return {"encoder_norm": self.layers if self.pre_norm else 0, "relative_position": 1}.get(part, 0)


def _check_supported(c: Any, path: Path) -> None:
    """Refuses sizes below 1 and parts that `Wav2Vec2Model` does not have, each time all of them in one sentence."""
    sizes = {name: getattr(c, name) for name in (*SIZES, *(WAVLM_SIZES if c.model_type == "wavlm" else ()))}
    sizes |= {name: min(getattr(c, name), default=0) for name in CONVOLUTIONS}
    if small := [f"{name} {size}" for name, size in sizes.items() if size < 1]:
        raise InputError(f"{path}: has {'; '.join(small)}, expected 1 or more")
    groups = c.num_conv_pos_embedding_groups
    unsupported = {
        "adapters (add_adapter)": getattr(c, "add_adapter", False),
        "attention adapters (adapter_attn_dim)": getattr(c, "adapter_attn_dim", None) is not None,
        "batch norm of positions (conv_pos_batch_norm)": getattr(c, "conv_pos_batch_norm", False),
        f"feat_extract_norm {c.feat_extract_norm!r}": c.feat_extract_norm not in ("group", "layer"),
        f"hidden_act {c.hidden_act!r}": c.hidden_act not in ACTIVATIONS,
        f"feat_extract_activation {c.feat_extract_activation!r}": c.feat_extract_activation not in ACTIVATIONS,
        "conv_dim, conv_kernel and conv_stride of different lengths": len({len(getattr(c, n)) for n in CONVOLUTIONS})
        > 1,
        "a hidden_size that num_attention_heads does not divide": c.hidden_size % c.num_attention_heads != 0,
        "a hidden_size that num_conv_pos_embedding_groups does not divide": c.hidden_size % groups != 0,
    }
    if parts := [part for part, present in unsupported.items() if present]:
        raise InputError(f"{path}: has {'; '.join(parts)}, which sejax does not support")


def _reads_normalised(preprocessor: Mapping[str, Any], path: Path) -> bool:
    """Returns whether the preprocessor normalises waveforms.

    Raises:
      InputError: it has another sampling rate than 16 kHz, or its input is not samples.
    """
    with without_warnings():
        from transformers import Wav2Vec2FeatureExtractor

        c: Any = Wav2Vec2FeatureExtractor.from_dict(dict(preprocessor))
    if c.sampling_rate != SAMPLING_RATE:
        raise InputError(f"{path}: sampling_rate is {c.sampling_rate!r}, expected {SAMPLING_RATE}")
    if c.feature_size != 1:
        raise InputError(f"{path}: feature_size is {c.feature_size!r}, expected 1: raw samples")
    if not isinstance(c.do_normalize, bool):
        raise InputError(f"{path}: do_normalize is {c.do_normalize!r}, expected true or false")
    return c.do_normalize


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


class LayerNorm(nn.Module):
    """A layer norm over features with moments in float32, computed in two passes."""

    eps: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> Float[Array, "*batch feature"]:
        norm = nn.LayerNorm(epsilon=self.eps, dtype=jnp.float32, use_fast_variance=False)
        nn.share_scope(self, norm)
        return norm(x.astype(jnp.float32)).astype(self.dtype)


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
        mask = jnp.arange(x.shape[1], dtype=lengths.dtype)[None] < lengths[:, None]
        x = mask_frames(x, mask)
        for i, (features, width, stride) in enumerate(zip(a.conv_dim, a.conv_kernel, a.conv_stride, strict=True)):
            x = nn.Conv(features, width, stride, "VALID", use_bias=a.conv_bias, dtype=self.dtype, name=f"conv_{i}")(x)
            lengths = (lengths - width) // stride + 1
            mask = jnp.arange(x.shape[1], dtype=lengths.dtype)[None] < lengths[:, None]
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
        return nn.Dense(self.backbone.hidden, dtype=self.dtype, name="projection")(x)


class PositionalConv(nn.Module):
    """A wide grouped convolution whose output, added to its input, encodes positions.

    Its kernel is `weight_g * weight_v / |weight_v|`, with one norm per tap (weight normalisation over the last axis
    of PyTorch's layout). Frames beyond an utterance's end must be zeros.
    """

    backbone: Wav2Vec2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time hidden"]) -> Float[Array, "batch time hidden"]:
        a = self.backbone
        shape = (a.position_width, a.hidden // a.position_groups, a.hidden)
        direction = self.param("weight_v", nn.initializers.he_normal(in_axis=(0, 1)), shape)
        size = self.param("weight_g", nn.initializers.ones, (a.position_width,))
        bias = self.param("bias", nn.initializers.zeros, (a.hidden,))
        norm = jnp.sqrt((direction**2).sum(axis=(1, 2), keepdims=True))
        kernel = (size[:, None, None] * direction / norm).astype(self.dtype)
        left = a.position_width // 2
        convolve = partial(
            lax.conv_general_dilated,
            window_strides=(1,),
            padding=[(left, a.position_width - 1 - left)],
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        # On the CPU this is twice as fast as one grouped convolution, and its gradient ten times.
        groups = (jnp.split(values, a.position_groups, axis=-1) for values in (x, kernel))
        y = jnp.concatenate([convolve(*group) for group in zip(*groups, strict=True)], axis=-1)
        return ACTIVATIONS[a.conv_activation](y + bias.astype(self.dtype)[None, None])


class Linear(nn.Module):
    """A linear layer with bias, and a low-rank adapter beside it if `lora` names the layer."""

    features: int
    lora: Lora = NO_LORA
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> Float[Array, "*batch {self.features}"]:
        y = nn.Dense(self.features, dtype=self.dtype)
        nn.share_scope(self, y)
        out = y(x)
        if self.lora.rank and self.name in self.lora.targets:
            down = self.param("lora_a", nn.initializers.he_uniform(), (x.shape[-1], self.lora.rank))
            up = self.param("lora_b", nn.initializers.zeros, (self.lora.rank, self.features))
            scale = jnp.asarray(self.lora.alpha / self.lora.rank, self.dtype)
            out = out + scale * ((x @ down.astype(self.dtype)) @ up.astype(self.dtype))
        return out


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


class SelfAttention(nn.Module):
    """Multi-head self-attention; in WavLM with a relative position bias that each query gates."""

    backbone: Wav2Vec2
    lora: Lora = NO_LORA
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time hidden"],
        mask: Bool[Array, "batch time"],
        bias: Float[Array, "head time time"] | None,
    ) -> Float[Array, "batch time hidden"]:
        a = self.backbone
        heads = (*x.shape[:2], a.heads, a.hidden // a.heads)
        linear = partial(Linear, a.hidden, self.lora, self.dtype)
        q, k, v = (linear(name=f"{name}_proj")(x).reshape(heads) for name in "qkv")
        if bias is not None:
            gates = nn.Dense(8, dtype=self.dtype, name="gate")(x.reshape(heads)).astype(jnp.float32)
            a_gate, b_gate = jnp.moveaxis(nn.sigmoid(gates.reshape(*heads[:3], 2, 4).sum(axis=-1)), -1, 0)
            constant = self.param("gate_constant", nn.initializers.ones, (a.heads,))
            gate = a_gate * (b_gate * constant[None, None] - 1.0) + 2.0
            bias = (gate.transpose(0, 2, 1)[..., None] * bias[None]).astype(self.dtype)
        with jax.numpy_dtype_promotion("standard"):  # its logits and softmax are float32
            y = jax.nn.dot_product_attention(q, k, v, bias, mask[:, None, None, :])
        return linear(name="out_proj")(y.reshape(x.shape))


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    backbone: Wav2Vec2
    lora: Lora = NO_LORA
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time hidden"], rate: Float[Array, ""]
    ) -> Float[Array, "batch time hidden"]:
        a = self.backbone
        y = ACTIVATIONS[a.activation](Linear(a.intermediate, self.lora, self.dtype, name="intermediate")(x))
        return Linear(a.hidden, self.lora, self.dtype, name="output")(Dropout()(y, rate))


class Layer(nn.Module):
    """One Transformer layer, post-norm (base models) or pre-norm (large ones)."""

    backbone: Wav2Vec2
    lora: Lora = NO_LORA
    layer_drop: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time hidden"],
        mask: Bool[Array, "batch time"],
        bias: Float[Array, "head time time"] | None,
        rate: Float[Array, ""],
    ) -> tuple[Float[Array, "batch time hidden"], Float[Array, "batch time hidden"]]:
        a = self.backbone
        attention = SelfAttention(a, self.lora, self.dtype, name="attention")
        feed_forward = FeedForward(a, self.lora, self.dtype, name="feed_forward")
        attention_norm = LayerNorm(a.eps, self.dtype, name="attention_norm")
        final_norm = LayerNorm(a.eps, self.dtype, name="final_norm")
        if a.pre_norm:
            y = x + Dropout()(attention(attention_norm(x), mask, bias), rate)
            y = y + Dropout()(feed_forward(final_norm(y), rate), rate)
        else:
            y = attention_norm(x + Dropout()(attention(x, mask, bias), rate))
            y = final_norm(y + Dropout()(feed_forward(y, rate), rate))
        if self.layer_drop and self.has_rng("dropout"):
            y = jnp.where(jax.random.uniform(self.make_rng("dropout")) < self.layer_drop, x, y)
        return y, y


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
        rate: Float[Array, ""] | None = None,
    ) -> Output:
        """Runs the section's stages: see `Backbone.module`.

        The last hidden state of a pre-norm model is normalised, the others are not, as in transformers 4.
        """
        a, dtype, start = self.backbone, self.section.dtype, self.section.start
        end = stage_behind(a.layers)
        stop = end if self.section.stop is None else self.section.stop
        if start == 0:
            x, mask = FeatureEncoder(a, dtype, name="feature_encoder")(x, lengths)
        else:
            x = x.astype(dtype)
            mask = jnp.arange(x.shape[1], dtype=lengths.dtype)[None] < lengths[:, None]
        if stop == 1:
            return Output(x[None], mask)
        states = []
        if start <= 1:
            x = self._embed(x, mask)
            states.append(x[None])
        first = max(start, stage_behind(0))
        if first < stop:
            states.append(self._transform(x, mask, stop - first, jnp.zeros(()) if rate is None else rate))
        hidden = jnp.concatenate(states)
        if a.pre_norm and stop == end:
            last = LayerNorm(a.eps, dtype, name="encoder_norm")(hidden[-1])
            hidden = jnp.concatenate([hidden[:-1], last[None]])
        return Output(hidden, mask)

    def _embed(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time hidden"]:
        """Returns hidden state 0."""
        a, section = self.backbone, self.section
        x = FeatureProjection(a, section.dtype, name="feature_projection")(x)
        embedding = self.param("mask_embedding", nn.initializers.uniform(1.0), (a.hidden,))
        if section.time_mask_prob and self.has_rng("masking"):
            shape = (x.shape[0], x.shape[1])
            spans = time_spans(self.make_rng("masking"), shape, section.time_mask_prob, section.time_mask_length)
            x = jnp.where(spans[..., None], embedding.astype(section.dtype)[None, None], x)
        x = mask_frames(x, mask)
        x = x + PositionalConv(a, section.dtype, name="position")(x)
        return x if a.pre_norm else LayerNorm(a.eps, section.dtype, name="encoder_norm")(x)

    def _transform(
        self, x: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"], layers: int, rate
    ) -> Float[Array, "layer batch time hidden"]:
        """Returns the hidden states of so many layers."""
        a, section = self.backbone, self.section
        bias = None
        if a.buckets:
            distances = relative_buckets(x.shape[1], buckets=a.buckets, max_distance=a.max_distance)
            bias = nn.Embed(a.buckets, a.heads, name="relative_position")(jnp.asarray(distances)).transpose(2, 0, 1)
        layer = nn.remat(Layer, prevent_cse=False) if section.checkpointing else Layer
        scanned = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),
            length=layers,
        )
        _, hidden = scanned(a, section.lora, section.layer_drop, section.dtype, name=STACKED)(x, mask, bias, rate)
        return hidden


def time_spans(key: Key[Array, ""], shape: tuple[int, int], prob: float, length: int) -> Bool[Array, "batch time"]:
    """Returns True in random spans of `length` frames, which may overlap; `prob` is the share covered if none did."""
    begins = jax.random.uniform(key, shape) < prob / length
    begun = jnp.cumsum(begins.astype(jnp.int32), axis=1)
    return begun > jnp.pad(begun, ((0, 0), (length, 0)))[:, : shape[1]]
