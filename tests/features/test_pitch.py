"""Pitch and periodicity of signals whose pitch is known."""

import numpy as np
import pytest

from sejax.corpora.synthetic import voice as synthetic
from sejax.features.pitch import track_pitch, voiced_stretches

RATE = 16_000
GROSS = np.log2(1.2)  # octaves: the usual limit of a gross pitch error


def sines(hertz: float, seconds: float, harmonics: int = 1, amplitude: float = 0.3) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    return (amplitude * sum(np.sin(2 * np.pi * k * hertz * t) / k for k in range(1, harmonics + 1))).astype(np.float32)


def track(samples: np.ndarray, hop_length: int = 160):
    return track_pitch(samples, fmin=60, fmax=600, hop_length=hop_length)


@pytest.mark.parametrize("harmonics", [1, 8])
@pytest.mark.parametrize("hertz", [65.0, 100.0, 187.3, 311.1, 590.0])
def test_pitch_of_a_steady_tone(hertz: float, harmonics: int) -> None:
    pitch = track(sines(hertz, 0.5, harmonics))
    inner = slice(5, -5)
    assert pitch.voiced[inner].all()
    np.testing.assert_allclose(pitch.hertz[inner], hertz, rtol=0.002)  # 3 cents
    assert pitch.periodicity[inner].min() > 0.98


@pytest.mark.parametrize("ratio", [0.0, 5.0, 10.0, 20.0])
def test_periodicity_is_the_share_of_the_power_of_the_harmonics(ratio: float) -> None:
    """r / (1 - r) is the ratio of the powers of harmonics and noise (Boersma 1993, equation 4)."""
    tone = sines(150, 4.0, 6).astype(np.float64)
    noise = np.random.default_rng(0).standard_normal(len(tone)) * np.sqrt(np.mean(tone**2) / 10 ** (ratio / 10))
    r = np.median(track((tone + noise).astype(np.float32)).periodicity[10:-10])
    assert 10 * np.log10(r / (1 - r)) == pytest.approx(ratio, abs=0.8)


def test_glides_are_followed_and_pauses_are_unvoiced() -> None:
    octaves = np.linspace(0, 1, RATE)
    glide = 0.3 * np.sin(2 * np.pi * np.cumsum(120 * 2**octaves) / RATE)
    samples = np.concatenate([glide, 1e-4 * np.random.default_rng(0).standard_normal(RATE // 2)]).astype(np.float32)
    pitch = track(samples)
    np.testing.assert_allclose(np.log2(pitch.hertz[5:95] / 120), octaves[::160][5:95], atol=0.01)
    assert not pitch.voiced[105:].any()
    assert np.isnan(pitch.hertz[~pitch.voiced]).all()


def test_neither_level_nor_offset_nor_silence_around_change_the_pitch() -> None:
    samples = sines(140, 0.4, 5)
    usual = track(samples)
    for changed in (0.01 * samples, samples + np.float32(0.05)):
        np.testing.assert_allclose(track(changed).hertz[4:-4], usual.hertz[4:-4], rtol=1e-3)
    padded = track(np.concatenate([np.zeros(3200, np.float32), samples, np.zeros(3200, np.float32)]))
    np.testing.assert_allclose(padded.hertz[24:56], usual.hertz[4:36], rtol=1e-4)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(800), np.zeros(1), np.ones(800), np.eye(1, 800)[0], np.random.default_rng(0).uniform(-1, 1, 800)],
    ids=["silence", "one sample", "constant", "click", "noise"],
)
def test_degenerate_audio_has_numbers(samples: np.ndarray) -> None:
    pitch = track(samples.astype(np.float32))
    assert len(pitch.voiced) == 1 + len(samples) // 160
    assert np.isfinite(pitch.periodicity).all()
    assert np.isfinite(pitch.hertz[pitch.voiced]).all()


def test_pitch_of_synthetic_voices() -> None:
    """Of the frames that are voiced, of 12 utterances, few have a gross error. The truth is the generator's own."""
    errors, known = [], []
    for i in range(12):
        rng = np.random.default_rng(i)
        speaker = synthetic.draw_speaker(rng, "FM"[i % 2])
        expression = synthetic.express(rng, np.zeros(3), 0.0, 0.0, 0.0)
        spoken: list[tuple[np.ndarray, np.ndarray]] = []
        source = synthetic._source

        def keep(rng, speaker, expression, hertz, voicing, n_samples, spoken=spoken, source=source):
            spoken.append((hertz, voicing))
            return source(rng, speaker, expression, hertz, voicing, n_samples)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(synthetic, "_source", keep)
            samples = synthetic.synthesise(rng, speaker, expression, [0, 1, 2, 3, 4, 0], 2.0)
        pitch = track(samples)
        hertz = spoken[0][0][: len(pitch.voiced)]
        voiced = pitch.voiced
        errors.append(np.abs(np.log2(pitch.hertz[voiced] / hertz[voiced])))
        known.append(voiced.mean())
    octaves = np.concatenate(errors)
    assert np.mean(octaves > GROSS) < 0.03
    assert 1200 * np.median(octaves) < 25
    assert np.mean(known) > 0.5


@pytest.mark.parametrize(
    ("voiced", "stretches"),
    [("0110111", [[1, 3], [4, 7]]), ("1001", [[0, 1], [3, 4]]), ("1", [[0, 1]]), ("00", []), ("", [])],
)
def test_stretches_of_voiced_frames(voiced: str, stretches: list[list[int]]) -> None:
    found = voiced_stretches(np.array([frame == "1" for frame in voiced], bool))
    assert found.shape == (len(stretches), 2) and found.tolist() == stretches
