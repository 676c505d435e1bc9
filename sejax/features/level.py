"""The level of audio over time, as figures show it."""

import numpy as np
from jaxtyping import Float32

from sejax.corpora.schema import SAMPLING_RATE

LEVEL_SECONDS = 0.02
_FLOOR = -80.0  # decibel


def level(samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " step"]:
    """Computes the level of steps of `LEVEL_SECONDS`, in decibel below full scale, from -80 on.

    Args:
      samples: at 16 kHz, full scale at -1 and 1.
    """
    size = round(LEVEL_SECONDS * SAMPLING_RATE)
    padded = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    return np.maximum(10 * np.log10((padded**2).mean(axis=1) + 1e-12), _FLOOR).astype(np.float32)
