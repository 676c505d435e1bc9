import librosa
import numpy as np
import pytest

from sejax.features.acoustic import log_mel, mfcc
from sejax.features.registry import FEATURES, extract, full_settings

RATE = 16_000
SETTINGS = [
    {"n_mels": 128, "n_fft": 1024, "win_length": 400, "hop_length": 160},
    {"n_mels": 40, "n_fft": 512, "win_length": 512, "hop_length": 200},
]


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    """A gliding voice in noise, with a pause of exact zeros."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * k * (120 * time + 40 * time**2)) / k for k in range(1, 20))
    samples = 0.2 * voice + 0.001 * random.standard_normal(len(time))
    samples[len(time) // 3 : len(time) // 2] = 0
    return samples.astype(np.float32)


def plain_log_mel(samples: np.ndarray, **settings: int) -> np.ndarray:
    power = librosa.feature.melspectrogram(y=samples, sr=RATE, **settings)
    return librosa.power_to_db(power, ref=1.0, top_db=80.0).T


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seconds", [0.1, 1.0, 2.345])
def test_log_mel_is_librosas(settings: dict[str, int], seconds: float) -> None:
    samples = clip(seconds)
    ours = log_mel(samples, **settings)
    assert ours.shape == (1 + len(samples) // settings["hop_length"], settings["n_mels"])
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, plain_log_mel(samples, **settings), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("settings", SETTINGS)
def test_mfcc_is_librosas(settings: dict[str, int]) -> None:
    samples = clip(1.5)
    ours = mfcc(samples, n_mfcc=20, **settings)
    assert ours.dtype == np.float32
    theirs = librosa.feature.mfcc(y=samples, sr=RATE, n_mfcc=20, **settings).T
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-3)
    assert np.abs(theirs).max() > 100


def test_defaults_are_25_ms_every_10_ms() -> None:
    samples = clip(0.5)
    for name, settings in (("mfcc", {"n_mfcc": 40}), ("mel", {})):
        expected = FEATURES[name].extract(samples, n_mels=128, n_fft=1024, win_length=400, hop_length=160, **settings)
        np.testing.assert_array_equal(extract(name, samples, {}), expected)
    assert extract("mfcc", samples, {}).shape == (51, 40)
    assert extract("mel", samples, {}).shape == (51, 128)


def test_every_default_mel_filter_sees_more_than_one_bin() -> None:
    settings = full_settings("mel", {})
    filters = librosa.filters.mel(sr=RATE, n_fft=settings["n_fft"], n_mels=settings["n_mels"])
    assert (np.count_nonzero(filters, axis=1) >= 2).all()


def test_a_sine_lies_in_its_own_filter() -> None:
    time = np.arange(RATE) / RATE
    centres = librosa.mel_frequencies(n_mels=130, fmin=0, fmax=8000)[1:-1]
    for hertz in (300, 1000, 5000):
        loudest = log_mel(np.sin(2 * np.pi * hertz * time).astype(np.float32))[50].argmax()
        assert abs(centres[loudest] - hertz) <= max(20, 0.03 * hertz)


def test_the_floor_lies_80_decibel_below_the_clips_own_maximum() -> None:
    loud, quiet, faint = (log_mel(gain * clip(1.0)) for gain in (1.0, 0.1, 0.001))
    assert loud.min() == pytest.approx(loud.max() - 80, abs=1e-3)
    # A tenth of the amplitude is 20 dB less everywhere: no normalisation hides the loudness.
    np.testing.assert_allclose(loud - quiet, 20, atol=0.01)
    # Nothing lies below a power of 1e-10.
    assert faint.min() == pytest.approx(-100, abs=1e-3)


def test_clips_shorter_than_the_fft_are_features_too() -> None:
    samples = clip(0.025)
    assert len(samples) == 400
    assert mfcc(samples).shape == (3, 40)
    assert np.isfinite(log_mel(samples)).all()
