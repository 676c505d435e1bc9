"""Emotion heads against transformers' PyTorch models, and the sentences of heads that do not fit."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_study import GOLDEN_SSL

from sejax.errors import InputError
from sejax.pretrained.extract import plan_windows
from sejax.pretrained.heads import classifier as classifiers
from sejax.pretrained.heads.architectures import read_architecture
from sejax.pretrained.heads.classifier import classify, classify_utterance, load_classifier

NAMES = ("short", "middle", "long")
LABELS = {
    "classifier": ("neu", "hap", "ang", "sad"),
    "classifier-last": ("neu", "hap", "ang", "sad"),
    "wavlm-classifier": ("neu", "hap", "ang", "sad"),
    "dimensional": ("valence", "arousal", "dominance"),
}
# Logits are sums of order one over some ten float32 numbers, summed in another order than PyTorch's.
ATOL = 2e-5


def padded(fill: float) -> tuple[jax.Array, jax.Array]:
    """The golden utterances as one batch, `fill` beyond their ends."""
    found = np.load(GOLDEN_SSL / "waveforms.npz")
    samples = [found[f"{name}_samples"] for name in NAMES]
    batch = np.full((len(NAMES), 16_320), fill, np.float32)
    for row, utterance in zip(batch, samples, strict=True):
        row[: len(utterance)] = utterance
    return jnp.asarray(batch), jnp.asarray([len(utterance) for utterance in samples], jnp.int32)


def changed(tmp_path: Path, name: str, config: Mapping[str, Any] | None = None, **arrays: np.ndarray | None) -> str:
    """A copy of a golden checkpoint with another config and other arrays ("__" for "."); None removes."""
    folder = tmp_path / "changed"
    shutil.copytree(GOLDEN_SSL / name, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(config or {})))
    if arrays:
        kept = load_file(folder / "model.safetensors")
        kept |= {key.replace("__", "."): x for key, x in arrays.items() if x is not None}
        for key in (key.replace("__", ".") for key, x in arrays.items() if x is None):
            del kept[key]
        save_file(kept, folder / "model.safetensors")
    return str(folder)


def refused(source: str) -> str:
    with pytest.raises(InputError) as caught:
        load_classifier(source)
    return str(caught.value)


@pytest.mark.parametrize("name", LABELS)
def test_equals_pytorch(name: str):
    """All utterances in one padded batch, NaN beyond their ends; PyTorch had each alone."""
    classifier = load_classifier(str(GOLDEN_SSL / name))
    assert classifier.labels == LABELS[name]
    golden = np.load(GOLDEN_SSL / name / "outputs.npz")
    found = classify(classifier, *padded(np.nan))
    for i, utterance in enumerate(NAMES):
        np.testing.assert_allclose(found.pooled[i], golden[f"{utterance}_pooled"], rtol=0, atol=ATOL)
        np.testing.assert_allclose(found.logits[i], golden[f"{utterance}_logits"], rtol=0, atol=ATOL)
    if name != "dimensional":
        np.testing.assert_allclose(found.values, jax.nn.softmax(found.logits), rtol=1e-6)
        np.testing.assert_allclose(found.values.sum(axis=1), 1.0, rtol=1e-6)
    else:
        np.testing.assert_array_equal(found.values, found.logits[:, jnp.array([2, 0, 1])])


@pytest.mark.parametrize(
    ("config", "given", "found"),
    [
        ({"problem_type": "regression"}, None, "regression"),
        ({"problem_type": None}, None, "regression"),  # by the names of the labels
        ({"problem_type": "single_label_classification"}, None, "single_label_classification"),
        ({"problem_type": "multi_label_classification"}, None, "multi_label_classification"),
        ({"problem_type": "regression"}, "multi_label_classification", "multi_label_classification"),
        ({"problem_type": None, "id2label": {"2": "V", "0": "A", "1": "D"}}, None, "regression"),
        ({"problem_type": None, "id2label": {"2": "ang", "0": "neu", "1": "hap"}}, None, "single_label_classification"),
    ],
)
def test_problem_type(tmp_path: Path, config: dict[str, Any], given: str | None, found: str):
    classifier = load_classifier(changed(tmp_path, "dimensional", config), problem_type=given)
    assert classifier.head.groups[0].problem_type == found
    assert classifier.notes[-1].startswith(f"columns are {'values' if found == 'regression' else 'probabilities'}")
    if "id2label" in config:
        names = ("valence", "arousal", "dominance") if found == "regression" else ("neu", "hap", "ang")
        assert classifier.labels == names
    scores = classify(classifier, *padded(0.0))
    expected = {
        "regression": scores.logits[:, jnp.array([2, 0, 1])],
        "single_label_classification": jax.nn.softmax(scores.logits),
        "multi_label_classification": 1 / (1 + np.exp(-scores.logits)),
    }
    np.testing.assert_allclose(scores.values, expected[found], rtol=1e-6)


def test_where_nothing_says_what_outputs_are(tmp_path: Path):
    source = changed(
        tmp_path, "dimensional", {"problem_type": None, "id2label": {str(i): f"LABEL_{i}" for i in range(3)}}
    )
    assert "has no problem_type, and its labels (LABEL_0, LABEL_1, LABEL_2) do not say" in refused(source)


UNTIED = {"tie_last_hidden_states": None, "transformers_version": "5.16.0"}


@pytest.mark.parametrize(
    ("config", "logits"),
    [
        ({}, "logits"),
        (UNTIED, "untied_logits"),
        (UNTIED | {"transformers_version": "5.24.0.dev0"}, "untied_logits"),
        (UNTIED | {"transformers_version": "6"}, "untied_logits"),
        (UNTIED | {"transformers_version": "5.15.1"}, "logits"),
        (UNTIED | {"transformers_version": "4.57.6"}, "logits"),
        (UNTIED | {"tie_last_hidden_states": True}, "logits"),
        ({"tie_last_hidden_states": False, "transformers_version": "4.57.6"}, "untied_logits"),
    ],
)
def test_the_mixed_states_are_those_of_the_version(tmp_path: Path, config: dict[str, Any], logits: str):
    """A weighted sum of a pre-norm model: from 5.16 on the last state is the one before the final norm."""
    classifier = load_classifier(changed(tmp_path, "wavlm-classifier", config))
    golden = np.load(GOLDEN_SSL / "wavlm-classifier" / "outputs.npz")
    found = classify(classifier, *padded(0.0)).logits
    for i, utterance in enumerate(NAMES):
        np.testing.assert_allclose(found[i], golden[f"{utterance}_{logits}"], rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    "config", [{"transformers_version": "main"}, {"transformers_version": 5}, {"tie_last_hidden_states": "no"}]
)
def test_a_version_that_is_none(tmp_path: Path, config: dict[str, Any]):
    said = refused(changed(tmp_path, "wavlm-classifier", UNTIED | config))
    assert "they say whether the last of the mixed hidden states is normalised" in said


def test_long_audio_is_read_in_windows(monkeypatch: pytest.MonkeyPatch):
    """Frames of all windows are pooled once each: of a model that sees its neighbourhood alone, those of the whole."""
    classifier = load_classifier(str(GOLDEN_SSL / "dimensional"))
    random = np.random.default_rng(0)
    time = np.arange(16_000 * 9) / 16_000
    samples = (0.3 * np.sin(400 * time) * np.sin(2 * time) + 0.02 * random.standard_normal(len(time))).astype(
        np.float32
    )
    whole = classify_utterance(classifier, samples)
    asked = []

    def counted(*arguments: Any) -> Any:
        asked.append(plan_windows(*arguments))
        return asked[-1]

    monkeypatch.setattr(classifiers, "WINDOW_SECONDS", 4.0)
    monkeypatch.setattr(classifiers, "plan_windows", counted)
    cut = classify_utterance(classifier, samples)
    (windows,) = asked
    assert len(windows) > 2
    assert sum(last - first for _, _, first, last in windows) == classifier.checkpoint.backbone.frames(len(samples))
    assert 0 < np.abs(cut.pooled - whole.pooled).max() < 0.05 * np.abs(whole.pooled).max()


def test_a_pretrained_model_has_no_head():
    said = refused(str(GOLDEN_SSL / "hubert-base"))
    assert "hubert-base: has no head" in said and "fine-tuned for emotion" in said


def test_all_that_is_wrong_with_a_head(tmp_path: Path):
    said = refused(
        changed(
            tmp_path,
            "classifier",
            projector__weight=np.zeros((12, 15), np.float32),
            projector__bias=None,
            layer_weights=np.zeros(5, np.float32),
        )
    )
    assert "head differs from that expected by its config.json (4 labels: neu, hap, ang, sad)" in said
    assert "projector/kernel is [15, 12], expected [16, 12]" in said
    assert "projector/bias is missing" in said
    assert "layer_weights is [5], expected [4]" in said


def test_the_layout_is_the_configs(tmp_path: Path):
    said = refused(changed(tmp_path, "dimensional", classifier__dense__weight=None, classifier__dense__bias=None))
    assert "dense/kernel is missing" in said and "dense/bias is missing" in said


def test_weights_of_a_head_that_are_none(tmp_path: Path):
    bias = np.array([0, np.nan, 0, 0], np.float32)
    source = changed(tmp_path, "classifier", classifier__bias=bias)
    said = refused(source)
    assert said.startswith(
        f"{source}: 1 array holds values that are NaN or infinite in float32 (output/bias of its head)"
    )
    said = refused(changed(tmp_path / "other", "classifier", layer_weights=np.zeros(4, np.int64)))
    assert "layer_weights holds int64, expected floats" in said


def test_the_other_name_of_a_dense_heads_output(tmp_path: Path):
    """As in ehcalabres' model of RAVDESS's classes: `classifier.output` in place of `classifier.out_proj`."""
    arrays = load_file(GOLDEN_SSL / "dimensional" / "model.safetensors")
    renamed: dict[str, np.ndarray | None] = {}
    for name in ("weight", "bias"):
        renamed[f"classifier__output__{name}"] = arrays[f"classifier.out_proj.{name}"]
        renamed[f"classifier__out_proj__{name}"] = None
    config = {"id2label": {"0": "angry", "1": "calm", "2": "fearful"}, "problem_type": None}
    classifier = load_classifier(changed(tmp_path, "dimensional", config, **renamed))
    golden = np.load(GOLDEN_SSL / "dimensional" / "outputs.npz")
    found = classify(classifier, *padded(0.0))
    np.testing.assert_allclose(found.logits[1], golden["middle_logits"], rtol=0, atol=ATOL)
    np.testing.assert_allclose(found.values[1], jax.nn.softmax(golden["middle_logits"]), rtol=0, atol=ATOL)


def test_a_dimensional_head_mixes_no_layers(tmp_path: Path):
    """Whatever the config says of a weighted sum, which belongs to another head: the final norm stays."""
    source = changed(tmp_path, "dimensional", {"use_weighted_layer_sum": True, "tie_last_hidden_states": False})
    golden = np.load(GOLDEN_SSL / "dimensional" / "outputs.npz")
    found = classify(load_classifier(source), *padded(0.0)).logits
    np.testing.assert_allclose(found[1], golden["middle_logits"], rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    ("name", "preprocessor", "expected"),
    [
        ("microsoft/wavlm-large", {"do_normalize": True}, (24, 1024, True)),
        ("openai/whisper-large-v3", {"feature_size": 128}, (32, 1280, False)),
    ],
)
def test_pretrained_models_that_are_known_by_name(name: str, preprocessor: dict[str, Any], expected: tuple[Any, ...]):
    backbone: Any = read_architecture(name, GOLDEN_SSL / "config.json", preprocessor)
    assert (backbone.layers, backbone.hidden, backbone.normalise) == expected
    assert backbone.pre_norm and backbone.hidden == 64 * backbone.heads


def test_two_classes_without_names(tmp_path: Path):
    two = {"classifier__weight": np.ones((2, 12), np.float32), "classifier__bias": np.zeros(2, np.float32)}
    source = changed(tmp_path, "classifier", {"id2label": None}, **two)
    assert "its labels (LABEL_0, LABEL_1) do not say whether they are classes or values" in refused(source)
    classifier = load_classifier(source, problem_type="single_label_classification")
    assert classifier.labels == ("LABEL_0", "LABEL_1")


def test_layer_weights_need_the_config(tmp_path: Path):
    said = refused(changed(tmp_path, "classifier", {"use_weighted_layer_sum": False}))
    assert "layer_weights is unexpected" in said


def test_labels_that_do_not_fit(tmp_path: Path):
    said = refused(changed(tmp_path, "classifier", {"id2label": {"0": "calm", "1": "angry"}}))
    assert "2 labels: calm, angry" in said
    assert "output/kernel is [12, 4], expected [12, 2]" in said and "output/bias is [4], expected [2]" in said


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("classifier", {"id2label": None}, "config.json: has no id2label"),
        ("dimensional", {"pooling_mode": "max"}, "pooling_mode is 'max'"),
        ("classifier", {"problem_type": "ranking"}, "problem_type is 'ranking', expected one of regression"),
        ("classifier", {"use_weighted_layer_sum": "yes"}, "use_weighted_layer_sum is 'yes', expected true or false"),
        ("classifier", {"classifier_proj_size": 12.0}, "classifier_proj_size is 12.0, expected a whole number"),
        ("dimensional", {"pooling_mode": None}, "pooling_mode is None, expected a word"),
        (
            "classifier",
            {"id2label": {"0": "neu", "1": None, "2": "a", "3": "b"}},
            "calls output 1 None, expected a name",
        ),
    ],
)
def test_configs_that_are_not_supported(tmp_path: Path, name: str, config: dict[str, Any], said: str):
    assert said in refused(changed(tmp_path, name, config))


def test_compiles_once_for_a_shape():
    one, other = (load_classifier(str(GOLDEN_SSL / "classifier-last")) for _ in range(2))
    waveform, lengths = padded(0.0)
    shorter = lengths // 2
    first = classify(one, waveform, lengths)
    with jax.no_tracing():
        second = classify(other, waveform, shorter)
    assert not np.array_equal(first.logits, second.logits)
