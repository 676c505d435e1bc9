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
from sejax.pretrained.heads import classify, load_classifier

NAMES = ("short", "middle", "long")
LABELS = {
    "classifier": ("neu", "hap", "ang", "sad"),
    "classifier-last": ("neu", "hap", "ang", "sad"),
    "wavlm-classifier": ("neu", "hap", "ang", "sad"),
    "dimensional": ("arousal", "dominance", "valence"),
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
    if classifier.kind == "classification":
        np.testing.assert_allclose(found.values, jax.nn.softmax(found.logits), rtol=1e-6)
        np.testing.assert_allclose(found.values.sum(axis=1), 1.0, rtol=1e-6)
    else:
        np.testing.assert_array_equal(found.values, found.logits)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"problem_type": "regression"}, "regression"),
        ({"problem_type": None}, "regression"),  # by the names of the labels
        ({"problem_type": "single_label_classification"}, "classification"),
        ({"problem_type": None, "id2label": {"2": "ang", "0": "neu", "1": "hap"}}, "classification"),
    ],
)
def test_kind(tmp_path: Path, config: dict[str, Any], kind: str):
    classifier = load_classifier(changed(tmp_path, "dimensional", config))
    assert classifier.kind == kind
    if "id2label" in config:
        assert classifier.labels == ("neu", "hap", "ang")


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
    assert "head is not that of its config.json (4 labels: neu, hap, ang, sad)" in said
    assert "projector/kernel is [15, 12], expected [16, 12]" in said
    assert "projector/bias is missing" in said
    assert "layer_weights is [5], expected [4]" in said


def test_the_layout_is_the_configs(tmp_path: Path):
    said = refused(changed(tmp_path, "dimensional", classifier__dense__weight=None, classifier__dense__bias=None))
    assert "dense/kernel is missing" in said and "dense/bias is missing" in said


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
        ("classifier", {"problem_type": "multi_label_classification"}, "problem_type is 'multi_label_classification'"),
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
