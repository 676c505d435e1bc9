"""Features by name."""

import inspect
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float32, Num
from numpy.typing import DTypeLike

from sejax.errors import InputError
from sejax.features.acoustic import log_mel, mfcc
from sejax.features.audio import raw
from sejax.features.prosody import PROSODY_NAMES, prosody
from sejax.features.statistics import functionals, voiced_functionals
from sejax.features.stf import STF_NAMES, check_stf_settings, stf

Setting = int | float | str


FEATURES: Mapping[str, Callable[..., Num[np.ndarray, "frames feature"]]] = {
    "mfcc": mfcc,
    "mel": log_mel,
    "stf": stf,
    "prosody": prosody,
    "raw": raw,
}


# The shortest raw audio: what one frame of a pretrained model sees.
RAW_WINDOW = 400


def extract(
    name: str, samples: Float32[np.ndarray, " samples"], settings: Mapping[str, Setting]
) -> Num[np.ndarray, "frames feature"]:
    """The features called `name` of samples at 16 kHz; settings that are not given have their defaults.

    Raises:
        InputError: an unknown feature, an unknown setting, a value that makes no sense, too short a signal.
    """
    settings = full_settings(name, settings)
    return FEATURES[name](samples, **settings)


def summarise(name: str, frames: Num[np.ndarray, "frames feature"]) -> Float32[np.ndarray, " statistic"]:
    """The statistics of one utterance's frames; prosody's are also those of its voiced frames, raw audio has none."""
    if name == "raw":
        return np.zeros(0, np.float32)
    if name == "prosody":
        return voiced_functionals(frames, frames[:, PROSODY_NAMES.index("voiced")] > 0.5)
    return functionals(frames)


def full_settings(name: str, settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings of a feature, completed by its defaults.

    Raises:
        InputError: an unknown feature or setting, a value of another type than the default's, sizes that do
        not fit.
    """
    if name not in FEATURES:
        raise InputError(f"The feature is {name!r}; expected one of {tuple(FEATURES)}.")
    defaults: dict[str, Setting] = {
        parameter.name: parameter.default
        for parameter in inspect.signature(FEATURES[name]).parameters.values()
        # All audio is brought to one rate.
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "sampling_rate"
    }
    full = complete_settings(name, settings, defaults)
    _check_settings(name, full)
    return full


def complete_settings(
    name: str, settings: Mapping[str, Setting], defaults: Mapping[str, Setting]
) -> dict[str, Setting]:
    """The settings of the feature `name`, completed by the defaults.

    Raises:
        InputError: an unknown setting, a value of another type than the default's.
    """
    for key, value in settings.items():
        if key not in defaults:
            raise InputError(f"The feature {name} has no setting {key!r}; expected one of {tuple(defaults)}.")
        if type(value) is not type(defaults[key]):
            kind = type(defaults[key]).__name__
            raise InputError(f"The setting {key} of the feature {name} is {value!r}; expected a value of type {kind}.")
    return {**defaults, **settings}


def _check_settings(name: str, settings: Mapping[str, Setting]) -> None:
    for key, value in settings.items():
        if isinstance(value, int) and value < 1:
            raise InputError(f"The setting {key} of the feature {name} is {value}; expected 1 or more.")
    for smaller, larger in (("win_length", "n_fft"), ("n_mfcc", "n_mels")):
        if smaller in settings and larger in settings and int(settings[smaller]) > int(settings[larger]):
            raise InputError(
                f"The feature {name} has {smaller}={settings[smaller]} and {larger}={settings[larger]}; "
                f"expected {smaller} to be at most {larger}."
            )
    if name == "stf":
        check_stf_settings(str(settings["variant"]), int(settings["win_length"]))


def feature_size(name: str, settings: Mapping[str, Setting]) -> int:
    """How many values a frame of this feature has."""
    sizes = {"stf": len(STF_NAMES), "prosody": len(PROSODY_NAMES), "raw": 1}
    if name in sizes:
        return sizes[name]
    return int(full_settings(name, settings)["n_mfcc" if name == "mfcc" else "n_mels"])


def feature_dtype(name: str) -> DTypeLike:
    """How the frames of this feature are stored."""
    return np.int16 if name == "raw" else np.float32


def statistics_dtype(frames: DTypeLike) -> DTypeLike:
    """How the statistics of frames of this dtype are stored."""
    return np.float16 if frames == np.float16 else np.float32
