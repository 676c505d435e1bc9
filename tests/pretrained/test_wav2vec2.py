"""Wav2Vec2 and its relatives against transformers' PyTorch models, layer by layer, and against themselves."""

import functools
import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny_models import shake
from tiny_study import GOLDEN_SSL

from sejax.pretrained.base import Backbone, Lora, Noise, Output, Section, normalise_waveform
from sejax.pretrained.convert import Checkpoint, load_checkpoint
from sejax.pretrained.families.transformer import Conv, Linear
from sejax.pretrained.families.wav2vec2 import relative_buckets
from sejax.pretrained.finetune import Tuning, divide, merge

NAMES = ("short", "middle", "long")
ENCODERS = (
    "wav2vec2-base",
    "wav2vec2-large",
    "hubert-base",
    "hubert-large",
    "hubert-plain",
    "wavlm-base",
    "wavlm-large",
    "unispeech-sat-base",
    "unispeech-sat-large",
    "data2vec-audio-base",
    "data2vec-audio-even",
)
WAVEFORMS = np.load(GOLDEN_SSL / "waveforms.npz")
# Hidden states have a standard deviation of about one; float32 sums in another order differ by up to 3.2e-5 here.
ATOL = 1e-4
SAMPLES = 16_400  # of the padded batch, more than the longest utterance


@lru_cache
def checkpoint(name: str) -> Checkpoint:
    return load_checkpoint(str(GOLDEN_SSL / name))


def batch(name: str, fill: float | None = None) -> tuple[jax.Array, jax.Array]:
    """The golden utterances as a checkpoint wants them, and their lengths; beyond their ends `fill`, or noise."""
    kind = "normalised" if checkpoint(name).backbone.normalise else "samples"
    samples = [WAVEFORMS[f"{utterance}_{kind}"] for utterance in NAMES]
    noise = 3 * np.random.default_rng(0).standard_normal((len(NAMES), SAMPLES)).astype(np.float32)
    padded = noise if fill is None else np.full_like(noise, fill)
    for row, utterance in zip(padded, samples, strict=True):
        row[: len(utterance)] = utterance
    return jnp.asarray(padded), jnp.asarray([len(utterance) for utterance in samples], jnp.int32)


@lru_cache
def program(model: nn.Module) -> Any:
    return jax.jit(lambda params, x, lengths: model.apply({"params": params}, x, lengths))


def states(name: str, fill: float | None = None, **changes: Any) -> Output:
    """What a whole golden model makes of the batch."""
    return program(checkpoint(name).backbone.module(Section(**changes)))(checkpoint(name).params, *batch(name, fill))


# ------------------------------------------------------------------------------------- against PyTorch


@pytest.mark.parametrize("name", ENCODERS)
def test_every_hidden_state_equals_pytorch(name: str):
    """Each utterance in a padded batch with noise beyond the ends; PyTorch had each by itself."""
    golden = np.load(GOLDEN_SSL / name / "outputs.npz")
    hidden, mask = states(name)
    for i, utterance in enumerate(NAMES):
        expected = golden[f"{utterance}_hidden"]
        assert mask[i].sum() == expected.shape[1]
        assert mask[i, : expected.shape[1]].all()
        for layer, wanted in enumerate(expected):
            np.testing.assert_allclose(
                hidden[layer, i, : len(wanted)], wanted, rtol=0, atol=ATOL, err_msg=f"{utterance}, layer {layer}"
            )


@pytest.mark.parametrize("name", ENCODERS)
def test_convolutions_equal_pytorch(name: str):
    """The feature encoder alone: stage 0."""
    golden = np.load(GOLDEN_SSL / name / "outputs.npz")
    model = checkpoint(name).backbone.module(Section(stop=1))
    hidden, _ = program(model)({"feature_encoder": checkpoint(name).params["feature_encoder"]}, *batch(name))
    for i, utterance in enumerate(NAMES):
        expected = golden[f"{utterance}_conv"]
        np.testing.assert_allclose(hidden[0, i, : len(expected)], expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", ["wav2vec2-base", "wav2vec2-large", "wavlm-base", "data2vec-audio-base"])
def test_nothing_beyond_the_end_matters(name: str):
    """Not even NaN: bit by bit what zeros give."""
    one, other = states(name, np.nan), states(name, 0.0)
    for i, frames in enumerate(one.mask.sum(axis=1)):
        np.testing.assert_array_equal(one.hidden[:, i, :frames], other.hidden[:, i, :frames])
    assert np.isfinite(one.hidden).all()


TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2Model", {}),
    "wav2vec2-stable": (
        "Wav2Vec2Model",
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    ),
    "hubert": ("HubertModel", {"feat_proj_layer_norm": False}),
    "wavlm": ("WavLMModel", {"num_buckets": 16, "max_bucket_distance": 20}),
    "unispeech-sat": ("UniSpeechSatModel", {}),
    "data2vec-audio": ("Data2VecAudioModel", {"num_conv_pos_embeddings": 4, "conv_pos_kernel_size": 5}),
}


@pytest.mark.filterwarnings("ignore")  # of PyTorch and of transformers with it
@pytest.mark.parametrize("case", TORCH)
def test_equals_pytorch_live(case: str, tmp_path):
    """Where PyTorch is installed: other models than the golden ones, made here."""
    torch = pytest.importorskip("torch")
    import transformers

    class_name, arguments = TORCH[case]
    config = getattr(transformers, class_name.replace("Model", "Config"))(
        conv_dim=(6, 6, 8),
        conv_kernel=(10, 3, 2),
        conv_stride=(5, 2, 2),
        num_feat_extract_layers=3,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        num_conv_pos_embedding_groups=2,
        vocab_size=8,
        **({"num_conv_pos_embeddings": 6} | arguments),
    )
    torch.manual_seed(0)
    model = getattr(transformers, class_name)(config).eval()
    model.config.tie_last_hidden_states = True  # as transformers 4 had it: tools/golden_ssl.py
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        samples = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
        expected = model(torch.from_numpy(samples)[None], output_hidden_states=True).hidden_states
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    found = load_checkpoint(str(tmp_path))
    padded = jnp.asarray(np.pad(samples, (0, 300), constant_values=7.0))[None]
    lengths = jnp.asarray([len(samples)], jnp.int32)
    hidden, _ = program(found.backbone.module())(found.params, padded, lengths)
    for layer, wanted in enumerate(expected):
        np.testing.assert_allclose(hidden[layer, 0, : wanted.shape[1]], wanted[0].numpy(), rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", ["hubert-base", "wavlm-large"])
def test_bfloat16_is_close(name: str):
    """8 bits of mantissa over three layers: within 3 % of the states' size on average, and correlated above 0.999."""
    exact, mask = states(name)
    rough = states(name, dtype=jnp.bfloat16).hidden
    assert rough.dtype == jnp.bfloat16
    valid = np.asarray(mask)
    one, other = np.asarray(exact)[:, valid], np.asarray(rough.astype(jnp.float32))[:, valid]
    for layer, (a, b) in enumerate(zip(one, other, strict=True)):
        assert np.abs(a - b).mean() < 0.03 * a.std(), layer
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999, layer


# -------------------------------------------------------------------------------------------- sections


@pytest.mark.parametrize("name", ["wav2vec2-base", "wavlm-large", "data2vec-audio-base"])
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_two_sections_are_the_whole(name: str, cut: int):
    """Wherever a model is cut, and each section has only the parameters of its stages."""
    found = checkpoint(name)
    whole = states(name)
    frozen_layers = max(cut - 2, 0)
    tuning = Tuning(found.backbone, "full", frozen_layers=frozen_layers)
    if cut == 2:  # the tuning that trains all layers cuts below the projection; that which adapts them, above
        tuning = replace(tuning, mode="lora")
    assert tuning.cut == cut
    lower, adapted, started = divide(found.params, tuning)
    below = program(found.backbone.module(Section(stop=cut)))(lower, *batch(name))
    frames = found.backbone.frames(batch(name)[1])
    above = program(found.backbone.module(Section(start=cut)))(adapted or started, below.hidden[-1], frames)
    np.testing.assert_array_equal(above.mask, whole.mask)
    together = above.hidden if cut == 1 else np.concatenate([below.hidden, above.hidden])
    assert together.shape == whole.hidden.shape
    # The same numbers by differently fused programs.
    np.testing.assert_allclose(together[:, whole.mask], whole.hidden[:, whole.mask], rtol=0, atol=2e-5)


# --------------------------------------------------------------------------------------------- pieces


def scalar_bucket(distance: int, buckets: int, max_distance: int) -> int:
    """The bucket of a key so many frames behind its query, as the paper has it."""
    half = buckets // 2
    exact = half // 2
    side = half if distance > 0 else 0
    size = abs(distance)
    if size < exact:
        return side + size
    far = exact + int(math.log(size / exact) / math.log(max_distance / exact) * (half - exact))
    return side + min(far, half - 1)


@pytest.mark.parametrize(("buckets", "max_distance"), [(320, 800), (32, 40), (8, 20)])
def test_relative_buckets(buckets: int, max_distance: int):
    """All distances of a short utterance, and of a long one those of its first and last query."""
    time = 61 if buckets < 320 else 997
    found = relative_buckets(time, buckets=buckets, max_distance=max_distance)
    for query in range(time) if time < 100 else (0, time - 1):
        expected = [scalar_bucket(key - query, buckets, max_distance) for key in range(time)]
        np.testing.assert_array_equal(found[query], expected)
    assert found.min() == 0 and found.max() == buckets - 1
    assert found.dtype == np.int32


def gradients(backbone: Backbone, params: Any, dtype: Any) -> Any:
    """Gradients of all that is trained, adapters too, of a loss over 3,000 frames whose sums do not cancel."""
    random = np.random.default_rng(0)
    x = jnp.asarray(0.3 + 0.5 * random.normal(size=(60, 50, backbone.frame_size)), jnp.float32)
    lengths = jnp.full(60, 50, jnp.int32)
    lora = Lora(2, 4.0, ("q_proj", "output"))
    model = replace(backbone, noise=Noise(time_mask_prob=0.3)).module(Section(start=1, dtype=dtype, lora=lora))
    params = merge(model.init(jax.random.key(0), x, lengths)["params"], params)
    params = shake(params)
    direction = jnp.asarray(random.normal(size=backbone.hidden), jnp.float32)[None, None]

    def loss(params: Any) -> jax.Array:
        output: Any = model.apply({"params": params}, x, lengths, rngs={"masking": jax.random.key(1)})
        last = output.hidden[-1].astype(jnp.float32)
        return (last * direction + 0.05 * last**2).sum()

    with jax.numpy_dtype_promotion("standard"):  # on the way back jax's attention mixes types
        return jax.jit(jax.grad(loss))(params)


def test_gradients_in_bfloat16_are_summed_over_many_frames():
    """Of every parameter: a sum over frames in bfloat16 keeps half to three quarters of a bias's gradient."""
    found = checkpoint("wavlm-large")
    backbone: Any = replace(found.backbone, layers=1)  # type: ignore[call-arg]
    params = backbone.select(found.params, 1, 3)
    exact, rough = (gradients(backbone, params, dtype) for dtype in (jnp.float32, jnp.bfloat16))
    lost = {}
    for path, one in jax.tree.leaves_with_path(exact):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        other = np.ravel(functools.reduce(lambda tree, key: tree[key.key], path, rough))
        left = other @ np.ravel(one) / np.square(one).sum()
        if not 0.93 < left < 1.07 and name != "layers/attention/k_proj/bias":  # which has no gradient
            lost[name] = left
    assert lost == {}


def test_biases_of_convolutions_in_bfloat16():
    model = Conv(4, 3, 2, True, jnp.bfloat16)
    x = jnp.ones((8, 2001, 2), jnp.float32)
    params = model.init(jax.random.key(0), x)
    found: Any = jax.grad(lambda params: model.apply(params, x).astype(jnp.float32).sum())(params)  # type: ignore[union-attr]
    np.testing.assert_allclose(found["params"]["bias"], 8 * 1000)


def test_adapters_start_as_in_peft():
    """Uniform up to 1/sqrt(inputs), kaiming_uniform(a=sqrt(5)), and zeros."""
    model = Linear(6, Lora(50, 1.0, ("q_proj",)), name="q_proj")
    params = model.init(jax.random.key(0), jnp.ones((1, 1, 400)))["params"]
    assert 0.98 / 20 < np.abs(params["lora_a"]).max() <= 1 / 20
    assert np.std(params["lora_a"]) == pytest.approx(1 / 20 / math.sqrt(3), rel=0.02)
    assert not np.any(params["lora_b"])


def real_backbone() -> Backbone:
    """The convolutions of all published models."""
    found: Any = checkpoint("wav2vec2-base").backbone
    return replace(found, conv_kernel=(10, 3, 3, 3, 3, 2, 2), conv_stride=(5, 2, 2, 2, 2, 2, 2))


def test_frames_window_and_hop_length():
    backbone = real_backbone()
    assert (backbone.window, backbone.hop_length) == (400, 320)
    assert backbone.frames(400) == 1 and backbone.frames(399) == 0
    assert backbone.frames(400 + 320) == 2 and backbone.frames(400 + 319) == 1
    assert backbone.frames(16_000) == 49
    np.testing.assert_array_equal(backbone.frames(np.array([400, 16_000])), [1, 49])


def test_frames_are_those_of_the_program():
    """Of every golden length, and of one window exactly."""
    backbone = checkpoint("wavlm-base").backbone
    model = backbone.module(Section(stop=1))
    for samples in (400, 719, 720, 2080):
        x, lengths = jax.ShapeDtypeStruct((1, samples), np.float32), jax.ShapeDtypeStruct((1,), np.int32)
        (hidden, _), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x, lengths)
        assert hidden.shape[2] == backbone.frames(samples)


@pytest.mark.parametrize("fill", [0.0, 5.0, np.nan])
def test_normalised_as_transformers_does(fill: float):
    from transformers import Wav2Vec2FeatureExtractor

    samples = [WAVEFORMS[f"{utterance}_samples"] for utterance in NAMES]
    padded = np.full((len(samples), SAMPLES), fill, np.float32)
    for row, utterance in zip(padded, samples, strict=True):
        row[: len(utterance)] = utterance
    lengths = jnp.asarray([len(utterance) for utterance in samples], jnp.int32)
    found = normalise_waveform(jnp.asarray(padded), lengths)
    for i, utterance in enumerate(samples):
        wanted = Wav2Vec2FeatureExtractor(do_normalize=True)(utterance, sampling_rate=16_000, return_tensors="np")
        np.testing.assert_allclose(found[i, : len(utterance)], wanted.input_values[0], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(found[i, len(utterance) :], 0.0)
