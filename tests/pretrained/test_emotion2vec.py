"""emotion2vec, converted from FunASR's layout, against an implementation in PyTorch and against itself."""

import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny_study import GOLDEN_SSL

from sejax.errors import InputError
from sejax.models.heads import Heads
from sejax.models.joint import JointModel, Rates, StreamSpec, Trunk
from sejax.pretrained.base import Lora, Output, Section
from sejax.pretrained.convert import Checkpoint, load_checkpoint
from sejax.pretrained.families.emotion2vec import alibi_slopes
from sejax.pretrained.finetune import Tuning, divide, frozen_forward, merge, side_by_side
from sejax.pretrained.heads.classifier import classify, load_classifier

MODEL = GOLDEN_SSL / "emotion2vec-base"
NAMES = ("short", "middle", "long")
WAVEFORMS = np.load(GOLDEN_SSL / "waveforms.npz")
GOLDEN = np.load(MODEL / "outputs.npz")
ATOL = 1e-4  # of hidden states, whose standard deviation is about one


@lru_cache
def checkpoint() -> Checkpoint:
    return load_checkpoint(str(MODEL))


@lru_cache
def program(model: nn.Module) -> Any:
    return jax.jit(lambda params, x, lengths: model.apply({"params": params}, x, lengths))


def recorded(fill: float | None = None) -> tuple[jax.Array, jax.Array]:
    """The golden utterances as recorded, and their lengths; beyond their ends `fill`, or noise."""
    samples = [WAVEFORMS[f"{utterance}_samples"] for utterance in NAMES]
    noise = 3 * np.random.default_rng(0).standard_normal((len(NAMES), 16_400)).astype(np.float32)
    padded = noise if fill is None else np.full_like(noise, fill)
    for row, utterance in zip(padded, samples, strict=True):
        row[: len(utterance)] = utterance
    return jnp.asarray(padded), jnp.asarray([len(utterance) for utterance in samples], jnp.int32)


def states(fill: float | None = None) -> Output:
    x, lengths = recorded(fill)
    backbone = checkpoint().backbone
    return program(backbone.module())(checkpoint().params, backbone.prepare(x, lengths), lengths)


def test_every_hidden_state_equals_pytorch():
    """Each utterance in a padded batch with noise beyond the ends; PyTorch had each by itself."""
    hidden, mask = states()
    for i, utterance in enumerate(NAMES):
        expected = GOLDEN[f"{utterance}_hidden"]
        assert mask[i].sum() == expected.shape[1] and mask[i, : expected.shape[1]].all()
        for layer, wanted in enumerate(expected):
            np.testing.assert_allclose(
                hidden[layer, i, : len(wanted)], wanted, rtol=0, atol=ATOL, err_msg=f"{utterance}, layer {layer}"
            )


def test_nothing_beyond_the_end_matters():
    one, other = states(np.nan), states(0.0)
    for i, frames in enumerate(one.mask.sum(axis=1)):
        np.testing.assert_array_equal(one.hidden[:, i, :frames], other.hidden[:, i, :frames])


def test_its_head_gives_emotions():
    """The labels are the English part of FunASR's, and the scores its linear layer's of the mean over frames."""
    classifier = load_classifier(str(MODEL))
    assert classifier.labels == ("angry", "happy", "neutral", "sad", "<unk>")
    scores = classify(classifier, *recorded())
    for i, utterance in enumerate(NAMES):
        np.testing.assert_allclose(scores.logits[i], GOLDEN[f"{utterance}_logits"], rtol=0, atol=ATOL)
    np.testing.assert_allclose(scores.values.sum(axis=1), 1.0, rtol=1e-5)


def test_waveforms_are_normalised_as_by_a_layer_norm():
    """Its floor of 1e-5 matters for quiet audio."""
    quiet = 0.01 * WAVEFORMS["middle_samples"]
    backbone = checkpoint().backbone
    expected = (quiet - quiet.mean()) / np.sqrt(quiet.var(dtype=np.float64) + 1e-5)
    assert expected.std() < 0.9
    np.testing.assert_allclose(backbone.prepare_utterance(quiet), expected, atol=1e-5)
    found = backbone.prepare(jnp.asarray(quiet)[None], jnp.asarray([len(quiet)], jnp.int32))
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.parametrize("tuning", ["full", "lora", "full above 1", "frozen"])
def test_the_parts_are_the_whole(tuning: str):
    """Its tokens pass the cut behind the frames, where nothing else reads them."""
    found = checkpoint()
    mode, _, above = tuning.partition(" above ")
    cut = Tuning(found.backbone, mode, frozen_layers=int(above or 0))
    rng = np.random.default_rng(0)
    samples = jnp.asarray(rng.integers(-3000, 3000, (2, 2400, 1)), jnp.int16)
    lengths = jnp.array([2400, 1500], jnp.int32)
    waveform = found.backbone.prepare(samples[..., 0].astype(jnp.float32) / 32768, lengths)
    whole = program(found.backbone.module())(found.params, waveform, lengths)
    part = divide(jax.tree.map(jnp.asarray, found.params), cut)
    below, frames = frozen_forward(cut, part.lower, samples, lengths, None)
    found_states = below
    if (upper := cut.upper()) is not None:
        params: Any = merge(part.upper, part.start)
        above_cut: Any = program(upper)(params, below[..., -cut.cut_size :], frames)
        found_states = side_by_side(above_cut, cut)
        if cut.joins_states:
            found_states = jnp.concatenate([below, found_states], axis=-1)
    expected = jnp.moveaxis(whole.hidden, 0, 2).reshape(*found_states.shape)
    np.testing.assert_array_equal(frames, whole.mask.sum(axis=1))
    difference = jnp.where(whole.mask[..., None], found_states - expected, 0)
    np.testing.assert_allclose(difference, 0, atol=2e-5)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_its_tokens_end_in_the_joint_model(tuning: str):
    """Of a model that is tuned as a whole, the frames below the cut have no tokens behind them, those above it have."""
    found = checkpoint()
    cut = Tuning(found.backbone, tuning, lora=Lora(2, 4.0, ("q_proj",)))
    spec = StreamSpec("emotion", "linear", 1, 2, cut.states, cut)
    trunk = Trunk((spec,), width=8, fused=8, heads=2, self_attention=False, co_attention=False, statistics=False)
    model = JointModel(trunk, Heads(classes=2, dimensions=3))
    samples = jax.ShapeDtypeStruct((2, 2400, 1), jnp.int16)
    lengths = jax.ShapeDtypeStruct((2,), jnp.int32)
    lower = jax.tree.map(jnp.asarray, divide(found.params, cut).lower)

    def outputs(samples: jax.Array, lengths: jax.Array) -> Any:
        frames, valid = frozen_forward(cut, lower, samples, lengths, None)
        masks = {"emotion": jnp.arange(frames.shape[1])[None] < valid[:, None]}
        arguments = {"emotion": frames}, masks, {"emotion": jnp.zeros((2, 0))}, Rates(jnp.zeros(()), jnp.zeros(()))
        return model.init_with_output(jax.random.key(0), *arguments)[0]

    logits, vad = jax.eval_shape(outputs, samples, lengths)
    assert logits.shape == (2, 2) and vad.shape == (2, 3)


def test_each_section_has_the_parameters_of_its_stages():
    found = checkpoint()
    for start, stop in ((0, 1), (0, 2), (1, 3), (2, 5), (3, 5)):
        model = found.backbone.module(Section(start, stop))
        x = jax.ShapeDtypeStruct((1, 4000) if start == 0 else (1, 20, [0, 16, 24][min(start, 2)]), np.float32)
        lengths = jax.ShapeDtypeStruct((1,), np.int32)
        shapes = jax.eval_shape(model.init, jax.random.key(0), x, lengths)["params"]
        selected = found.backbone.select(found.params, start, stop)
        assert jax.tree.map(np.shape, selected) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def test_slopes_are_those_of_alibi():
    """Of its paper: 1/2 to 1/256 for 8 heads; for 12, those and every second of 16."""
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(12) == [2.0**-i for i in range(1, 9)] + [2.0**-i for i in (0.5, 1.5, 2.5, 3.5)]
    assert alibi_slopes(1) == [2.0**-8]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_extra_tokens": None}, "num_extra_tokens is None, expected a whole number from 1 to 1024$"),
        ({"num_extra_tokens": 4}, r"extra_tokens is \[3, 24\], which gives \[3, 24\], expected \[4, 24\]"),
        ({"num_attention_heads": 5}, "a hidden_size that num_attention_heads does not divide"),
    ],
)
def test_another_architecture_is_named(changes: dict[str, Any], sentence: str, tmp_path: Path):
    shutil.copytree(MODEL, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=sentence):
        load_checkpoint(str(tmp_path / "model"))
