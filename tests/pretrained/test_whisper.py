"""Whisper's encoder against transformers, from the log-mel spectrogram up to gradients, and against itself."""

import io
import json
import re
import shutil
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import linen as nn
from flax import traverse_util
from tiny_models import shake
from tiny_study import GOLDEN_SSL, ROOT

from sejax.data.compute import compute, contents
from sejax.errors import InputError
from sejax.features.extract import Job, Perturbation, Segment
from sejax.pretrained.base import Lora, Output, Section
from sejax.pretrained.convert import CONVERSIONS, Checkpoint, load_checkpoint
from sejax.pretrained.extract import Batches, Piece, plan_windows, read_settings
from sejax.pretrained.families.log_mel import log_mel
from sejax.pretrained.families.whisper import Whisper
from sejax.pretrained.finetune import Tuning, divide, merge, trained

RATE = 16_000
NAMES = ("short", "middle", "long")
MODELS = ("whisper-base", "whisper-large", "whisper-encoder")
CONTEXTS = ("utterance", "padded")
WAVEFORMS = np.load(GOLDEN_SSL / "waveforms.npz")
ATOL = 1e-4  # of hidden states, whose standard deviation is one to three
SAMPLES = 16_400  # of the batch, more than the longest utterance
SHARED = ROOT.parent / "shared"
REAL = SHARED / "models" / "whisper-base-encoder"
EMODB = SHARED / "corpora" / "emodb.zip"


@lru_cache
def checkpoint(name: str) -> Checkpoint:
    return load_checkpoint(str(GOLDEN_SSL / name))


@lru_cache
def program(model: nn.Module) -> Any:
    return jax.jit(lambda params, x, lengths: model.apply({"params": params}, x, lengths))


def batch(fill: float | None = None) -> tuple[jax.Array, jax.Array]:
    """The golden utterances and their lengths; beyond their ends `fill`, or noise."""
    samples = [WAVEFORMS[f"{utterance}_samples"] for utterance in NAMES]
    noise = 3 * np.random.default_rng(0).standard_normal((len(NAMES), SAMPLES)).astype(np.float32)
    padded = noise if fill is None else np.full_like(noise, fill)
    for row, utterance in zip(padded, samples, strict=True):
        row[: len(utterance)] = utterance
    return jnp.asarray(padded), jnp.asarray([len(utterance) for utterance in samples], jnp.int32)


def states(name: str, context: str, x: jax.Array, lengths: jax.Array) -> Output:
    model = checkpoint(name).backbone.in_context(context).module()
    return program(model)(checkpoint(name).params, x, lengths)


# ------------------------------------------------------------------------------------------- hidden states


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", MODELS)
def test_every_hidden_state_equals_pytorch(name: str, context: str):
    """In a batch with noise beyond the ends; PyTorch had each utterance by itself."""
    golden = np.load(GOLDEN_SSL / name / "outputs.npz")
    hidden, mask = states(name, context, *batch())
    for i, utterance in enumerate(NAMES):
        expected = golden[f"{utterance}_{context}"]
        assert mask[i].sum() == expected.shape[1] and mask[i, : expected.shape[1]].all()
        for layer, wanted in enumerate(expected):
            np.testing.assert_allclose(
                hidden[layer, i, : len(wanted)], wanted, rtol=0, atol=ATOL, err_msg=f"{utterance}, layer {layer}"
            )


@pytest.mark.skipif(not (REAL.is_dir() and EMODB.is_file()), reason="the real weights and EmoDB are not at hand")
@pytest.mark.parametrize("context", CONTEXTS)
def test_the_real_weights_equal_pytorch_on_emodb(context: str):
    golden = np.load(ROOT / "tests" / "golden" / "whisper_emodb.npz")
    found = load_checkpoint(str(REAL))
    assert found.notes == ()
    model = program(found.backbone.in_context(context).module())
    names = ("03a01Fa", "09b03Wb", "16a02Tc")
    for name in names if context == "utterance" else names[:1]:  # 30 s each are seconds of work
        samples = read_emodb(name)
        x = jnp.asarray(np.pad(samples, (0, 65_000 - len(samples))))[None]
        hidden, mask = model(found.params, x, jnp.asarray([len(samples)], jnp.int32))
        frames = -(-len(samples) // 320)
        assert mask.sum() == frames
        kept = np.asarray(hidden)[golden["layers"], 0, :frames:20, ::32]
        assert np.abs(golden[f"{name}_{context}"]).max() > 1
        np.testing.assert_allclose(kept, golden[f"{name}_{context}"], rtol=0, atol=ATOL)


def read_emodb(name: str) -> np.ndarray:
    with zipfile.ZipFile(EMODB) as archive:
        return soundfile.read(io.BytesIO(archive.read(f"wav/{name}.wav")), dtype="float32")[0]


@pytest.mark.parametrize("context", CONTEXTS)
def test_nothing_beyond_the_end_matters(context: str):
    """Not even NaN: bit by bit what zeros give. The other rows of a batch and its length change rounding alone."""
    one, other = (states("whisper-large", context, *batch(fill)) for fill in (np.nan, 0.0))
    lengths = batch(0.0)[1]
    alone = states("whisper-large", context, jnp.asarray(WAVEFORMS["middle_samples"])[None], lengths[1:2])
    for i, frames in enumerate(one.mask.sum(axis=1)):
        np.testing.assert_array_equal(one.hidden[:, i, :frames], other.hidden[:, i, :frames])
    frames = int(alone.mask.sum())
    np.testing.assert_allclose(alone.hidden[:, 0, :frames], one.hidden[:, 1, :frames], rtol=0, atol=2e-5)
    assert np.isfinite(one.hidden).all()


def test_half_the_bits_are_close():
    x, lengths = batch()
    exact, mask = states("whisper-large", "utterance", x, lengths)
    model = checkpoint("whisper-large").backbone.module(Section(dtype=jnp.bfloat16))
    rough = program(model)(checkpoint("whisper-large").params, x, lengths).hidden
    assert rough.dtype == jnp.bfloat16
    valid = np.asarray(mask)
    for a, b in zip(np.asarray(exact)[:, valid], np.asarray(rough.astype(jnp.float32))[:, valid], strict=True):
        assert np.abs(a - b).mean() < 0.03 * a.std()


# ---------------------------------------------------------------------------------------- the spectrogram


def voice(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * 130 * k * time + k) / k for k in range(1, 25))
    return (0.1 * tones * (1 + np.sin(7 * time))).astype(np.float32)


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


SOUNDS = {
    "voice": voice(1.7),
    "noise": noise(1.0),
    "silence": np.zeros(8000, np.float32),
    "short": noise(0.05),
    "quiet": 1e-4 * voice(0.6),
    "a click in silence": np.eye(1, 9000, 4321, dtype=np.float32)[0],
    "an offset": 0.05 + 0.3 * voice(0.5),
    "of the whole length": voice(2.0),
}


@pytest.mark.parametrize("bands", [80, 128])
def test_the_spectrogram_equals_transformers(bands: int):
    """Of two seconds, which is this extractor's chunk, with silence behind the sound."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=bands, chunk_length=2)
    waveforms = np.stack([np.pad(x, (0, 32_000 - len(x))) for x in SOUNDS.values()])
    found = jax.jit(log_mel, static_argnames="bands")(
        jnp.asarray(waveforms), jnp.ones((len(SOUNDS), 200), bool), bands=bands
    )
    for name, sound, frames in zip(SOUNDS, SOUNDS.values(), found, strict=True):
        wanted = extractor(sound, sampling_rate=RATE, return_tensors="np").input_features[0]
        np.testing.assert_allclose(frames, wanted.T, rtol=0, atol=1e-5, err_msg=name)


def test_frames_that_are_not_valid_do_not_count_as_the_loudest():
    """Loud frames beyond the valid ones would raise the floor of all."""
    quiet = 0.01 * voice(1.0)
    loud = np.concatenate([quiet[:8000], 0.9 * noise(0.5)])
    valid = jnp.arange(100)[None] < 48
    one, other = (log_mel(jnp.asarray(x)[None], valid, bands=80) for x in (quiet, loud))
    np.testing.assert_allclose(one[:, :48], other[:, :48], atol=1e-6)
    assert not np.any(other[:, 48:])


# ------------------------------------------------------------------------------------------- as a feature


def extracted(folder: Path, samples: np.ndarray, **settings: Any) -> np.ndarray:
    """The frames [time, state, hidden] of audio, by way of a file."""
    soundfile.write(folder / "audio.wav", samples, RATE, subtype="FLOAT")
    wanted = contents("ssl", {"model": str(GOLDEN_SSL / "whisper-base"), **settings})
    jobs = [Job(Segment(str(folder / "audio.wav"), None, None), [0])]
    ((_, _, features),) = compute([(wanted, Perturbation())], jobs, workers=1)
    assert features.error == ""
    return np.asarray(features.frames, np.float32).reshape(len(features.frames), -1, 16)


def test_audio_longer_than_a_window_is_that_of_its_windows(tmp_path: Path):
    """Every window is an utterance of its own, with positions from 0; together they give each frame once."""
    samples = np.concatenate([voice(4.0), noise(3.013)])
    frames = -(-len(samples) // 320)
    found = extracted(tmp_path, samples, max_seconds=3.0)
    assert found.shape == (frames, 4, 16)
    windows = plan_windows(len(samples), checkpoint("whisper-base").backbone, 48_000)
    assert len(windows) > 2
    ends = 0
    for start, stop, first, last in windows:
        alone = extracted(tmp_path, samples[start:stop], max_seconds=3.0)
        np.testing.assert_allclose(found[ends : ends + last - first], alone[first:last], atol=0.02)
        ends += last - first
    assert ends == frames


@pytest.mark.parametrize("seconds", [30.0, 30.01, 31.0, 59.99, 100.0])
def test_no_window_is_longer_than_the_models_30_seconds(seconds: float):
    samples = round(seconds * RATE)
    windows = plan_windows(samples, checkpoint("whisper-base").backbone, 480_000)
    assert (len(windows) > 1) == (samples > 480_000)
    assert all(stop - start <= 480_000 for start, stop, _, _ in windows)
    assert sum(last - first for _, _, first, last in windows) == -(-samples // 320)


@pytest.mark.parametrize(("context", "rows"), [("utterance", 29), ("padded", 2)])
def test_a_batch_counts_what_is_computed(context: str, rows: int):
    """In the padded context each row is 30 s, however short: 29 of them would take 15 times the memory."""
    backbone = checkpoint("whisper-base").backbone.in_context(context)
    pieces = [Piece(i, 0, np.zeros(8000, np.float32), 0, 25) for i in range(29)]
    filling = Batches(16 * RATE if context == "utterance" else 61 * RATE, least=backbone.least)
    batches = [batch for piece in pieces if (batch := filling.add(piece))] + list(filling.rest())
    assert max(len(batch) for _, batch in batches) == rows
    assert sorted(piece.utterance for _, batch in batches for piece in batch) == list(range(29))


def test_the_context_changes_frames_and_not_their_number(tmp_path: Path):
    samples = WAVEFORMS["middle_samples"]
    golden = np.load(GOLDEN_SSL / "whisper-base" / "outputs.npz")
    for context in CONTEXTS:
        found = extracted(tmp_path, samples, context=context)
        np.testing.assert_allclose(found.transpose(1, 0, 2), golden[f"middle_{context}"], rtol=1e-3, atol=1e-2)


# -------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"model": "whisper-base", "max_seconds": 31.0},
            "max_seconds of .*whisper-base is 31, expected 30 or less: a whisper model has no longer input$",
        ),
        (
            {"model": "whisper-base", "context": "window"},
            "the option context is 'window', expected utterance or padded for a whisper model$",
        ),
        (
            {"model": "wav2vec2-base", "context": "padded"},
            "the option context is 'padded', expected utterance for a wav2vec2 model$",
        ),
        ({"model": "whisper-base", "layers": "4"}, "the option layers is '4', expected all, last or .* to 3"),
    ],
)
def test_settings_that_it_does_not_have_are_named(settings: dict[str, Any], sentence: str):
    with pytest.raises(InputError, match=sentence):
        read_settings(settings | {"model": str(GOLDEN_SSL / settings["model"])})


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        ("preprocessor_config.json", {"feature_size": 128}, "feature_size is 128, expected 80$"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "sampling_rate is 8000, expected 16000$"),
        ("preprocessor_config.json", {"hop_length": 200}, "hop_length is 200, expected 160$"),
        ("preprocessor_config.json", {"do_normalize": True}, "do_normalize is True, expected False$"),
        ("preprocessor_config.json", {"n_fft": "400"}, "n_fft is '400', expected a whole number from 1 to 65536$"),
        ("config.json", {"num_mel_bins": 128}, "feature_size is 80, expected 128$"),
        ("config.json", {"scale_embedding": True}, "has scale_embedding, which sejax does not support$"),
        ("config.json", {"activation_function": "tanh"}, "has activation_function 'tanh', which sejax does not"),
        (
            "config.json",
            {"encoder_attention_heads": 3},
            "has a d_model that encoder_attention_heads does not divide, which sejax does not support$",
        ),
        ("config.json", {"dropout": 1.5}, "dropout is 1.5, expected a number"),
        ("config.json", {"encoder_layers": 4}, "layer 3, .* is missing"),
        ("config.json", {"max_source_positions": 100}, r"is \[1500, 16\], which gives \[1500, 16\], expected \[100, 1"),
    ],
)
def test_another_architecture_is_named(file: str, changes: dict[str, Any], sentence: str, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN_SSL / "whisper-base", folder)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))
    with pytest.raises(InputError, match=sentence):
        load_checkpoint(str(folder))


@pytest.mark.parametrize("name", MODELS)
def test_the_decoder_is_left_out_without_a_note(name: str):
    """Of a whole model with an output layer, of one without, and of a bare encoder."""
    found = checkpoint(name)
    assert found.notes == () and found.head == {}
    assert set(found.params) == {"conv1", "conv2", "positions", "layers", "encoder_norm"}


# ------------------------------------------------------------------------------------------- fine-tuning


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
@pytest.mark.parametrize("context", CONTEXTS)
def test_two_sections_are_the_whole(cut: int, context: str):
    """Wherever it is cut, and each section has only the parameters of its stages."""
    found = checkpoint("whisper-large")
    backbone = found.backbone.in_context(context)
    x, lengths = batch()
    whole = states("whisper-large", context, x, lengths)
    end = 2 + backbone.layers
    lower, upper = backbone.select(found.params, 0, cut), backbone.select(found.params, cut, end)
    below = program(backbone.module(Section(stop=cut)))(lower, x, lengths)
    above = program(backbone.module(Section(start=cut)))(upper, below.hidden[-1], backbone.frames(lengths))
    np.testing.assert_array_equal(above.mask, whole.mask)
    together = above.hidden if cut == 1 else np.concatenate([below.hidden, above.hidden])
    np.testing.assert_allclose(together[:, whole.mask], whole.hidden[:, whole.mask], rtol=0, atol=2e-5)


def test_positions_are_not_trained():
    found = checkpoint("whisper-large")
    full = divide(found.params, Tuning(found.backbone, "full"))
    assert set(full.upper) == {"positions"}
    assert set(full.start) == {"conv1", "conv2", "layers", "encoder_norm"}
    assert set(trained({**full.start, **full.upper}, Tuning(found.backbone, "full"))) == set(full.start)
    above = divide(found.params, Tuning(found.backbone, "full", frozen_layers=1))
    assert above.upper == {} and set(above.start) == {"layers", "encoder_norm"}


def test_every_target_can_be_adapted():
    targets = ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate", "output")
    found = checkpoint("whisper-large")
    tuning = Tuning(found.backbone, "lora", lora=Lora(2, 4.0, targets))
    upper: Any = tuning.upper()
    frames = jnp.zeros((1, 4, tuning.cut_size))
    params = jax.eval_shape(upper.init, jax.random.key(0), frames, jnp.array([4], jnp.int32))["params"]
    adapters = traverse_util.flatten_dict(trained(params, tuning))
    assert {path[-2:] for path in adapters} == {(target, f"lora_{end}") for target in targets for end in "ab"}
    assert {x.shape[0] for x in adapters.values()} == {found.backbone.layers}


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_gradients_of_a_step_equal_pytorch(mode: str):
    """Of every array that a step trains, summed over three utterances of different lengths."""
    golden = np.load(GOLDEN_SSL / "whisper-large" / "gradients.npz")
    found = checkpoint("whisper-large")
    tuning = Tuning(found.backbone, mode, lora=Lora(2, 4.0, ("q_proj", "v_proj", "output")))
    part = divide(found.params, tuning)
    x, lengths = batch()
    below = program(tuning.lower())(part.lower, x, lengths)
    upper: Any = tuning.upper()
    start = part.start if mode == "full" else {"layers": placed(golden, "adapter", found.backbone.layers)}

    def loss(start: Any) -> jax.Array:
        params = merge(part.upper, start)
        output: Any = upper.apply({"params": params}, below.hidden[-1], tuning.backbone.frames(lengths))
        last = jnp.where(output.mask[..., None], output.hidden[-1], 0.0)
        return (last * jnp.asarray(golden["direction"])[None, None] + 0.05 * last**2).sum()

    with jax.numpy_dtype_promotion("standard"):
        gradients = traverse_util.flatten_dict(jax.jit(jax.grad(loss))(start), sep="/")
    if mode == "full":
        wanted = of_rules({key: golden[f"full/{key}"] for key in names(golden, "full")}, found.backbone.layers)
    else:
        wanted = traverse_util.flatten_dict({"layers": placed(golden, "lora", found.backbone.layers)}, sep="/")
    assert set(gradients) == set(wanted)
    for name, expected in wanted.items():
        scale = np.abs(expected).max()
        assert scale > 1e-3, name
        np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=1e-4 * scale, err_msg=name)


def names(golden: Any, kind: str) -> list[str]:
    return [key.removeprefix(f"{kind}/") for key in golden if key.startswith(f"{kind}/")]


def placed(golden: Any, kind: str, layers: int) -> dict[str, Any]:
    """Arrays of adapters in the tree of parameters, stacked over layers."""
    flat = {}
    for part, ours, theirs in (
        ("attention", "q_proj", "q_proj"),
        ("attention", "v_proj", "v_proj"),
        ("feed_forward", "output", "fc2"),
    ):
        for end in "ab":
            stacked = np.stack([golden[f"{kind}/{i}/{theirs}/{end}"] for i in range(layers)])
            flat[part, ours, f"lora_{end}"] = jnp.asarray(stacked)
    return traverse_util.unflatten_dict(flat)


def of_rules(arrays: dict[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """Arrays of the encoder by our paths, stacked over layers."""
    stacked: dict[str, dict[int, np.ndarray]] = {}
    for key, x in arrays.items():
        rule, match = next((r, m) for r in Whisper.RULES if (m := re.fullmatch(r.pattern, key)))
        groups = match.groupdict()
        stacked.setdefault(rule.path.format(**groups), {})[int(groups.get("layer") or 0)] = CONVERSIONS[rule.convert](x)
    return {
        path: np.stack([x[i] for i in range(layers)]) if path.startswith("layers/") else x[0]
        for path, x in stacked.items()
    }


def test_gradients_in_bfloat16_are_summed_over_many_frames():
    """Of every parameter: a sum over frames in bfloat16 keeps half to three quarters of a bias's gradient."""
    found = checkpoint("whisper-large")
    random = np.random.default_rng(0)
    x = jnp.asarray(0.3 + 0.5 * random.normal(size=(20, 60, found.backbone.frame_size)), jnp.float32)
    lengths = jnp.full(20, 60, jnp.int32)
    direction = jnp.asarray(random.normal(size=found.backbone.hidden), jnp.float32)[None, None]
    backbone: Any = found.backbone
    params = backbone.select(found.params, 1, 3)

    def gradients(dtype: Any) -> Any:
        model = backbone.module(Section(1, 3, dtype=dtype, lora=Lora(2, 4.0, ("q_proj", "output"))))
        fresh = jax.eval_shape(model.init, jax.random.key(0), x, lengths)["params"]
        start = shake(merge(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), fresh), params))

        def loss(params: Any) -> jax.Array:
            output: Any = model.apply({"params": params}, x, lengths)
            last = output.hidden[-1].astype(jnp.float32)
            return (last * direction + 0.05 * last**2).sum()

        with jax.numpy_dtype_promotion("standard"):
            return traverse_util.flatten_dict(jax.jit(jax.grad(loss))(start), sep="/")

    exact, rough = gradients(jnp.float32), gradients(jnp.bfloat16)
    lost = {}
    for name, one in exact.items():
        if name != "positions":
            left = np.ravel(rough[name]) @ np.ravel(one) / np.square(one).sum()
            lost |= {} if 0.93 < left < 1.07 else {name: left}
    assert lost == {}
