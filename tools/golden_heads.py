r"""Writes tests/golden/heads: tiny random emotion models in layouts of their own, and their outputs in PyTorch.

sejax does not need PyTorch, so this runs in the environment of `tools/golden_ssl.py`:

    /tmp/ssl/bin/python tools/golden_heads.py

Each folder holds a checkpoint in the layout of a published model and `outputs.npz`: per utterance of
`tests/golden/ssl/waveforms.npz`, `_logits` [label], the outputs in the order of the model's own code, computed from the
samples of this utterance alone. `architecture.json` is the config.json of the pretrained model inside, which the
published checkpoints only name.

There is one more utterance, `cut`: the first 4900 samples of the longest. Whisper has one frame more of it than
Vox-Profile counts.

- `odyssey`: 3loi/SER-Odyssey-Baseline-WavLM-*. Arousal, dominance, valence.
- `vox-wavlm`: tiantiaf's Vox-Profile emotion models on WavLM, with loralib's adapters in the upper layers. Nine
  classes, then arousal, valence, dominance.
- `vox-whisper`: the dimensional one on Whisper, whose layer of classes was never trained. Arousal, valence, dominance.
- `whisper-classifier`: `WhisperForAudioClassification`. `_logits` are of the weighted sum of hidden states, the last of
  which is normalised, in `_untied_logits` it is not; `_last_logits` are those without a weighted sum.
"""

import json
import math
import shutil
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.golden import FOLDER, describe, run_tool, versions
from tools.golden_ssl import BUCKETS, EMOTIONS, LARGE, PACKAGES, SAMPLING_RATE, SMALLER, draw, waveforms

WAVLM: dict[str, Any] = SMALLER | LARGE | BUCKETS | {"conv_bias": False}
WHISPER: dict[str, Any] = {
    "d_model": 8,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 4,
    "num_mel_bins": 10,
    "vocab_size": 8,
    "max_target_positions": 4,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
}
HIDDEN_DIM = 10
RANK = 2
SECONDS = 15
CLASSIFIER_SECONDS = 2
ODYSSEY: dict[str, Any] = {
    "architectures": ["SERModel"],
    "classifier_dropout_prob": 0.5,
    "classifier_hidden_layers": 2,
    "hidden_size": WAVLM["hidden_size"],
    "id2label": {"0": "arousal", "1": "dominance", "2": "valence"},
    "maxlen": 192000,
    "mean": 0.0123,
    "model_type": "ser",
    "num_attention_heads": WAVLM["num_attention_heads"],
    "num_classes": 3,
    "num_hidden_layers": WAVLM["num_hidden_layers"],
    "sampling_rate": SAMPLING_RATE,
    "ssl_type": "microsoft/wavlm-large",
    "std": 0.0824,
    "torch_dtype": "float32",
    "transformers_version": "4.34.0.dev0",
}
VOX: dict[str, Any] = {
    "detailed_class_num": 17,
    "freeze_params": True,
    "hidden_dim": HIDDEN_DIM,
    "output_class_num": 9,
    "use_conv_output": True,
}
BRANCHES = ("arousal", "valence", "dominance")

Outputs = Callable[[np.ndarray], dict[str, Any]]


def utterances() -> dict[str, np.ndarray]:
    """Returns the samples of each utterance."""
    samples = waveforms()
    return samples | {"cut": samples["long"][:4900]}


def draw_all(module: Any, name: str) -> None:
    """Draws all parameters of a module from a seed of that name."""
    import torch

    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.copy_(draw(key, parameter, random))


def linears(*sizes: int, ends: Sequence[Any] = ()) -> Any:
    """Returns linear layers with ReLU between them, and what comes behind."""
    import torch

    layers: list[Any] = []
    for before, after in pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1], *ends)


def pretrained(kind: str, sizes: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns a pretrained model in evaluation mode, and its config."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**sizes, tie_last_hidden_states=True)
    return getattr(transformers, f"{kind}Model")(config).eval(), config


def odyssey() -> tuple[Any, dict[str, Any], dict[str, Any], Outputs]:
    """Returns the model, its config.json, that of the pretrained model, and the function that computes outputs."""
    import torch

    size, c = WAVLM["hidden_size"], ODYSSEY
    model = torch.nn.Module()
    model.ssl_model, config = pretrained("WavLM", WAVLM)
    model.pool_model = torch.nn.Module()
    model.pool_model.sap_linear = torch.nn.Linear(size, size)
    model.pool_model.attention = torch.nn.Parameter(torch.zeros(size, 1))
    model.ser_model = torch.nn.Module()
    widths = [2 * size] + [size] * c["classifier_hidden_layers"]
    model.ser_model.fc = torch.nn.ModuleList(
        torch.nn.Sequential(torch.nn.Linear(a, b), torch.nn.LayerNorm(b), torch.nn.ReLU(), torch.nn.Dropout(0.5))
        for a, b in pairwise(widths)
    )
    model.ser_model.out = torch.nn.Sequential(torch.nn.Linear(size, c["num_classes"]))
    draw_all(model, "odyssey")
    model.eval()

    def compute(samples: np.ndarray) -> dict[str, Any]:
        x = torch.from_numpy((samples - np.float32(c["mean"])) / np.float32(c["std"] + 1e-6))[None]
        frames = model.ssl_model(x).last_hidden_state[0]
        scores = torch.tanh(model.pool_model.sap_linear(frames)) @ model.pool_model.attention
        weights = torch.softmax(scores, dim=0)
        mean = (weights * frames).sum(dim=0)
        spread = ((weights * frames**2).sum(dim=0) - mean**2).clamp(min=1e-5).sqrt()
        x = torch.cat([mean, spread])[None]
        for layer in model.ser_model.fc:
            x = layer(x)
        return {"logits": model.ser_model.out(x)[0]}

    return model, ODYSSEY, config.to_diff_dict() | {"model_type": "wavlm"}, compute


def lora(layer: Any) -> Any:
    """Returns a linear layer with loralib's adapter beside it, whose factor is 1/rank."""
    import torch

    class Lora(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(layer.in_features, layer.out_features)
            self.lora_A = torch.nn.Parameter(torch.zeros(RANK, layer.in_features))
            self.lora_B = torch.nn.Parameter(torch.zeros(layer.out_features, RANK))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + x @ self.lora_A.T @ self.lora_B.T / RANK

    return Lora()


def vox_head(model: Any, size: int, layers: int) -> None:
    """Adds Vox-Profile's own modules."""
    import torch

    model.model_seq = torch.nn.Sequential(
        torch.nn.Conv1d(size, HIDDEN_DIM, 1),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.1),
        torch.nn.Conv1d(HIDDEN_DIM, HIDDEN_DIM, 1),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.1),
        torch.nn.Conv1d(HIDDEN_DIM, HIDDEN_DIM, 1),
    )
    model.weights = torch.nn.Parameter(torch.zeros(layers + 1))
    model.emotion_layer = linears(HIDDEN_DIM, HIDDEN_DIM, VOX["output_class_num"])
    model.detailed_out_layer = linears(HIDDEN_DIM, HIDDEN_DIM, VOX["detailed_class_num"])
    for name in BRANCHES:
        setattr(model, f"{name}_layer", linears(HIDDEN_DIM, HIDDEN_DIM, 1, ends=[torch.nn.Sigmoid()]))


def vox_wavlm() -> tuple[Any, dict[str, Any], dict[str, Any], Outputs]:
    """Returns what `odyssey` does."""
    import torch

    model = torch.nn.Module()
    model.backbone_model, config = pretrained("WavLM", WAVLM)
    for i, layer in enumerate(model.backbone_model.encoder.layers):
        if i > config.num_hidden_layers // 2:
            layer.feed_forward.intermediate_dense = lora(layer.feed_forward.intermediate_dense)
            layer.feed_forward.output_dense = lora(layer.feed_forward.output_dense)
    vox_head(model, config.hidden_size, config.num_hidden_layers)
    draw_all(model, "vox-wavlm")
    model.eval()

    def compute(samples: np.ndarray) -> dict[str, Any]:
        exact = samples.astype(np.float64)
        x = torch.from_numpy(((exact - exact.mean()) / np.sqrt(exact.var() + 1e-7)).astype(np.float32))[None]
        hidden = torch.stack(model.backbone_model(x, output_hidden_states=True).hidden_states)
        mixed = (torch.softmax(model.weights, dim=0)[:, None, None, None] * hidden).sum(dim=0)
        pooled = model.model_seq(mixed.transpose(1, 2)).mean(dim=2)
        outputs = [model.emotion_layer(pooled)] + [getattr(model, f"{name}_layer")(pooled) for name in BRANCHES]
        return {"logits": torch.cat(outputs, dim=1)[0]}

    c = VOX | {"finetune_method": "lora", "lora_rank": RANK, "pretrain_model": "wavlm_large"}
    return model, c, config.to_diff_dict() | {"model_type": "wavlm"}, compute


def vox_whisper() -> tuple[Any, dict[str, Any], dict[str, Any], Outputs]:
    """Returns what `odyssey` does."""
    import torch
    from transformers import WhisperFeatureExtractor

    torch.manual_seed(0)  # of the layer that keeps what PyTorch draws
    model = torch.nn.Module()
    model.backbone_model, config = pretrained("Whisper", WHISPER | {"max_source_positions": 50 * SECONDS})
    vox_head(model, config.d_model, config.encoder_layers)
    untrained = {key: value.clone() for key, value in model.emotion_layer.state_dict().items()}
    draw_all(model, "vox-whisper")
    model.emotion_layer.load_state_dict(untrained)
    # The file has these values under both names, or after safetensors' removal of duplicates under one.
    model.embed_positions = model.backbone_model.encoder.embed_positions.weight
    model.eval()
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=SECONDS)

    def compute(samples: np.ndarray) -> dict[str, Any]:
        mel = extractor(samples, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_features
        hidden = model.backbone_model.encoder(mel).last_hidden_state
        frames = (len(samples) // 160 - 1) // 2 + 1
        pooled = model.model_seq(hidden.transpose(1, 2))[..., :frames].mean(dim=2)
        return {"logits": torch.cat([getattr(model, f"{name}_layer")(pooled) for name in BRANCHES], dim=1)[0]}

    c = VOX | {"finetune_method": "finetune", "lora_rank": 16, "pretrain_model": "whisper_large"}
    return model, c, config.to_diff_dict() | {"model_type": "whisper"}, compute


def whisper_classifier() -> tuple[Any, dict[str, Any], None, Outputs]:
    """Returns what `odyssey` does; its config.json describes the pretrained model."""
    import transformers

    sizes = WHISPER | EMOTIONS | {"max_source_positions": 50 * CLASSIFIER_SECONDS, "classifier_proj_size": 6}
    config = transformers.WhisperConfig(**sizes | {"use_weighted_layer_sum": True, "tie_last_hidden_states": True})
    model = transformers.WhisperForAudioClassification(config).eval()
    draw_all(model, "whisper-classifier")
    bands, seconds = config.num_mel_bins, CLASSIFIER_SECONDS
    extractor = transformers.WhisperFeatureExtractor(feature_size=bands, chunk_length=seconds)

    def compute(samples: np.ndarray) -> dict[str, Any]:
        mel = extractor(samples, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_features
        found = {}
        for name, tied, weighted in (
            ("logits", True, True),
            ("untied_logits", False, True),
            ("last_logits", True, False),
        ):
            model.config.tie_last_hidden_states, model.config.use_weighted_layer_sum = tied, weighted
            model.encoder.config.tie_last_hidden_states = tied
            found[name] = model(mel).logits[0]
        model.config.tie_last_hidden_states, model.config.use_weighted_layer_sum = True, True
        return found

    return model, config.to_dict() | {"architectures": ["WhisperForAudioClassification"]}, None, compute


CHECKPOINTS: dict[str, Callable[[], tuple[Any, dict[str, Any], dict[str, Any] | None, Outputs]]] = {
    "odyssey": odyssey,
    "vox-wavlm": vox_wavlm,
    "vox-whisper": vox_whisper,
    "whisper-classifier": whisper_classifier,
}


def save(model: Any, folder: Path) -> None:
    """Writes a model's arrays without the decoder's, each storage once."""
    from safetensors.torch import save_file

    tensors, seen = {}, set()
    for key, tensor in model.state_dict().items():
        if "decoder" not in key and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[key] = tensor.contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def make(out: Path) -> None:
    """Writes the folders."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)  # sums in one order
    made_with = versions(*PACKAGES)
    for name, build in CHECKPOINTS.items():
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model, config, architecture, compute = build()
        save(model, folder)
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        if architecture is not None:
            (folder / "architecture.json").write_text(json.dumps(architecture, indent=2, sort_keys=True) + "\n")
        else:
            preprocessor = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": config["num_mel_bins"]}
            (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2, sort_keys=True) + "\n")
        arrays: dict[str, Any] = {}
        for utterance, samples in utterances().items():
            with torch.no_grad():
                arrays |= {f"{utterance}_{key}": value.numpy() for key, value in compute(samples).items()}
        np.savez_compressed(folder / "outputs.npz", versions=np.array(made_with), **arrays)
        size = sum(file.stat().st_size for file in folder.iterdir())
        deviation = math.sqrt(np.mean([x.var() for key, x in arrays.items() if key.startswith("long")]))
        print(f"{folder}: {size / 1000:.0f} kB; standard deviation of the outputs: {deviation:.2f}")
    describe(out, made_with)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(make, out=FOLDER / "heads", needs="PyTorch or transformers", description=__doc__, arguments=arguments)


if __name__ == "__main__":
    main()
