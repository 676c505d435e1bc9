"""The two heads on the shared representation: the class, and the dimensions."""

from flax import linen as nn
from jaxtyping import Array, Float

from sejax.nn.layers import Dropout


class Heads(nn.Module):
    """The linear heads: logits of the classes, and valence, arousal and dominance in half scales (-1 to 1)."""

    classes: int
    dimensions: int

    @nn.compact
    def __call__(
        self, fused: Float[Array, "batch width"], rate: Float[Array, ""]
    ) -> tuple[Float[Array, "batch {self.classes}"], Float[Array, "batch {self.dimensions}"]]:
        fused = Dropout(name="dropout")(fused, rate)
        # Small initial kernels keep the first predictions near uniform, whatever the width of the trunk.
        small = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
        logits = nn.Dense(self.classes, kernel_init=small, name="label")(fused)
        vad = nn.Dense(self.dimensions, kernel_init=small, name="vad")(fused)
        return logits, vad
