"""FunASR's layout of emotion2vec (config.yaml, model.pt, tokens.txt), written as sejax reads it.

`convert_checkpoint.py` uses it. The names of arrays become those of transformers' data2vec, the fused projections of
queries, keys and values are divided, and the blocks of the prenet are the first layers. FunASR's head is one linear
layer behind the mean over frames. It becomes `classifier`, behind a `projector` that changes nothing.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG = "config.yaml"
LABELS = "tokens.txt"
WRAPPERS = ("model", "state_dict", "model_state_dict")  # under which FunASR's file may keep its tensors
PRETRAINING = ("_ema", "modality_encoders.AUDIO.decoder")  # what only pretraining needs
EXPECTED: dict[str, Any] = {  # of every published model; another value is another architecture
    "layer_norm_first": False,
    "norm_affine": True,
    "norm_eps": 1e-5,
}
EXPECTED_OF_AUDIO: dict[str, Any] = {
    "extractor_mode": "layer_norm",
    "conv_pos_pre_ln": False,
    "use_alibi_encoder": True,
    "learned_alibi": False,
    "learned_alibi_scale_per_layer": False,
}
AUDIO = r"modality_encoders\.AUDIO\."
NAMES = {
    AUDIO + r"local_encoder\.conv_layers\.(\d+)\.0\.(weight)": r"feature_extractor.conv_layers.\1.conv.\2",
    AUDIO + r"local_encoder\.conv_layers\.(\d+)\.2\.1\.(\w+)": r"feature_extractor.conv_layers.\1.layer_norm.\2",
    AUDIO + r"project_features\.1\.(\w+)": r"feature_projection.layer_norm.\1",
    AUDIO + r"project_features\.2\.(\w+)": r"feature_projection.projection.\1",
    AUDIO + r"context_encoder\.norm\.(\w+)": r"encoder.layer_norm.\1",
}
OF_A_LAYER = {
    "attn.proj": "attention.out_proj",
    "mlp.fc1": "feed_forward.intermediate_dense",
    "mlp.fc2": "feed_forward.output_dense",
    "norm1": "layer_norm",
    "norm2": "final_layer_norm",
}


def read_model(folder: Path) -> dict[str, Any] | None:
    """Returns `model_conf` of a FunASR folder's config.yaml, None if there is no such file.

    Raises:
      SystemExit: it is of another model, or of another architecture than the published ones.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
        conf = dict(content["model_conf"])
        audio = dict(conf["modalities"]["audio"])
    except (yaml.YAMLError, UnicodeError, LookupError, TypeError, ValueError) as error:
        raise SystemExit(f"{path} cannot be read ({error!r}), expected model_conf of an emotion2vec model") from None
    if content.get("model") != "Emotion2vec":
        raise SystemExit(f"{path}: model is {content.get('model')!r}, expected Emotion2vec")
    wrong = [
        f"{name} is {part.get(name, value)!r}, expected {value!r}"
        for part, expected in ((conf, EXPECTED), (audio, EXPECTED_OF_AUDIO))
        for name, value in expected.items()
        if part.get(name, value) not in (value, str(value))
    ]
    if wrong:
        raise SystemExit(f"{path}: {'; '.join(wrong)}")
    return conf


def read_labels(folder: Path) -> list[str]:
    """Returns the names of the head's outputs, one a line of tokens.txt: their English part, as in `生气/angry`."""
    path = folder / LABELS
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [line.strip().split("/")[-1] for line in lines if line.strip()]


def rename(tensors: Mapping[str, Any], conf: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the arrays under the names that sejax reads, and the names of those that are left out.

    Raises:
      SystemExit: an array has another shape than its config.yaml says.
    """
    import torch

    prenet = conf["modalities"]["audio"]["prenet_depth"]
    renamed: dict[str, Any] = {}
    others: list[str] = []
    for full, tensor in tensors.items():
        name = full.removeprefix("d2v_model.")
        if name.startswith(PRETRAINING):
            continue
        if match := re.fullmatch(rf"({AUDIO}context_encoder\.)?blocks\.(\d+)\.(.+)\.(weight|bias)", name):
            layer = f"encoder.layers.{int(match[2]) + (0 if match[1] else prenet)}"
            if match[3] == "attn.qkv":
                for part, third in zip("qkv", tensor.chunk(3), strict=True):
                    renamed[f"{layer}.attention.{part}_proj.{match[4]}"] = third
                continue
            if match[3] in OF_A_LAYER:
                renamed[f"{layer}.{OF_A_LAYER[match[3]]}.{match[4]}"] = tensor
                continue
        elif match := re.fullmatch(rf"{AUDIO}relative_positional_encoder\.(\d+)\.0\.(\w+)", name):
            renamed[f"encoder.pos_conv_embed.layers.{int(match[1]) - 1}.conv.{match[2]}"] = tensor
            continue
        elif name == "modality_encoders.AUDIO.extra_tokens":
            renamed["encoder.extra_tokens"] = tensor.reshape(-1, tensor.shape[-1])
            continue
        elif name == "modality_encoders.AUDIO.alibi_scale":
            heads = conf["num_heads"]
            if tensor.numel() not in (1, heads):
                raise SystemExit(
                    f"{full} is {list(tensor.shape)}, expected one value, or one for each of {heads} heads"
                )
            renamed["encoder.alibi_scale"] = tensor.reshape(-1).expand(heads)
            continue
        elif name.startswith("proj."):
            renamed[f"classifier.{name.removeprefix('proj.')}"] = tensor
            continue
        for pattern, new in NAMES.items():
            if re.fullmatch(pattern, name):
                renamed[re.sub(pattern, new, name)] = tensor
                break
        else:
            others.append(full)
    if "classifier.weight" in renamed:
        size = renamed["classifier.weight"].shape[-1]
        renamed |= {"projector.weight": torch.eye(size), "projector.bias": torch.zeros(size)}
    return renamed, others


def convolutions(spec: str) -> list[tuple[int, int, int]]:
    """Returns channels, width and stride of each convolution that `feature_encoder_spec` lists.

    It is a sum of lists, such as `[(512, 10, 5)] + [(512, 3, 2)] * 4`.

    Raises:
      SystemExit: it is something else.
    """
    found: list[tuple[int, int, int]] = []
    number = r"\s*(\d+)\s*"
    for term in spec.split("+"):
        match = re.fullmatch(r"\s*\[(.*)\]\s*(?:\*\s*(\d+)\s*)?", term)
        triples = re.findall(rf"\({number},{number},{number}\)", match[1]) if match else []
        if match is None or not triples:
            raise SystemExit(f"feature_encoder_spec is {spec!r}, expected lists of (channels, width, stride)")
        found += [(int(a), int(b), int(c)) for a, b, c in triples] * int(match[2] or 1)
    return found


def describe(conf: Mapping[str, Any], labels: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the contents of config.json and of preprocessor_config.json."""
    audio = conf["modalities"]["audio"]
    dim, kernel, stride = zip(*convolutions(audio["feature_encoder_spec"]), strict=True)
    config = {
        "model_type": "emotion2vec",
        "hidden_size": conf["embed_dim"],
        "num_hidden_layers": audio["prenet_depth"] + conf["depth"],
        "num_attention_heads": conf["num_heads"],
        "intermediate_size": int(conf["embed_dim"] * conf["mlp_ratio"]),
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
        "conv_dim": list(dim),
        "conv_kernel": list(kernel),
        "conv_stride": list(stride),
        "conv_bias": False,
        "num_conv_pos_embeddings": audio["conv_pos_depth"],
        "conv_pos_kernel_size": max(3, audio["conv_pos_width"] // audio["conv_pos_depth"]),
        "num_conv_pos_embedding_groups": audio["conv_pos_groups"],
        "num_extra_tokens": audio["num_extra_tokens"],
        "layer_norm_eps": 1e-5,
        "hidden_dropout": conf.get("encoder_dropout", 0.0),
        "attention_dropout": conf.get("attention_dropout", 0.0),
        "activation_dropout": conf.get("activation_dropout", 0.0),
        "feat_proj_dropout": 0.0,
        "mask_time_prob": 0.0,  # its masks are those of pretraining
    }
    if labels:
        config |= {
            "architectures": ["Emotion2vecForSequenceClassification"],
            "problem_type": "single_label_classification",
            "id2label": {str(i): label for i, label in enumerate(labels)},
            "label2id": {label: i for i, label in enumerate(labels)},
            "classifier_proj_size": conf["embed_dim"],
        }
    normalises = bool(conf.get("normalize", True))
    return config, {"do_normalize": normalises, "feature_size": 1, "sampling_rate": 16_000}
