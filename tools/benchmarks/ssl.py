"""Measures the hidden states of a pretrained model (random weights) for utterances of mixed lengths.

With `--lora RANK` it measures a training step for each batch instead: adapters of that rank in queries and values of
every layer, forward and backward, AdamW. Transformers' PyTorch model computes the same on the same device. PyTorch may
be in another environment: `--torch-python` is its interpreter (with torch and transformers). Without PyTorch, sejax is
measured alone. On a GPU both compute in bfloat16.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
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
LEARNING_RATE, ALPHA = 1e-4, 16.0  # of adapters
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


def jax_side(family: str, size: str, batches: Sequence[Sequence[int]], rank: int) -> tuple[Callable[[], None], Facts]:
    """Returns a function that computes all batches with sejax, hidden states left on the device; and facts about it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from sejax.pretrained.base import NO_LORA, Lora, Section

    backbone = backbone_of(family, size)
    dtype = jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32
    lora = Lora(rank, ALPHA, ("q_proj", "v_proj")) if rank else NO_LORA
    model = backbone.module(Section(dtype=dtype, lora=lora))
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
    flops = sum(matmul_flops(backbone, len(batch), batch[0], trained=rank > 0) for batch in batches)
    return _jax_steps(model, params, inputs) if rank else run, facts | {"flops": flops}


def _jax_steps(model: Any, params: Any, inputs: Sequence[tuple[Any, Any]]) -> Callable[[], None]:
    """Returns a function that trains the adapters of a model for a step on each batch."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import traverse_util

    flat = traverse_util.flatten_dict(params)
    adapters = {path: x for path, x in flat.items() if path[-1].startswith("lora_")}
    fixed = {path: x for path, x in flat.items() if path not in adapters}
    optimizer = optax.adamw(LEARNING_RATE)
    state = [adapters, optimizer.init(adapters)]

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(adapters: Any, moments: Any, fixed: Any, x: Any, n: Any) -> Any:
        def loss(adapters: Any) -> Any:
            output: Any = model.apply(traverse_util.unflatten_dict(fixed | adapters), x, n)
            return jnp.square(output.hidden[-1].astype(jnp.float32)).mean()

        updates, moments = optimizer.update(jax.grad(loss)(adapters), moments, adapters)
        return optax.apply_updates(adapters, updates), moments

    def run() -> None:
        for x, n in inputs:
            state[:] = jax.block_until_ready(step(*state, fixed, x, n))

    return run


def matmul_flops(backbone: Any, rows: int, samples: int, *, trained: bool = False) -> float:
    """Returns the operations of all convolutions and matrix products, two per multiplication, padding included.

    XLA's own count is of no use: it counts the body of the scan over layers once.

    Args:
      trained: whether gradients pass back through the layers, to adapters, whose own products are not counted.
    """
    a, flops, time, channels = backbone, 0, samples, 1
    for features, width, stride in zip(a.conv_dim, a.conv_kernel, a.conv_stride, strict=True):
        time = (time - width) // stride + 1
        flops += time * width * channels * features
        channels = features
    flops += time * a.hidden * (channels + a.position_width * a.hidden // a.position_groups)
    products, attention = 4 * a.hidden + 2 * a.intermediate, 2 * time
    # The gradient of an input takes as many operations as the product, that of attention, which has two, twice as many.
    per_value = (2 * products + 3 * attention) if trained else products + attention
    flops += a.layers * time * a.hidden * per_value
    return 2.0 * rows * flops


def torch_side(family: str, size: str, batches: Sequence[Sequence[int]], rank: int) -> tuple[Callable[[], None], Facts]:
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

    def train() -> None:
        for x, mask in inputs:
            model(x, attention_mask=mask).last_hidden_state.float().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        if gpu:
            torch.cuda.synchronize()

    if rank:
        optimizer = torch.optim.AdamW(_torch_adapters(model, rank), LEARNING_RATE, fused=gpu)
    return train if rank else run, {"device": torch.cuda.get_device_name() if gpu else "cpu", "dtype": str(dtype)}


def _torch_adapters(model: Any, rank: int) -> list[Any]:
    """Puts adapters beside the queries and values of every layer, and returns their parameters: all that is trained."""
    import torch

    class Adapted(torch.nn.Module):
        def __init__(self, linear: Any) -> None:
            super().__init__()
            self.linear = linear
            like = {"dtype": linear.weight.dtype, "device": linear.weight.device}
            self.down = torch.nn.Parameter(0.02 * torch.randn(rank, linear.in_features, **like))
            self.up = torch.nn.Parameter(0.02 * torch.randn(linear.out_features, rank, **like))

        def forward(self, x: Any) -> Any:
            low = torch.nn.functional.linear(x, self.down)
            return self.linear(x) + ALPHA / rank * torch.nn.functional.linear(low, self.up)

    model.requires_grad_(False)
    adapters = []
    for layer in model.encoder.layers:
        for name in ("q_proj", "v_proj"):
            adapted = Adapted(getattr(layer.attention, name))
            setattr(layer.attention, name, adapted)
            adapters += [adapted.down, adapted.up]
    return adapters


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
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="train adapters of that rank")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch and transformers")
    parser.add_argument("--rounds", type=int, default=5)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures both sides in turn, and the peak of the device."""
    batches = make_batches(arguments.seconds, arguments.batch_seconds)
    options = {"family": arguments.family, "size": arguments.size, "batches": batches, "rank": arguments.lora}
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
        "lora_rank": arguments.lora,
        "batches_samples": batches,
        "audio_seconds": audio,
        "sides": summaries,
    }
    if "torch" in measured:
        result["speed_over_torch"] = ratio(measured["torch"], measured["jax"])
        result["peak_memory_over_torch"] = measured["jax"].peak_bytes / measured["torch"].peak_bytes
    return result


def show(result: dict[str, Any]) -> None:
    trained = f", training adapters of rank {result['lora_rank']}" if result["lora_rank"] else ""
    batches = len(result["batches_samples"])
    print(f"{result['model']}{trained}, {result['audio_seconds']:.0f} s of audio in {batches} batches")
    print(f"{'':8}{'audio s / s':>12}{'peak GB':>9}{'first run s':>13}{'of matmul speed':>17}")
    for side, summary in result["sides"].items():
        fraction = summary.get("fraction_of_matmul")
        print(
            f"{side:8}{summary['audio_seconds_per_second']:12.1f}{summary['peak_bytes'] / 1e9:9.2f}"
            f"{summary['first_seconds']:13.1f}{'' if fraction is None else f'{fraction:17.2f}'}"
        )
    if "speed_over_torch" in result:
        print(f"speed {result['speed_over_torch']:.2f} of PyTorch's, memory {result['peak_memory_over_torch']:.2f}")
