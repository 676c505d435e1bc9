"""Loudness and the shape of spectra that are known."""

import numpy as np
import pytest
import scipy.signal

from sejax.features.auditory import AUDITORY_NAMES, auditory
from sejax.features.spectrum import HERTZ, SHAPE_NAMES, distribution, power_spectrum, rolloff, spectral_shape

RATE = 16_000
INNER = slice(5, -5)


def sine(hertz: float, amplitude: float = 0.2, seconds: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def column(frames: np.ndarray, name: str) -> np.ndarray:
    return frames[INNER, AUDITORY_NAMES.index(name)]


def shape(power: np.ndarray) -> dict[str, float]:
    """The shape of one frame by name."""
    return dict(zip(SHAPE_NAMES, spectral_shape(power[None].astype(np.float32))[0].tolist(), strict=True))


def test_a_spectrum_holds_the_mean_square_of_the_signal() -> None:
    power = power_spectrum(sine(1000), 160)[INNER]
    np.testing.assert_allclose(power.sum(axis=1), 0.2**2 / 2, rtol=0.01)
    np.testing.assert_allclose(column(auditory(sine(1000)), "level"), 10 * np.log10(0.02), atol=0.05)


def test_slopes_of_a_spectrum_that_falls_by_ten_decibel_per_kilohertz() -> None:
    found = shape(10 ** (-HERTZ / 1000))
    assert found["slope_0_500"] == pytest.approx(-10, abs=0.01)
    assert found["slope_500_1500"] == pytest.approx(-10, abs=0.01)
    # The greatest level below 2 kHz is that at 0 Hz, above it that at 2 kHz.
    assert found["hammarberg"] == pytest.approx(20, abs=0.01)


def test_alpha_ratio_of_two_tones() -> None:
    power = np.zeros(len(HERTZ))
    power[[16, 64]] = 0.1, 0.01  # at 500 Hz and at 2 kHz
    assert shape(power)["alpha_ratio"] == pytest.approx(10, abs=0.01)
    assert shape(power)["hammarberg"] == pytest.approx(10, abs=0.01)


def test_shape_does_not_depend_on_the_level() -> None:
    power = np.random.default_rng(0).uniform(0.01, 1, len(HERTZ))
    loud, quiet = shape(power), shape(power / 100)
    np.testing.assert_allclose(list(loud.values()), list(quiet.values()), atol=1e-3)


def test_moments_and_rolloff_of_a_flat_band() -> None:
    power = ((HERTZ >= 1000) & (HERTZ <= 3000)).astype(np.float32)[None]
    found = distribution(power)
    assert found.centroid[0] == pytest.approx(2.0, abs=0.01)
    assert found.deviation[0] == pytest.approx(2 / np.sqrt(12), rel=0.03)
    assert found.skewness[0] == pytest.approx(0, abs=1e-3)
    assert found.kurtosis[0] == pytest.approx(1.8, rel=0.01)
    assert found.entropy[0] == pytest.approx(np.log(65) / np.log(257), rel=1e-3)
    assert rolloff(power, 0.75)[0] == pytest.approx(2.5, abs=0.04)


def test_loudness_grows_with_the_power_to_the_third_and_hearing_is_best_at_some_kilohertz() -> None:
    rng = np.random.default_rng(0)
    noise = (0.01 * rng.standard_normal(RATE)).astype(np.float32)
    quiet, loud = (column(auditory(np.float32(gain) * noise), "loudness").mean() for gain in (1.0, 10.0))
    assert loud / quiet == pytest.approx(100**0.33, rel=0.01)
    low, middle = (column(auditory(sine(hertz)), "loudness").mean() for hertz in (100, 3000))
    assert middle > 1.5 * low


def test_sharpness_and_crossings_rise_with_the_frequency() -> None:
    frames = [auditory(sine(hertz)) for hertz in (500, 2000, 5000)]
    for name in ("sharpness", "zero_crossing_rate", "centroid", "rolloff_50"):
        assert (np.diff([column(x, name).mean() for x in frames]) > 0).all(), name
    assert column(frames[1], "zero_crossing_rate").mean() == pytest.approx(2 * 2000 / RATE, rel=0.02)
    assert column(frames[1], "centroid").mean() == pytest.approx(2.0, abs=0.02)


def test_rasta_takes_a_constant_filter_away() -> None:
    """A channel multiplies the spectrum, which moves a band's logarithm by a constant."""
    rng = np.random.default_rng(0)
    modulated = rng.standard_normal(2 * RATE) * (1.1 + np.sin(2 * np.pi * 5 * np.arange(2 * RATE) / RATE))
    plain = (0.03 * modulated).astype(np.float32)
    filtered = scipy.signal.lfilter([1, -0.9], [1], plain).astype(np.float32)
    bands = [i for i, name in enumerate(AUDITORY_NAMES) if name.startswith("band_")]
    mfcc = AUDITORY_NAMES.index("mfcc_1")
    before, after = (auditory(x)[INNER] for x in (plain, filtered))
    assert np.abs(before[:, mfcc] - after[:, mfcc]).mean() > 2
    difference = np.abs(before[:, bands] - after[:, bands]).mean()
    assert difference < 0.3 * before[:, bands].std()
