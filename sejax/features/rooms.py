"""Impulse responses of shoebox rooms by the image method of Allen and Berkley.

J. B. Allen and D. A. Berkley, Image method for efficiently simulating small-room acoustics, J. Acoust. Soc. Am. 65(4),
1979. A wall is a mirror: the sound that it reflects comes from an image of the source behind it.
"""

import numpy as np
import scipy.signal
from jaxtyping import Float

from sejax.corpora.schema import SAMPLING_RATE

SPEED_OF_SOUND = 343.0  # metres per second
# The sides of rooms, in metres: length, width, height.
SMALLEST_ROOM, LARGEST_ROOM = np.array([4.0, 3.0, 2.5]), np.array([10.0, 8.0, 4.0])
# Source and microphone keep this distance from the walls, and from each other, in metres.
FROM_WALLS = 0.5
APART = 0.5
# Impulses of images are all positive: without this, they add up to a pressure that does not change (as in the paper).
HIGH_PASS_HERTZ = 50.0
# The decay is brought this near to the one asked for, in so many steps at most.
_DECAY_TOLERANCE, _CORRECTIONS = 0.02, 12


def image_response(
    room: Float[np.ndarray, "3"],
    source: Float[np.ndarray, "3"],
    microphone: Float[np.ndarray, "3"],
    *,
    reflection: float,
    n_samples: int,
    rate: int = SAMPLING_RATE,
) -> Float[np.ndarray, " n_samples"]:
    """Returns the pressure at a microphone after an impulse at the source.

    The image (u, l) of the source on an axis of length L lies at `(1 - 2u) s + 2 l L`, u in (0, 1), l any whole number,
    and its sound was reflected `|l - u| + |l|` times on this axis. An image at the distance d whose sound was reflected
    n times adds `reflection^n / (4 pi d)` to the sample nearest to `d / c`.

    Args:
      room: length, width and height, in metres.
      source: its position, in metres from a corner.
      microphone: its position.
      reflection: factor of the pressure at each of the six walls, 0 to 1.
      n_samples: length of the response.
      rate: sampling rate, in hertz.
    """
    reach = SPEED_OF_SOUND * n_samples / rate
    offsets, orders = [], []
    for length, s, m in zip(room, source, microphone, strict=True):
        cells = np.arange(-int(reach / (2 * length)) - 1, int(reach / (2 * length)) + 2)
        u = np.array([0, 1])[:, None]
        offset, order = (1 - 2 * u) * s + 2 * cells * length - m, abs(cells - u) + abs(cells)
        near = abs(offset) < reach
        offsets.append(offset[near])
        orders.append(order[near])
    (x, y, z), (of_x, of_y, of_z) = offsets, orders
    across = (y[:, None] ** 2 + z**2).ravel()
    of_across = (of_y[:, None] + of_z).ravel()
    gain = reflection ** np.arange(int(of_x.max() + of_across.max()) + 1, dtype=float)  # 0^0 is 1
    response = np.zeros(n_samples)
    for at, order in zip(x, of_x, strict=True):  # all images at once would need gigabytes
        near = across < reach**2 - at**2
        distance = np.sqrt(across[near] + at**2)
        sample = np.rint(distance * (rate / SPEED_OF_SOUND)).astype(int)
        amplitude = gain[order + of_across[near]] / (4 * np.pi * distance)
        response += np.bincount(sample, amplitude, n_samples + 1)[:n_samples]
    return response


def eyring_reflection(room: Float[np.ndarray, "3"], rt60: float) -> float:
    """Returns the reflection of all walls at which sound decays by 60 dB in so many seconds, by Eyring's formula.

    `rt60 = 24 ln(10) V / (c S (-ln(1 - a)))` with the volume V, the surface S and the absorption `a = 1 - reflection^2`
    (C. F. Eyring, Reverberation time in "dead" rooms, J. Acoust. Soc. Am. 1, 1930).
    """
    length, width, height = room
    volume, surface = length * width * height, 2 * (length * width + length * height + width * height)
    return float(np.exp(-12 * np.log(10) * volume / (SPEED_OF_SOUND * surface * rt60)))


def decay_seconds(response: Float[np.ndarray, " samples"], *, rate: int = SAMPLING_RATE) -> float:
    """Returns the time in which sound decays by 60 dB: T30 of ISO 3382, a line through its decay from -5 to -35 dB.

    The decay is that of the energy which is still to come (M. R. Schroeder, New method of measuring reverberation time,
    J. Acoust. Soc. Am. 37, 1965).
    """
    left = np.cumsum(response[::-1] ** 2)[::-1]
    level = 10 * np.log10(np.maximum(left / left[0], 1e-30))
    part = np.flatnonzero((level <= -5) & (level >= -35))
    slope = np.polyfit(part / rate, level[part], 1)[0]
    return -60 / slope


def random_room_response(
    rt60: float, random: np.random.Generator, *, rate: int = SAMPLING_RATE
) -> Float[np.ndarray, " samples"]:
    """Returns the response of a room of random size, with source and microphone at random places in it.

    Eyring's formula is for diffuse sound; between parallel walls it decays more slowly. So the reflection is corrected
    until `decay_seconds` of the response is as asked for, within 2 % (in the driest
    rooms, whose responses have few samples, within 8 %).

    Args:
      rt60: time in which sound decays by 60 dB, in seconds.
      random: draws room and places.
      rate: sampling rate, in hertz.
    """
    room = random.uniform(SMALLEST_ROOM, LARGEST_ROOM)
    source = random.uniform(FROM_WALLS, room - FROM_WALLS)
    microphone = source
    while np.linalg.norm(microphone - source) < APART:
        microphone = random.uniform(FROM_WALLS, room - FROM_WALLS)
    arrival = np.linalg.norm(microphone - source) / SPEED_OF_SOUND
    n_samples = round((arrival + rt60) * rate)
    high_pass = scipy.signal.butter(2, HIGH_PASS_HERTZ, "highpass", fs=rate, output="sos")
    reflection = eyring_reflection(room, rt60)
    for _ in range(_CORRECTIONS):
        response = image_response(room, source, microphone, reflection=reflection, n_samples=n_samples, rate=rate)
        response = scipy.signal.sosfilt(high_pass, response)
        ratio = decay_seconds(response, rate=rate) / rt60
        if abs(ratio - 1) < _DECAY_TOLERANCE:
            break
        reflection **= ratio  # its logarithm is the decay in a second
    return response
