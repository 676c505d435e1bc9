"""The baselines of the Odyssey 2024 emotion recognition challenge (3loi/SER-Odyssey-Baseline-WavLM-*).

Reference: Goncalves et al., Odyssey 2024 - Speech Emotion Recognition Challenge, 2024; pooling: Okabe et al., Attentive
Statistics Pooling for Deep Speaker Embedding, 2018. The waveform is normalised by the mean and the deviation of all
training samples (`mean` and `std` of config.json). Each frame of the last hidden state has a weight: the softmax over
frames of a linear layer's tanh times a vector. The weighted mean and deviation over frames, side by side, pass through
dense layers, each with layer norm and ReLU, to a linear output. The models of dimensions were trained on ratings from 1
to 7 that were scaled to 0 to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError, number
from sejax.pretrained.base import Rule
from sejax.pretrained.convert import Checkpoint, Wrapped, Wrapper
from sejax.pretrained.fields import WORD, read_fields, whole
from sejax.pretrained.heads.architectures import ARCHITECTURES, read_architecture
from sejax.pretrained.heads.base import Group, Head, check_arrays, config_path, linear, name_labels
from sejax.pretrained.labels import read_labels, read_problem_type

STD_FLOOR = 1e-6  # is added to the deviation of the waveform
VARIANCE_FLOOR = 1e-5  # the least variance over frames
EPS = 1e-5  # of the layer norms
SCALE = "0 to 1, which are the ends 1 and 7 of MSP-Podcast's ratings"
FIELDS = {
    "ssl_type": WORD,
    "sampling_rate": whole(1, 1 << 20),
    "num_classes": whole(1, 1 << 10),
    "classifier_hidden_layers": whole(1, 100),
    "mean": number(-1, 1),
    "std": number(0, 1e6),
}
DEFAULTS = {"ssl_type": "microsoft/wavlm-large", "sampling_rate": SAMPLING_RATE, "classifier_hidden_layers": 1}


@dataclass(frozen=True)
class OdysseyHead(Head):
    """Attentive statistics pooling and dense layers."""

    TRAINED_SECONDS = (0.0, 12.0)

    mean: float  # of all training samples
    std: float
    layers: int  # dense layers

    def frames(
        self, arrays: Mapping[str, Any], hidden: Float[Array, "layer batch time hidden"]
    ) -> Float[Array, "batch time feature"]:
        x = hidden[-1]
        return jnp.concatenate([x, x**2], axis=-1)

    def weigh(
        self, arrays: Mapping[str, Any], hidden: Float[Array, "layer batch time hidden"]
    ) -> Float[Array, "batch time"]:
        return (jnp.tanh(linear(arrays["pool"], hidden[-1])) @ arrays["attention"])[..., 0]

    def outputs(self, arrays: Mapping[str, Any], pooled: Float[Array, "batch feature"]) -> Float[Array, "batch label"]:
        mean, square = jnp.split(pooled, 2, axis=-1)
        deviation = jnp.sqrt(jnp.maximum(square - mean**2, VARIANCE_FLOOR))
        x = jnp.concatenate([mean, deviation], axis=-1)
        for i in range(self.layers):
            x = linear(arrays[f"fc_{i}"], x)
            x = (x - x.mean(axis=-1, keepdims=True)) * lax.rsqrt(x.var(axis=-1, keepdims=True) + EPS)
            x = jax.nn.relu(x * arrays[f"norm_{i}"]["scale"][None] + arrays[f"norm_{i}"]["bias"][None])
        return linear(arrays["output"], x)

    def rescale(self, samples: Any) -> Any:
        return (samples - np.float32(self.mean)) / np.float32(self.std + STD_FLOOR)


def read_head(checkpoint: Checkpoint, config: Mapping[str, Any], problem_type: str | None) -> OdysseyHead:
    """Returns the head that a checkpoint's config.json and arrays describe.

    Raises:
      InputError: it is another than config.json describes, or nothing says what its outputs are.
    """
    path, c = config_path(checkpoint), _read_fields(config, config_path(checkpoint))
    # The single dimensions may have no name in their config.json.
    unnamed = {"num_labels": 1} if c["num_classes"] == 1 else {}
    labels = read_labels(unnamed | dict(config), path, c["num_classes"])
    hidden = checkpoint.backbone.hidden
    expected: dict[str, tuple[int, ...]] = {
        "pool/kernel": (hidden, hidden),
        "pool/bias": (hidden,),
        "attention": (hidden, 1),
        "output/kernel": (hidden, len(labels)),
        "output/bias": (len(labels),),
    }
    for i in range(c["classifier_hidden_layers"]):
        expected |= {f"fc_{i}/kernel": (hidden if i else 2 * hidden, hidden), f"fc_{i}/bias": (hidden,)}
        expected |= {f"norm_{i}/scale": (hidden,), f"norm_{i}/bias": (hidden,)}
    check_arrays(checkpoint, expected, name_labels(labels))
    found, said_by = read_problem_type(labels, config, path, problem_type)
    group = Group(labels, found, said_by, SCALE)
    return OdysseyHead((group,), float(c["mean"]), float(c["std"]), c["classifier_hidden_layers"])


def _read_fields(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if missing := [name for name in ("mean", "std", "num_classes") if name not in config]:
        raise InputError(f"{path}: has no {' and no '.join(missing)}, expected those that the model was trained with")
    c = read_fields(config, FIELDS, DEFAULTS | dict(config), path)
    if c["sampling_rate"] != SAMPLING_RATE:
        raise InputError(f"{path}: sampling_rate is {c['sampling_rate']}, expected {SAMPLING_RATE}")
    if c["ssl_type"] not in ARCHITECTURES:
        raise InputError(f"{path}: ssl_type is {c['ssl_type']!r}, expected microsoft/wavlm-large")
    return c


def _read_backbone(config: Mapping[str, Any], path: Path) -> Wrapped:
    backbone = read_architecture(_read_fields(config, path)["ssl_type"], path, {"do_normalize": False})
    return Wrapped(backbone, ((r"^ssl_model\.", f"{backbone.family}."),))


WRAPPER = Wrapper(
    holds=lambda config: config.get("model_type") == "ser",
    read=_read_backbone,
    rules=(
        Rule(r"pool_model\.sap_linear\.weight", "pool/kernel", "linear"),
        Rule(r"pool_model\.sap_linear\.bias", "pool/bias"),
        Rule(r"pool_model\.attention", "attention"),
        Rule(r"ser_model\.fc\.(?P<i>[0-9]{1,3})\.0\.weight", "fc_{i}/kernel", "linear"),
        Rule(r"ser_model\.fc\.(?P<i>[0-9]{1,3})\.0\.bias", "fc_{i}/bias"),
        Rule(r"ser_model\.fc\.(?P<i>[0-9]{1,3})\.1\.weight", "norm_{i}/scale"),
        Rule(r"ser_model\.fc\.(?P<i>[0-9]{1,3})\.1\.bias", "norm_{i}/bias"),
        Rule(r"ser_model\.out\.0\.weight", "output/kernel", "linear"),
        Rule(r"ser_model\.out\.0\.bias", "output/bias"),
    ),
)
