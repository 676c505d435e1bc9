"""The registry: settings and their defaults, sizes, types and the imports of worker processes."""

import subprocess
import sys

import numpy as np
import pytest

from sejax.config import default_config
from sejax.errors import InputError
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
    expected = {"prosody": 28 * 16 + 6, "raw": 0, "egemaps": 88, "compare": 6373}
    assert len(statistics) == expected.get(name, 14 * frames.shape[1])
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
            "the feature is 'mfc', expected one of ('mfcc', 'mel', 'stf', 'prosody', 'egemaps', 'compare', 'raw')",
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
            "config.features.prosody.fmax is 8001, expected at most half the sampling rate (8000 Hz)",
        ),
        (
            "prosody",
            {"win_length": 266},
            "config.features.prosody.win_length is 266, expected an even number from 268, a period of fmin (60 Hz)",
        ),
        ("stf", {"win_length": 19}, "config.features.stf.win_length is 19, expected 20 samples or more"),
    ],
)
def test_wrong_settings_are_refused(name: str, settings: dict[str, int | float | str], said: str) -> None:
    with pytest.raises(InputError) as raised:
        extract(name, NOISE, settings)
    assert str(raised.value) == said


@pytest.mark.filterwarnings("ignore:.*less than two periods of fmin")
@pytest.mark.parametrize(
    "settings",
    [
        {"fmin": 60, "fmax": 61},
        {"fmin": 60, "fmax": 75},
        {"fmin": 60, "fmax": 76},
        {"fmin": 7999, "fmax": 8000},
        {"fmin": 7000, "fmax": 8000, "hop_length": 1},
        {"win_length": 266},
        {"win_length": 267},
        {"win_length": 268},
        {"win_length": 269},
        {"hop_length": 1480},
        {"hop_length": 1499},
        {"hop_length": 1500},
        {"fmin": 1},
    ],
    ids=str,
)
def test_settings_of_the_pitch_are_refused_exactly_where_librosa_fails(settings: dict[str, int]) -> None:
    complete = defaults("prosody") | settings
    expected = FEATURES["prosody"].check(complete)
    try:
        frames = FEATURES["prosody"].extract(NOISE, **complete)
    except Exception as error:
        assert expected, error
    else:
        assert np.isfinite(frames).all()
        assert expected == {}


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
