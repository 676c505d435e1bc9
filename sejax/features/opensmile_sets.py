"""Functionals of openSMILE: numbers about a whole utterance, as challenges of the field have used them since 2013.

`egemaps` is eGeMAPSv02, 88 numbers (Eyben et al., 2016, The Geneva Minimalistic Acoustic Parameter Set (GeMAPS) for
Voice Research and Affective Computing); `compare` is ComParE_2016, 6,373 numbers (Schuller et al., 2016, The
INTERSPEECH 2016 Computational Paralinguistics Challenge). The package opensmile computes them. It is not part of sejax
and has a licence of its own: see `LICENCE`.
"""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from jaxtyping import Float32

from sejax.corpora.schema import SAMPLING_RATE
from sejax.errors import InputError
from sejax.features.settings import Settings

SIZES = {"eGeMAPSv02": 88, "ComParE_2016": 6373}
WINDOW = 960  # samples: openSMILE has no functionals of less than its window of 60 ms
LICENCE = (
    "openSMILE computes these features. Its audEERING Research License allows non-commercial use and commercial "
    "research; use in a product, of a model trained on its features too, needs a commercial licence from audEERING"
)
_LARGEST = 32767 / 32768  # the package converts to 16 bit and would wrap a sample of 1 to -1


def egemaps(samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, "one 88"]:
    """Computes eGeMAPSv02 of samples at 16 kHz, which may be clipped to 16 bit, as one frame.

    Raises:
      InputError: the package opensmile is missing.
    """
    return _functionals("eGeMAPSv02", samples)


def compare(samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, "one 6373"]:
    """Computes ComParE_2016 of samples at 16 kHz, which may be clipped to 16 bit, as one frame.

    Raises:
      InputError: the package opensmile is missing.
    """
    return _functionals("ComParE_2016", samples)


def only_frame(frames: Float32[np.ndarray, "one feature"], settings: Settings) -> Float32[np.ndarray, " feature"]:
    """Returns the functionals themselves: they are statistics of the utterance already."""
    return frames[0]


def identity(settings: Settings) -> Settings:
    """Returns what tells stored functionals apart: the version of opensmile.

    Raises:
      InputError: the package is missing.
    """
    try:
        return {"opensmile": version("opensmile")}
    except PackageNotFoundError as error:
        raise InputError(
            "the features egemaps and compare need the package opensmile, which is not installed, expected "
            "pip install 'sejax[opensmile]' (its licence is not sejax's: free for research, not for products)"
        ) from error


def _functionals(name: str, samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, "one feature"]:
    identity({})
    if len(samples) < WINDOW:
        raise InputError(f"the signal has {len(samples)} samples, expected at least a window of {WINDOW}")
    found = _smile(name)(np.clip(samples, -1.0, _LARGEST), SAMPLING_RATE)
    return np.asarray(found, np.float32).reshape(1, SIZES[name])


@lru_cache(maxsize=2)
def _smile(name: str) -> Any:
    """Returns openSMILE with a set of features; to import it takes a second."""
    import opensmile

    return opensmile.Smile(opensmile.FeatureSet[name], opensmile.FeatureLevel.Functionals)
