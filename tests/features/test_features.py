"""The registry: settings and their defaults, sizes, types and the imports of worker processes."""

import subprocess
import sys

import numpy as np
import pytest

from sejax.config import default_config
from sejax.errors import InputError
from sejax.features.contours import FUNCTIONALS
from sejax.features.registry import FEATURES, defaults, extract, full_settings

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 1600).astype(np.float32)


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_what_its_record_says(name: str) -> None:
    feature, settings = FEATURES[name], full_settings(name, {})
    frames = extract(name, NOISE, {})
    assert frames.dtype == feature.dtype
    assert frames.shape[1] == feature.size(settings)
    statistics = feature.summarise(frames, settings)
    assert statistics.dtype == np.float32
    per_track = len(FUNCTIONALS)
    of_others = {"prosody": 28 * 16 + 6, "voice": 35 * per_track + 6, "auditory": 61 * per_track, "raw": 0}
    of_others |= {"egemaps": 88, "compare": 6373}
    assert len(statistics) == of_others.get(name, 14 * frames.shape[1])
    # A window has a frame.
    assert len(extract(name, NOISE[: feature.window(settings)], {})) >= 1


def test_the_config_has_the_defaults_of_the_features() -> None:
    features = default_config().features
    acoustic = {name: dict(features[name]) for name in features if name != "ssl"}
    assert acoustic == {name: defaults(name) for name in FEATURES if name != "raw"}


def test_settings_are_completed_and_checked() -> None:
    assert full_settings("mfcc", {"n_mfcc": 13}) == {
        "n_mfcc": 13,
        "n_mels": 128,
        "n_fft": 1024,
        "win_length": 400,
        "hop_length": 160,
    }
    assert full_settings("stf", {}) == {"variant": "standard", "win_length": 400, "hop_length": 160}
    assert FEATURES["mfcc"].size(full_settings("mfcc", {"n_mfcc": 13})) == 13
    assert FEATURES["mel"].size(full_settings("mel", {})) == 128
    assert FEATURES["stf"].size(full_settings("stf", {})) == 68


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        (
            "mfc",
            {},
            "the feature is 'mfc', expected one of ('mfcc', 'mel', 'stf', 'prosody', 'voice', 'auditory', 'egemaps', "
            "'compare', 'raw')",
        ),
        (
            "mel",
            {"n_mfcc": 3},
            "config.features.mel has 'n_mfcc', expected one of ('n_mels', 'n_fft', 'win_length', 'hop_length')",
        ),
        (
            "stf",
            {"sampling_rate": 8000},
            "config.features.stf has 'sampling_rate', expected one of ('variant', 'win_length', 'hop_length')",
        ),
        ("mel", {"n_mels": 64.0}, "config.features.mel.n_mels is 64.0, expected a whole number from 1 to 65,536"),
        ("mel", {"hop_length": 0}, "config.features.mel.hop_length is 0, expected a whole number from 1 to 65,536"),
        ("stf", {"win_length": 0}, "config.features.stf.win_length is 0, expected a whole number from 1 to 65,536"),
        ("mfcc", {"n_mfcc": 50, "n_mels": 40}, "config.features.mfcc.n_mfcc is 50, expected at most n_mels (40)"),
        ("mel", {"n_fft": 256}, "config.features.mel.win_length is 400, expected at most n_fft (256)"),
        (
            "stf",
            {"variant": "other"},
            "config.features.stf.variant is 'other', expected one of ('standard', 'pyaudioanalysis')",
        ),
        ("mel", {"n_mels": True}, "config.features.mel.n_mels is True, expected a whole number from 1 to 65,536"),
        ("mel", {"n_mels": 514}, "config.features.mel.n_mels is 514, expected at most the 513 bins of n_fft"),
        (
            "prosody",
            {"fmax": 8001},
            "config.features.prosody.fmax is 8001, expected at most 2000 Hz",
        ),
        (
            "prosody",
            {"win_length": 266},
            "config.features.prosody has 'win_length', expected one of ('fmin', 'fmax', 'hop_length')",
        ),
        ("stf", {"win_length": 19}, "config.features.stf.win_length is 19, expected 20 samples or more"),
    ],
)
def test_wrong_settings_are_refused(name: str, settings: dict[str, int | float | str], said: str) -> None:
    with pytest.raises(InputError) as raised:
        extract(name, NOISE, settings)
    assert str(raised.value) == said


@pytest.mark.parametrize("name", ["prosody", "voice"])
@pytest.mark.parametrize(
    ("settings", "accepted"),
    [
        ({"fmin": 60, "fmax": 61}, True),
        ({"fmin": 60, "fmax": 60}, False),
        ({"fmin": 20, "fmax": 2000}, True),
        ({"fmin": 19}, False),
        ({"fmin": 1999, "fmax": 2000}, True),
        ({"fmax": 2001}, False),
        ({"hop_length": 1}, True),
        ({"hop_length": 8000}, True),
    ],
    ids=str,
)
def test_settings_of_the_pitch(name: str, settings: dict[str, int], accepted: bool) -> None:
    complete = defaults(name) | settings
    assert (FEATURES[name].check(complete) == {}) == accepted
    if accepted:
        frames = FEATURES[name].extract(NOISE, **complete)
        assert len(frames) == 1 + len(NOISE) // int(complete["hop_length"])
        assert np.isfinite(frames).all()
        assert np.isfinite(FEATURES[name].summarise(frames, complete)).all()


def test_worker_processes_load_neither_jax_nor_what_they_do_not_need() -> None:
    """They import the features, and the parts of librosa that MFCC and mel are made of."""
    code = (
        "import sys, numpy as np, sejax.features.extract, sejax.features.registry as features;"
        "features.extract('stf', np.ones(800, np.float32), {});"
        "assert 'librosa' not in sys.modules;"
        "features.extract('mfcc', np.ones(800, np.float32), {});"
        "unwanted = {'jax', 'tensorflow', 'tensorflow_datasets', 'torch', 'librosa.feature'};"
        "assert not unwanted & set(sys.modules), unwanted & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
