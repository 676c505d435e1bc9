"""Hidden states and raw audio as a user builds them: against PyTorch, in batches, in windows, out of the cache."""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tiny_study import GOLDEN_SSL

from sejax.corpora.schema import Corpus, Utterance
from sejax.data.cache import Wanted, build_features
from sejax.data.compute import AHEAD, compute, contents
from sejax.data.prepare import prepare
from sejax.data.shards import StreamFeatures
from sejax.errors import InputError
from sejax.features import extract as extraction
from sejax.features.audio import change_speed, load_audio
from sejax.features.extract import Job, Perturbation, Segment
from sejax.pretrained import extract
from sejax.pretrained.base import Backbone
from sejax.pretrained.convert import load_checkpoint
from sejax.pretrained.extract import Batches, Piece, padded_length, plan_windows

RATE = 16_000
HIDDEN, STATES = 24, 4  # of all the golden models
GROUP, LAYER = "hubert-base", "wav2vec2-large"  # group norm, post-norm; layer norm, pre-norm
WAVEFORMS = np.load(GOLDEN_SSL / "waveforms.npz")
NAMES = ("short", "middle", "long")
# Two roundings to float16, and what float32 sums in another order differ by.
CLOSE = {"rtol": 1e-3, "atol": 3e-4}
SHORT_BATCH = 2.0  # seconds


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two seconds, so that small corpora make several."""
    monkeypatch.setitem(extract.BATCH_SECONDS, "cpu", SHORT_BATCH)


def corpus_of(folder: Path, sounds: dict[str, np.ndarray], subtype: str = "FLOAT") -> Corpus:
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for i, (name, samples) in enumerate(sounds.items()):
        path = folder / f"{name}.wav"
        soundfile.write(path, samples, RATE, subtype=subtype)
        listed.append(Utterance(id=name, path=str(path), speaker=f"s{i % 2}", label="a"))
    return Corpus("sounds", ("a", "b"), (1.0, 5.0), tuple(listed))


def golden_corpus(folder: Path, names: Sequence[str] = NAMES) -> Corpus:
    return corpus_of(folder, {name: WAVEFORMS[f"{name}_samples"] for name in names})


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def build(
    corpus: Corpus,
    cache: Path,
    model: str | Path = LAYER,
    *,
    speed: float = 1.0,
    max_bad_fraction: float = 0.0,
    **settings: Any,
) -> StreamFeatures:
    model = model if str(model).startswith(".") or not model else str(GOLDEN_SSL / model)
    wanted = [Wanted("hubert", contents("ssl", {"model": model, **settings}), speed)]
    (features,) = build_features(corpus, wanted, cache_dir=str(cache), workers=2, max_bad_fraction=max_bad_fraction)
    return features


def build_raw(corpus: Corpus, cache: Path, speed: float = 1.0, max_bad_fraction: float = 0.0) -> StreamFeatures:
    wanted = [Wanted("wavlm", contents("raw", {}), speed)]
    (features,) = build_features(corpus, wanted, cache_dir=str(cache), workers=1, max_bad_fraction=max_bad_fraction)
    return features


def datasets(cache: Path) -> set[str]:
    folder = cache / "acoustic_features"
    return set(os.listdir(folder)) if folder.exists() else set()


def model_alone(name: str, samples: np.ndarray) -> np.ndarray:
    """Hidden states [state, time, hidden] of one utterance by itself, without padding or windows."""
    checkpoint = load_checkpoint(str(GOLDEN_SSL / name))
    waveform, lengths = jnp.asarray(samples)[None], jnp.asarray([len(samples)], jnp.int32)
    waveform = checkpoint.backbone.prepare(waveform, lengths)
    return np.asarray(_apply(checkpoint.params, waveform, lengths, checkpoint.backbone))[:, 0]


@partial(jax.jit, static_argnums=3)
def _apply(params: Any, waveform: jax.Array, lengths: jax.Array, backbone: Backbone) -> jax.Array:
    output: Any = backbone.module().apply({"params": params}, waveform, lengths)
    return output.hidden


def flat(hidden: np.ndarray) -> np.ndarray:
    """[state, time, hidden] as frames."""
    return hidden.transpose(1, 0, 2).reshape(hidden.shape[1], -1)


def moments(hidden: np.ndarray) -> np.ndarray:
    """[state, time, hidden] as statistics."""
    return np.stack((hidden.mean(axis=1), hidden.std(axis=1)), axis=1).reshape(-1)


def changed_model(folder: Path, name: str, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    """A copy of a golden checkpoint with other weights."""
    shutil.copytree(GOLDEN_SSL / name, folder)
    arrays = load_file(folder / "model.safetensors")
    change(arrays)
    save_file(arrays, folder / "model.safetensors")
    return folder


def assert_equal(one: StreamFeatures, other: StreamFeatures) -> None:
    assert one.frames.keys() == other.frames.keys()
    for key in one.frames:
        np.testing.assert_array_equal(one.frames[key], other.frames[key])
        np.testing.assert_array_equal(one.statistics[key], other.statistics[key])
    for field in ("digest", "errors", "notes", "seconds"):
        assert getattr(one, field) == getattr(other, field)


# ------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("name", [GROUP, LAYER, "wavlm-base"])
def test_frames_and_statistics_are_those_of_pytorch(name: str, tmp_path: Path):
    """Written as files, normalised, batched, rounded, stored and read."""
    golden = np.load(GOLDEN_SSL / name / "outputs.npz")
    features = build(golden_corpus(tmp_path / "corpus"), tmp_path / "cache", name)
    assert set(features.frames) == set(NAMES)
    for utterance in NAMES:
        hidden = golden[f"{utterance}_hidden"]
        frames, statistics = features.frames[utterance], features.statistics[utterance]
        assert frames.dtype == statistics.dtype == np.float16
        assert frames.shape == (hidden.shape[1], STATES * HIDDEN)
        assert statistics.shape == (STATES * 2 * HIDDEN,)
        np.testing.assert_allclose(frames, flat(hidden), **CLOSE)
        np.testing.assert_allclose(statistics, moments(hidden), **CLOSE)
    assert features.notes == features.errors == {}
    assert features.seconds["long"] == pytest.approx(len(WAVEFORMS["long_samples"]) / RATE)


def test_layers_are_all_last_or_one(tmp_path: Path):
    corpus, cache = golden_corpus(tmp_path / "corpus", ["long"]), tmp_path / "cache"
    everything = build(corpus, cache)
    for layers, state in (("0", 0), ("2", 2), ("last", STATES - 1), (str(STATES - 1), STATES - 1)):
        one = build(corpus, cache, layers=layers)
        expected = np.asarray(everything.frames["long"])[:, state * HIDDEN : (state + 1) * HIDDEN]
        np.testing.assert_allclose(one.frames["long"], expected, **CLOSE)
        expected = everything.statistics["long"][2 * state * HIDDEN : 2 * (state + 1) * HIDDEN]
        np.testing.assert_allclose(one.statistics["long"], expected, **CLOSE)
    # The last one by its name and by its number are one dataset.
    assert len(datasets(cache)) == 4


def test_pooled_keeps_the_statistics_alone(tmp_path: Path):
    corpus, cache = golden_corpus(tmp_path / "corpus", ["long"]), tmp_path / "cache"
    whole, pooled = build(corpus, cache), build(corpus, cache, pooled=True)
    assert pooled.frames["long"].shape == (0, STATES * HIDDEN)
    assert pooled.frames["long"].dtype == np.float16
    np.testing.assert_array_equal(pooled.statistics["long"], whole.statistics["long"])
    assert pooled.digest == whole.digest
    assert len(datasets(cache)) == 2


@pytest.mark.parametrize("name", [GROUP, LAYER])
def test_what_else_is_in_a_batch_does_not_matter(name: str, tmp_path: Path):
    """Batches of several lengths, incomplete ones and a corpus of one, whose batch is nearly all dummies."""
    sounds = {f"u{i}": noise(0.3 + 0.03 * (i * 5 % 12), seed=i) for i in range(12)}
    together = build(corpus_of(tmp_path / "corpus", sounds), tmp_path / "cache", name)
    assert set(together.frames) == set(sounds)
    for i in (0, 7):
        alone = corpus_of(tmp_path / "alone", {f"u{i}": sounds[f"u{i}"]})
        features = build(alone, tmp_path / "cache", name)
        np.testing.assert_allclose(features.frames[f"u{i}"], together.frames[f"u{i}"], **CLOSE)
        assert features.digest[f"u{i}"] == together.digest[f"u{i}"]
    np.testing.assert_allclose(together.frames["u7"], flat(model_alone(name, sounds["u7"])), **CLOSE, err_msg="u7")


def test_half_the_bits_are_another_dataset_and_nearly_the_same(tmp_path: Path):
    corpus, cache = golden_corpus(tmp_path / "corpus", ["long"]), tmp_path / "cache"
    whole, half = build(corpus, cache), build(corpus, cache, dtype="bfloat16")
    assert len(datasets(cache)) == 2
    difference = np.abs(np.asarray(half.frames["long"], np.float32) - np.asarray(whole.frames["long"], np.float32))
    assert 0 < difference.mean() < 0.03
    assert half.frames["long"].dtype == np.float16


# ------------------------------------------------------------------------------------------- long audio


def test_below_attention_windows_are_exact_and_above_it_close(tmp_path: Path):
    """State 0 sees 25 ms and a few positions: seams must not show. Attention sees the window, not the whole."""
    samples = noise(7.31)
    # From soft to loud: a window normalised by itself would be seen, and a frame out of place.
    samples *= np.repeat(np.linspace(0.1, 1.0, 8), -(-len(samples) // 8))[: len(samples)].astype(np.float32)
    corpus, cache = corpus_of(tmp_path / "corpus", {"long": samples}), tmp_path / "cache"
    windows = build(corpus, cache, max_seconds=3.0)
    expected = model_alone(LAYER, samples)
    frames = np.asarray(windows.frames["long"]).reshape(-1, STATES, HIDDEN).transpose(1, 0, 2)
    assert frames.shape == expected.shape
    np.testing.assert_allclose(frames[0], expected[0], **CLOSE)
    for state in range(1, STATES):
        error = np.sqrt(((frames[state] - expected[state]) ** 2).mean())
        assert error < 0.2 * expected[state].std()
    # Statistics are those of the frames that were kept.
    np.testing.assert_allclose(
        windows.statistics["long"], moments(frames.astype(np.float32)), **CLOSE, err_msg="statistics"
    )
    pooled = build(corpus, cache, max_seconds=3.0, pooled=True)
    np.testing.assert_array_equal(pooled.statistics["long"], windows.statistics["long"])


@lru_cache
def backbone(name: str = LAYER) -> Backbone:
    return load_checkpoint(str(GOLDEN_SSL / name)).backbone


@given(samples=st.integers(400, 4_000_000), max_samples=st.integers(3 * RATE, 40 * RATE))
def test_windows_give_every_frame_once_with_context(samples: int, max_samples: int):
    a = backbone()
    windows = plan_windows(samples, a, max_samples)
    total = int(a.frames(samples))
    frames = []
    for start, stop, first, last in windows:
        assert 0 <= start < stop <= samples
        assert start % a.hop_length == 0
        assert 0 <= first < last <= a.frames(stop - start)
        begin = start // a.hop_length
        frames += range(begin + first, begin + last)
        context = RATE // a.hop_length
        assert first >= context or begin == first == 0
        assert a.frames(stop - start) - last >= context or begin + last == total
    assert frames == list(range(total))
    if len(windows) == 1:
        # At most the samples behind the last frame are more than asked for.
        assert samples < max_samples + a.hop_length
    else:
        assert {stop - start for start, stop, _, _ in windows} == {windows[0].stop}
        assert windows[0].stop <= max_samples < samples


# -------------------------------------------------------------------------------------------- in batches


@given(lengths=st.lists(st.integers(400, 100_000), max_size=60))
def test_batches_hold_every_piece_once_and_no_more_than_they_may(lengths: list[int]):
    batch_samples, taken = 160_000, 0

    def batches():
        nonlocal taken
        filling = Batches(batch_samples)
        for i, length in enumerate(lengths):
            taken = i + 1
            if batch := filling.add(Piece(i, 0, np.broadcast_to(np.float32(0), length), 0, 1)):
                yield batch
        yield from filling.rest()

    seen: list[int] = []
    for length, batch in batches():
        assert length == padded_length(length)  # on the grid
        assert padded_length(max(len(piece.samples) for piece in batch)) == length
        assert 1 <= len(batch) <= max(1, batch_samples // length)
        seen += [piece.utterance for piece in batch]
        # What waits is bounded: less than a batch per length.
        waiting = [padded_length(n) for i, n in enumerate(lengths[:taken]) if i not in seen]
        if taken < len(lengths):
            assert all(waiting.count(n) < max(1, batch_samples // n) for n in waiting)
    assert sorted(seen) == list(range(len(lengths)))


def test_lengths_come_from_a_coarse_grid_that_wastes_little():
    lengths = {padded_length(n) for n in range(400, 30 * RATE + 1, 80)}
    assert len(lengths) <= 19
    assert max(lengths) < 30.1 * RATE  # the longest without windows
    assert all(n <= padded_length(n) < max(1.26 * n, 0.55 * RATE) for n in range(400, 60 * RATE, 777))
    assert all(padded_length(n) == n for n in lengths)


def test_another_corpus_compiles_nothing_new(tmp_path: Path):
    one = corpus_of(tmp_path / "one", {f"u{i}": noise(0.3 + 0.1 * i, seed=i) for i in range(4)})
    other = corpus_of(tmp_path / "other", {f"u{i}": noise(0.2 + 0.06 * i, seed=i) for i in range(7)})
    build(one, tmp_path / "cache", layers="1")
    compiled = []

    def note(event: str, duration: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    build(other, tmp_path / "cache", layers="1")
    count = len(compiled)
    build(other, tmp_path / "cache", layers="2")
    jax.monitoring.unregister_event_duration_listener(note)
    assert count == 0 < len(compiled)


def test_files_are_loaded_a_little_ahead_not_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    corpus = corpus_of(tmp_path / "corpus", {f"u{i:02d}": noise(0.1, seed=i) for i in range(60)})
    loaded: list[str] = []

    def noted(path: str, **options: Any) -> Any:
        loaded.append(path)
        return load_audio(path, **options)

    monkeypatch.setattr(extraction, "load_audio", noted)
    monkeypatch.setitem(extract.BATCH_SECONDS, "cpu", 1.0)  # one in a batch
    jobs = [Job(Segment(utterance.path, None, None), [0]) for utterance in corpus.utterances]
    wanted = contents("ssl", {"model": str(GOLDEN_SSL / LAYER), "layers": "1"})
    before = threading.active_count()
    computed = compute([(wanted, Perturbation())], jobs, workers=4)
    task, number, _ = next(computed)
    assert (task, number) == (0, 0)
    assert len(loaded) <= AHEAD + 4 + 3
    computed.close()
    assert threading.active_count() == before
    assert len(loaded) < 60


# ------------------------------------------------------------------------------------------------- audio


def test_bad_files_are_sentences_and_speed_changes_the_audio(tmp_path: Path):
    sounds = {f"u{i}": noise(0.4, seed=i) for i in range(6)} | {"twin": noise(0.4, seed=5), "tiny": noise(0.026)}
    corpus = corpus_of(tmp_path / "corpus", sounds)
    missing, silent, stereo = (Path(corpus.utterances[i].path) for i in (0, 1, 2))
    missing.unlink()
    soundfile.write(silent, np.zeros(8000), RATE)
    soundfile.write(stereo, np.stack((sounds["u2"], sounds["u2"]), axis=1), RATE)
    errors = {"u0": f"{missing}: no such file", "u1": f"{silent}: is silent, every sample is 0, expected speech"}
    features = build(corpus, tmp_path / "cache", max_bad_fraction=0.5)
    assert features.errors == errors
    assert set(features.frames) == set(features.seconds) == {"u2", "u3", "u4", "u5", "twin", "tiny"}
    assert features.notes == {"u2": "stereo mixed to mono"}
    assert features.digest["u5"] == features.digest["twin"] != features.digest["u4"]
    assert len(features.frames["tiny"]) == 1
    fast = build(corpus, tmp_path / "cache", speed=1.1, max_bad_fraction=0.5)
    assert fast.errors == errors | {
        "tiny": f"{tmp_path}/corpus/tiny.wav: has 378 samples at 16000 Hz and speed 1.1, "
        "expected at least one window of 400"
    }
    samples = change_speed(load_audio(corpus.utterances[3].path).samples, 1.1)
    np.testing.assert_allclose(fast.frames["u3"], flat(model_alone(LAYER, samples)), **CLOSE)
    assert fast.seconds["u3"] == pytest.approx(0.4)
    assert fast.digest["u3"] == features.digest["u3"]


def test_too_many_bad_files_leave_nothing(tmp_path: Path):
    corpus = corpus_of(tmp_path / "corpus", {f"u{i}": noise(0.3, seed=i) for i in range(10)})
    for utterance in corpus.utterances[6:8]:
        Path(utterance.path).unlink()
    with pytest.raises(InputError, match=r"at least 2 of 10 utterances \(unusable audio 2\), expected at most 10 %"):
        build(corpus, tmp_path / "cache", max_bad_fraction=0.1)
    assert datasets(tmp_path / "cache") == set()


def test_values_beyond_float16_are_clipped_and_counted(tmp_path: Path):
    """Two of 24 channels of the top layer are blown up, and so are their means."""

    def loud(arrays: dict[str, np.ndarray]) -> None:
        bias = next(value for name, value in arrays.items() if "layers.2.final_layer_norm.bias" in name)
        bias[3], bias[5] = 1e5, -2e5

    model = changed_model(tmp_path / "model", GROUP, loud)
    corpus, cache = golden_corpus(tmp_path / "corpus", ["long"]), tmp_path / "cache"
    features = build(corpus, cache, model)
    frames, largest = np.asarray(features.frames["long"]), float(np.finfo(np.float16).max)
    assert np.isfinite(frames).all() and np.isfinite(features.statistics["long"]).all()
    top = frames[:, -HIDDEN:]
    assert (top[:, 3] == largest).all() and (top[:, 5] == -largest).all()
    clipped = f"values of {model} clipped to the range of float16"
    assert features.notes == {"long": f"{2 * len(frames) + 2} {clipped}"}
    assert build(corpus, cache, model, pooled=True).notes == {"long": f"2 {clipped}"}
    assert build(corpus, cache, model, layers="2").notes == {}


def test_hidden_states_that_are_not_finite_are_a_sentence(tmp_path: Path):
    def broken(arrays: dict[str, np.ndarray]) -> None:
        next(value for name, value in arrays.items() if "layers.1.final_layer_norm.bias" in name)[0] = 3e38

    model = changed_model(tmp_path / "model", GROUP, broken)
    with pytest.raises(InputError, match=r"\.wav: .*model gives hidden states of it that are not finite"):
        build(golden_corpus(tmp_path / "corpus"), tmp_path / "cache", model)


# ------------------------------------------------------------------------------------------------- cache


def test_a_second_start_reads_and_loads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    corpus, cache = golden_corpus(tmp_path / "corpus", ["long"]), tmp_path / "cache"
    first = build(corpus, cache, GROUP)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(extract, "load_checkpoint", refuse)
    assert_equal(build(corpus, cache, GROUP), first)
    # The same weights at another place, under another name of their stream, read by fewer processes.
    moved = shutil.copytree(GOLDEN_SSL / GROUP, tmp_path / "moved")
    wanted = [Wanted("wavlm", contents("ssl", {"model": str(moved), "revision": "of no matter here"}))]
    (same,) = build_features(corpus, wanted, cache_dir=str(cache), max_bad_fraction=0.0)
    assert_equal(same, first)
    with pytest.raises(AssertionError, match="weights were loaded"):
        build(corpus, cache, GROUP, layers="1")


def test_whatever_changes_the_result_is_another_dataset(tmp_path: Path):
    corpus, cache = golden_corpus(tmp_path / "corpus", ["long"]), tmp_path / "cache"
    model = tmp_path / "model"
    shutil.copytree(GOLDEN_SSL / GROUP, model)
    first = build(corpus, cache, model, layers="0")
    name = next(iter(datasets(cache)))
    assert re.fullmatch("sounds_ssl_[0-9a-f]{16}", name)
    metadata = json.loads(next((cache / "acoustic_features" / name).glob("*/metadata.json")).read_text())
    assert metadata["settings"]["model"] == str(model)
    assert metadata["settings"]["revision"] == "main"
    assert len(metadata["fingerprint"]) == 32

    def is_new(**changed: Any) -> StreamFeatures:
        before = datasets(cache)
        features = build(changed.pop("corpus", corpus), cache, model, **{"layers": "0", **changed})
        assert len(datasets(cache) - before) == 1
        return features

    is_new(layers="1")
    is_new(pooled=True)
    is_new(max_seconds=4.0)
    is_new(speed=0.9)
    is_new(corpus=Corpus("other", ("a",), (1.0, 5.0), corpus.utterances))
    shutil.rmtree(model)

    def louder(arrays: dict[str, np.ndarray]) -> None:
        next(value for name, value in arrays.items() if name.endswith("encoder.layer_norm.bias"))[:] += 1

    changed_model(model, GROUP, louder)
    difference = np.asarray(is_new().frames["long"], np.float32) - first.frames["long"]
    np.testing.assert_allclose(difference, 1, atol=5e-3)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"layers": "4"}, r"layers is '4', expected all, last or a number from 0 .* to 3"),
        ({"layers": "-1"}, "layers is '-1', expected all, last or a number"),
        ({"layers": 1}, r"config\.features\.ssl\.layers is 1, expected "),
        ({"pooled": 1}, r"config\.features\.ssl\.pooled is 1, expected "),
        ({"dtype": "float16"}, "is 'float16', expected one of float32, bfloat16"),
        ({"max_seconds": 2.0}, "is 2, expected 3 or more"),
        ({"max_seconds": float("nan")}, "max_seconds is nan, expected "),
        ({"hop_length": 1}, r"config\.features\.ssl has 'hop_length', expected one of"),
        ({"model": "./nowhere"}, r"\./nowhere: no such folder"),
        ({"model": ""}, r"config\.features\.ssl\.model is '', expected text that is not empty"),
    ],
)
def test_mistakes_are_named_before_any_audio_is_read(settings: dict[str, Any], sentence: str, tmp_path: Path):
    corpus = corpus_of(tmp_path / "corpus", {"u": noise(0.3)})
    Path(corpus.utterances[0].path).unlink()
    with pytest.raises(InputError, match=sentence):
        build(corpus, tmp_path / "cache", **settings)
    assert not (tmp_path / "cache").exists()


def test_the_line_of_a_build_names_its_speeds(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    corpus = golden_corpus(tmp_path / "corpus", ["long"])
    build(corpus, tmp_path / "cache", layers="0", speed=0.9)
    said = [line.strip() for line in re.split("[\r\n]", capfd.readouterr().err)]
    pattern = r"hubert  sounds  speed 0\.9  1 utterances computed in \d+\.\d s, \d+\.\d s of audio per second"
    assert sum(bool(re.fullmatch(pattern, line)) for line in said) == 1


# --------------------------------------------------------------------------------------------- raw audio


def test_raw_audio_is_the_file_sample_by_sample(tmp_path: Path):
    random = np.random.default_rng(0)
    sounds = {f"u{i}": random.integers(-32768, 32768, 700 + i).astype(np.int16) for i in range(3)}
    features = build_raw(corpus_of(tmp_path / "corpus", sounds, "PCM_16"), tmp_path / "cache")
    for name, samples in sounds.items():
        assert features.frames[name].dtype == np.int16
        np.testing.assert_array_equal(features.frames[name], samples[:, None])
        assert features.statistics[name].shape == (0,)
        assert features.seconds[name] == pytest.approx(len(samples) / RATE)
    assert re.fullmatch("sounds_raw_[0-9a-f]{16}", next(iter(datasets(tmp_path / "cache"))))


def test_raw_audio_is_rounded_clipped_and_as_fast_as_asked(tmp_path: Path):
    samples = np.tile(np.float32([0.6, -0.6, 0.4 / 32768, 0.6 / 32768, 1.5, -1.5]), 100)
    corpus = corpus_of(tmp_path / "corpus", {"u": samples, "gone": samples})
    Path(corpus.utterances[1].path).unlink()
    features = build_raw(corpus, tmp_path / "cache", max_bad_fraction=0.5)
    np.testing.assert_array_equal(np.asarray(features.frames["u"])[:6, 0], [19661, -19661, 0, 1, 32767, -32768])
    assert features.errors == {"gone": f"{tmp_path}/corpus/gone.wav: no such file"}
    slow = build_raw(corpus, tmp_path / "cache", max_bad_fraction=0.5, speed=0.8)
    assert slow.frames["u"].shape == (750, 1)


def test_raw_audio_has_no_settings():
    with pytest.raises(InputError, match=r"config\.features\.raw has 'n_mels', expected one of"):
        contents("raw", {"n_mels": 3})


# ---------------------------------------------------------------------------------------------- together


def test_streams_of_every_kind_come_prepared_for_the_device(tmp_path: Path):
    corpus = corpus_of(tmp_path / "corpus", {f"u{i}": noise(0.3 + 0.02 * i, seed=i) for i in range(5)})
    Path(corpus.utterances[2].path).unlink()
    speeds = (1.0, 0.9)
    found = prepare(
        corpus,
        streams=("mel", "hubert", "wavlm"),
        features={"mel": "mel", "hubert": "ssl", "wavlm": "raw"},
        settings={"mel": {"n_mels": 20}, "hubert": {"model": str(GOLDEN_SSL / GROUP)}, "wavlm": {}},
        speeds=speeds,
        cache_dir=str(tmp_path / "cache"),
        workers=1,
        max_bad_fraction=0.2,
    )
    assert [u.id for u in found.corpus.utterances] == ["u0", "u1", "u3", "u4"]
    assert [dropped.id for dropped in found.corpus.dropped] == ["u2"]
    kinds: dict[str, tuple[Any, Any, Sequence[int]]] = {
        "mel": (np.float32, np.float32, (4, 2, len(found.streams["mel"].statistics[0, 0]))),
        "hubert": (np.float16, np.float16, (4, 2, STATES * 2 * HIDDEN)),
        "wavlm": (np.int16, np.float32, (4, 2, 0)),
    }
    for name, (frames, statistics, shape) in kinds.items():
        stream = found.streams[name]
        assert stream.statistics.dtype == statistics
        assert stream.statistics.shape == shape
        assert len(stream.frames) == len(speeds)
        assert all(x.dtype == frames for view in stream.frames for x in view)
    for row, utterance in enumerate(found.corpus.utterances):
        samples = load_audio(utterance.path).samples
        for view, speed in enumerate(speeds):
            changed = change_speed(samples, speed)
            assert len(found.streams["wavlm"].frames[view][row]) == len(changed)
            assert len(found.streams["hubert"].frames[view][row]) == backbone(GROUP).frames(len(changed))
    assert found.digests.keys() == {"u0", "u1", "u3", "u4"}
