"""Functionals of openSMILE: the package's own numbers, as statistics without frames."""

import dataclasses
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import opensmile
import pytest
import soundfile

from sejax.config import check_config, default_config
from sejax.data.compute import contents, task_of
from sejax.errors import InputError
from sejax.features import opensmile_sets
from sejax.features.extract import Job, Perturbation, Segment, do_tasks
from sejax.features.registry import FEATURES, extract, licences

SETS = {"egemaps": opensmile.FeatureSet.eGeMAPSv02, "compare": opensmile.FeatureSet.ComParE_2016}
NOISE = np.random.default_rng(0).integers(-9000, 9000, 16_000, dtype=np.int16)


def voice(folder: Path, samples: np.ndarray) -> str:
    path = folder / "voice.wav"
    soundfile.write(path, samples, 16_000, subtype="PCM_16")
    return str(path)


def extracted(path: str, feature: str):
    (done,) = do_tasks(Job(Segment(path, None, None), [0]), tasks=[task_of(contents(feature, {}), Perturbation())])
    return done


@pytest.mark.parametrize("feature", SETS)
def test_a_file_has_the_numbers_of_the_package(tmp_path: Path, feature: str) -> None:
    path = voice(tmp_path, NOISE)
    (own,) = opensmile.Smile(SETS[feature], opensmile.FeatureLevel.Functionals).process_file(path).to_numpy()
    done = extracted(path, feature)
    np.testing.assert_array_equal(done.statistics, own)
    assert done.frames.shape == (0, len(own))
    assert not done.error


def test_a_full_scale_sample_does_not_wrap_around() -> None:
    samples = 0.999 * np.sin(np.arange(16_000) / 20).astype(np.float32)
    almost = extract("egemaps", np.minimum(samples / 0.999, 32767 / 32768), {})
    np.testing.assert_array_equal(extract("egemaps", samples / np.float32(0.999), {}), almost)


def test_less_than_a_window_is_a_bad_file(tmp_path: Path) -> None:
    path = voice(tmp_path, NOISE[:959])
    assert extracted(path, "egemaps").error == (
        f"{path}: has 959 samples at 16000 Hz, expected at least one window of 960"
    )
    assert not extracted(voice(tmp_path, NOISE[:960]), "egemaps").error


def test_an_utterance_whose_statistics_are_not_finite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def undefined(frames: np.ndarray, settings: object) -> np.ndarray:
        return np.where(np.arange(len(frames[0])) < 2, np.nan, frames[0])

    monkeypatch.setitem(FEATURES, "egemaps", dataclasses.replace(FEATURES["egemaps"], summarise=undefined))  # type: ignore[attr-defined]
    path = voice(tmp_path, NOISE)
    assert extracted(path, "egemaps").error == (
        f"{path}: 2 of the 88 statistics of egemaps are not finite, expected numbers"
    )


def test_without_the_package_a_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(opensmile_sets, "version", absent)
    with pytest.raises(InputError, match=r"pip install 'sejax\[opensmile\]'"):
        contents("compare", {})


def test_the_version_of_the_package_tells_stored_features_apart() -> None:
    assert contents("egemaps", {}).identity == {"opensmile": opensmile.__version__}


def test_no_encoder_reads_statistics_alone() -> None:
    config = default_config()
    config.streams = ("egemaps",)
    check_config(config)
    config.model.encoder.egemaps = "lstm"
    with pytest.raises(InputError, match=r"config\.model\.encoder\.egemaps is 'lstm', expected one of none"):
        check_config(config)


def test_the_licence_is_said_once_and_of_nothing_else() -> None:
    assert licences(["mfcc", "raw", "ssl", "audioprint"]) == ()
    (sentence,) = licences(["egemaps", "mfcc", "compare"])
    assert "commercial licence from audEERING" in sentence
