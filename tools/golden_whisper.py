r"""Writes the golden files of Whisper: tiny random checkpoints, and their outputs and those of real ones in PyTorch.

sejax does not need PyTorch, so this runs in the environment of `tools/golden_ssl.py`:

    /tmp/ssl/bin/python tools/golden_whisper.py

In tests/golden/ssl there is one folder for each checkpoint (float16, with `config.json`, `preprocessor_config.json` and
`model.safetensors`). Its `outputs.npz` holds float32 arrays for each utterance of `waveforms.npz` (of
`tools/golden_ssl.py`):
- `<utterance>_padded` [layer+1, time, hidden]: the hidden states, as `WhisperFeatureExtractor` and the encoder give
  them; of the frames the first `ceil(samples / 320)`, which are the utterance's;
- `<utterance>_utterance`: the same of a log-mel spectrogram that is cut to these frames, with positions from 0.
Hidden state 0 is the input of the first layer; the last one is behind the encoder's final norm.

The folder `whisper-large` has `gradients.npz` too: of the loss (`loss_of`) over the three utterances, each cut, with
respect to every parameter of the encoder (`full/<name>`), and to adapters of rank 2 beside three layers of each
Transformer layer (`lora/<layer>/<name>/<a or b>`), whose values are `adapter/...`.

`tests/golden/whisper_emodb.npz` holds hidden states of `shared/models/whisper-base-encoder` for three utterances of
EmoDB, of the layers in `layers`, the frames `::FRAMES` and the features `::FEATURES`.
"""

import io
import sys
import wave
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.golden import FOLDER, describe, run_tool, versions
from tools.golden import write as write_arrays
from tools.golden_ssl import PACKAGES, SAMPLING_RATE, draw, waveforms

SHARED = FOLDER.parents[2] / "shared"
HOP = 320  # samples of a frame
LAYERS, FRAMES, FEATURES = (0, 3, 6), 20, 32
EMODB = ("03a01Fa", "09b03Wb", "16a02Tc")
RANK, ALPHA, ADAPTED = 2, 4.0, ("q_proj", "v_proj", "fc2")

SMALL: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 8,
    "vocab_size": 8,
    "max_target_positions": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
TWO_SECONDS: dict[str, Any] = {"max_source_positions": 100, "d_model": 24, "num_mel_bins": 128}
# Name -> the model's class and its config's arguments.
CHECKPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "whisper-base": ("WhisperForConditionalGeneration", SMALL),
    "whisper-large": ("WhisperModel", SMALL | TWO_SECONDS),
    "whisper-encoder": ("WhisperEncoder", SMALL | TWO_SECONDS | {"num_mel_bins": 80, "activation_function": "relu"}),
}


def build(name: str) -> tuple[Any, Any]:
    """Returns the model, its parameters drawn from a seed and rounded to float16, and its encoder."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    class_name, arguments = CHECKPOINTS[name]
    classes = (WhisperForConditionalGeneration, WhisperModel, WhisperEncoder)
    model = next(x for x in classes if x.__name__ == class_name)(WhisperConfig(**arguments)).eval()
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "embed_positions" not in key:  # sinusoids
                parameter.copy_(draw(key, parameter, random))
            parameter.copy_(parameter.half().float())
    return model, model if class_name == "WhisperEncoder" else model.get_encoder()


def cut(encoder: Any, frames: int) -> Any:
    """Returns an encoder with the same weights that reads so many frames, with the first positions."""
    import copy

    import torch

    shorter = copy.deepcopy(encoder)
    shorter.config.max_source_positions = frames
    shorter.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:frames].detach())
    return shorter


def hidden_states(encoder: Any, features: Any) -> Any:
    """Returns the hidden states [layer+1, time, hidden] of one utterance."""
    import torch

    seen: list[Any] = []
    hooks = [
        encoder.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0])),
        *(
            layer.register_forward_hook(
                lambda module, args, out: seen.append(out[0] if isinstance(out, tuple) else out)
            )
            for layer in encoder.layers
        ),
    ]
    last = encoder(features).last_hidden_state
    for hook in hooks:
        hook.remove()
    return torch.cat([*seen[:-1], last])


def outputs(encoder: Any, extractor: Any, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the hidden states of the utterance's frames in both contexts, by context."""
    import torch

    features = extractor(samples, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_features
    frames = -(-len(samples) // HOP)
    with torch.no_grad():
        padded = hidden_states(encoder, features)[:, :frames]
        alone = hidden_states(cut(encoder, frames), features[:, :, : 2 * frames])
    return {"padded": padded.numpy(), "utterance": alone.numpy()}


def loss_of(last: Any, direction: Any) -> Any:
    """Returns a loss whose gradients do not cancel."""
    return (last * direction + 0.05 * last**2).sum()


def adapt(encoder: Any, random: Any) -> dict[str, Any]:
    """Puts adapters beside layers of the encoder, and returns their matrices ([in, rank], [rank, out])."""
    import torch

    matrices: dict[str, Any] = {}
    for i, layer in enumerate(encoder.layers):
        for name, linear in layer.named_modules():
            short = name.split(".")[-1]
            if short not in ADAPTED:
                continue
            sizes = {"a": (linear.in_features, RANK), "b": (RANK, linear.out_features)}
            pair = {end: (0.3 * torch.randn(size, generator=random)).requires_grad_() for end, size in sizes.items()}
            matrices |= {f"{i}/{short}/{end}": matrix for end, matrix in pair.items()}
            linear.register_forward_hook(
                lambda module, args, out, pair=pair: out + ALPHA / RANK * (args[0] @ pair["a"] @ pair["b"])
            )
    return matrices


def gradients(encoder: Any, extractor: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of `gradients.npz`."""
    import torch

    random = torch.Generator().manual_seed(0)
    direction = torch.randn(encoder.config.d_model, generator=random)
    arrays: dict[str, Any] = {"direction": direction}
    matrices: dict[str, Any] = {}
    for mode in ("full", "lora"):
        total: dict[str, Any] = {}
        for samples in waveforms().values():
            frames = -(-len(samples) // HOP)
            features = extractor(samples, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_features
            model = cut(encoder, frames)
            wanted = {key: x for key, x in model.named_parameters() if "embed_positions" not in key}
            if mode == "lora":
                wanted = adapt(model, torch.Generator().manual_seed(1))
                matrices = {f"adapter/{key}": x.detach() for key, x in wanted.items()}
            loss = loss_of(hidden_states(model, features[:, :, : 2 * frames])[-1], direction)
            for key, gradient in zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True):
                total[key] = total.get(key, 0.0) + gradient
        arrays |= {f"{mode}/{key}": gradient for key, gradient in total.items()}
    return {key: x.numpy() for key, x in (arrays | matrices).items()}


def emodb(name: str) -> np.ndarray:
    """Returns the samples of an utterance of EmoDB."""
    with zipfile.ZipFile(SHARED / "corpora" / "emodb.zip") as archive:
        member = next(entry for entry in archive.namelist() if entry.endswith(f"{name}.wav"))
        with wave.open(io.BytesIO(archive.read(member))) as file:
            frames = file.readframes(file.getnframes())
    return np.frombuffer(frames, "<i2").astype(np.float32) / 32768


def write_real(made_with: Sequence[str]) -> None:
    """Writes the outputs of the real weights."""
    from safetensors.torch import load_file
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    folder = SHARED / "models" / "whisper-base-encoder"
    encoder = WhisperEncoder(WhisperConfig.from_pretrained(folder)).eval()
    tensors = load_file(folder / "model.safetensors")
    encoder.load_state_dict({key.removeprefix("model.encoder."): x.float() for key, x in tensors.items()})
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    arrays: dict[str, Any] = {"layers": np.array(LAYERS)}
    for name in EMODB:
        for context, hidden in outputs(encoder, extractor, emodb(name)).items():
            arrays[f"{name}_{context}"] = hidden[list(LAYERS), ::FRAMES, ::FEATURES]
    write_arrays(FOLDER / "whisper_emodb.npz", arrays, made_with)


def make(out: Path) -> None:
    """Writes the checkpoints, and the outputs of the real weights where these are at hand."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)  # sums in one order
    made_with = versions(*PACKAGES)
    for name in CHECKPOINTS:
        model, encoder = build(name)
        config = encoder.config
        extractor = transformers.WhisperFeatureExtractor(
            feature_size=config.num_mel_bins, chunk_length=config.max_source_positions * HOP // SAMPLING_RATE
        )
        folder = out / name
        arrays = {
            f"{utterance}_{context}": hidden
            for utterance, samples in waveforms().items()
            for context, hidden in outputs(encoder, extractor, samples).items()
        }
        write_arrays(folder / "outputs.npz", arrays, made_with)
        if name == "whisper-large":
            write_arrays(folder / "gradients.npz", gradients(encoder, extractor), made_with)
        model.half().save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        extractor.save_pretrained(folder)
        print(f"{name}: standard deviations {', '.join(f'{x.std():.2f}' for x in arrays['long_utterance'])}")
        describe(folder, made_with)
    if SHARED.is_dir():
        write_real(made_with)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(make, out=FOLDER / "ssl", needs="PyTorch or transformers", description=__doc__, arguments=arguments)


if __name__ == "__main__":
    main()
