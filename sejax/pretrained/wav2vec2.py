"""Wav2Vec 2.0, HuBERT and WavLM as one family of Linen modules.

References: Baevski et al., wav2vec 2.0 (2020); Hsu et al., HuBERT (2021); Chen et al., WavLM (2022). The
numbers are those of transformers' PyTorch models of a single utterance, with one difference: padding never
changes an utterance's features. The base models of PyTorch normalise their first convolution over all samples
of a row, padding included, and so give other features in a batch than alone; here group norm, positions and
attention see valid samples only.

Parameters are float32 in one tree, in which all Transformer layers are stacked on a leading axis; `dtype` is
what is computed in (reductions stay in float32).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from sejax.errors import InputError
from sejax.nn.layers import Dropout, mask_frames

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_new": partial(nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
}
"""By the names of `config.json`."""

CONV_EPS = 1e-5  # of the norms in the feature encoder, whatever `layer_norm_eps` is


@dataclass(frozen=True)
class Architecture:
    """What shapes a model of the family, read from its `config.json` (`sejax.pretrained.convert`)."""

    family: str  # "wav2vec2", "hubert" or "wavlm"
    conv_dim: tuple[int, ...]
    conv_kernel: tuple[int, ...]
    conv_stride: tuple[int, ...]
    conv_bias: bool
    conv_norm: str  # "group": after the first convolution, over time; "layer": after each, over channels
    conv_activation: str  # a key of ACTIVATIONS
    hidden: int
    layers: int
    heads: int
    intermediate: int
    activation: str
    position_width: int
    position_groups: int
    pre_norm: bool  # norms ahead of attention and feed-forward (`do_stable_layer_norm`), not behind
    eps: float
    projection_norm: bool
    buckets: int  # of WavLM's relative positions; 0 in the other families
    max_distance: int

    @property
    def hop_length(self) -> int:
        """Samples from frame to frame: 320, 20 ms."""
        return int(np.prod(self.conv_stride))

    @property
    def window(self) -> int:
        """Samples that one frame sees, the shortest input: 400, 25 ms."""
        samples = 1
        for width, stride in zip(reversed(self.conv_kernel), reversed(self.conv_stride), strict=True):
            samples = (samples - 1) * stride + width
        return samples

    def state(self, layers: str) -> int | None:
        """Which hidden state an option `layers` names: None for "all", the top one for "last", else its number.

        Raises:
          InputError: neither of these, or a number above the model's layers.
        """
        named = {"all": None, "last": self.layers}
        if layers in named:
            return named[layers]
        if not layers.isdecimal() or int(layers) > self.layers:
            raise InputError(
                f"The option layers is {layers!r}; expected all, last or a number from 0 (the input of the first "
                f"layer) to {self.layers}, the layers of this {self.family} model."
            )
        return int(layers)

    def frames(self, samples: Any) -> Any:
        """How many frames a number of samples gives; numbers and arrays alike."""
        for width, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            samples = (samples - width) // stride + 1
        return samples


class Lora(NamedTuple):
    """Low-rank adaptation (Hu et al., 2021) of the named linear layers: y += alpha / rank * (x A) B."""

    rank: int
    alpha: float
    targets: tuple[str, ...]  # names out of `sejax.pretrained.LORA_TARGETS`


NO_LORA = Lora(0, 1.0, ())


class Output(NamedTuple):
    """All hidden states (the input of the first layer, then the output of each), and which frames are valid.

    As in transformers 4, the last hidden state of a pre-norm model is normalised, the others are not.
    """

    hidden: Float[Array, "layer batch time hidden"]
    mask: Bool[Array, "batch time"]


def normalise_waveform(
    waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
) -> Float[Array, "batch samples"]:
    """Zero mean and unit variance of each utterance's valid samples, zeros after them.

    What transformers' Wav2Vec2FeatureExtractor does where `do_normalize` is set (its epsilon too).
    """
    valid = jnp.arange(waveform.shape[1], dtype=lengths.dtype)[None] < lengths[:, None]
    count = jnp.maximum(lengths, 1).astype(waveform.dtype)[:, None]
    zero = jnp.zeros((), waveform.dtype)
    mean = jnp.where(valid, waveform, zero).sum(axis=1, keepdims=True) / count
    centred = jnp.where(valid, waveform - mean, zero)
    variance = (centred**2).sum(axis=1, keepdims=True) / count
    return centred * lax.rsqrt(variance + 1e-7)


class MaskedGroupNorm(nn.Module):
    """Group norm with one group per channel: each channel by its mean and variance over the valid frames."""

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
    """Layer norm over features, its moments in float32 and in two passes."""

    eps: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> Float[Array, "*batch feature"]:
        norm = nn.LayerNorm(epsilon=self.eps, dtype=jnp.float32, use_fast_variance=False)
        nn.share_scope(self, norm)
        return norm(x.astype(jnp.float32)).astype(self.dtype)


class FeatureEncoder(nn.Module):
    """The convolutions from samples to frames."""

    architecture: Architecture
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch time feature"], Bool[Array, "batch time"]]:
        a = self.architecture
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
    """From the convolutions' channels to the Transformer's."""

    architecture: Architecture
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time feature"]) -> Float[Array, "batch time hidden"]:
        if self.architecture.projection_norm:
            x = LayerNorm(self.architecture.eps, self.dtype, name="norm")(x)
        return nn.Dense(self.architecture.hidden, dtype=self.dtype, name="projection")(x)


class PositionalConv(nn.Module):
    """A wide grouped convolution whose output, added to its input, tells positions.

    Its kernel is `weight_g * weight_v / |weight_v|`, one norm per tap (weight normalisation over the last axis
    of PyTorch's layout). Frames beyond an utterance's end have to be zeros.
    """

    architecture: Architecture
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time hidden"]) -> Float[Array, "batch time hidden"]:
        a = self.architecture
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
        # On the CPU twice as fast as one grouped convolution, and its gradient ten times.
        groups = (jnp.split(values, a.position_groups, axis=-1) for values in (x, kernel))
        y = jnp.concatenate([convolve(*group) for group in zip(*groups, strict=True)], axis=-1)
        return ACTIVATIONS[a.conv_activation](y + bias.astype(self.dtype)[None, None])


class Linear(nn.Module):
    """A linear layer with bias, and beside it a low-rank one where `lora` names it."""

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
    """WavLM's bucket of each distance from query (first axis) to key: half of the buckets for either side,
    in each half one per distance up to a half of it, then logarithmic up to `max_distance`."""
    distance = np.arange(time)[None] - np.arange(time)[:, None]
    half = buckets // 2
    exact = half // 2
    size = np.abs(distance)
    ratio = np.log(np.maximum(size, 1).astype(np.float32) / exact) / np.log(max_distance / exact)
    far = np.minimum((exact + ratio.astype(np.float32) * (half - exact)).astype(np.int64), half - 1)
    return ((distance > 0) * half + np.where(size < exact, size, far)).astype(np.int32)


class SelfAttention(nn.Module):
    """Multi-head self-attention; in WavLM with a relative position bias that each query gates."""

    architecture: Architecture
    lora: Lora = NO_LORA
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time hidden"],
        mask: Bool[Array, "batch time"],
        bias: Float[Array, "head time time"] | None,
    ) -> Float[Array, "batch time hidden"]:
        a = self.architecture
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
    """Two linear layers with an activation between."""

    architecture: Architecture
    lora: Lora = NO_LORA
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time hidden"], rate: Float[Array, ""]
    ) -> Float[Array, "batch time hidden"]:
        a = self.architecture
        y = ACTIVATIONS[a.activation](Linear(a.intermediate, self.lora, self.dtype, name="intermediate")(x))
        return Linear(a.hidden, self.lora, self.dtype, name="output")(Dropout()(y, rate))


class Layer(nn.Module):
    """One Transformer layer, post-norm (base models) or pre-norm (large ones)."""

    architecture: Architecture
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
        a = self.architecture
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


class SSLModel(nn.Module):
    """A model of the family, or a section of its stages: 0 the convolutions, 1 projection and positions, then
    stage `1 + i` is Transformer layer i, counted from 1.

    A section holds the parameters of its own stages; where a model is cut, one part can be frozen and shared by
    many runs, and the other be each run's own.
    """

    architecture: Architecture
    dtype: Any = jnp.float32
    start: int = 0
    stop: int | None = None  # the stage behind the last; None: through the last layer
    lora: Lora = NO_LORA
    layer_drop: float = 0.0
    time_mask_prob: float = 0.0  # share of the frames that spans of masked frames begin to cover
    time_mask_length: int = 10
    checkpointing: bool = False  # computes each layer again on the way back instead of keeping its activations

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch samples"] | Float[Array, "batch time feature"],
        lengths: Int[Array, " batch"],
        rate: Float[Array, ""] | None = None,
    ) -> Output:
        """
        Args:
          x: of the first section samples at 16 kHz, normalised where the checkpoint wants that
            (`normalise_waveform`); of a later one what the stage before gave.
          lengths: valid samples, or frames; an utterance needs `architecture.window` samples to have a frame.
          rate: of dropout; needs the random stream "dropout". Time masking needs "masking".

        Returns:
          What this section's stages gave: the hidden states, or of the convolutions alone their frames.
        """
        a = self.architecture
        stop = a.layers + 2 if self.stop is None else self.stop
        if self.start == 0:
            x, mask = FeatureEncoder(a, self.dtype, name="feature_encoder")(x, lengths)
        else:
            x = x.astype(self.dtype)
            mask = jnp.arange(x.shape[1], dtype=lengths.dtype)[None] < lengths[:, None]
        if stop == 1:
            return Output(x[None], mask)
        states = []
        if self.start <= 1:
            x = self._embed(x, mask)
            states.append(x[None])
        first = max(self.start, 2)
        if first < stop:
            states.append(self._transform(x, mask, stop - first, jnp.zeros(()) if rate is None else rate))
        hidden = jnp.concatenate(states)
        if a.pre_norm and stop == a.layers + 2:
            last = LayerNorm(a.eps, self.dtype, name="encoder_norm")(hidden[-1])
            hidden = jnp.concatenate([hidden[:-1], last[None]])
        return Output(hidden, mask)

    def _embed(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time hidden"]:
        a = self.architecture
        x = FeatureProjection(a, self.dtype, name="feature_projection")(x)
        embedding = self.param("mask_embedding", nn.initializers.uniform(1.0), (a.hidden,))
        if self.time_mask_prob and self.has_rng("masking"):
            spans = time_spans(
                self.make_rng("masking"), (x.shape[0], x.shape[1]), self.time_mask_prob, self.time_mask_length
            )
            x = jnp.where(spans[..., None], embedding.astype(self.dtype)[None, None], x)
        x = mask_frames(x, mask)
        x = x + PositionalConv(a, self.dtype, name="position")(x)
        return x if a.pre_norm else LayerNorm(a.eps, self.dtype, name="encoder_norm")(x)

    def _transform(
        self, x: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"], layers: int, rate
    ) -> Float[Array, "layer batch time hidden"]:
        a = self.architecture
        bias = None
        if a.buckets:
            distances = relative_buckets(x.shape[1], buckets=a.buckets, max_distance=a.max_distance)
            bias = nn.Embed(a.buckets, a.heads, name="relative_position")(jnp.asarray(distances)).transpose(2, 0, 1)
        layer = nn.remat(Layer, prevent_cse=False) if self.checkpointing else Layer
        scanned = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),
            length=layers,
        )
        _, hidden = scanned(a, self.lora, self.layer_drop, self.dtype, name="layers")(x, mask, bias, rate)
        return hidden


def time_spans(key: Key[Array, ""], shape: tuple[int, int], prob: float, length: int) -> Bool[Array, "batch time"]:
    """True in random spans of `length` frames, which may overlap; `prob` is the share covered if none did."""
    begins = jax.random.uniform(key, shape) < prob / length
    begun = jnp.cumsum(begins.astype(jnp.int32), axis=1)
    return begun > jnp.pad(begun, ((0, 0), (length, 0)))[:, : shape[1]]
