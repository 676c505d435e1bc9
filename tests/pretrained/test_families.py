"""Another pretrained family is one class and one row: a toy with a spectrogram in front is loaded, run and tuned."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import linen as nn
from safetensors.numpy import save_file

from sejax.data.compute import compute, contents
from sejax.errors import InputError
from sejax.features.extract import Job, Perturbation, Segment
from sejax.pretrained.base import STACKED, WHOLE, Backbone, Noise, Output, Rule, Section, stage_behind
from sejax.pretrained.convert import find_pretrained, load_checkpoint
from sejax.pretrained.finetune import Tuning, divide, frozen_forward, learning_rates, side_by_side
from sejax.pretrained.registry import BACKBONES

LAYERS, HIDDEN, BANDS = 3, 6, 5


@dataclass(frozen=True)
class Toy(Backbone):
    """Log band energies of 25 ms, a linear map, and layers of one matrix and tanh each."""

    RULES = (
        Rule(r"input\.weight", "input/kernel", "linear"),
        Rule(r"blocks\.(?P<layer>\d+)\.weight", "layers/kernel", "linear"),
    )
    PREFIX = r"toy\."
    OWN = r"(input|blocks)\..*"
    OPTIONAL = ()

    bands: int

    @classmethod
    def read(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any], folder: Path) -> "Toy":
        return cls("toy", config["layers"], config["hidden"], False, Noise(), preprocessor["bands"])

    @property
    def hop_length(self) -> int:
        return 160

    @property
    def window(self) -> int:
        return 400

    def frames(self, samples: Any) -> Any:
        return (samples - self.window) // self.hop_length + 1

    @property
    def frame_size(self) -> int:
        return self.bands

    def module(self, section: Section = WHOLE, name: str | None = None) -> nn.Module:
        return ToyModel(self, section, name=name)

    def select(self, params: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        selected = {"input": params["input"]} if start <= 1 < stop else {}
        first, last = max(start, 2) - 2, stop - 2
        return selected | ({STACKED: {"kernel": params[STACKED]["kernel"][first:last]}} if first < last else {})

    def depth(self, part: str) -> int:
        return 0


class Layers(nn.Module):
    layers: int

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.layers, x.shape[-1], x.shape[-1]))
        states = []
        for i in range(self.layers):
            x = jnp.tanh(x @ kernel[i])
            states.append(x)
        return states


class ToyModel(nn.Module):
    backbone: Toy
    section: Section

    @nn.compact
    def __call__(self, x, lengths) -> Output:
        toy, start = self.backbone, self.section.start
        stop = stage_behind(toy.layers) if self.section.stop is None else self.section.stop
        if start == 0:
            lengths = toy.frames(lengths)
            begins = toy.hop_length * np.arange(toy.frames(x.shape[1]))
            power = jnp.abs(jnp.fft.rfft(x[:, begins[:, None] + np.arange(toy.window)[None]], axis=-1)) ** 2
            x = jnp.log(power[..., : 40 * toy.bands].reshape(*power.shape[:2], toy.bands, 40).sum(axis=-1) + 1e-3)
        states = [x] if stop == 1 else []
        if start <= 1 < stop:
            x = nn.Dense(toy.hidden, use_bias=False, name="input")(x)
            states.append(x)
        if (first := max(start, 2)) < stop:
            states += Layers(stop - first, name=STACKED)(x)
        return Output(jnp.stack(states), jnp.arange(x.shape[1])[None] < lengths[:, None])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the family, whose row is in the registry."""
    monkeypatch.setitem(BACKBONES, "toy", Toy)
    random = np.random.default_rng(0)
    arrays = {f"toy.blocks.{i}.weight": random.normal(size=(HIDDEN, HIDDEN)).astype(np.float32) for i in range(LAYERS)}
    arrays["toy.input.weight"] = 0.2 * random.normal(size=(HIDDEN, BANDS)).astype(np.float32)
    arrays["decoder.weight"] = np.zeros(3, np.float32)
    folder = tmp_path / "toy"
    folder.mkdir()
    save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "toy", "layers": LAYERS, "hidden": HIDDEN}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"bands": BANDS}))
    return folder


def test_its_hidden_states_are_features(folder: Path, tmp_path: Path):
    """Of audio longer than a window: every frame sees its 25 ms alone, so windows are exact."""
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 16_000 * 4 + 77).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", samples, 16_000, subtype="FLOAT")
    jobs = [Job(Segment(str(tmp_path / "noise.wav"), None, None), [0])]
    checkpoint = load_checkpoint(str(folder))
    assert (
        checkpoint.backbone
        == find_pretrained(str(folder)).backbone
        == Toy("toy", LAYERS, HIDDEN, False, Noise(), BANDS)
    )
    whole: Any = checkpoint.backbone.module().apply(
        {"params": checkpoint.params}, jnp.asarray(samples)[None], jnp.array([len(samples)], jnp.int32)
    )
    assert whole.hidden.shape == (LAYERS + 1, 1, checkpoint.backbone.frames(len(samples)), HIDDEN)
    for layers, expected in (("all", whole.hidden), ("1", whole.hidden[1:2])):
        wanted = contents("ssl", {"model": str(folder), "layers": layers, "max_seconds": 3.0})
        ((task, number, features),) = compute([(wanted, Perturbation())], jobs, workers=1)
        assert (task, number, features.error) == (0, 0, "")
        flat = np.moveaxis(np.asarray(expected[:, 0]), 0, 1).reshape(-1, wanted.size)
        np.testing.assert_allclose(features.frames, flat, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frozen_layers", [0, 2])
def test_it_is_cut_and_tuned(folder: Path, frozen_layers: int):
    checkpoint = load_checkpoint(str(folder))
    tuning = Tuning(checkpoint.backbone, "full", frozen_layers=frozen_layers, layer_decay=0.5)
    samples = jnp.asarray(np.random.default_rng(1).integers(-3000, 3000, (2, 2000, 1)), jnp.int16)
    lengths = jnp.array([2000, 1100], jnp.int32)
    part = divide(checkpoint.params, tuning)
    below, frames = frozen_forward(tuning, part.lower, samples, lengths, None)
    upper = tuning.upper()
    assert upper is not None
    above: Any = upper.apply({"params": part.start}, below[..., -tuning.cut_size :], frames)
    found = side_by_side(above, tuning)
    found = jnp.concatenate([below, found], axis=-1) if tuning.joins_states else found
    waveform = samples[..., 0].astype(jnp.float32) / 32768
    whole: Any = checkpoint.backbone.module().apply({"params": checkpoint.params}, waveform, lengths)
    np.testing.assert_array_equal(above.mask, whole.mask)
    np.testing.assert_allclose(found, side_by_side(whole, tuning), atol=1e-5)
    factors = learning_rates(part.start, tuning)
    np.testing.assert_allclose(np.ravel(factors[STACKED]["kernel"]), [0.25, 0.5, 1.0][frozen_layers:])
    assert jax.tree.structure(factors) == jax.tree.structure(part.start)


def test_its_arrays_are_checked(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layers": LAYERS + 1}))
    with pytest.raises(InputError, match=r"config.json \(toy, 4 layers of 6\): layer 3, kernel is missing$"):
        load_checkpoint(str(folder))
