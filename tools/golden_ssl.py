r"""Writes tests/golden/ssl: tiny random checkpoints of Wav2Vec2 and its relatives, and their outputs in PyTorch.

sejax does not need PyTorch, so this runs in a separate environment:

    python3 -m venv /tmp/ssl
    /tmp/ssl/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu
    /tmp/ssl/bin/pip install transformers safetensors numpy
    /tmp/ssl/bin/python tools/golden_ssl.py

`waveforms.npz`, shared by all of them, holds `<utterance>_samples` (float32 [samples], 16 kHz, with an offset) and
`<utterance>_normalised`, the output of the preprocessor with `do_normalize`.

Each folder holds a checkpoint (`config.json`, `preprocessor_config.json`, `model.safetensors`) and `outputs.npz`, the
model's outputs for each utterance alone, without padding, from the normalised or the plain samples as its
`preprocessor_config.json` says. Float32, per utterance:
- of an encoder: `_conv` [time, conv_dim], the feature encoder's output; `_projected` [time, hidden], the feature
  projection's; `_hidden` [layer+1, time, hidden], the input of the first layer and the output of each, the last one
  after the encoder's final norm if the model is pre-norm;
- of a classifier: `_logits` [label] and `_pooled` [feature], the input of its last module `classifier`: the projected
  states averaged over time, or for `dimensional` the last hidden states averaged over time;
and `versions`, those of the packages.

The weights are drawn here, so that every part of a model matters: the models' own initialisation leaves attention
almost uniform, relative positions at their default, and norms at one and zero.

Versions of transformers differ in the last hidden state of pre-norm models: before 5.16 it is the normalised
`last_hidden_state`, from 5.16 on (`tie_last_hidden_states=False`) the last layer's output before the norm. This also
changes the weighted layer sum of pre-norm classifiers. `tie_last_hidden_states` is set here, which gives the hidden
states and logits of transformers 4; `wavlm-classifier`, whose config.json says so, has the logits without it too
(`_untied_logits`).

Names of arrays that are unexpected:
- save_pretrained of transformers 5 writes the positional convolution's weight norm as
  `encoder.pos_conv_embed.conv.parametrizations.weight.original0` (the norm, [1, 1, width]) and `.original1` (the
  direction, [hidden, hidden / groups, width]). Older files, and here `wav2vec2-pretraining`, say `weight_g` and
  `weight_v`; transformers reads both.
- Only a bare encoder has names without a prefix; any head puts its family (`wav2vec2.`, `data2vec_audio.`) before them.
- Group norm is called `feature_extractor.conv_layers.0.layer_norm` too.
- `masked_spec_embed` is absent where both `mask_time_prob` and `mask_feature_prob` are 0 (`hubert-plain`).
- `rel_attn_embed` is in `encoder.layers.0.attention` only; `gru_rel_pos_const` [1, heads, 1, 1] and
  `gru_rel_pos_linear` are in every layer.
- `layer_weights` exists only with `use_weighted_layer_sum`, and holds the values before the softmax.
"""

import json
import math
import shutil
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.golden import FOLDER, describe, run_tool, versions

SAMPLING_RATE = 16_000
SECONDS = {"short": 0.13, "middle": 0.41, "long": 1.0}
GOLDEN = FOLDER / "ssl"
PACKAGES = ("torch", "transformers", "safetensors", "numpy")

SMALL: dict[str, Any] = {
    # The kernels and strides stay those of the real models: 49 frames a second.
    "conv_dim": (12, 8, 8, 8, 8, 8, 16),
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 8,
}
SMALLER = SMALL | {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 20, "classifier_proj_size": 12}
LARGE: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
# A clip of 49 frames then reaches the logarithmic buckets and, from a distance of 40 on, the last one.
BUCKETS: dict[str, Any] = {"num_buckets": 32, "max_bucket_distance": 40}
EMOTIONS: dict[str, Any] = {"id2label": {0: "neu", 1: "hap", 2: "ang", 3: "sad"}}
CODEBOOK: dict[str, Any] = {"num_codevectors_per_group": 6, "codevector_dim": 8, "proj_codevector_dim": 8}
DIMENSIONS: dict[str, Any] = {
    "id2label": {0: "arousal", 1: "dominance", 2: "valence"},
    "problem_type": "regression",
    "pooling_mode": "mean",
    "vocab_size": None,
}

# Name -> the model's class and its config's arguments.
CHECKPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2-base": ("Wav2Vec2Model", SMALL),
    "wav2vec2-large": ("Wav2Vec2Model", SMALL | LARGE | {"num_conv_pos_embeddings": 15}),
    "hubert-base": ("HubertModel", SMALL),
    "hubert-large": ("HubertModel", SMALL | LARGE | {"layer_norm_eps": 1e-3}),
    "hubert-plain": (
        "HubertModel",
        SMALL
        | {"feat_proj_layer_norm": False, "mask_time_prob": 0.0}
        | {"hidden_act": "gelu_new", "feat_extract_activation": "relu"},
    ),
    "wavlm-base": ("WavLMModel", SMALL | BUCKETS),
    "wavlm-large": ("WavLMModel", SMALL | LARGE | BUCKETS),
    "unispeech-sat-base": ("UniSpeechSatModel", SMALL),
    "unispeech-sat-large": ("UniSpeechSatForPreTraining", SMALL | LARGE | CODEBOOK),
    # Data2vec's number of positional embeddings is one of convolutions.
    "data2vec-audio-base": ("Data2VecAudioModel", SMALL | {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7}),
    "data2vec-audio-even": (
        "Data2VecAudioForCTC",  # whose encoder has a prefix
        SMALL | {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 4, "conv_bias": True},
    ),
    "wav2vec2-pretraining": ("Wav2Vec2ForPreTraining", SMALLER | CODEBOOK),
    "classifier": ("HubertForSequenceClassification", SMALLER | EMOTIONS | {"use_weighted_layer_sum": True}),
    "classifier-last": ("Wav2Vec2ForSequenceClassification", SMALLER | EMOTIONS),
    "wavlm-classifier": (
        "WavLMForSequenceClassification",
        SMALLER | LARGE | BUCKETS | EMOTIONS | {"use_weighted_layer_sum": True, "tie_last_hidden_states": True},
    ),
    "dimensional": ("Wav2Vec2ForSpeechClassification", SMALLER | LARGE | DIMENSIONS),
}
FAMILIES = ("Wav2Vec2", "Hubert", "WavLM", "UniSpeechSat", "Data2VecAudio")
UNNORMALISED = ("wavlm-base",)  # as microsoft/wavlm-base is


def waveforms() -> dict[str, np.ndarray]:
    """Returns float32 samples (multiples of 2^-15) by name: a gliding voice in noise with an offset."""
    random = np.random.default_rng(0)
    samples = {}
    for i, (name, seconds) in enumerate(SECONDS.items()):
        time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
        phase = 2 * np.pi * np.cumsum(110 + 60 * i + 90 * np.sin(5 * time)) / SAMPLING_RATE
        voice = sum(np.sin(k * phase) / k for k in range(1, 20)) * (0.3 + np.sin(3 * np.pi * time / seconds) ** 2)
        mixed = 0.1 * voice + 0.02 * random.standard_normal(len(time)) + 0.03 * (i + 1)
        samples[name] = (np.round(mixed * 2**15) / 2**15).astype(np.float32)
    return samples


def dimensional_model(config: Any) -> Any:
    """Returns Wav2Vec2 with mean pooling and a dense, tanh, linear head: the usual model of the dimensions."""
    import torch
    from transformers import Wav2Vec2Model
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2PreTrainedModel

    class RegressionHead(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(config.hidden_size, config.hidden_size)
            self.out_proj = torch.nn.Linear(config.hidden_size, config.num_labels)

        def forward(self, pooled: torch.Tensor) -> torch.Tensor:
            return self.out_proj(torch.tanh(self.dense(pooled)))

    class Wav2Vec2ForSpeechClassification(Wav2Vec2PreTrainedModel):
        def __init__(self) -> None:
            super().__init__(config)
            self.wav2vec2 = Wav2Vec2Model(config)
            self.classifier = RegressionHead()
            self.post_init()

        def forward(self, input_values: torch.Tensor) -> torch.Tensor:
            return self.classifier(self.wav2vec2(input_values).last_hidden_state.mean(dim=1))

    return Wav2Vec2ForSpeechClassification()


def build(name: str) -> Any:
    """Returns the model of that name in evaluation mode, with parameters drawn from a seed of that name."""
    import torch
    import transformers

    class_name, arguments = CHECKPOINTS[name]
    family = next(family for family in FAMILIES if class_name.startswith(family))
    config = getattr(transformers, f"{family}Config")(**arguments)
    model = getattr(transformers, class_name, None)
    model = (model(config) if model else dimensional_model(config)).eval()
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(draw(key, parameter, random))
    return model


def draw(key: str, parameter: Any, random: Any) -> Any:
    """Returns values for one parameter that keep activations of order one and far from symmetric."""
    import torch

    normal = torch.randn(parameter.shape, generator=random)
    uniform = 0.5 + torch.rand(parameter.shape, generator=random)
    if key.endswith("layer_norm.weight"):
        return uniform
    if key.endswith("bias"):
        return 0.3 * normal
    if key.endswith("weight.original0"):  # the norm of each tap; the direction follows it, with any scale
        return 1.5 * uniform
    if key.endswith("layer_weights"):
        return 0.5 * normal
    if key.endswith("gru_rel_pos_const"):
        return 2 * uniform
    if parameter.ndim == 1 or key.endswith(("rel_attn_embed.weight", "codevectors", "weight.original1")):
        return normal
    gain = 1.7 if "conv_layers" in key or "q_proj" in key or "k_proj" in key else 1.2
    return gain * normal / math.sqrt(math.prod(parameter.shape[1:]))


def outputs(model: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the arrays of `outputs.npz`, each utterance computed alone."""
    import torch

    seen: dict[str, Any] = {}
    encoder = model.base_model
    both = getattr(encoder.config, "tie_last_hidden_states", False)
    encoder.config.tie_last_hidden_states = True

    def keep(name: str) -> Any:
        return lambda module, args, out: seen.update({name: (out[0] if isinstance(out, tuple) else out).clone()})

    encoder.feature_extractor.register_forward_hook(keep("conv"))
    encoder.feature_projection.register_forward_hook(keep("projected"))
    classifies = hasattr(model, "classifier")
    if classifies:
        model.classifier.register_forward_hook(
            lambda module, args, out: seen.update(pooled=args[0].clone(), logits=out.clone())
        )
    arrays: dict[str, Any] = {}
    for name, samples in inputs.items():
        with torch.no_grad():
            batch = torch.from_numpy(samples)[None]
            if classifies:
                model(batch)
                kept = {"pooled": seen["pooled"][0], "logits": seen["logits"][0]}
                if both:
                    encoder.config.tie_last_hidden_states = False
                    model(batch)
                    kept["untied_logits"] = seen["logits"][0]
                    encoder.config.tie_last_hidden_states = True
            else:
                hidden = encoder(batch, output_hidden_states=True).hidden_states
                kept = {"conv": seen["conv"][0].T, "projected": seen["projected"][0], "hidden": torch.cat(hidden)}
        arrays |= {f"{name}_{key}": value.contiguous().numpy() for key, value in kept.items()}
    return arrays


def save_as_of_old(model: Any, folder: Path) -> None:
    """Replaces the output of save_pretrained: weight norm's former names, and two shards with an index."""
    from safetensors.torch import save_file

    tensors = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor.contiguous()
        for key, tensor in model.state_dict().items()
    }
    (folder / "model.safetensors").unlink()
    keys = list(tensors)
    shards = {
        f"model-{i + 1:05d}-of-00002.safetensors": half
        for i, half in enumerate((keys[: len(keys) // 2], keys[len(keys) // 2 :]))
    }
    for file, half in shards.items():
        save_file({key: tensors[key] for key in half}, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {key: file for file, half in shards.items() for key in half},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def write(out: Path) -> None:
    """Writes all files."""
    from transformers import Wav2Vec2FeatureExtractor

    made_with = versions(*PACKAGES)
    samples = waveforms()
    extractor = {flag: Wav2Vec2FeatureExtractor(do_normalize=flag) for flag in (True, False)}
    inputs = {
        flag: {
            name: extractor[flag](values, sampling_rate=SAMPLING_RATE, return_tensors="np").input_values[0]
            for name, values in samples.items()
        }
        for flag in extractor
    }
    out.mkdir(parents=True, exist_ok=True)
    shared: dict[str, Any] = {f"{name}_samples": values for name, values in samples.items()}
    shared |= {f"{name}_normalised": values for name, values in inputs[True].items()}
    np.savez_compressed(out / "waveforms.npz", versions=np.array(made_with), **shared)
    for name in CHECKPOINTS:
        folder = out / name
        if folder.exists():
            shutil.rmtree(folder)
        model = build(name)
        normalise = name not in UNNORMALISED
        model.save_pretrained(folder)
        extractor[normalise].save_pretrained(folder)
        if name == "wav2vec2-pretraining":
            save_as_of_old(model, folder)
        arrays = outputs(model, inputs[normalise])
        np.savez_compressed(folder / "outputs.npz", versions=np.array(made_with), **arrays)
        deviations = ", ".join(f"{key} {array.std():.2f}" for key, array in arrays.items() if key.startswith("long_"))
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{folder}: {size / 1000:.0f} kB; standard deviations: {deviations}")
    describe(out, made_with)


def make(out: Path) -> None:
    """Writes the folder."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)  # sums in one order
    write(out)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(make, out=GOLDEN, needs="PyTorch or transformers", description=__doc__, arguments=arguments)


if __name__ == "__main__":
    main()
