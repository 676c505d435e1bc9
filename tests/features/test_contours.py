"""Functionals of contours that are known in closed form."""

import numpy as np
import pytest

from sejax.features.contours import FUNCTIONALS, contour_functionals

FRAMES_PER_SECOND = 100.0


def described(track: np.ndarray) -> dict[str, float]:
    """The functionals of one track by name."""
    return dict(zip(FUNCTIONALS, contour_functionals(track[None], FRAMES_PER_SECOND)[0].tolist(), strict=True))


def test_a_line() -> None:
    found = described(np.linspace(2.0, 5.0, 101))
    expected = {
        "mean": 3.5,
        "deviation": 3 / np.sqrt(12) * np.sqrt(102 / 100),
        "skewness": 0.0,
        "percentile_50": 3.5,
        "range_25_75": 1.5,
        "position_of_maximum": 1.0,
        "position_of_minimum": 0.0,
        "centroid": 201 / 300,
        "slope": 3.0,
        "linear_error": 0.0,
        "curvature": 0.0,
        "quadratic_error": 0.0,
        "peaks_per_second": 0.0,
        "rise": 3.0,  # in one second
        "fall": 0.0,
        "share_rising": 1.0,
        "share_above_50": 50 / 101,
        "delta_deviation": 0.0,
        "delta_percentile_50": 0.03,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-3), name


def test_a_parabola() -> None:
    time = np.linspace(0, 1, 101)
    found = described(4 * (time - 0.5) ** 2 + time)
    assert found["curvature"] == pytest.approx(4.0)
    assert found["slope"] == pytest.approx(1.0)
    assert found["quadratic_error"] == pytest.approx(0.0, abs=1e-9)
    assert found["linear_error"] == pytest.approx(4 * np.sqrt(1 / 180), rel=0.05)


def test_a_wave_of_five_hertz() -> None:
    found = described(np.sin(2 * np.pi * 5 * np.arange(400) / FRAMES_PER_SECOND))
    assert found["peaks_per_second"] == pytest.approx(5.0, abs=0.01)
    assert found["peak_distance"] == pytest.approx(0.2, abs=0.002)
    assert found["peak_distance_deviation"] < 0.01
    assert found["peak_height"] == pytest.approx(1.0, abs=0.05)
    assert found["kurtosis"] == pytest.approx(-1.5, abs=0.01)
    assert found["rise"] == pytest.approx(20.0, rel=0.05)  # 2 up in a tenth of a second
    assert found["fall"] == pytest.approx(-20.0, rel=0.05)
    assert np.exp(found["modulation_4_8"]) > 0.98
    assert np.exp(found["modulation_8_16"]) < 0.02


def test_what_shift_scale_and_frame_rate_change() -> None:
    track = np.cumsum(np.random.default_rng(0).standard_normal(200))
    usual, moved = described(track), described(3 * track + 7)
    per_level = ("mean", "percentile")
    free = ("skew", "kurt", "position", "centroid", "peaks_per", "peak_distance", "share", "modulation", "delta_skew")
    for name in FUNCTIONALS:
        of_level = name.startswith(per_level)
        factor = 1 if name.startswith((*free, "delta_kurt")) else 3
        assert moved[name] == pytest.approx(factor * usual[name] + 7 * of_level, rel=1e-6, abs=1e-6), name


def test_tracks_do_not_touch_each_other() -> None:
    tracks = np.random.default_rng(0).standard_normal((5, 80))
    together = contour_functionals(tracks, FRAMES_PER_SECOND)
    for track, found in zip(tracks, together, strict=True):
        np.testing.assert_allclose(contour_functionals(track[None], FRAMES_PER_SECOND)[0], found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("value", [0.0, 1e4, -1e-3])
def test_short_and_constant_contours_have_finite_numbers(frames: int, value: float) -> None:
    found = described(np.full(frames, value))
    assert np.isfinite(list(found.values())).all()
    assert found["mean"] == value
    for name in ("deviation", "skewness", "kurtosis", "slope", "peaks_per_second", "delta_skewness"):
        assert found[name] == pytest.approx(0.0, abs=1e-9), name
    assert np.isfinite(list(described(np.arange(frames, dtype=float)).values())).all()
