"""Jitter, shimmer, formants and harmonics of signals that have them by construction."""

import numpy as np
import pytest
import scipy.signal

from sejax.features.cycles import jitter_and_shimmer
from sejax.features.formants import formants
from sejax.features.pitch import track_pitch
from sejax.features.registry import FEATURES, defaults
from sejax.features.spectrum import power_spectrum
from sejax.features.voice import VOICE_NAMES, voice

RATE = 16_000
INNER = slice(8, -8)


def column(frames: np.ndarray, name: str) -> np.ndarray:
    return frames[INNER, VOICE_NAMES.index(name)]


def pulse_train(periods: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """Band-limited pulses at fractional samples, through a resonance as a voice has it."""
    at = np.cumsum(periods)
    time = np.arange(int(at[-1] + periods[-1]))
    train = np.zeros(len(time))
    for centre, amplitude in zip(at, amplitudes, strict=True):
        near = time[(time > centre - 40) & (time < centre + 40)]
        train[near] += amplitude * np.sinc(near - centre) * np.cos(np.pi * (near - centre) / 80) ** 2
    return (0.3 * scipy.signal.lfilter([1], resonances([(700, 120)]), train)).astype(np.float32)


def resonances(poles: list[tuple[float, float]]) -> np.ndarray:
    """Returns the denominator of resonances of given frequencies and bandwidths."""
    a = np.ones(1)
    for hertz, bandwidth in poles:
        radius = np.exp(-np.pi * bandwidth / RATE)
        a = np.convolve(a, [1, -2 * radius * np.cos(2 * np.pi * hertz / RATE), radius**2])
    return a


def measured(samples: np.ndarray) -> tuple[float, float]:
    """Returns mean jitter and shimmer."""
    pitch = track_pitch(samples, fmin=60, fmax=600, hop_length=160)
    jitter, _, shimmer = jitter_and_shimmer(samples, pitch, hop_length=160)
    return float(np.nanmean(jitter[INNER])), float(np.nanmean(shimmer[INNER]))


def test_a_steady_tone_has_neither_jitter_nor_shimmer() -> None:
    t = np.arange(RATE) / RATE
    jitter, shimmer = measured((0.3 * np.sin(2 * np.pi * 187.3 * t)).astype(np.float32))
    assert jitter < 2e-4
    assert shimmer < 0.05
    jitter, shimmer = measured(pulse_train(np.full(150, 101.3), np.ones(150)))
    assert jitter < 2e-3
    assert shimmer < 0.15


@pytest.mark.parametrize("share", [0.01, 0.03])
def test_jitter_is_the_mean_difference_of_consecutive_periods(share: float) -> None:
    periods = 100 * (1 + share * np.random.default_rng(0).uniform(-1, 1, 400))
    jitter, shimmer = measured(pulse_train(periods, np.ones(400)))
    assert jitter == pytest.approx(np.abs(np.diff(periods)).mean() / 100, rel=0.15)
    assert shimmer < 0.5


@pytest.mark.parametrize("decibel", [0.5, 2.0])
def test_shimmer_is_the_mean_difference_of_consecutive_amplitudes(decibel: float) -> None:
    levels = decibel * np.random.default_rng(0).uniform(-1, 1, 400)
    jitter, shimmer = measured(pulse_train(np.full(400, 100.0), 10 ** (levels / 20)))
    assert shimmer == pytest.approx(np.abs(np.diff(levels)).mean(), rel=0.2)
    assert jitter < 0.01


@pytest.mark.parametrize(
    "vowel",
    [
        [(730, 80), (1090, 90), (2440, 120)],
        [(270, 60), (2290, 100), (3010, 140)],
        [(530, 70), (1840, 100), (2480, 120)],
    ],
    ids=["a", "i", "e"],
)
def test_formants_are_the_poles_of_the_filter(vowel: list[tuple[float, float]]) -> None:
    """Noise that falls by 6 dB per octave from 50 Hz on, as a voice does, through five resonances."""
    falling = np.convolve(resonances([*vowel, (3600, 200), (4500, 250)]), [1, -np.exp(-2 * np.pi * 50 / RATE)])
    filtered = scipy.signal.lfilter([1], falling, np.random.default_rng(0).standard_normal(4 * RATE))
    power = power_spectrum((0.1 * filtered / np.abs(filtered).max()).astype(np.float32), 160)
    # The mean power of many frames is that of the filter; the window widens the bandwidths.
    frequency, bandwidth = formants(power[INNER].mean(axis=0, keepdims=True))
    np.testing.assert_allclose(frequency[0], [hertz for hertz, _ in vowel], rtol=0.04)
    assert (bandwidth[0] < 300).all()


def test_harmonics() -> None:
    """h1_h2 of two sines of known amplitudes."""
    t = np.arange(RATE) / RATE
    samples = 0.2 * np.sin(2 * np.pi * 190 * t) + 0.05 * np.sin(2 * np.pi * 380 * t)
    frames = voice(samples.astype(np.float32))
    np.testing.assert_allclose(column(frames, "h1_h2"), 20 * np.log10(4), atol=0.5)
    assert np.median(column(frames, "harmonics_to_noise")) > 20
    np.testing.assert_allclose(column(frames, "pitch"), 12 * np.log2(190 / 27.5), atol=0.05)
    np.testing.assert_allclose(column(frames, "level"), 10 * np.log10((0.2**2 + 0.05**2) / 2), atol=0.1)


def test_only_the_level_depends_on_the_level() -> None:
    rng = np.random.default_rng(3)
    samples = pulse_train(100 + rng.normal(0, 1, 120), np.ones(120))
    samples = samples + 0.02 * rng.standard_normal(len(samples))
    loud, quiet = (voice((gain * samples).astype(np.float32)) for gain in (1.0, 0.5))
    differs = np.abs(loud - quiet)[INNER].max(axis=0) > 0.1  # troughs of the spectrum come near the floor
    assert [name for name, x in zip(VOICE_NAMES, differs, strict=True) if x] == ["level"]


@pytest.mark.parametrize("name", ["voice", "auditory", "prosody"])
@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(800),
        np.zeros(400),
        np.ones(800),
        np.eye(1, 800)[0],
        np.random.default_rng(0).uniform(-1, 1, 800),
        np.sin(np.arange(800) / 16),
        np.repeat([0.0, 0.5, 0.0], 4000),
    ],
    ids=["silence", "one window", "constant", "click", "noise", "50 ms", "step"],
)
def test_degenerate_audio_has_finite_frames_and_statistics(name: str, samples: np.ndarray) -> None:
    settings = defaults(name)
    frames = FEATURES[name].extract(samples.astype(np.float32), **settings)
    assert np.isfinite(frames).all()
    statistics = FEATURES[name].summarise(frames, settings)
    assert np.isfinite(statistics).all()
    assert np.abs(statistics).max() < 1e5
