"""The features by name: adding one is one file, and one row of `FEATURES`."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Num
from numpy.typing import DTypeLike

from sejax.errors import InputError
from sejax.features import acoustic, audio, auditory, opensmile_sets, prosody, spectrum, stf, voice
from sejax.features.pitch import check_pitch
from sejax.features.settings import Setting, Settings, complete_settings
from sejax.features.statistics import functional_names, functionals


def _functionals(
    frames: Float32[np.ndarray, "frames feature"], settings: Settings
) -> Float32[np.ndarray, " statistic"]:
    """Returns the statistics of most features, which depend on no setting."""
    return functionals(frames)


def _by_functional(size: str) -> Callable[[Settings], Sequence[str]]:
    """Returns the groups of a feature of many like tracks: by functional.

    Args:
      size: the setting that is the number of tracks.
    """
    return lambda settings: [kind for _, kind in functional_names([""] * int(settings[size]))]


def _win_length(settings: Settings) -> int:
    return int(settings["win_length"])


def _no_mistakes(settings: Settings) -> dict[str, str]:
    return {}


def _unchanged(settings: Settings) -> Settings:
    return settings


@dataclass(frozen=True)
class Feature:
    """One kind of feature. Its settings are the keywords of `extract`; the functions take all of them.

    A feature that is a stream has the setting `hop_length`, the samples from one frame to the next, unless its one
    frame is the whole utterance.

    Attributes:
      extract: Computes the frames of samples at 16 kHz, given the settings as keywords.
      size: Returns the number of values in a frame.
      summarise: Computes the statistics of an utterance's frames.
      dtype: Type of the frames.
      window: Returns the number of samples below which an utterance has no frame.
      check: Returns what is expected of each wrong setting; see `setting_check` for what is refused before.
      identity: Returns what tells stored features apart; by default the settings themselves.
      groups: Returns the group of each statistic, in words: what explanations and importance add up. Without it
        all are one group.
      whole: Whether the one frame is the whole utterance. Its statistics alone are kept, and no encoder reads it.
      licence: What its user has to know of the licence of the program that computes it.
    """

    extract: Callable[..., Num[np.ndarray, "frames feature"]]
    size: Callable[[Settings], int]
    summarise: Callable[[Num[np.ndarray, "frames feature"], Settings], Float32[np.ndarray, " statistic"]] = _functionals
    dtype: DTypeLike = np.float32
    window: Callable[[Settings], int] = _win_length
    check: Callable[[Settings], dict[str, str]] = _no_mistakes
    identity: Callable[[Settings], Settings] = _unchanged
    groups: Callable[[Settings], Sequence[str]] | None = None
    whole: bool = False
    licence: str = ""


def _opensmile(extract: Callable[..., Num[np.ndarray, "frames feature"]], size: int) -> Feature:
    """Returns a set of functionals of openSMILE."""
    return Feature(
        extract,
        lambda _: size,
        summarise=opensmile_sets.only_frame,
        window=lambda _: opensmile_sets.WINDOW,
        identity=opensmile_sets.identity,
        whole=True,
        licence=opensmile_sets.LICENCE,
    )


FEATURES: Mapping[str, Feature] = {
    "mfcc": Feature(
        acoustic.mfcc,
        lambda settings: int(settings["n_mfcc"]),
        check=acoustic.check,
        groups=_by_functional("n_mfcc"),
    ),
    "mel": Feature(
        acoustic.log_mel,
        lambda settings: int(settings["n_mels"]),
        check=acoustic.check,
        groups=_by_functional("n_mels"),
    ),
    "stf": Feature(stf.stf, lambda _: len(stf.STF_NAMES), check=stf.check, groups=stf.statistic_groups),
    "prosody": Feature(
        prosody.prosody,
        lambda _: len(prosody.PROSODY_NAMES),
        summarise=prosody.summarise,
        window=lambda _: spectrum.WINDOW,
        check=check_pitch,
        groups=prosody.statistic_groups,
    ),
    "voice": Feature(
        voice.voice,
        lambda _: len(voice.VOICE_NAMES),
        summarise=voice.summarise,
        window=lambda _: spectrum.WINDOW,
        check=check_pitch,
        groups=voice.statistic_groups,
    ),
    "auditory": Feature(
        auditory.auditory,
        lambda _: len(auditory.AUDITORY_NAMES),
        summarise=auditory.summarise,
        window=lambda _: spectrum.WINDOW,
        groups=auditory.statistic_groups,
    ),
    "egemaps": _opensmile(opensmile_sets.egemaps, opensmile_sets.SIZES["eGeMAPSv02"]),
    "compare": _opensmile(opensmile_sets.compare, opensmile_sets.SIZES["ComParE_2016"]),
    "raw": Feature(
        audio.raw, lambda _: 1, summarise=audio.no_statistics, dtype=np.int16, window=lambda _: audio.RAW_WINDOW
    ),
}


def defaults(name: str) -> dict[str, Setting]:
    """Returns the settings of a feature and their defaults: the keywords of its `extract`, in order."""
    parameters = inspect.signature(FEATURES[name].extract).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def full_settings(name: str, settings: Settings) -> dict[str, Setting]:
    """Returns the settings of a feature, completed by its defaults.

    Raises:
      InputError: an unknown feature or setting, a value of another type than the default's, values that do not fit
        together.
    """
    if name not in FEATURES:
        raise InputError(f"the feature is {name!r}, expected one of {tuple(FEATURES)}")
    complete = complete_settings(name, settings, defaults(name))
    for key, expected in FEATURES[name].check(complete).items():
        raise InputError(f"config.features.{name}.{key} is {complete[key]!r}, expected {expected}")
    return complete


def licences(features: Iterable[str]) -> tuple[str, ...]:
    """Returns what the user of some features has to know of licences, a sentence each; other features are ignored."""
    known = (FEATURES[name].licence for name in features if name in FEATURES)
    return tuple(dict.fromkeys(filter(None, known)))


def extract(
    name: str, samples: Float32[np.ndarray, " samples"], settings: Settings
) -> Num[np.ndarray, "frames feature"]:
    """Computes the frames of a feature from samples at 16 kHz; settings that are not given have their defaults.

    Raises:
      InputError: see `full_settings`; too short a signal.
    """
    settings = full_settings(name, settings)
    return FEATURES[name].extract(samples, **settings)
