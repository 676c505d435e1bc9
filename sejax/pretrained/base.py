"""The contract between a pretrained family and the modules that load, run and fine-tune its checkpoints.

A family is one file with a subclass of `Backbone` and one row of `sejax.pretrained.registry.BACKBONES`. Every model is
a sequence of stages:

    0      from the waveform to frames
    1      from frames to hidden state 0, the input of the first Transformer layer
    1 + i  Transformer layer i, counted from 1, which gives hidden state i

Every model reads the waveform. A family with another front end (a log-mel spectrogram) computes it in stage 0, as a
part of the same compiled program.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int

from sejax.errors import InputError
from sejax.nn.layers import valid_frames

STACKED = "layers"
"""The part of a parameter tree whose arrays are stacked over the Transformer layers, on their leading axis."""


class Rule(NamedTuple):
    """Where an array of a checkpoint goes in the parameter tree.

    `pattern` is matched against the whole key. Its group `layer` is the number of a Transformer layer, counted from 0.
    Its other groups are parts of `path`.
    """

    pattern: str
    path: str
    convert: str = "same"  # a key of `sejax.pretrained.convert.CONVERSIONS`


class Lora(NamedTuple):
    """Low-rank adaptation (Hu et al., 2021) of the named linear layers: y += alpha / rank * (x A) B."""

    rank: int
    alpha: float
    targets: tuple[str, ...]  # names out of `sejax.pretrained.LORA_TARGETS`


NO_LORA = Lora(0, 1.0, ())


class Noise(NamedTuple):
    """What happens to a model's values in training alone: dropout, and masked spans (SpecAugment; Park et al., 2019).

    The fields are options of `config.finetune`. A share is that of the frames or features that the spans would cover if
    none overlapped.
    """

    dropout: float = 0.0  # behind positions, attention and feed-forward
    attention_dropout: float = 0.0  # of attention's probabilities
    activation_dropout: float = 0.0  # inside the feed-forward
    projection_dropout: float = 0.0  # behind the feature projection
    time_mask_prob: float = 0.0  # share of the frames
    time_mask_length: int = 10  # frames of a span
    time_mask_min: int = 0  # spans of an utterance that is long enough
    feature_mask_prob: float = 0.0  # share of the features
    feature_mask_length: int = 10
    feature_mask_min: int = 0


class Output(NamedTuple):
    """The hidden states of a section, lowest first (of stage 0 alone its frames), and the mask of valid frames.

    Behind the frames, outside the mask, a family may keep states of its own, which its next section reads.
    """

    hidden: Float[Array, "layer batch time hidden"]
    mask: Bool[Array, "batch time"]


@dataclass(frozen=True)
class Section:
    """The stages that a module runs, from `start` up to but not including `stop`, and how it runs them."""

    start: int = 0
    stop: int | None = None  # None: through the last layer
    dtype: Any = jnp.float32  # of the products; parameters and reductions are float32
    lora: Lora = NO_LORA
    layer_drop: float = 0.0  # probability that a layer is skipped in a training step
    final_norm: bool = True  # a norm behind the last layer is a part of the last hidden state
    checkpointing: bool = False  # computes each layer again in the backward pass instead of storing its activations

    def end(self, layers: int) -> int:
        """Returns the stage behind the last one that runs, in a model of so many layers."""
        return stage_behind(layers) if self.stop is None else self.stop


WHOLE = Section()


def stage_behind(layer: int) -> int:
    """Returns the stage that follows a Transformer layer; layer 0 is the input of the first."""
    return layer + 2


@dataclass(frozen=True)
class Backbone(ABC):
    """One checkpoint's architecture and input, without its weights. Hashable: models hold it as a static field."""

    RULES: ClassVar[tuple[Rule, ...]]  # where each array of the encoder goes; layers are stacked under STACKED
    PREFIX: ClassVar[str]  # a pattern; what heads put before the encoder's keys
    OWN: ClassVar[str]  # a pattern of the encoder's keys, without prefix; all others belong to heads
    OPTIONAL: ClassVar[tuple[str, ...]]  # paths of arrays that a checkpoint may lack; they are zeros then
    NOT_USED: ClassVar[str] = ""  # a pattern of keys of parts that are no loss, such as a decoder; "": none
    FIXED: ClassVar[tuple[str, ...]] = ()  # parts of the tree outside STACKED that fine-tuning never trains
    VARIANCE_FLOOR: ClassVar[float] = 1e-7  # of `normalise_waveform`; transformers' Wav2Vec2FeatureExtractor's
    CONTEXTS: ClassVar[tuple[str, ...]] = ("utterance",)  # what frames may see, the default first

    family: str  # model_type of config.json, a key of BACKBONES
    layers: int  # Transformer layers
    hidden: int  # features of a hidden state
    normalise: bool  # the model reads utterances of zero mean and unit variance (`normalise_waveform`)
    noise: Noise  # the checkpoint's own, unless the study has another

    @classmethod
    @abstractmethod
    def read(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any], folder: Path) -> "Backbone":
        """Returns what a checkpoint's config.json and its preprocessor's settings describe.

        Args:
          config: the content of config.json.
          preprocessor: the settings of the feature extractor.
          folder: named in errors.

        Raises:
          InputError: parts or inputs that are not supported, all parts in one sentence.
        """

    @property
    @abstractmethod
    def hop_length(self) -> int:
        """Samples from one frame to the next."""

    @property
    @abstractmethod
    def window(self) -> int:
        """Samples that one frame sees, which is the shortest input."""

    @abstractmethod
    def frames(self, samples: Any) -> Any:
        """Returns the number of frames of so many samples, a number or an array; less than 1 if there is none."""

    @property
    @abstractmethod
    def frame_size(self) -> int:
        """Features of the frames that stage 0 gives."""

    @abstractmethod
    def module(self, section: Section = WHOLE, name: str | None = None) -> nn.Module:
        """Returns the module of a section.

        It is called with `(x, lengths)` and returns an `Output`. For the first section, `x` are samples
        [batch, samples] at 16 kHz (after `prepare`) and `lengths` [batch] the valid samples; for a later one they are
        the last output of the section before, [batch, time, feature], and the valid frames. Of `noise`, dropout needs
        the random stream "dropout" and masked spans need "masking"; without these there are none.
        """

    @abstractmethod
    def select(self, params: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        """Returns those parameters of the whole model that the module of `Section(start, stop)` reads."""

    @abstractmethod
    def depth(self, part: str) -> int:
        """Returns the layer that a part of the tree outside STACKED counts as in layer-wise learning rates.

        Whatever is below the first layer counts as 0.
        """

    @property
    def longest(self) -> int | None:
        """Samples of the longest input; None if any length is possible."""
        return None

    @property
    def least(self) -> int:
        """Samples that the model computes of any input, however short."""
        return self.window

    def in_context(self, context: str) -> "Backbone":
        """Returns the backbone whose frames see the utterance alone ("utterance"), or another one of `CONTEXTS`.

        Raises:
          InputError: the family does not have this context.
        """
        if context not in self.CONTEXTS:
            raise InputError(
                f"the option context is {context!r}, expected {' or '.join(self.CONTEXTS)} for a {self.family} model"
            )
        return self

    def state(self, layers: str) -> int | None:
        """Returns the number of the hidden state that an option `layers` names, None for "all".

        Raises:
          InputError: `layers` is neither "all", "last" nor a number up to the model's layers.
        """
        named = {"all": None, "last": self.layers}
        if layers in named:
            return named[layers]
        if not layers.isdecimal() or int(layers) > self.layers:
            raise InputError(
                f"the option layers is {layers!r}, expected all, last or a number from 0 (the input of the "
                f"first layer) to {self.layers}, the layers of this {self.family} model"
            )
        return int(layers)

    def prepare(
        self, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
    ) -> Float[Array, "batch samples"]:
        """Returns whole utterances as the first section reads them."""
        return normalise_waveform(waveform, lengths, floor=self.VARIANCE_FLOOR) if self.normalise else waveform

    def prepare_utterance(self, samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " samples"]:
        """Returns one utterance as `prepare` does, on the host: an utterance is normalised before it is cut."""
        if not self.normalise:
            return samples
        exact = samples.astype(np.float64)
        return ((exact - exact.mean()) / np.sqrt(exact.var() + self.VARIANCE_FLOOR)).astype(np.float32)


def normalise_waveform(
    waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"], *, floor: float = Backbone.VARIANCE_FLOOR
) -> Float[Array, "batch samples"]:
    """Scales each utterance's valid samples to zero mean and unit variance, and puts zeros behind them.

    Equals transformers' Wav2Vec2FeatureExtractor with `do_normalize`; `floor` is added to the variance.
    """
    valid = valid_frames(lengths, waveform.shape[1])
    count = jnp.maximum(lengths, 1).astype(waveform.dtype)[:, None]
    zero = jnp.zeros((), waveform.dtype)
    mean = jnp.where(valid, waveform, zero).sum(axis=1, keepdims=True) / count
    centred = jnp.where(valid, waveform - mean, zero)
    variance = (centred**2).sum(axis=1, keepdims=True) / count
    return centred * lax.rsqrt(variance + floor)
