"""One encoder per stream: frames in, fewer frames of the model's width out.

Each takes `(x [batch, time, feature], mask [batch, time], rate [])` and gives `(y [batch, time', width],
mask [batch, time'])` with `time' = ceil(time / stride)`.
"""

from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sejax.models.attention import Block
from sejax.models.layers import LSTM, Conv, Dropout, mask_frames, sinusoids, stack_frames


class RecurrentEncoder(nn.Module):
    """`stride` frames side by side, a linear map, then bidirectional LSTM layers."""

    width: int
    layers: int
    stride: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], rate: Float[Array, ""]
    ) -> tuple[Float[Array, "batch time_out {self.width}"], Bool[Array, "batch time_out"]]:
        x, mask = stack_frames(x, mask, self.stride)
        x = nn.Dense(self.width)(x)
        for _ in range(self.layers):
            y = LSTM(self.width // 2)(nn.LayerNorm()(x), mask)
            x = x + Dropout()(y, rate)
        return nn.LayerNorm()(x), mask


class TransformerEncoder(nn.Module):
    """`stride` frames side by side, a linear map with fixed position codes, then pre-norm Transformer blocks."""

    width: int
    layers: int
    stride: int
    heads: int = 4

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], rate: Float[Array, ""]
    ) -> tuple[Float[Array, "batch time_out {self.width}"], Bool[Array, "batch time_out"]]:
        x, mask = stack_frames(x, mask, self.stride)
        x = nn.Dense(self.width)(x)
        x = x + sinusoids(x.shape[1], self.width).astype(x.dtype)[None]
        for _ in range(self.layers):
            x = Block(self.width, self.heads)(x, mask, rate)
        return nn.LayerNorm()(x), mask


class ConvEncoder(nn.Module):
    """`stride` frames side by side, a linear map (together a convolution of that stride), residual convolutions.

    Normalisation is per frame (layer norm), never across utterances: no statistic of another speaker,
    held out or not, enters an utterance's prediction.
    """

    width: int
    layers: int
    stride: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], rate: Float[Array, ""]
    ) -> tuple[Float[Array, "batch time_out {self.width}"], Bool[Array, "batch time_out"]]:
        x, mask = stack_frames(x, mask, self.stride)
        x = nn.gelu(nn.Dense(self.width)(x))
        for _ in range(self.layers):
            y = Conv(self.width, width=5)(mask_frames(nn.LayerNorm()(x), mask))
            x = x + Dropout()(nn.gelu(y), rate)
        return nn.LayerNorm()(x), mask


class LinearEncoder(nn.Module):
    """`stride` frames side by side and a linear map: for features that already know their context."""

    width: int
    layers: int  # unused: there is one map
    stride: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], rate: Float[Array, ""]
    ) -> tuple[Float[Array, "batch time_out {self.width}"], Bool[Array, "batch time_out"]]:
        x, mask = stack_frames(x, mask, self.stride)
        return nn.LayerNorm()(nn.Dense(self.width)(Dropout()(x, rate))), mask


ENCODERS = {"lstm": RecurrentEncoder, "transformer": TransformerEncoder, "conv": ConvEncoder, "linear": LinearEncoder}
"""The kinds that `config.model.encoder.<stream>` may name."""
