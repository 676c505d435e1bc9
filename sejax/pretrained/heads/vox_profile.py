"""The emotion models of Vox-Profile (tiantiaf/wavlm-large-* and tiantiaf/whisper-large-v3-* for MSP-Podcast).

Reference: Feng et al., Vox-Profile: A Speech Foundation Model Benchmark, 2025. WavLM's hidden states, the input of the
first layer included or not (`use_conv_output`), are mixed by softmax weights; of Whisper, which reads 15 s, the last
one counts. Each frame passes through three linear layers (convolutions of width 1) with ReLU between them. Behind the
mean over the utterance's frames, every kind of output has a linear layer, ReLU and a linear layer; dimensions have a
sigmoid.

A module may lie in a file though the model was not trained to give it: the classes of Whisper's dimensional model. All
of its weights are within the range in which PyTorch draws them (+-1/sqrt(inputs)), and it is left out. The low-rank
adapters of loralib, of factor 1/rank, are added to the weights beside them, as the model's own code does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float

from sejax.errors import InputError
from sejax.pretrained.base import Backbone, Rule
from sejax.pretrained.convert import Checkpoint, Wrapped, Wrapper
from sejax.pretrained.families.log_mel import HOP
from sejax.pretrained.fields import FLAG, WORD, read_fields, whole
from sejax.pretrained.heads.architectures import ARCHITECTURES, read_architecture
from sejax.pretrained.heads.base import Group, Head, check_arrays, config_path, linear, mix

MODELS = {"wavlm_large": "microsoft/wavlm-large", "whisper_large": "openai/whisper-large-v3"}
"""The pretrained models, by their names in config.json."""
WHISPER_FRAMES = 750  # of 15 s
CLASSES = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise", "Other")
DIMENSIONS = ("arousal", "valence", "dominance")
SAID_BY = "by the layout of Vox-Profile"
FIELDS = {
    "pretrain_model": WORD,
    "hidden_dim": whole(1, 1 << 16),
    "output_class_num": whole(1, 1 << 10),
    "use_conv_output": FLAG,
}
DEFAULTS = {"pretrain_model": "wavlm_large", "hidden_dim": 256, "output_class_num": 4, "use_conv_output": True}


@dataclass(frozen=True)
class VoxProfileHead(Head):
    """Linear layers before and behind the mean over frames."""

    TRAINED_SECONDS = (3.0, 15.0)

    branches: tuple[str, ...]  # kinds of outputs, in their order
    mixes: bool  # the hidden states are mixed
    first: int  # the first of the mixed hidden states
    whisper: bool

    def frames(
        self, arrays: Mapping[str, Any], hidden: Float[Array, "layer batch time hidden"]
    ) -> Float[Array, "batch time feature"]:
        x = mix(arrays["layer_weights"], hidden[self.first :]) if self.mixes else hidden[-1]
        x = jax.nn.relu(linear(arrays["frames_0"], x))
        x = jax.nn.relu(linear(arrays["frames_3"], x))
        return linear(arrays["frames_6"], x)

    def outputs(self, arrays: Mapping[str, Any], pooled: Float[Array, "batch feature"]) -> Float[Array, "batch label"]:
        found = []
        for name in self.branches:
            x = linear(arrays[f"{name}_2"], jax.nn.relu(linear(arrays[f"{name}_0"], pooled)))
            found.append(x if name == "emotion" else jax.nn.sigmoid(x))
        return jnp.concatenate(found, axis=-1)

    def pooled_frames(self, backbone: Backbone, samples: Any) -> Any:
        if not self.whisper:
            return backbone.frames(samples)
        return (samples // HOP - 1) // 2 + 1


def read_head(checkpoint: Checkpoint, config: Mapping[str, Any], problem_type: str | None) -> VoxProfileHead:
    """Returns the head that a checkpoint's config.json and arrays describe.

    Raises:
      InputError: it is another than config.json describes, no output was trained, or the user says what its outputs
        are, which the layout does.
    """
    path = config_path(checkpoint)
    if problem_type is not None:
        raise InputError(
            f"the option --problem_type is {problem_type}, expected none: {path} says what the outputs are"
        )
    c = _read_fields(config, path)
    whisper = checkpoint.backbone.family == "whisper"
    first = 0 if c["use_conv_output"] else 1
    hidden, width = checkpoint.backbone.hidden, c["hidden_dim"]
    sizes = {"emotion": c["output_class_num"], **dict.fromkeys(DIMENSIONS, 1)}
    expected: dict[str, tuple[int, ...]] = {"layer_weights": (checkpoint.backbone.layers + 1 - first,)}
    for name, inputs in (("frames_0", hidden), ("frames_3", width), ("frames_6", width)):
        expected |= {f"{name}/kernel": (inputs, width), f"{name}/bias": (width,)}
    present = [name for name in sizes if checkpoint.head.keys() & {f"{name}_0", f"{name}_2"}]
    for name in present:
        expected |= {f"{name}_0/kernel": (width, width), f"{name}_0/bias": (width,)}
        expected |= {f"{name}_2/kernel": (width, sizes[name]), f"{name}_2/bias": (sizes[name],)}
    check_arrays(checkpoint, expected, f"Vox-Profile's {c['pretrain_model']} with a hidden_dim of {width}")
    branches = tuple(name for name in present if _is_trained(checkpoint.head, name))
    if not branches:
        raise InputError(f"{checkpoint.folder}: has no trained output of {', '.join(sizes)}, expected an emotion model")
    if "emotion" in branches and sizes["emotion"] != len(CLASSES):
        raise InputError(
            f"{path}: output_class_num is {sizes['emotion']}, expected {len(CLASSES)}: {', '.join(CLASSES)}"
        )
    return VoxProfileHead(_groups(branches), branches, not whisper, first, whisper)


def _groups(branches: tuple[str, ...]) -> tuple[Group, ...]:
    dimensions = tuple(name for name in branches if name != "emotion")
    classes = Group(CLASSES, "single_label_classification", SAID_BY)
    values = Group(dimensions, "regression", SAID_BY, "0 to 1")
    return (classes,) * ("emotion" in branches) + (values,) * bool(dimensions)


def _is_trained(arrays: Mapping[str, Any], name: str) -> bool:
    """Returns whether a weight of a module is outside the range in which PyTorch draws it (but for rounding)."""
    for layer in (arrays[f"{name}_0"], arrays[f"{name}_2"]):
        bound = 1.001 / np.sqrt(len(layer["kernel"]))
        if any(np.abs(x).max() > bound for x in traverse_util.flatten_dict(layer).values()):
            return True
    return False


def _read_fields(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    c = read_fields(config, FIELDS, DEFAULTS, path)
    if c["pretrain_model"] not in MODELS:
        raise InputError(f"{path}: pretrain_model is {c['pretrain_model']!r}, expected one of {', '.join(MODELS)}")
    return c


def _read_backbone(config: Mapping[str, Any], path: Path) -> Wrapped:
    name = MODELS[_read_fields(config, path)["pretrain_model"]]
    if name == MODELS["wavlm_large"]:
        return Wrapped(read_architecture(name, path, {"do_normalize": True}), ((r"^backbone_model\.", "wavlm."),))
    changes = {"max_source_positions": WHISPER_FRAMES}
    backbone = read_architecture(name, path, {"feature_size": ARCHITECTURES[name]["num_mel_bins"]}, changes)
    renames = ((r"^backbone_model\.", ""), (r"^embed_positions$", "encoder.embed_positions.weight"))
    return Wrapped(backbone.in_context("padded"), renames)


WRAPPER = Wrapper(
    holds=lambda config: "pretrain_model" in config and "model_type" not in config,
    read=_read_backbone,
    rules=(
        Rule(r"model_seq\.(?P<i>[036])\.weight", "frames_{i}/kernel", "pointwise"),
        Rule(r"model_seq\.(?P<i>[036])\.bias", "frames_{i}/bias"),
        Rule(r"weights", "layer_weights"),
        Rule(r"(?P<name>emotion|arousal|valence|dominance)_layer\.(?P<i>[02])\.weight", "{name}_{i}/kernel", "linear"),
        Rule(r"(?P<name>emotion|arousal|valence|dominance)_layer\.(?P<i>[02])\.bias", "{name}_{i}/bias"),
    ),
    not_used=r"(detailed_out|gender)_layer\..*",  # classes whose names are not published, and no emotions
)
