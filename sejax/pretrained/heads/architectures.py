"""The pretrained models that the config.json of a wrapper names instead of describing them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sejax.pretrained.base import Backbone
from sejax.pretrained.registry import BACKBONES

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "microsoft/wavlm-large": {
        "model_type": "wavlm",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "num_buckets": 320,
        "max_bucket_distance": 800,
    },
    "openai/whisper-large-v3": {
        "model_type": "whisper",
        "d_model": 1280,
        "encoder_layers": 32,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "num_mel_bins": 128,
    },
}
"""What the config.json of each says beside the defaults of its family in transformers."""


def read_architecture(
    name: str, path: Path, preprocessor: Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> Backbone:
    """Returns the backbone of a pretrained model that is known by name.

    Args:
      name: a key of `ARCHITECTURES`.
      path: of the config.json that names it, for errors.
      preprocessor: the settings of the feature extractor.
      changes: fields of the pretrained model's config that the wrapper changes.
    """
    config = ARCHITECTURES[name] | dict(changes or {})
    return BACKBONES[config["model_type"]].read(config, preprocessor, path.parent)
