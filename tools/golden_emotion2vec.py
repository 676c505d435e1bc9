r"""Writes tests/golden/ssl/emotion2vec-base: a tiny random emotion2vec, and its outputs in PyTorch.

sejax does not need PyTorch, so this runs in the environment of `tools/golden_ssl.py`, with PyYAML:

    /tmp/ssl/bin/python tools/golden_emotion2vec.py

The model here is an implementation of its own, with the names and shapes of FunASR's arrays; `convert_checkpoint.py`
converts its files. `outputs.npz` holds for each utterance of `waveforms.npz` alone, float32: `_hidden`
[layer+1, time, hidden], the frames (without the tokens) below the first layer and behind each; `_logits` [label].
"""

import math
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools import convert_checkpoint
from tools.golden import FOLDER, describe, run_tool, versions
from tools.golden import write as write_arrays
from tools.golden_ssl import PACKAGES, draw, waveforms

HIDDEN, HEADS, PRENET, DEPTH, TOKENS, GROUPS, CONVS = 24, 6, 1, 2, 3, 4, 3
CHANNELS = ((12, 10, 5), *((8, 3, 2),) * 4, (8, 2, 2), (16, 2, 2))
LABELS = ("生气/angry", "开心/happy", "中立/neutral", "难过/sad", "<unk>")
CONFIG: dict[str, Any] = {
    "model": "Emotion2vec",
    "model_conf": {
        "depth": DEPTH,
        "num_heads": HEADS,
        "norm_eps": 1e-5,
        "norm_affine": True,
        "encoder_dropout": 0.1,
        "post_mlp_drop": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "embed_dim": HIDDEN,
        "mlp_ratio": 2.0,
        "layer_norm_first": False,
        "normalize": True,
        "modalities": {
            "audio": {
                "prenet_depth": PRENET,
                "num_extra_tokens": TOKENS,
                "use_alibi_encoder": True,
                "learned_alibi_scale": True,
                "learned_alibi_scale_per_head": True,
                "learned_alibi_scale_per_layer": False,
                "extractor_mode": "layer_norm",
                "feature_encoder_spec": "[(12, 10, 5)] + [(8, 3, 2)] * 4 + [(8,2,2)] + [(16,2,2)]",
                "conv_pos_width": CONVS * 5,
                "conv_pos_groups": GROUPS,
                "conv_pos_depth": CONVS,
                "conv_pos_pre_ln": False,
            }
        },
    },
}


def arrays() -> dict[str, Any]:
    """Returns random parameters by FunASR's names."""
    import torch

    audio = "d2v_model.modality_encoders.AUDIO."
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        shapes.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    channels = 1
    for i, (out, width, _) in enumerate(CHANNELS):
        shapes[f"{audio}local_encoder.conv_layers.{i}.0.weight"] = (out, channels, width)
        layer(f"{audio}local_encoder.conv_layers.{i}.2.1", out)
        channels = out
    layer(f"{audio}project_features.1", channels)
    layer(f"{audio}project_features.2", HIDDEN, channels)
    for i in range(CONVS):
        layer(f"{audio}relative_positional_encoder.{i + 1}.0", HIDDEN, HIDDEN // GROUPS, 5)
    layer(f"{audio}context_encoder.norm", HIDDEN)
    shapes[f"{audio}extra_tokens"] = (1, TOKENS, HIDDEN)
    shapes[f"{audio}alibi_scale"] = (1, 1, HEADS, 1, 1)
    for block in blocks():
        layer(f"{block}.attn.qkv", 3 * HIDDEN, HIDDEN)
        layer(f"{block}.attn.proj", HIDDEN, HIDDEN)
        layer(f"{block}.mlp.fc1", 2 * HIDDEN, HIDDEN)
        layer(f"{block}.mlp.fc2", HIDDEN, 2 * HIDDEN)
        layer(f"{block}.norm1", HIDDEN)
        layer(f"{block}.norm2", HIDDEN)
    layer("proj", len(LABELS), HIDDEN)
    random = torch.Generator().manual_seed(zlib.crc32(b"emotion2vec"))
    drawn = {}
    for name, shape in shapes.items():
        is_norm = len(shape) == 1 and name.endswith("weight")
        drawn[name] = draw("layer_norm.weight" if is_norm else name, torch.empty(shape), random)
    drawn[f"{audio}extra_tokens"] = torch.randn(shapes[f"{audio}extra_tokens"], generator=random)
    drawn[f"{audio}alibi_scale"] = torch.rand(shapes[f"{audio}alibi_scale"], generator=random) - 0.2  # some below 0
    return drawn


def blocks() -> list[str]:
    """Returns the names of the blocks, the lowest first."""
    prenet = [f"d2v_model.modality_encoders.AUDIO.context_encoder.blocks.{i}" for i in range(PRENET)]
    return prenet + [f"d2v_model.blocks.{i}" for i in range(DEPTH)]


def forward(p: dict[str, Any], samples: np.ndarray) -> dict[str, Any]:
    """Returns the outputs of one utterance."""
    import torch
    from torch.nn.functional import conv1d, gelu, layer_norm, linear

    audio = "d2v_model.modality_encoders.AUDIO."

    def norm(x: Any, name: str) -> Any:
        return layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])

    def dense(x: Any, name: str) -> Any:
        return linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    x = torch.from_numpy(samples)
    x = layer_norm(x, x.shape)[None]
    for i, (_, _, stride) in enumerate(CHANNELS):
        name = f"{audio}local_encoder.conv_layers.{i}"
        x = gelu(norm(conv1d(x, p[f"{name}.0.weight"], stride=stride).T, f"{name}.2.1").T)
    x = dense(norm(x.T, f"{audio}project_features.1"), f"{audio}project_features.2")
    place = x.T
    for i in range(CONVS):
        name = f"{audio}relative_positional_encoder.{i + 1}.0"
        place = conv1d(place, p[f"{name}.weight"], p[f"{name}.bias"], padding=2, groups=GROUPS)
        place = gelu(layer_norm(place.T, (HIDDEN,)).T)
    x = torch.cat([p[f"{audio}extra_tokens"][0], x + place.T])
    x = norm(x, f"{audio}context_encoder.norm")
    time = len(x)
    near = torch.zeros(HEADS, time, time)
    # Of 6 heads: the slopes of 4, then the first and third of 8.
    slopes = torch.tensor([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3])
    scale = p[f"{audio}alibi_scale"].reshape(HEADS).clamp_min(0)
    steps = torch.arange(time - TOKENS)
    near[:, TOKENS:, TOKENS:] = -(slopes * scale)[:, None, None] * (steps[:, None] - steps[None]).abs()
    states = [x]
    for block in blocks():
        q, k, v = (part.reshape(time, HEADS, -1).transpose(0, 1) for part in dense(x, f"{block}.attn.qkv").chunk(3, -1))
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(HIDDEN // HEADS) + near, dim=-1)
        x = norm(x + dense((weights @ v).transpose(0, 1).reshape(time, HIDDEN), f"{block}.attn.proj"), f"{block}.norm1")
        x = norm(x + dense(gelu(dense(x, f"{block}.mlp.fc1")), f"{block}.mlp.fc2"), f"{block}.norm2")
        states.append(x)
    hidden = torch.stack(states)[:, TOKENS:]
    return {"hidden": hidden, "logits": dense(hidden[-1].mean(dim=0), "proj")}


def make(out: Path) -> None:
    """Writes the folder."""
    import torch
    import yaml

    torch.set_num_threads(1)  # sums in one order
    out.mkdir(parents=True, exist_ok=True)
    parameters = arrays()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        (folder / "tokens.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
        torch.save({"model": parameters}, folder / "model.pt")
        convert_checkpoint.convert(folder, out / "model.safetensors", force=True)
    outputs: dict[str, Any] = {}
    for name, samples in waveforms().items():
        outputs |= {f"{name}_{key}": x.numpy() for key, x in forward(parameters, samples).items()}
    made_with = versions(*PACKAGES)
    write_arrays(out / "outputs.npz", outputs, made_with)
    print(f"standard deviations {', '.join(f'{x.std():.2f}' for x in outputs['long_hidden'])}")
    describe(out, made_with)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(
        make,
        out=FOLDER / "ssl" / "emotion2vec-base",
        needs="PyTorch or PyYAML",
        description=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    main()
