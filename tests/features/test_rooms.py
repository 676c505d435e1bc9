"""Impulse responses of rooms equal sums over images that are written down one by one."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sejax.features.rooms import (
    SPEED_OF_SOUND,
    decay_seconds,
    eyring_reflection,
    image_response,
    random_room_response,
)

ROOM, SOURCE, MICROPHONE = np.array([4.1, 3.2, 2.6]), np.array([1.0, 2.0, 1.5]), np.array([3.0, 0.8, 1.2])


def direct_sum(reflection: float, n_samples: int, rate: int, cells: int) -> np.ndarray:
    """The images of a source between three pairs of mirrors, found by mirroring it again and again."""
    response = np.zeros(n_samples)
    axes = []
    for length, source, microphone in zip(ROOM, SOURCE, MICROPHONE, strict=True):
        images = {0: source}  # by the number of reflections, signed by the wall that comes last
        left, right = source, source
        for n in range(1, 2 * cells):
            left, right = -right, 2 * length - left
            images |= {-n: left, n: right}
        axes.append([(abs(n), place - microphone) for n, place in images.items()])
    for (a, x), (b, y), (c, z) in itertools.product(*axes):
        distance = np.sqrt(x * x + y * y + z * z)
        sample = round(distance / SPEED_OF_SOUND * rate)
        if sample < n_samples:
            response[sample] += reflection ** (a + b + c) / (4 * np.pi * distance)
    return response


@pytest.mark.parametrize("reflection", [0.0, 0.7, 1.0])
def test_the_response_is_the_sum_over_all_images(reflection: float):
    found = image_response(ROOM, SOURCE, MICROPHONE, reflection=reflection, n_samples=400, rate=8000)
    assert_allclose(found, direct_sum(reflection, 400, 8000, cells=6), rtol=1e-12, atol=1e-15)
    direct = np.linalg.norm(SOURCE - MICROPHONE)
    first = np.flatnonzero(found)[0]
    assert first == round(direct / SPEED_OF_SOUND * 8000)
    assert_allclose(found[first], 1 / (4 * np.pi * direct))
    assert (np.count_nonzero(found) == 1) == (reflection == 0)


def test_eyrings_formula_inverts():
    reflection = eyring_reflection(ROOM, 0.5)
    length, width, height = ROOM
    volume, surface = np.prod(ROOM), 2 * (length * width + length * height + width * height)
    assert_allclose(0.161 * volume / (-surface * np.log(reflection**2)), 0.5, rtol=2e-3)  # Eyring's own constant


def test_the_decay_is_measured():
    time = np.arange(16_000) / 16_000
    assert_allclose(
        decay_seconds(np.random.default_rng(0).standard_normal(16_000) * 10 ** (-3 * time / 0.4)), 0.4, rtol=0.02
    )


@pytest.mark.parametrize(("rt60", "tolerance"), [(0.2, 0.08), (0.6, 0.02), (1.5, 0.02)])
def test_sound_decays_in_the_time_asked_for(rt60: float, tolerance: float):
    rooms = [random_room_response(rt60, np.random.default_rng(seed)) for seed in range(5)]
    assert_allclose([decay_seconds(response) for response in rooms], rt60, rtol=tolerance)
    assert len({len(response) for response in rooms}) == 5  # other rooms and places
