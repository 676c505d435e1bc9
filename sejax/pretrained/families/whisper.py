"""Whisper's encoder (Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022).

Stage 0 is the log-mel spectrogram, two of whose frames make one of the model's; stage 1 the two convolutions and the
positions. The numbers equal those of transformers' PyTorch model.

Whisper was trained on 30 s, whatever of them is speech. There are two contexts:
- "utterance" computes the frames of the utterance alone, with positions from 0: a tenth of the work on short ones;
- "padded" computes 30 s as in training; the frames of the utterance are the first ones, and see the silence behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError, number
from sejax.nn.layers import mask_frames, valid_frames
from sejax.pretrained.base import WHOLE, Noise, Output, Rule, Section, stage_behind
from sejax.pretrained.families.log_mel import HOP, WINDOW, log_mel
from sejax.pretrained.families.masking import mask_spans, read_masking
from sejax.pretrained.families.transformer import ACTIVATIONS, Conv, Transformer, drop, join_states, run_layers
from sejax.pretrained.fields import FLAG, WORD, read_fields, whole
from sejax.pretrained.hub import CONFIG, preprocessor_path, without_warnings

STRIDE = 2  # log-mel frames of a frame of the model
EPS = 1e-5  # of all norms
FIELDS = {
    "d_model": whole(2, 1 << 14),
    "encoder_layers": whole(1, 1000),
    "encoder_attention_heads": whole(1, 1 << 10),
    "encoder_ffn_dim": whole(1, 1 << 20),
    "num_mel_bins": whole(1, 1 << 10),
    "max_source_positions": whole(1, 1 << 16),
    "activation_function": WORD,
    "scale_embedding": FLAG,
    "dropout": number(0, 1, below=True),
    "attention_dropout": number(0, 1, below=True),
    "activation_dropout": number(0, 1, below=True),
    "apply_spec_augment": FLAG,
}
PREPROCESSOR_FIELDS = {
    "sampling_rate": whole(1, 1 << 20),
    "feature_size": whole(1, 1 << 10),
    "hop_length": whole(1, 1 << 16),
    "n_fft": whole(1, 1 << 16),
    "do_normalize": FLAG,
}
PREPROCESSOR_DEFAULTS = {  # transformers'
    "sampling_rate": SAMPLING_RATE,
    "feature_size": 80,
    "hop_length": HOP,
    "n_fft": WINDOW,
    "do_normalize": False,
}
_LAYER = r"layers\.(?P<layer>[0-9]{1,6})\."


@dataclass(frozen=True)
class Whisper(Transformer):
    """The architecture and the input of a Whisper checkpoint's encoder."""

    RULES = (
        Rule(r"(?P<name>conv[12])\.weight", "{name}/kernel", "conv"),
        Rule(r"(?P<name>conv[12])\.bias", "{name}/bias"),
        Rule(r"embed_positions\.weight", "positions"),
        Rule(r"layer_norm\.weight", "encoder_norm/scale"),
        Rule(r"layer_norm\.bias", "encoder_norm/bias"),
        Rule(_LAYER + r"self_attn\.(?P<name>[qkv]|out)_proj\.weight", "layers/attention/{name}_proj/kernel", "linear"),
        Rule(_LAYER + r"self_attn\.(?P<name>[qv]|out)_proj\.bias", "layers/attention/{name}_proj/bias"),
        Rule(_LAYER + r"self_attn_layer_norm\.weight", "layers/attention_norm/scale"),
        Rule(_LAYER + r"self_attn_layer_norm\.bias", "layers/attention_norm/bias"),
        Rule(_LAYER + r"fc1\.weight", "layers/feed_forward/intermediate/kernel", "linear"),
        Rule(_LAYER + r"fc1\.bias", "layers/feed_forward/intermediate/bias"),
        Rule(_LAYER + r"fc2\.weight", "layers/feed_forward/output/kernel", "linear"),
        Rule(_LAYER + r"fc2\.bias", "layers/feed_forward/output/bias"),
        Rule(_LAYER + r"final_layer_norm\.weight", "layers/final_norm/scale"),
        Rule(_LAYER + r"final_layer_norm\.bias", "layers/final_norm/bias"),
    )
    PREFIX = r"(model\.)?encoder\."
    OWN = r"(conv1|conv2|embed_positions|layers|layer_norm)\b.*"
    NOT_USED = r"(model\.)?decoder\..*|proj_out\..*"
    FIXED = ("positions",)
    OPTIONAL = ()
    CONTEXTS = ("utterance", "padded")

    bands: int  # of the log-mel spectrogram
    positions: int  # frames of the longest input: 1500, 30 s
    padded: bool  # the context

    @classmethod
    def read(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any], folder: Path) -> "Whisper":
        path = folder / CONFIG
        with without_warnings():
            from transformers import WhisperConfig

            defaults = vars(WhisperConfig())
        c = read_fields(config, FIELDS, defaults, path)
        unsupported = {
            "a d_model that encoder_attention_heads does not divide": c["d_model"] % c["encoder_attention_heads"] != 0,
            f"activation_function {c['activation_function']!r}": c["activation_function"] not in ACTIVATIONS,
            "scale_embedding": c["scale_embedding"],
        }
        if parts := [part for part, present in unsupported.items() if present]:
            raise InputError(f"{path}: has {'; '.join(parts)}, which sejax does not support")
        _check_preprocessor(preprocessor, c["num_mel_bins"], folder)
        return cls(
            family="whisper",
            layers=c["encoder_layers"],
            hidden=c["d_model"],
            normalise=False,
            noise=Noise(
                dropout=float(c["dropout"]),
                attention_dropout=float(c["attention_dropout"]),
                activation_dropout=float(c["activation_dropout"]),
                **(read_masking(config, defaults, path) if c["apply_spec_augment"] else {}),
            ),
            heads=c["encoder_attention_heads"],
            intermediate=c["encoder_ffn_dim"],
            activation=c["activation_function"],
            pre_norm=True,
            key_bias=False,
            gated_bias=False,
            eps=EPS,
            bands=c["num_mel_bins"],
            positions=c["max_source_positions"],
            padded=False,
        )

    def in_context(self, context: str) -> "Whisper":
        super().in_context(context)
        return replace(self, padded=context == "padded")

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next: 320, 20 ms."""
        return STRIDE * HOP

    @property
    def window(self) -> int:
        return self.hop_length

    @property
    def longest(self) -> int:
        return self.positions * self.hop_length

    @property
    def least(self) -> int:
        return self.longest if self.padded else self.window

    def frames(self, samples: Any) -> Any:
        return -(-samples // self.hop_length)

    @property
    def frame_size(self) -> int:
        return STRIDE * self.bands

    def module(self, section: Section = WHOLE, name: str | None = None) -> "WhisperEncoder":
        return WhisperEncoder(self, section, name=name)

    def select(self, params: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        parts = ["conv1", "conv2", "positions"] if start <= 1 < stop else []
        parts += ["encoder_norm"] if stop == stage_behind(self.layers) else []
        return {part: params[part] for part in parts} | self.select_layers(params, start, stop)

    def depth(self, part: str) -> int:
        return self.layers if part == "encoder_norm" else 0


def _check_preprocessor(preprocessor: Mapping[str, Any], bands: int, folder: Path) -> None:
    """Refuses another spectrogram than Whisper's.

    Raises:
      InputError: the settings are not those of Whisper, or have not as many bands as the model.
    """
    path = preprocessor_path(folder)
    c = read_fields(preprocessor, PREPROCESSOR_FIELDS, PREPROCESSOR_DEFAULTS, path)
    for name, expected in (PREPROCESSOR_DEFAULTS | {"feature_size": bands}).items():
        if c[name] != expected:
            raise InputError(f"{path}: {name} is {c[name]}, expected {expected}")


class WhisperEncoder(nn.Module):
    """The whole encoder, or a section of its stages, with the parameters of those stages alone."""

    backbone: Whisper
    section: Section = WHOLE

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch samples"] | Float[Array, "batch time feature"],
        lengths: Int[Array, " batch"],
    ) -> Output:
        """Runs the section's stages: see `Backbone.module`. The last hidden state is normalised, the others are not."""
        a, section = self.backbone, self.section
        stop = section.end(a.layers)
        if section.start == 0:
            x, lengths = self._spectrogram(x, lengths), a.frames(lengths)
        mask = valid_frames(lengths, x.shape[1])
        if stop == 1:
            return Output(x[None], mask)
        seen = jnp.ones_like(mask) if a.padded else mask
        x = x.astype(section.dtype)
        states = []
        if section.start <= 1:
            x = self._embed(x, mask, seen)
            states.append(x[None])
        first = max(section.start, stage_behind(0))
        if first < stop:
            states.append(run_layers(a, section, stop - first, x, seen))
        return Output(join_states(a, section, states), mask)

    def _spectrogram(
        self, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
    ) -> Float[Array, "batch time feature"]:
        """Returns the log-mel frames, two side by side."""
        a = self.backbone
        time = a.positions if a.padded else min(int(a.frames(waveform.shape[1])), a.positions)
        samples = time * a.hop_length
        valid = valid_frames(lengths, waveform.shape[1])
        waveform = jnp.where(valid, waveform, 0.0)[:, :samples]
        # Behind 30 s the spectrogram sees a mirror image, as in training, and zeros behind an utterance alone.
        behind = 0 if a.padded else WINDOW
        waveform = jnp.pad(waveform, ((0, 0), (0, samples + behind - waveform.shape[1])))
        frames = jnp.full_like(lengths, a.positions) if a.padded else a.frames(lengths)
        kept = valid_frames(STRIDE * frames, STRIDE * time)
        return log_mel(waveform, kept, bands=a.bands).reshape(waveform.shape[0], time, a.frame_size)

    def _embed(
        self, x: Float[Array, "batch time feature"], mask: Bool[Array, "batch time"], seen: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time hidden"]:
        """Returns hidden state 0. The convolutions see zeros behind the utterance."""
        a, dtype = self.backbone, self.section.dtype
        act = ACTIVATIONS["gelu"]
        twice = jnp.repeat(seen, STRIDE, axis=1)
        # The utterance's own frames in either context, whatever the layers see.
        x = mask_spans(self, a.noise, x.reshape(x.shape[0], -1, a.bands), jnp.repeat(mask, STRIDE, axis=1))
        x = act(Conv(a.hidden, 3, 1, True, dtype, padding=1, name="conv1")(mask_frames(x, twice)))
        x = act(Conv(a.hidden, 3, STRIDE, True, dtype, padding=1, name="conv2")(mask_frames(x, twice)))
        positions = self.param("positions", nn.initializers.normal(), (a.positions, a.hidden))
        x = (x.astype(jnp.float32) + lax.stop_gradient(positions)[None, : x.shape[1]]).astype(dtype)
        return drop(x, a.noise.dropout)
