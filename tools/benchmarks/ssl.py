"""Measures the hidden states of a pretrained model (random weights) for utterances of mixed lengths.

Transformers' PyTorch model computes the same on the same device. PyTorch may be in another environment:
`--torch-python` is its interpreter (with torch and transformers). Without PyTorch, sejax is measured alone. On a GPU
both compute in bfloat16.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tools.benchmarks.sides import Facts, Process, Side, add_other, matmul_peak, measure_in_turn, ratio

SAMPLING_RATE = 16_000
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "do_stable_layer_norm": True,
        "feat_extract_norm": "layer",
        "conv_bias": True,
    },
}
CLASSES = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}


def make_batches(seconds: Sequence[float], batch_seconds: float) -> list[list[int]]:
    """Returns each utterance's samples, in batches of similar length; a padded batch has at most `batch_seconds`."""
    batches: list[list[int]] = []
    for duration in sorted(seconds, reverse=True):
        if not batches or (len(batches[-1]) + 1) * batches[-1][0] > batch_seconds * SAMPLING_RATE:
            batches.append([])
        batches[-1].append(int(duration * SAMPLING_RATE))
    return batches


def backbone_of(family: str, size: str) -> Any:
    """Returns the backbone of transformers' default configuration of the family, in that size."""
    from sejax.pretrained.registry import BACKBONES

    return BACKBONES[family].read({"model_type": family, **SIZES[size]}, {}, Path(f"{family}-{size}"))


def jax_side(family: str, size: str, batches: Sequence[Sequence[int]]) -> tuple[Callable[[], None], Facts]:
    """Returns a function that computes all batches with sejax, hidden states left on the device; and facts about it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from sejax.pretrained.base import Section

    backbone = backbone_of(family, size)
    dtype = jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32
    model = backbone.module(Section(dtype=dtype))
    lengths = jnp.array([8000], jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8000)), lengths)
    random = np.random.default_rng(0)
    # Array by array, as a checkpoint is loaded: one program that draws them all would need memory of its own.
    params = jax.tree.map(lambda x: jnp.asarray(random.standard_normal(x.shape, np.float32) * np.float32(0.02)), shapes)

    @jax.jit
    def compute(params: Any, x: Any, n: Any) -> Any:
        output: Any = model.apply(params, x, n)
        return output.hidden

    inputs = [(jnp.asarray(_noise(batch), jnp.float32), jnp.asarray(np.array(batch), jnp.int32)) for batch in batches]

    def run() -> None:
        for x, n in inputs:
            jax.block_until_ready(compute(params, x, n))

    facts = {"device": jax.devices()[0].device_kind, "dtype": str(jnp.dtype(dtype))}
    return run, facts | {"flops": sum(matmul_flops(backbone, len(batch), batch[0]) for batch in batches)}


def matmul_flops(backbone: Any, rows: int, samples: int) -> float:
    """Returns the operations of all convolutions and matrix products, two per multiplication, padding included.

    XLA's own count is of no use: it counts the body of the scan over layers once.
    """
    a, flops, time, channels = backbone, 0, samples, 1
    for features, width, stride in zip(a.conv_dim, a.conv_kernel, a.conv_stride, strict=True):
        time = (time - width) // stride + 1
        flops += time * width * channels * features
        channels = features
    flops += time * a.hidden * (channels + a.position_width * a.hidden // a.position_groups)
    flops += a.layers * time * a.hidden * (4 * a.hidden + 2 * a.intermediate + 2 * time)
    return 2.0 * rows * flops


def torch_side(family: str, size: str, batches: Sequence[Sequence[int]]) -> tuple[Callable[[], None], Facts]:
    """Returns the same for transformers' model with its attention mask."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    name = CLASSES[family]
    config = getattr(transformers, f"{name}Config")(**SIZES[size])
    gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    model = getattr(transformers, f"{name}Model")(config).eval().to(device, dtype)
    inputs = []
    for batch in batches:
        mask = torch.arange(batch[0])[None] < torch.tensor(batch)[:, None]
        inputs.append((torch.tensor(_noise(batch), dtype=dtype, device=device), mask.long().to(device)))

    def run() -> None:
        with torch.inference_mode():
            for x, mask in inputs:
                model(x, attention_mask=mask, output_hidden_states=True)
            if gpu:
                torch.cuda.synchronize()

    return run, {"device": torch.cuda.get_device_name() if gpu else "cpu", "dtype": str(dtype)}


def _noise(batch: Sequence[int]) -> Any:
    import numpy as np

    waveform = np.random.default_rng(0).standard_normal((len(batch), batch[0])).astype(np.float32)
    for row, samples in enumerate(batch):
        waveform[row, samples:] = 0
    return waveform


def side(name: str, options: dict[str, Any]) -> Side:
    """Returns the side of that name."""
    return {"jax": lambda: jax_side(**options), "torch": lambda: torch_side(**options), "matmul": matmul_peak}[name]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", choices=CLASSES, default="hubert")
    parser.add_argument("--size", choices=SIZES, default="base")
    lengths = [2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0]
    parser.add_argument("--seconds", type=float, nargs="+", default=lengths, help="durations of the utterances")
    parser.add_argument("--batch-seconds", type=float, default=16.0, help="padded audio in a batch")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch and transformers")
    parser.add_argument("--rounds", type=int, default=5)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures both sides in turn, and the peak of the device."""
    batches = make_batches(arguments.seconds, arguments.batch_seconds)
    options = {"family": arguments.family, "size": arguments.size, "batches": batches}
    sides = {name: Process("ssl", name, options) for name in ("jax", "matmul")}
    torch = {"torch": Process("ssl", "torch", options, arguments.torch_python)}
    add_other(sides, torch, ("torch", "transformers", "numpy"), "sejax is")
    measured = measure_in_turn(sides, arguments.rounds)
    audio = sum(sum(batch) for batch in batches) / SAMPLING_RATE
    summaries = {
        name: timing.summary() | {"audio_seconds_per_second": audio / timing.median}
        for name, timing in measured.items()
        if name != "matmul"
    }
    achieved, possible = (measured[name].facts["flops"] / measured[name].median for name in ("jax", "matmul"))
    summaries["jax"] |= {"flops_per_second": achieved, "fraction_of_matmul": achieved / possible}
    result: dict[str, Any] = {
        "model": f"{arguments.family}-{arguments.size}, random weights",
        "batches_samples": batches,
        "audio_seconds": audio,
        "sides": summaries,
    }
    if "torch" in measured:
        result["speed_over_torch"] = ratio(measured["torch"], measured["jax"])
        result["peak_memory_over_torch"] = measured["jax"].peak_bytes / measured["torch"].peak_bytes
    return result


def show(result: dict[str, Any]) -> None:
    print(f"{result['model']}, {result['audio_seconds']:.0f} s of audio in {len(result['batches_samples'])} batches")
    print(f"{'':8}{'audio s / s':>12}{'peak GB':>9}{'first run s':>13}{'of matmul speed':>17}")
    for side, summary in result["sides"].items():
        fraction = summary.get("fraction_of_matmul")
        print(
            f"{side:8}{summary['audio_seconds_per_second']:12.1f}{summary['peak_bytes'] / 1e9:9.2f}"
            f"{summary['first_seconds']:13.1f}{'' if fraction is None else f'{fraction:17.2f}'}"
        )
    if "speed_over_torch" in result:
        print(f"speed {result['speed_over_torch']:.2f} of PyTorch's, memory {result['peak_memory_over_torch']:.2f}")
