"""Prosody tracks of signals whose pitch, voicing and level are known, and the statistics of frames."""

import numpy as np
import pytest

from sejax.features.prosody import PROSODY_NAMES, prosody
from sejax.features.registry import FEATURES, extract, full_settings
from sejax.features.statistics import PERCENTILES, functionals, voiced_functionals

RATE = 16_000


def pulses(hertz: float, seconds: float, amplitude: float = 0.3) -> np.ndarray:
    """A harmonic tone, as voiced speech has it."""
    t = np.arange(int(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * k * hertz * t) / k for k in range(1, 6))
    return (amplitude * tone).astype(np.float32)


def track(frames: np.ndarray, name: str) -> np.ndarray:
    return frames[:, PROSODY_NAMES.index(name)]


@pytest.mark.parametrize("hertz", [90.0, 220.0, 400.0])
def test_pitch_of_a_tone(hertz):
    frames = prosody(pulses(hertz, 1.0))
    assert frames.shape == (101, len(PROSODY_NAMES))
    inner = slice(5, -5)
    np.testing.assert_allclose(track(frames, "pitch")[inner], 12 * np.log2(hertz / 55), atol=0.3)
    assert (track(frames, "voiced")[inner] == 1).all()


def test_a_pause_is_unvoiced_and_pitch_is_carried_across_it():
    silence = np.zeros(RATE // 2, np.float32)
    frames = prosody(np.concatenate([pulses(110, 0.5), silence, pulses(220, 0.5)]))
    pause = slice(60, 90)
    assert (track(frames, "voiced")[pause] == 0).all()
    rising = track(frames, "pitch")[pause]
    assert (np.diff(rising) > 0).all()
    assert 12 < rising[0] < rising[-1] < 24  # between the two tones, in semitones above 55 Hz


def test_level_is_in_decibel():
    loud, soft = (track(prosody(pulses(150, 0.5, a)), "level")[10:-10].mean() for a in (0.4, 0.04))
    assert loud - soft == pytest.approx(20, abs=0.1)


def test_noise_has_no_pitch_but_numbers():
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    frames = prosody(noise)
    assert np.isfinite(frames).all()
    assert track(frames, "voiced").mean() < 0.3
    assert track(frames, "flatness").mean() > track(prosody(pulses(150, 1.0)), "flatness").mean()


def test_extract_takes_prosody_by_name():
    samples = pulses(200, 0.3)
    np.testing.assert_array_equal(extract("prosody", samples, {"fmax": 500}), prosody(samples, fmax=500))


def test_functionals_are_those_of_numpy():
    frames = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    deltas = np.concatenate([np.zeros((1, 3), np.float32), frames[1:] - frames[:-1]])
    expected = []
    for x in (frames, deltas):
        expected += [x.mean(0), x.std(0), *(np.percentile(x, p, axis=0) for p in PERCENTILES)]
    np.testing.assert_allclose(functionals(frames), np.concatenate(expected), rtol=1e-5, atol=1e-6)


def test_rhythm_of_voicing():
    frames = np.arange(40, dtype=np.float32)[:, None].repeat(2, axis=1)
    voiced = np.zeros(40, bool)
    voiced[5:15] = voiced[20:24] = True
    rhythm = voiced_functionals(frames, voiced, hop_length=160)[-6:]
    np.testing.assert_allclose(rhythm, [0.4, 14 / 40, 2 / 0.4, 0.07, 0.03, 0.10], rtol=1e-5)
    only = voiced_functionals(frames, voiced, hop_length=160)[28:56]
    np.testing.assert_array_equal(only, functionals(frames[voiced]))
    assert np.isfinite(voiced_functionals(frames, np.zeros(40, bool), hop_length=160)).all()
    # Frames twice as far apart: the same shares, twice the seconds.
    slower = voiced_functionals(frames, voiced, hop_length=320)
    np.testing.assert_array_equal(slower[:-6], voiced_functionals(frames, voiced, hop_length=160)[:-6])
    np.testing.assert_allclose(slower[-6:], [0.8, 14 / 40, 2 / 0.8, 0.14, 0.06, 0.20], rtol=1e-5)


@pytest.mark.parametrize("hop_length", [80, 160, 400])
def test_rhythm_is_in_seconds_at_every_hop(hop_length):
    """0.6 s of tone, 0.4 s of silence, 0.6 s of tone; the edges of the tones are as coarse as the window."""
    samples = np.concatenate([pulses(150, 0.6), np.zeros(int(0.4 * RATE), np.float32), pulses(150, 0.6)])
    settings = full_settings("prosody", {"hop_length": hop_length})
    seconds, share, per_second, mean, _, greatest = FEATURES["prosody"].summarise(
        extract("prosody", samples, settings), settings
    )[-6:]
    assert seconds == pytest.approx(1.6, abs=0.05)
    assert share == pytest.approx(1.2 / 1.6, abs=0.08)
    assert per_second == pytest.approx(2 / 1.6, abs=0.06)
    assert mean == pytest.approx(0.6, abs=0.06)
    assert greatest == pytest.approx(0.6, abs=0.06)


def test_prosody_statistics_use_the_voiced_track():
    frames = prosody(np.concatenate([pulses(110, 0.3), np.zeros(RATE // 4, np.float32)]))
    np.testing.assert_array_equal(
        FEATURES["prosody"].summarise(frames, full_settings("prosody", {})),
        voiced_functionals(frames, track(frames, "voiced") > 0.5, hop_length=160),
    )
    np.testing.assert_array_equal(FEATURES["mfcc"].summarise(frames, full_settings("mfcc", {})), functionals(frames))
