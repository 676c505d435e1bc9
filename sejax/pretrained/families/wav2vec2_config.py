"""Reads the architecture of Wav2Vec 2.0 and its relatives from the JSON files of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import Check, InputError, number
from sejax.pretrained.base import Noise
from sejax.pretrained.families.masking import read_masking
from sejax.pretrained.families.transformer import ACTIVATIONS
from sejax.pretrained.fields import FLAG, WORD, read_fields, whole, wholes
from sejax.pretrained.hub import CONFIG, preprocessor_path, without_warnings

CONVOLUTIONS = ("conv_dim", "conv_kernel", "conv_stride")
FIELDS: dict[str, Check] = {
    "hidden_size": whole(1, 1 << 16),
    "num_hidden_layers": whole(1, 1000),
    "num_attention_heads": whole(1, 1 << 10),
    "intermediate_size": whole(1, 1 << 20),
    "num_conv_pos_embeddings": whole(1, 1 << 14),
    "num_conv_pos_embedding_groups": whole(1, 256),
    "conv_dim": wholes(1, 1 << 16, length=32),
    "conv_kernel": wholes(1, 1 << 14, length=32),
    "conv_stride": wholes(1, 1 << 10, length=32),
    "conv_bias": FLAG,
    "layer_norm_eps": number(0, 1, below=True),
    "feat_extract_activation": WORD,
    "hidden_act": WORD,
    "hidden_dropout": number(0, 1, below=True),
    "attention_dropout": number(0, 1, below=True),
    "activation_dropout": number(0, 1, below=True),
    "feat_proj_dropout": number(0, 1, below=True),
    "apply_spec_augment": FLAG,
}
"""The fields of config.json that every family has."""
_NORMS: dict[str, Check] = {"do_stable_layer_norm": FLAG, "feat_extract_norm": WORD}
FAMILY_FIELDS: dict[str, dict[str, Check]] = {
    "wav2vec2": _NORMS,
    "hubert": _NORMS | {"feat_proj_layer_norm": FLAG},
    # The logarithm of distances needs a bucket of exact ones on either side.
    "wavlm": _NORMS | {"num_buckets": whole(4, 1 << 16), "max_bucket_distance": whole(2, 1 << 20)},
    "unispeech-sat": _NORMS,
    "data2vec-audio": {"conv_pos_kernel_size": whole(1, 1 << 14)},
    "emotion2vec": {"conv_pos_kernel_size": whole(1, 1 << 14)},
}
LIKE_DATA2VEC = ("data2vec-audio", "emotion2vec")
"""The families whose number of positional embeddings is one of convolutions."""
DATA2VEC: dict[str, Any] = {"do_stable_layer_norm": False, "feat_extract_norm": "layer"}
"""What the other families have as fields."""
PREPROCESSOR_FIELDS = {"do_normalize": FLAG, "sampling_rate": whole(1, 1 << 20), "feature_size": whole(1, 1 << 16)}
PREPROCESSOR_DEFAULTS = {"do_normalize": True, "sampling_rate": SAMPLING_RATE, "feature_size": 1}  # transformers'


def read_architecture(config: Mapping[str, Any], preprocessor: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Returns the fields of a `wav2vec2.Wav2Vec2`: those of config.json, and transformers' defaults of what it lacks.

    Args:
      config: the content of config.json, of a known model_type.
      preprocessor: the settings of the feature extractor.
      folder: named in errors.

    Raises:
      InputError: values that make no sense or do not fit together, parts that are not supported, or other input than
        samples at 16 kHz.
    """
    path, family = folder / CONFIG, str(config["model_type"])
    with without_warnings():
        from transformers import AutoConfig

        defaults = {"apply_spec_augment": True} | vars(
            AutoConfig.for_model("data2vec-audio" if family in LIKE_DATA2VEC else family)
        )
    c = read_fields(config, FIELDS | FAMILY_FIELDS[family], defaults, path)
    stacked = family in LIKE_DATA2VEC
    c = (DATA2VEC if stacked else {}) | c
    _check_supported(c, config, path)
    return {
        "family": family,
        "layers": c["num_hidden_layers"],
        "hidden": c["hidden_size"],
        "normalise": _reads_normalised(preprocessor, folder),
        "noise": Noise(
            dropout=float(c["hidden_dropout"]),
            attention_dropout=float(c["attention_dropout"]),
            activation_dropout=float(c["activation_dropout"]),
            projection_dropout=float(c["feat_proj_dropout"]),
            **(read_masking(config, defaults, path) if c["apply_spec_augment"] else {}),
        ),
        "conv_dim": tuple(c["conv_dim"]),
        "conv_kernel": tuple(c["conv_kernel"]),
        "conv_stride": tuple(c["conv_stride"]),
        "conv_bias": c["conv_bias"],
        "conv_norm": c["feat_extract_norm"],
        "conv_activation": c["feat_extract_activation"],
        "heads": c["num_attention_heads"],
        "intermediate": c["intermediate_size"],
        "activation": c["hidden_act"],
        "position_width": c["conv_pos_kernel_size" if stacked else "num_conv_pos_embeddings"],
        "position_depth": c["num_conv_pos_embeddings"] if stacked else 0,
        "position_groups": c["num_conv_pos_embedding_groups"],
        "pre_norm": c["do_stable_layer_norm"],
        "key_bias": True,
        "gated_bias": "num_buckets" in c,
        "eps": float(c["layer_norm_eps"]),
        "projection_norm": c.get("feat_proj_layer_norm", True),
        "buckets": c.get("num_buckets", 0),
        "max_distance": c.get("max_bucket_distance", 0),
    }


def _check_supported(c: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> None:
    """Refuses parts that `Wav2Vec2Model` does not have, and sizes that do not fit together, all in one sentence.

    Args:
      c: the checked fields of config.json.
      config: its whole content.
      path: named in errors.
    """
    hidden, lengths = c["hidden_size"], {len(c[name]) for name in CONVOLUTIONS}
    buckets, farthest = c.get("num_buckets", 4), c.get("max_bucket_distance", 2)
    unsupported = {
        "adapters (add_adapter)": config.get("add_adapter") not in (None, False),
        "attention adapters (adapter_attn_dim)": config.get("adapter_attn_dim") is not None,
        "batch norm of positions (conv_pos_batch_norm)": config.get("conv_pos_batch_norm") not in (None, False),
        f"feat_extract_norm {c['feat_extract_norm']!r}": c["feat_extract_norm"] not in ("group", "layer"),
        f"hidden_act {c['hidden_act']!r}": c["hidden_act"] not in ACTIVATIONS,
        f"feat_extract_activation {c['feat_extract_activation']!r}": c["feat_extract_activation"] not in ACTIVATIONS,
        "conv_dim, conv_kernel and conv_stride of different lengths": len(lengths) > 1,
        "a hidden_size that num_attention_heads does not divide": hidden % c["num_attention_heads"] != 0,
        "a hidden_size that num_conv_pos_embedding_groups does not divide": hidden % c["num_conv_pos_embedding_groups"]
        != 0,
        "a max_bucket_distance that is not above a quarter of num_buckets": farthest <= buckets // 4,
    }
    if parts := [part for part, present in unsupported.items() if present]:
        raise InputError(f"{path}: has {'; '.join(parts)}, which sejax does not support")


def _reads_normalised(preprocessor: Mapping[str, Any], folder: Path) -> bool:
    """Returns whether the preprocessor normalises waveforms.

    Raises:
      InputError: it has another sampling rate than 16 kHz, or its input is not samples.
    """
    where = preprocessor_path(folder)
    c = read_fields(preprocessor, PREPROCESSOR_FIELDS, PREPROCESSOR_DEFAULTS, where)
    if c["sampling_rate"] != SAMPLING_RATE:
        raise InputError(f"{where}: sampling_rate is {c['sampling_rate']}, expected {SAMPLING_RATE}")
    if c["feature_size"] != 1:
        raise InputError(f"{where}: feature_size is {c['feature_size']}, expected 1: raw samples")
    return c["do_normalize"]
