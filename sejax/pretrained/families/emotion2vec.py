"""emotion2vec (Ma et al., 2024): a data2vec 2.0 encoder, as `tools/convert_checkpoint.py` writes it from FunASR's file.

It is a post-norm wav2vec 2.0 with positional convolutions, and differs in two ways:
- learned tokens are a part of the sequence that the Transformer layers see. Here they stand behind the frames, also
  behind those of padding, where nothing but attention reads them: an utterance's frames stay the first ones;
- attention prefers near frames: the logits of head h fall by `slope_h * max(scale_h, 0)` per frame of distance (ALiBi,
  Press et al., 2022), with learned scales. To and from the tokens there is no distance.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sejax.pretrained.base import WHOLE, Rule, Section
from sejax.pretrained.families.transformer import run_layers
from sejax.pretrained.families.wav2vec2 import Wav2Vec2, Wav2Vec2Model
from sejax.pretrained.families.wav2vec2_config import read_architecture
from sejax.pretrained.fields import read_fields, whole
from sejax.pretrained.hub import CONFIG


@dataclass(frozen=True)
class Emotion2vec(Wav2Vec2):
    """The architecture and the input of an emotion2vec checkpoint."""

    RULES = (
        *Wav2Vec2.RULES,
        Rule(r"encoder\.extra_tokens", "extra_tokens"),
        Rule(r"encoder\.alibi_scale", "alibi_scale"),
    )
    PREFIX = r"emotion2vec\."
    VARIANCE_FLOOR: ClassVar[float] = 1e-5  # of PyTorch's layer norm, with which FunASR normalises a waveform

    tokens: int  # learned tokens

    @classmethod
    def read(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any], folder: Path) -> "Emotion2vec":
        c = read_fields(config, {"num_extra_tokens": whole(1, 1 << 10)}, {"num_extra_tokens": None}, folder / CONFIG)
        return cls(**read_architecture(config, preprocessor, folder), tokens=c["num_extra_tokens"])

    def module(self, section: Section = WHOLE, name: str | None = None) -> "Emotion2vecModel":
        return Emotion2vecModel(self, section, name=name)

    def select(self, params: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        selected = super().select(params, start, stop)
        parts = ["extra_tokens"] if start <= 1 < stop else []
        parts += ["alibi_scale"] if stop > max(start, 2) else []
        return selected | {part: params[part] for part in parts}

    def depth(self, part: str) -> int:
        return 1 if part == "alibi_scale" else super().depth(part)


class Emotion2vecModel(Wav2Vec2Model):
    """A whole model, or a section of its stages; the tokens are the last of its frames and outside their mask."""

    backbone: Emotion2vec
    section: Section = WHOLE

    def _extend(self, x: Float[Array, "batch time hidden"]) -> Float[Array, "batch time_out hidden"]:
        a = self.backbone
        tokens = self.param("extra_tokens", nn.initializers.normal(1.0), (a.tokens, a.hidden)).astype(x.dtype)
        return jnp.concatenate([x, jnp.broadcast_to(tokens[None], (x.shape[0], a.tokens, a.hidden))], axis=1)

    def _transform(
        self, x: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"], layers: int
    ) -> Float[Array, "layer batch time hidden"]:
        a = self.backbone
        scale = jnp.maximum(self.param("alibi_scale", nn.initializers.ones, (a.heads,)), 0.0)
        frames = x.shape[1] - a.tokens
        place = np.arange(frames)
        distance = np.pad(np.abs(place[None] - place[:, None]), (0, a.tokens)).astype(np.float32)
        steepness = scale * jnp.asarray(alibi_slopes(a.heads), jnp.float32)
        bias = -steepness[:, None, None] * jnp.asarray(distance)[None]
        seen = mask.at[:, frames:].set(True)
        return run_layers(a, self.section, layers, x, seen, bias)


def alibi_slopes(heads: int) -> list[float]:
    """Returns the slopes of ALiBi: powers of `2^(-8 / heads)`; of a number that is no power of two as in its paper.

    Those of the next lower power of two come first, then every second one of its double.
    """
    lower = 2 ** int(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / lower) for i in range(lower)]
    return slopes + [2.0 ** (-4.0 * (2 * i + 1) / lower) for i in range(heads - lower)]
