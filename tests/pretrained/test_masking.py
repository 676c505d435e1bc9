"""What happens to a pretrained model in training alone: masked spans, and dropout, of attention too."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny_study import GOLDEN_SSL

from sejax.errors import InputError
from sejax.pretrained.base import Backbone, Noise, Section
from sejax.pretrained.convert import load_checkpoint, read_backbone
from sejax.pretrained.families.masking import draw_spans, mask_spans
from sejax.pretrained.families.transformer import SelfAttention
from sejax.pretrained.finetune import Tuning, divide, frozen_forward

OWN = Noise(0.1, 0.1, 0.1, 0.0, 0.05, 10, 2, 0.0, 10, 0)  # of the golden models, and of most published ones


# -------------------------------------------------------------------------------------------------- spans


def test_spans():
    """Spans of 10 frames inside the utterance, as many as transformers masks: of 1 s two, of 4 s and 30 % six."""
    frames = np.array([200, 49, 12, 10, 9, 0])
    valid = np.arange(200)[None] < np.repeat(frames, 300)[:, None]
    mask = np.asarray(draw_spans(jax.random.key(0), jnp.asarray(valid), 0.3, 10, 2)).reshape(6, 300, 200)
    assert mask.dtype == bool
    assert not (mask & ~valid.reshape(6, 300, 200)).any()
    for row in mask.reshape(-1, 200):
        edges = np.flatnonzero(np.diff(np.pad(row.astype(int), 1)))
        assert (edges[1::2] - edges[::2] >= 10).all()
    # A frame in the middle is free if none of the six begins, out of 191, is one of the ten that cover it.
    assert mask[0, :, 20:180].mean() == pytest.approx(1 - math.comb(181, 6) / math.comb(191, 6), abs=0.01)
    assert set(mask[1].sum(axis=1)) <= set(range(11, 21)) and len(set(mask[1].sum(axis=1))) > 5
    assert set(mask[2].sum(axis=1)) == set(mask[3].sum(axis=1)) == {10}
    assert not mask[4:].any()


def test_the_number_of_spans_is_rounded_at_random():
    """As in transformers: 0.37 of 100 frames in spans of 10 are three or four."""
    mask = draw_spans(jax.random.key(0), jnp.ones((400, 1000), bool), 0.037, 10, 2)
    covered = np.asarray(mask).mean()
    assert 0.035 < covered < 0.037
    fewest = np.asarray(draw_spans(jax.random.key(0), jnp.ones((50, 100), bool), 1e-6, 1, 2)).sum(axis=1)
    assert (fewest == 2).all()


class Masked(nn.Module):
    noise: Noise

    @nn.compact
    def __call__(self, x, mask, filler=None):
        return mask_spans(self, self.noise, x, mask, filler)


def masked(noise: Noise, x: jax.Array, mask: jax.Array, filler: jax.Array | None = None) -> np.ndarray:
    return np.asarray(Masked(noise).apply({}, x, mask, filler, rngs={"masking": jax.random.key(3)}))


def test_frames_become_the_filler_and_features_zeros():
    """Features of an utterance are masked in all of its frames; they win where both meet."""
    x = jnp.broadcast_to(1 + jnp.arange(12, dtype=jnp.float32)[None, None], (50, 40, 12))
    mask = jnp.arange(40)[None] < jnp.full((50, 1), 30)
    filler = -jnp.ones(12)
    found = masked(Noise(time_mask_prob=0.3, time_mask_length=5), x, mask, filler)
    frames = (found == -1).all(axis=2)
    assert (found[~frames] == np.asarray(x)[~frames]).all() and 0.1 < frames[:, :30].mean() < 0.3
    assert not frames[:, 30:].any()
    found = masked(Noise(feature_mask_prob=0.5, feature_mask_length=3), x, mask, filler)
    features = (found == 0).all(axis=1)
    assert (found == np.where(features[:, None], 0, x)).all() and (features.sum(axis=1) >= 3).all()
    both = Noise(time_mask_prob=0.3, time_mask_length=5, feature_mask_prob=0.5, feature_mask_length=3)
    found = masked(both, x, mask, filler)
    np.testing.assert_array_equal(found, np.where(features[:, None], 0, np.where(frames[..., None], -1, x)))
    assert (masked(both, x, mask)[frames] == 0).all()
    np.testing.assert_array_equal(Masked(both).apply({}, x, mask), x)  # not in training
    assert (masked(Noise(), x, mask) == x).all()


# ------------------------------------------------------------------------------------------------ dropout


def test_attention_drops_probabilities():
    """The output is right on average, and its variance is that of independent probabilities."""
    backbone: Any = replace(load_checkpoint(str(GOLDEN_SSL / "whisper-large")).backbone)
    rate, rows = 0.3, 4000
    one = 0.3 * jax.random.normal(jax.random.key(0), (1, 6, backbone.hidden))
    x, mask = jnp.broadcast_to(one, (rows, 6, backbone.hidden)), jnp.arange(6)[None] < jnp.full((rows, 1), 5)
    attention = SelfAttention(replace(backbone, noise=Noise(attention_dropout=rate)))
    params = attention.init(jax.random.key(1), x[:1], mask[:1], None)["params"]
    eye = jnp.eye(backbone.hidden)
    for name in ("v_proj", "out_proj"):
        params[name] = {"kernel": eye, "bias": jnp.zeros(backbone.hidden)}
    exact = np.asarray(attention.apply({"params": params}, x[:1], mask[:1], None))[0]
    found = np.asarray(attention.apply({"params": params}, x, mask, None, rngs={"dropout": jax.random.key(2)}))
    # The probabilities, from a second pass with the frames' numbers as values.
    heads, size = backbone.heads, backbone.hidden // backbone.heads
    q, k = (np.asarray(one[0] @ params[f"{n}_proj"]["kernel"]).reshape(6, heads, size) for n in "qk")
    logits = np.einsum("thf,shf->hts", q, k) / math.sqrt(size) + np.where(np.arange(6) < 5, 0, -np.inf)
    p = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    values = np.asarray(one[0]).reshape(6, heads, size)
    variance = rate / (1 - rate) * np.einsum("hts,shf->thf", p**2, values**2).reshape(6, -1)
    np.testing.assert_allclose(np.einsum("hts,shf->thf", p, values).reshape(6, -1), exact, atol=1e-5)
    np.testing.assert_allclose(found.mean(axis=0), exact, atol=5 * np.sqrt(variance.max() / rows))
    np.testing.assert_allclose(found.var(axis=0), variance, rtol=0.25)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_with_a_rate_of_almost_nothing_is_attention(dtype: Any):
    """Both ways to compute it, WavLM's bias included."""
    backbone: Any = load_checkpoint(str(GOLDEN_SSL / "wavlm-large")).backbone
    backbone = replace(backbone, noise=Noise(attention_dropout=1e-9))
    x = jax.random.normal(jax.random.key(0), (3, 7, backbone.hidden)).astype(dtype)
    mask = jnp.arange(7)[None] < jnp.array([[7], [4], [1]])
    bias = jax.random.normal(jax.random.key(1), (backbone.heads, 7, 7))
    attention = SelfAttention(backbone, dtype=dtype)
    params = attention.init(jax.random.key(2), x, mask, bias)
    one: Any = attention.apply(params, x, mask, bias)
    other: Any = attention.apply(params, x, mask, bias, rngs={"dropout": jax.random.key(3)})
    assert one.dtype == other.dtype == dtype
    np.testing.assert_allclose(
        one.astype(jnp.float32), other.astype(jnp.float32), atol=1e-5 if dtype == jnp.float32 else 0.03
    )


@pytest.mark.parametrize("name", ["wav2vec2-base", "whisper-large"])
def test_each_rate_is_used_in_training_alone(name: str):
    found = load_checkpoint(str(GOLDEN_SSL / name))
    params = jax.tree.map(jnp.asarray, found.backbone.select(found.params, 0, 3))
    x = 0.3 * jax.random.normal(jax.random.key(0), (1, 4000))
    lengths = jnp.array([4000], jnp.int32)

    def last(noise: Noise, **streams: Any) -> np.ndarray:
        model = replace(found.backbone, noise=noise).module(Section(stop=3))
        output: Any = model.apply({"params": params}, x, lengths, rngs=streams)
        return np.asarray(output.hidden[-1])

    streams = {"dropout": jax.random.key(1), "masking": jax.random.key(2)}
    exact = last(Noise(0.5, 0.5, 0.5, 0.5, 0.5, 2, 1, 0.5, 2, 1))
    rates = ["dropout", "attention_dropout", "activation_dropout", "time_mask_prob", "feature_mask_prob"]
    rates += [] if name == "whisper-large" else ["projection_dropout"]
    np.testing.assert_array_equal(last(Noise(), **streams), exact)
    for rate in rates:
        changed = last(Noise(time_mask_length=2, feature_mask_length=2)._replace(**{rate: 0.5}), **streams)
        assert not np.allclose(changed, exact, atol=1e-3), rate


def test_what_is_below_adapters_has_dropout_too():
    """Behind the projection and positions; a model that is frozen as a whole has none."""
    found = load_checkpoint(str(GOLDEN_SSL / "wav2vec2-base"))
    quiet: Any = replace(found.backbone, noise=Noise(dropout=0.5, projection_dropout=0.5))
    samples = jnp.asarray(np.random.default_rng(0).integers(-3000, 3000, (1, 2400, 1)), jnp.int16)
    lengths, key = jnp.array([2400], jnp.int32), jax.random.key(0)
    for mode, same in (("lora", False), ("frozen", True), ("full", True)):  # the last has its convolutions below
        tuning = Tuning(quiet, mode)
        lower = jax.tree.map(jnp.asarray, divide(found.params, tuning).lower)
        exact, trained = (frozen_forward(tuning, lower, samples, lengths, k)[0] for k in (None, key))
        assert bool(np.allclose(exact, trained, atol=1e-5)) == same, mode


# --------------------------------------------------------------------------------------- what a file says


def described(name: str, folder: Path, **changes: Any) -> Backbone:
    """The backbone of a golden checkpoint whose config.json has other values."""
    shutil.copytree(GOLDEN_SSL / name, folder / "model", dirs_exist_ok=True)
    path = folder / "model" / "config.json"
    path.write_text(json.dumps(json.loads((GOLDEN_SSL / name / "config.json").read_text()) | changes))
    return read_backbone(folder / "model")


@pytest.mark.parametrize("name", ["wav2vec2-base", "wavlm-large", "unispeech-sat-base", "data2vec-audio-base"])
def test_the_noise_is_the_checkpoints(name: str, tmp_path: Path):
    assert described(name, tmp_path).noise == OWN
    changes = {
        "hidden_dropout": 0.2,
        "attention_dropout": 0.3,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.4,
        "mask_time_prob": 0.6,
        "mask_time_length": 3,
        "mask_time_min_masks": 1,
        "mask_feature_prob": 0.7,
        "mask_feature_length": 4,
        "mask_feature_min_masks": 5,
    }
    assert described(name, tmp_path, **changes).noise == Noise(0.2, 0.3, 0.0, 0.4, 0.6, 3, 1, 0.7, 4, 5)
    unmasked = described(name, tmp_path, **changes, apply_spec_augment=False).noise
    assert unmasked == Noise(0.2, 0.3, 0.0, 0.4)


def test_whisper_masks_where_its_config_says_so(tmp_path: Path):
    """`apply_spec_augment` is false unless it says otherwise."""
    rates = {"dropout": 0.1, "attention_dropout": 0.2, "activation_dropout": 0.3}
    assert described("whisper-base", tmp_path, **rates).noise == Noise(0.1, 0.2, 0.3)
    assert described("whisper-base", tmp_path, **rates, apply_spec_augment=True).noise == Noise(
        0.1, 0.2, 0.3, 0.0, 0.05, 10, 2
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attention_dropout": 1.0}, "attention_dropout is 1.0, expected a number from 0 to below 1$"),
        ({"mask_time_prob": -0.1}, "mask_time_prob is -0.1, expected a number from 0 to 1$"),
        ({"mask_feature_length": 0}, "mask_feature_length is 0, expected a whole number from 1 to 65536$"),
        ({"apply_spec_augment": "yes"}, "apply_spec_augment is 'yes', expected true or false$"),
    ],
)
def test_values_that_make_no_sense_are_named(changes: dict[str, Any], sentence: str, tmp_path: Path):
    with pytest.raises(InputError, match=sentence):
        described("wav2vec2-base", tmp_path, **changes)
