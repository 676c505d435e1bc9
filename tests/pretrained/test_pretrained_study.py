"""Whole studies with pretrained streams, as a user runs them: frozen features, adapters in the model, resumed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_study import GOLDEN_SSL, read_csv, run_command, tiny_config, train_interrupted

from sejax.build import build
from sejax.errors import InputError
from sejax.pretrained.convert import read_backbone
from sejax.study import train_and_evaluate

STATES = 4  # of the tiny models: the input of the first layer, and three layers


def ssl_config(cache_dir: str) -> ConfigDict:
    """Frozen hidden states of one model, adapters in another, beside MFCC."""
    config = tiny_config(cache_dir)
    config.streams = ("mfcc", "hubert", "wavlm")
    config.model.encoder.hubert = "linear"
    config.model.encoder.wavlm = "finetune"
    config.max_seconds = 1.0
    config.finetune.lora_rank = 2
    config.epochs = 3
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache_dir: str) -> Path:
    workdir = tmp_path_factory.mktemp("ssl") / "workdir"
    train_and_evaluate(ssl_config(cache_dir), str(workdir))
    return workdir


def test_the_mixture_of_layers_is_reported(trained: Path):
    rows = read_csv(trained / "layer_weights.csv")
    runs = read_csv(trained / "runs.csv")
    weights: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        weights.setdefault((row["run"], row["stream"]), []).append(float(row["weight"]))
    assert set(weights) == {(run["run"], stream) for run in runs for stream in ("hubert", "wavlm")}
    for shares in weights.values():
        assert len(shares) == STATES
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)
    # Learned: different wherever the training speakers or the epoch differ (both folds of a session train on the same).
    trainings = {(run["train_speakers"], run["best_epoch"]) for run in runs}
    assert len({tuple(shares) for shares in weights.values()}) == 2 * len(trainings)
    report = (trained / "report.html").read_text()
    assert "Layers of the pretrained models" in report
    assert "Weights of the layers of wavlm" in report


def test_runs_hold_adapters_and_no_pretrained_arrays(trained: Path):
    parameters = (trained / "parameters.txt").read_text()
    assert "trunk/wavlm_ssl/layers/attention/q_proj/lora_a" in parameters
    assert "feature_encoder" not in parameters
    assert "q_proj/kernel" not in parameters


def test_interrupted_and_continued_ends_with_the_same_files(
    trained: Path, tmp_path: Path, cache_dir: str, monkeypatch: pytest.MonkeyPatch
):
    workdir = tmp_path / "workdir"
    train_interrupted(ssl_config(cache_dir), str(workdir), epochs=2, monkeypatch=monkeypatch)
    assert not (workdir / "predictions.csv").exists()
    train_and_evaluate(ssl_config(cache_dir), str(workdir))
    for name in ("predictions.csv", "layer_weights.csv", "runs.csv", "history.jsonl", "metrics.json"):
        assert (workdir / name).read_bytes() == (trained / name).read_bytes(), name


def test_runs_on_every_speaker_share_their_batches_too(trained: Path, tmp_path: Path, cache_dir: str):
    workdir = tmp_path / "workdir"
    shutil.copytree(trained, workdir)
    config = ssl_config(cache_dir)
    config.final = True
    train_and_evaluate(config, str(workdir))
    for name in ("predictions.csv", "layer_weights.csv", "history.jsonl", "metrics.json"):
        assert (workdir / name).read_bytes() == (trained / name).read_bytes(), name
    (final,) = (row for row in read_csv(workdir / "runs.csv") if row["fold"] == "all")
    assert (workdir / "checkpoints" / "final" / final["best_epoch"]).is_dir()


def test_another_checkpoint_does_not_continue_a_workdir(trained: Path, tmp_path: Path, cache_dir: str):
    workdir = tmp_path / "workdir"
    shutil.copytree(trained, workdir)
    model = tmp_path / "model"
    shutil.copytree(GOLDEN_SSL / "hubert-base", model)
    mine = ssl_config(cache_dir)
    mine.features.ssl.hubert.model = str(model)
    train_and_evaluate(mine, str(workdir), train=False)  # the same files elsewhere
    text = (model / "config.json").read_text()
    (model / "config.json").write_text(text + " ")
    with pytest.raises(InputError, match=r"another checkpoint than .*model holds now \(stream hubert\)"):
        train_and_evaluate(mine, str(workdir))


def test_noise_is_the_checkpoints_where_the_study_says_nothing(cache_dir: str):
    config = ssl_config(cache_dir)
    config.streams = ("wavlm",)
    config.finetune.update(attention_dropout=0, feature_mask_prob=0.25, feature_mask_length=3)
    ((stream,),) = (program.network.model.streams for program in build(config).programs)
    own = read_backbone(GOLDEN_SSL / "wavlm-base").noise
    assert own.attention_dropout == 0.1 and own.time_mask_prob == 0.05
    assert stream.tuning is not None
    assert stream.tuning.backbone.noise == own._replace(
        attention_dropout=0.0, feature_mask_prob=0.25, feature_mask_length=3
    )


def test_whole_models_train_in_turn(tmp_path: Path, cache_dir: str):
    config = tiny_config(cache_dir)
    config.streams = ("wav2vec2",)
    config.model.encoder.wav2vec2 = "finetune"
    config.features.ssl.wav2vec2.layers = "last"
    config.max_seconds = 1.0
    config.finetune.mode = "full"
    config.finetune.frozen_layers = 2
    config.model.statistics = False
    config.epochs = 1
    found = train_and_evaluate(config, str(tmp_path))
    assert np.isfinite(found["settings"][0]["metrics"]["ua"]["pooled"])
    assert "trunk/wav2vec2_ssl/layers/attention/q_proj/kernel" in (tmp_path / "parameters.txt").read_text()
    assert not (tmp_path / "layer_weights.csv").exists()
    assert [program.tunes_whole_models for program in build(config).programs] == [True]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"features.ssl.hubert.layers": "4"}, "layers is '4', expected all, last or a number from 0"),
        ({"features.ssl.hubert.model": "./nowhere"}, "./nowhere: no such folder"),
        ({"finetune.frozen_layers": 3}, "frozen_layers is 3, expected fewer than the 3 layers"),
        (
            {"finetune.attention_dropout": 1.0},
            "attention_dropout is 1.0, expected a number from 0 to below 1, or None: the checkpoint's",
        ),
        ({"finetune.mode": "some"}, "config.finetune.mode is 'some', expected one of frozen, lora, full"),
        (
            {"finetune.lora_targets": ("query",)},
            "config.finetune.lora_targets is .*query.*, expected a tuple of names out of q_proj",
        ),
        ({"normalisation": "speaker"}, "raw audio is not normalised"),
        ({"model.guided": "mel"}, "config.model.guided is 'mel', expected an encoded stream beside"),
        ({"model.encoder.mfcc": "finetune"}, "config.model.encoder.mfcc is 'finetune', expected one of lstm"),
    ],
)
def test_mistakes_are_named(change: dict, sentence: str, tmp_path: Path, cache_dir: str):
    config = ssl_config(cache_dir)
    config.update_from_flattened_dict(change)
    with pytest.raises(InputError, match=sentence):
        train_and_evaluate(config, str(tmp_path / "workdir"))
    assert not (tmp_path / "workdir" / "config.json").exists()


def test_without_a_network_the_sentence_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    found = run_command("--config", "configs/probe.py:superb,wavlm", "--workdir", str(tmp_path / "workdir"))
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    for word in ("microsoft/wavlm-base", "config.json, preprocessor_config.json and model.safetensors", "folder"):
        assert word in found.stderr


def test_any_layer_is_read_from_the_one_dataset_of_all_statistics(tmp_path: Path):
    """A sweep over layers computes the model once."""
    config = tiny_config(str(tmp_path))
    config.streams = ("hubert",)
    config.model.encoder.hubert = "none"
    data = {}
    for layers in ("all", "0", "2", "last"):
        config.features.ssl.hubert.layers = layers
        (program,) = build(config).programs
        data[layers] = np.asarray(program.data.statistics["hubert"])
    assert len(list(tmp_path.glob("acoustic_features/synthetic_ssl_*/*/features.json"))) == len(config.speeds)
    states = np.split(data["all"], STATES, axis=-1)
    for layers, state in (("0", 0), ("2", 2), ("last", 3)):
        np.testing.assert_array_equal(data[layers], states[state])
