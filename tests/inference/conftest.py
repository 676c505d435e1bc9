"""Compiled programs of predictions are shared by all tests and by the commands that they start."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from ml_collections import ConfigDict
from tiny_study import tiny_config, write_voice

from sejax.inference.export import export_bundle
from sejax.study import train_and_evaluate


@pytest.fixture(autouse=True)
def shared_programs(cache_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cache_dir` sets jax's own cache; commands get it from their environment."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", f"{cache_dir}/xla")


@pytest.fixture(scope="session")
def bundle(study: Path, shared_folder: Path) -> Path:
    """The ensemble of a study's folds that reads statistics alone. Tests must not change it."""
    return _export(shared_folder / "bundle", lambda: study)


@pytest.fixture(scope="session")
def encoded_bundle(cache_dir: str, shared_folder: Path) -> Path:
    """Of a joint model of two encoded acoustic streams with attention within and between them."""

    def train() -> Path:
        config = tiny_config(cache_dir)
        config.streams = ("mfcc", "mel")
        config.model.encoder.mfcc, config.model.encoder.mel = "lstm", "conv"
        config.model.self_attention = config.model.co_attention = True
        return _train(config, shared_folder / "encoded-study")

    return _export(shared_folder / "encoded-bundle", train)


@pytest.fixture(scope="session")
def tuned_bundle(cache_dir: str, shared_folder: Path) -> Path:
    """Of a fine-tuned pretrained model, beside an acoustic stream."""

    def train() -> Path:
        config = tiny_config(cache_dir)
        config.streams = ("mfcc", "wavlm")
        config.model.encoder.wavlm = "finetune"
        config.finetune.mode = "lora"
        config.model.self_attention = False  # the encoded study has it
        config.max_seconds = 1.6  # three utterances are shorter; each length compiles a program
        return _train(config, shared_folder / "tuned-study")

    return _export(shared_folder / "tuned-bundle", train)


@pytest.fixture(scope="session")
def probe_bundle(cache_dir: str, shared_folder: Path) -> Path:
    """Of pooled hidden states of Whisper, the input of a linear probe."""

    def train() -> Path:
        config = tiny_config(cache_dir)
        config.streams = ("whisper",)
        config.features.ssl.whisper.layers = "last"
        config.features.ssl.whisper.max_seconds = 3.0  # fewer lengths: each compiles a program
        return _train(config, shared_folder / "probe-study")

    return _export(shared_folder / "probe-bundle", train)


@pytest.fixture
def voice(tmp_path: Path) -> str:
    write_voice(tmp_path / "voice.wav", seed=3)
    return str(tmp_path / "voice.wav")


def _train(config: ConfigDict, workdir: Path) -> Path:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train_and_evaluate(config, str(workdir))
    return workdir


def _export(folder: Path, workdir: Callable[[], Path]) -> Path:
    """Exports once for all workers."""
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            export_bundle(str(workdir()), str(folder), runs=("folds",))
    return folder
