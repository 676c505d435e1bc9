"""The fingerprint of audio, and the comparison of two waveforms."""

import numpy as np
import pytest
import soxr
from audio_files import RATE, take

from sejax.features.audioprint import SILENT, audioprint, compare


def bit_error_rate(words: np.ndarray, others: np.ndarray) -> float:
    both = (words != SILENT) & (others != SILENT)
    assert both.sum() > 50
    return float(np.bitwise_count(words[both] ^ others[both]).mean()) / 32


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_rate_and_gain_change_few_bits_and_another_take_half(rate: int):
    original = take(1)
    copy = 0.05 * soxr.resample(soxr.resample(original, RATE, rate), rate, RATE)[: len(original)]
    assert bit_error_rate(audioprint(original), audioprint(copy)) < 0.01
    assert bit_error_rate(audioprint(original), audioprint(take(2))) > 0.4


def test_a_cut_between_two_frames_changes_few_bits():
    original = take(1)
    cut = audioprint(original[16_000 + 128 :])
    assert bit_error_rate(audioprint(original)[63 : 62 + len(cut)], cut[:-1]) < 0.15  # 62.5 words were cut off


def test_its_size_is_bounded_and_short_audio_has_none():
    assert audioprint(take(1)).nbytes < 300 * 3
    assert audioprint(np.tile(take(1), 30)).nbytes < 300 * 60
    assert audioprint(take(1)[: RATE // 8]).shape == (0, 1)
    assert audioprint(np.zeros(0, np.float32)).shape == (0, 1)


@pytest.mark.parametrize("value", [0.0, 0.3, -1.0])
def test_constant_audio_says_nothing(value: float):
    assert not audioprint(np.full(2 * RATE, value, np.float32)).any()


def test_noise_of_the_last_bit_says_nothing():
    noise = np.random.default_rng(0).integers(-1, 2, 2 * RATE) / 32_768
    assert not audioprint(noise.astype(np.float32)).any()


def test_pauses_are_told_from_speech():
    words = audioprint(np.concatenate([take(1), np.zeros(RATE, np.float32), take(2)]))[:, 0]
    assert (words[190:230] == SILENT).all()
    assert (words[20:100] != SILENT).mean() > 0.9


@pytest.mark.parametrize(("gain", "sign"), [(0.1, 1), (-0.5, -1)])
def test_waveforms_are_compared_where_they_agree(gain: float, sign: int):
    original = take(1)
    fine = soxr.resample(original, RATE, 4 * RATE, quality="VHQ")
    copy = gain * soxr.resample(fine[4 * 8000 + 2 :], 4 * RATE, RATE, quality="VHQ")  # begins between two samples
    offset, seconds, correlation = compare(original, copy, 31)
    assert offset == pytest.approx(8000.5 / RATE, abs=0.1 / RATE)
    assert seconds == pytest.approx(2.5, abs=1e-3)
    assert sign * correlation > 0.999
    offset, _, correlation = compare(copy, original, -31)
    assert offset == pytest.approx(-8000.5 / RATE, abs=0.1 / RATE) and sign * correlation > 0.999


def test_other_takes_do_not_correlate():
    for lag in range(-40, 41, 4):
        assert abs(compare(take(1), take(2), lag).correlation) < 0.5
    assert compare(take(1), take(2), 10_000) == (160.0, 0.0, 0.0)  # nothing in common
    assert compare(take(1), np.zeros(RATE, np.float32), 0).correlation == 0
