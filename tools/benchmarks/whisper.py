"""Measures the hidden states of Whisper's encoder for utterances of mixed lengths, from waveforms.

Transformers' WhisperFeatureExtractor and PyTorch encoder compute the same on the same cores, padded to 30 s as it has
to be there. sejax computes both contexts: padded, and the utterance alone. PyTorch may be in another environment:
`--torch-python` is its interpreter (with torch and transformers).
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tools.benchmarks.sides import Facts, Process, Side, add_other, measure_in_turn, ratio

SAMPLING_RATE = 16_000
OURS = ("padded", "utterance")


def jax_side(context: str, model: str, seconds: Sequence[float]) -> tuple[Callable[[], None], Facts]:
    """Returns a function that computes all utterances with sejax in a context, as features are; and facts about it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from sejax.pretrained.convert import load_checkpoint
    from sejax.pretrained.extract import BATCH_SECONDS, Batches, Piece

    checkpoint = load_checkpoint(model)
    backbone = checkpoint.backbone.in_context(context)
    params = jax.device_put(checkpoint.params)
    del checkpoint
    module: Any = backbone.module()
    compute = jax.jit(lambda params, x, n: module.apply({"params": params}, x, n).hidden)
    filling = Batches(int(BATCH_SECONDS["cpu"] * SAMPLING_RATE), least=backbone.least)
    pieces = [Piece(i, 0, samples, 0, 0) for i, samples in enumerate(_waveforms(seconds))]
    batches = [batch for piece in pieces if (batch := filling.add(piece))] + list(filling.rest())

    def run() -> None:
        for length, batch in batches:
            rows = np.stack([np.pad(piece.samples, (0, length - len(piece.samples))) for piece in batch])
            lengths = jnp.asarray([len(piece.samples) for piece in batch], jnp.int32)
            jax.block_until_ready(compute(params, jnp.asarray(rows), lengths))

    return run, {"device": jax.devices()[0].device_kind, "dtype": "float32"}


def torch_side(model: str, seconds: Sequence[float], rows: int) -> tuple[Callable[[], None], Facts]:
    """Returns the same for transformers: so many utterances in a batch, all hidden states."""
    import torch
    import transformers
    from safetensors.torch import load_file

    transformers.logging.set_verbosity_error()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(model)
    config = transformers.WhisperConfig.from_pretrained(model)
    encoder = transformers.models.whisper.modeling_whisper.WhisperEncoder(config).eval().float()
    arrays = load_file(Path(model, "model.safetensors"))
    prefix = "model.encoder."
    encoder.load_state_dict({k.removeprefix(prefix): x.float() for k, x in arrays.items() if k.startswith(prefix)})
    waveforms = sorted(_waveforms(seconds), key=len)

    def run() -> None:
        with torch.inference_mode():
            for first in range(0, len(waveforms), rows):
                batch = waveforms[first : first + rows]
                inputs = extractor(batch, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_features
                encoder(inputs, output_hidden_states=True)

    return run, {"device": "cpu", "dtype": "float32", "rows": rows}


def _waveforms(seconds: Sequence[float]) -> list[Any]:
    import numpy as np

    random = np.random.default_rng(0)
    return [random.uniform(-0.5, 0.5, int(s * SAMPLING_RATE)).astype(np.float32) for s in seconds]


def side(name: str, options: dict[str, Any]) -> Side:
    """Returns the side of that name."""
    rows = options.pop("rows")
    return (lambda: torch_side(**options, rows=rows)) if name == "torch" else (lambda: jax_side(name, **options))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="../shared/models/whisper-base-encoder", help="folder of a checkpoint")
    lengths = [1.4, 1.8, 2.1, 2.4, 2.6, 2.9, 3.3, 4.2]  # EmoDB's eighths
    parser.add_argument("--seconds", type=float, nargs="+", default=lengths, help="durations of the utterances")
    parser.add_argument("--rows", type=int, default=1, help="utterances in a batch of PyTorch's")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch and transformers")
    parser.add_argument("--rounds", type=int, default=5)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures all sides in turn, ours with programs that an earlier process has compiled, as a study's cache has them.

    The peak of a process that compiles is measured apart: the compiler needs more memory than the model.
    """
    options = {"model": arguments.model, "seconds": arguments.seconds, "rows": arguments.rows}
    with tempfile.TemporaryDirectory() as cache:
        stored = {"JAX_COMPILATION_CACHE_DIR": cache, "TF_CPP_MIN_LOG_LEVEL": "3"}
        sides = {name: Process("whisper", name, options, environment=stored) for name in OURS}
        compiled = measure_in_turn(sides, 1)
        other = {"torch": Process("whisper", "torch", options, arguments.torch_python)}
        add_other(sides, other, ("torch", "transformers", "numpy"), "sejax is")
        measured = measure_in_turn(sides, arguments.rounds)
    audio = sum(arguments.seconds)
    result: dict[str, Any] = {
        "model": Path(arguments.model).name,
        "seconds": arguments.seconds,
        "audio_seconds": audio,
        "sides": {
            name: timing.summary() | {"audio_seconds_per_second": audio / timing.median}
            for name, timing in measured.items()
        },
    }
    if "torch" in measured:
        torch = measured["torch"]
        for name in OURS:
            result[f"{name}_speed_over_torch"] = ratio(torch, measured[name])
            result[f"{name}_peak_memory_over_torch"] = measured[name].peak_bytes / torch.peak_bytes
            result[f"{name}_compiling_peak_memory_over_torch"] = compiled[name].peak_bytes / torch.peak_bytes
    return result


def show(result: dict[str, Any]) -> None:
    print(f"{result['model']}, {len(result['seconds'])} utterances of {result['audio_seconds']:.0f} s")
    heads = (
        ("audio s / s", 12),
        ("peak GB", 9),
        ("first run s", 13),
        ("speed of PyTorch", 18),
        ("memory", 8),
        ("compiling", 11),
    )
    print(" " * 11 + "".join(f"{head:>{width}}" for head, width in heads))
    for name, summary in result["sides"].items():
        found = [result.get(f"{name}_{what}_over_torch") for what in ("speed", "peak_memory", "compiling_peak_memory")]
        ratios = "".join(f"{x:{width}.2f}" for x, width in zip(found, (18, 8, 11), strict=True) if x is not None)
        print(
            f"{name:11}{summary['audio_seconds_per_second']:12.1f}{summary['peak_bytes'] / 1e9:9.2f}"
            f"{summary['first_seconds']:13.1f}{ratios}"
        )
