"""The Transformer that all families share: its sizes, and its layers, with adapters and dropout.

Parameters are float32 in one tree, in which all Transformer layers are stacked on a leading axis. `Section.dtype` is
the dtype of the products; reductions are float32.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sejax.nn.attention import attend
from sejax.nn.layers import Dense, Dropout, add_bias, product
from sejax.pretrained.base import NO_LORA, STACKED, Backbone, Lora, Section, stage_behind

ADAPTER_START = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""How an adapter's first matrix starts: uniform up to 1/sqrt(inputs), as in peft (and PyTorch's linear layers)."""

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_new": partial(nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
}
"""The activations that config.json may name."""


@dataclass(frozen=True)
class Transformer(Backbone):
    """A backbone whose layers are those of this module."""

    heads: int
    intermediate: int
    activation: str  # a key of ACTIVATIONS
    pre_norm: bool  # norms before attention and feed-forward, not after
    key_bias: bool  # whether the projection to keys has a bias
    gated_bias: bool  # whether each query gates the bias of its logits (WavLM)
    eps: float  # of the layers' norms

    def select_layers(self, params: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        """Returns the stacked parameters of the layers among the stages from `start` up to but not including `stop`."""
        below = stage_behind(0)
        first, last = max(start, below), stop
        if first >= last:
            return {}
        return {STACKED: jax.tree.map(lambda x: x[first - below : last - below], params[STACKED])}


def drop(x: Float[Array, "*shape"], rate: float) -> Float[Array, "*shape"]:
    """Returns `x` after dropout in the calling module, which is the identity without the random stream "dropout"."""
    return Dropout()(x, jnp.asarray(rate, jnp.float32)) if rate else x


class LayerNorm(nn.Module):
    """A layer norm over features with moments in float32, computed in two passes."""

    eps: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> Float[Array, "*batch feature"]:
        norm = nn.LayerNorm(epsilon=self.eps, dtype=jnp.float32, use_fast_variance=False)
        nn.share_scope(self, norm)
        return norm(x.astype(jnp.float32)).astype(self.dtype)


class Conv(nn.Module):
    """A convolution over time, with zeros around the input."""

    features: int
    width: int
    stride: int
    use_bias: bool
    dtype: Any = jnp.float32
    padding: int = 0  # zeros on either side

    @nn.compact
    def __call__(self, x: Float[Array, "batch time feature"]) -> Float[Array, "batch time_out {self.features}"]:
        convolve = nn.Conv(self.features, self.width, self.stride, self.padding, use_bias=False, dtype=self.dtype)
        nn.share_scope(self, convolve)
        y = convolve(x)
        return add_bias(y, self.param("bias", nn.initializers.zeros, (self.features,))) if self.use_bias else y


class Linear(nn.Module):
    """A linear layer, and a low-rank adapter beside it if `lora` names the layer."""

    features: int
    lora: Lora = NO_LORA
    dtype: Any = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch time feature"]) -> Float[Array, "batch time {self.features}"]:
        y = Dense(self.features, use_bias=self.use_bias, dtype=self.dtype)
        nn.share_scope(self, y)
        out = y(x)
        if self.lora.rank and self.name in self.lora.targets:
            down = self.param("lora_a", ADAPTER_START, (x.shape[-1], self.lora.rank))
            up = self.param("lora_b", nn.initializers.zeros, (self.lora.rank, self.features))
            scale = jnp.asarray(self.lora.alpha / self.lora.rank, self.dtype)
            x = product("btf,fr->btr", x.astype(self.dtype), down)
            out = out + scale * product("btr,rf->btf", x, up)
        return out


class SelfAttention(nn.Module):
    """Multi-head self-attention, in some families with a bias of the logits, which each query may gate."""

    backbone: Transformer
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
        biased = {"q": True, "k": a.key_bias, "v": True}
        q, k, v = (linear(name=f"{n}_proj", use_bias=biased[n])(x).reshape(heads) for n in "qkv")
        bias = None if bias is None else bias[None]
        if bias is not None and a.gated_bias:
            gates = Dense(8, dtype=self.dtype, name="gate")(x.reshape(heads)).astype(jnp.float32)
            a_gate, b_gate = jnp.moveaxis(nn.sigmoid(gates.reshape(*heads[:3], 2, 4).sum(axis=-1)), -1, 0)
            constant = self.param("gate_constant", nn.initializers.ones, (a.heads,))
            gate = a_gate * (b_gate * constant[None, None] - 1.0) + 2.0
            bias = gate.transpose(0, 2, 1)[..., None] * bias
        bias = None if bias is None else bias.astype(self.dtype)
        seen = mask[:, None, None, :]
        if a.noise.attention_dropout and self.has_rng("dropout"):
            y = self._attend(q, k, v, bias, seen)
        elif bias is None:
            y = attend(q, k, v, mask)
        else:
            with jax.numpy_dtype_promotion("standard"):  # its logits and softmax are float32
                y = jax.nn.dot_product_attention(q, k, v, bias, seen)
        return linear(name="out_proj")(y.reshape(x.shape))

    def _attend(
        self,
        q: Float[Array, "batch time head size"],
        k: Float[Array, "batch time head size"],
        v: Float[Array, "batch time head size"],
        bias: Float[Array, "_batch head time time"] | None,
        seen: Bool[Array, "batch 1 1 time"],
    ) -> Float[Array, "batch time head size"]:
        """Computes attention with dropout of its probabilities, which `jax.nn.dot_product_attention` does not have."""
        multiply = partial(jnp.einsum, preferred_element_type=jnp.float32)
        logits = multiply("bthf,bshf->bhts", q, k) / math.sqrt(q.shape[-1])
        if bias is not None:
            logits = logits + bias.astype(jnp.float32)
        logits = jnp.where(seen, logits, jnp.finfo(jnp.float32).min)
        probabilities = drop(jax.nn.softmax(logits, axis=-1), self.backbone.noise.attention_dropout)
        return multiply("bhts,bshf->bthf", probabilities.astype(v.dtype), v).astype(v.dtype)


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    backbone: Transformer
    lora: Lora = NO_LORA
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time hidden"]) -> Float[Array, "batch time hidden"]:
        a = self.backbone
        y = ACTIVATIONS[a.activation](Linear(a.intermediate, self.lora, self.dtype, name="intermediate")(x))
        return Linear(a.hidden, self.lora, self.dtype, name="output")(drop(y, a.noise.activation_dropout))


class Layer(nn.Module):
    """One Transformer layer, post-norm (base models) or pre-norm (large ones)."""

    backbone: Transformer
    lora: Lora = NO_LORA
    layer_drop: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time hidden"],
        mask: Bool[Array, "batch time"],
        bias: Float[Array, "head time time"] | None,
    ) -> tuple[Float[Array, "batch time hidden"], Float[Array, "batch time hidden"]]:
        a = self.backbone
        attention = SelfAttention(a, self.lora, self.dtype, name="attention")
        feed_forward = FeedForward(a, self.lora, self.dtype, name="feed_forward")
        attention_norm = LayerNorm(a.eps, self.dtype, name="attention_norm")
        final_norm = LayerNorm(a.eps, self.dtype, name="final_norm")
        if a.pre_norm:
            y = x + drop(attention(attention_norm(x), mask, bias), a.noise.dropout)
            y = y + drop(feed_forward(final_norm(y)), a.noise.dropout)
        else:
            y = attention_norm(x + drop(attention(x, mask, bias), a.noise.dropout))
            y = final_norm(y + drop(feed_forward(y), a.noise.dropout))
        if self.layer_drop and self.has_rng("dropout"):
            y = jnp.where(jax.random.uniform(self.make_rng("dropout")) < self.layer_drop, x, y)
        return y, y


def join_states(
    backbone: Transformer,
    section: Section,
    states: Sequence[Float[Array, "_layer batch time hidden"]],
) -> Float[Array, "_layer batch time hidden"]:
    """Returns all hidden states of a section, of which the last one of a pre-norm model is normalised.

    Args:
      backbone: the sizes.
      section: which stages the calling module runs.
      states: the hidden states below the last norm, in order.
    """
    if backbone.pre_norm and section.final_norm and section.end(backbone.layers) == stage_behind(backbone.layers):
        # Joined once: they are the largest arrays of the program.
        *before, last = states
        normalised = LayerNorm(backbone.eps, section.dtype, name="encoder_norm")(last[-1])
        states = [*before, last[:-1], normalised[None]]
    return jnp.concatenate(states)


def run_layers(
    backbone: Transformer,
    section: Section,
    layers: int,
    x: Float[Array, "batch time hidden"],
    mask: Bool[Array, "batch time"],
    bias: Float[Array, "head time time"] | None = None,
) -> Float[Array, "layer batch time hidden"]:
    """Returns the hidden states of so many layers, whose parameters are stacked under STACKED of the calling module.

    Args:
      backbone: the sizes.
      section: how the layers are run.
      layers: their number.
      x: the hidden state below them.
      mask: the frames that attention sees.
      bias: of the attention's logits.
    """
    layer = nn.remat(Layer, prevent_cse=False) if section.checkpointing else Layer
    scanned = nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(nn.broadcast, nn.broadcast),
        length=layers,
    )
    _, hidden = scanned(backbone, section.lora, section.layer_drop, section.dtype, name=STACKED)(x, mask, bias)
    return hidden
