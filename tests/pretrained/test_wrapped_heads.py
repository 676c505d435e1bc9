"""Emotion models in layouts of their own against PyTorch, and the sentences of those that do not fit."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file
from tiny_study import GOLDEN_SSL

from sejax.errors import InputError
from sejax.inference.commands.predict import main
from sejax.pretrained.convert import find_pretrained
from sejax.pretrained.extract import plan_windows
from sejax.pretrained.heads import classifier as classifiers
from sejax.pretrained.heads.architectures import ARCHITECTURES
from sejax.pretrained.heads.classifier import Scores, classify, classify_utterance, load_classifier

GOLDEN_HEADS = GOLDEN_SSL.parent / "heads"
NAMES = ("short", "middle", "long", "cut")
WAVEFORMS = dict(np.load(GOLDEN_SSL / "waveforms.npz"))
WAVEFORMS["cut_samples"] = WAVEFORMS["long_samples"][:4900]  # Whisper has a frame more of it than Vox-Profile counts
PRETRAINED = {
    "odyssey": "microsoft/wavlm-large",
    "vox-wavlm": "microsoft/wavlm-large",
    "vox-whisper": "openai/whisper-large-v3",
}
CLASSES = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise", "Other")
DIMENSIONS = ("valence", "arousal", "dominance")
ATOL = 2e-5  # outputs of order one, as in test_heads

Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def tiny_architectures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the pretrained model that a golden checkpoint names as tiny as the checkpoint is."""

    def put(name: str) -> None:
        content = json.loads((GOLDEN_HEADS / name / "architecture.json").read_text())
        monkeypatch.setitem(ARCHITECTURES, PRETRAINED[name], content)

    put("vox-whisper")
    put("odyssey")  # that of vox-wavlm is the same
    return put


def changed(
    tmp_path: Path, name: str, config: Mapping[str, Any] | None = None, change: Callable[[Arrays], None] | None = None
) -> str:
    """A copy of a golden checkpoint with other fields of its config (None removes one) and other arrays."""
    folder = tmp_path / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(GOLDEN_HEADS / name, folder)
    path = folder / "config.json"
    content = json.loads(path.read_text()) | dict(config or {})
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    if change:
        arrays = load_file(folder / "model.safetensors")
        change(arrays)
        save_file(arrays, folder / "model.safetensors")
    return str(folder)


def refused(source: str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_classifier(source, **options)
    return str(caught.value)


def batched(source: str) -> Scores:
    """The golden utterances as one batch, NaN beyond their ends."""
    samples = [WAVEFORMS[f"{name}_samples"] for name in NAMES]
    batch = np.full((len(NAMES), 16_320), np.nan, np.float32)
    for row, utterance in zip(batch, samples, strict=True):
        row[: len(utterance)] = utterance
    lengths = np.array([len(utterance) for utterance in samples], np.int32)
    return classify(load_classifier(source), jax.numpy.asarray(batch), jax.numpy.asarray(lengths))


def assert_parity(found: Scores, name: str, key: str = "logits", rows: slice = slice(None)) -> None:
    golden = np.load(GOLDEN_HEADS / name / "outputs.npz")
    expected = [golden[f"{utterance}_{key}"] for utterance in NAMES]
    np.testing.assert_allclose(found.logits, np.array(expected)[:, rows], rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", ["odyssey", "vox-wavlm", "vox-whisper", "whisper-classifier"])
def test_equals_pytorch(name: str):
    """All utterances in one padded batch; PyTorch had each alone."""
    assert_parity(batched(str(GOLDEN_HEADS / name)), name)


@pytest.mark.parametrize("name", ["odyssey", "vox-whisper", "whisper-classifier"])
def test_one_utterance_is_as_in_a_batch(name: str):
    classifier = load_classifier(str(GOLDEN_HEADS / name))
    golden = np.load(GOLDEN_HEADS / name / "outputs.npz")
    found = classify_utterance(classifier, WAVEFORMS["cut_samples"])
    np.testing.assert_allclose(found.logits[0], golden["cut_logits"], rtol=0, atol=ATOL)


def test_columns_and_scale_of_the_challenge():
    """The checkpoint's order is arousal, dominance, valence."""
    classifier = load_classifier(str(GOLDEN_HEADS / "odyssey"))
    assert classifier.columns == (("valence", 2), ("arousal", 0), ("dominance", 1))
    assert classifier.notes == (
        "columns are values, not probabilities (by the names of the labels); their scale: 0 to 1, which are the ends 1 "
        "and 7 of MSP-Podcast's ratings",
    )
    found = classify_utterance(classifier, WAVEFORMS["short_samples"])
    np.testing.assert_array_equal(found.values, found.logits[:, np.array([2, 0, 1])])


def test_columns_of_classes_and_dimensions():
    """The checkpoint's order is arousal, valence, dominance."""
    classifier = load_classifier(str(GOLDEN_HEADS / "vox-wavlm"))
    assert classifier.labels == CLASSES + DIMENSIONS
    assert classifier.notes == (
        "columns Anger to Other are probabilities of classes that exclude each other (by the layout of Vox-Profile)",
        "columns valence to dominance are values, not probabilities (by the layout of Vox-Profile); their scale: 0 "
        "to 1",
    )
    found = classify_utterance(classifier, WAVEFORMS["short_samples"])
    golden = np.load(GOLDEN_HEADS / "vox-wavlm" / "outputs.npz")["short_logits"]
    np.testing.assert_allclose(found.values[0, :9], jax.nn.softmax(golden[:9]), rtol=0, atol=ATOL)
    np.testing.assert_allclose(found.values[0, 9:], golden[[10, 9, 11]], rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("vox-whisper", "lasts 0.3 s, the model was trained on 3 to 15 s"),
        ("odyssey", None),
        ("whisper-classifier", None),
    ],
)
def test_the_command_prints_them(model: str, said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Its header, its numbers, and a note where audio is unlike that of the training."""
    path = tmp_path / "cut.wav"
    soundfile.write(path, WAVEFORMS["cut_samples"], 16_000, subtype="PCM_16")
    assert main(["--model", str(GOLDEN_HEADS / model), str(path)]) == 0
    printed = capsys.readouterr()
    (row,) = csv.DictReader(io.StringIO(printed.out))
    classifier = load_classifier(str(GOLDEN_HEADS / model))
    expected = classify_utterance(classifier, WAVEFORMS["cut_samples"]).values[0]
    found = [float(row.get(f"prob_{label}") or row[label]) for label in classifier.labels]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert (row["file"], row["note"], row["error"]) == (str(path), said or "", "")
    assert printed.err.splitlines() == [f"note: {note}" for note in classifier.notes]


def test_outputs_that_were_never_trained_are_left_out():
    assert load_classifier(str(GOLDEN_HEADS / "vox-whisper")).labels == DIMENSIONS


@pytest.mark.parametrize(("labels", "problem"), [(("Angry", "Sad", "Happy"), "single_label_classification")])
def test_the_challenges_classes(tmp_path: Path, labels: tuple[str, ...], problem: str):
    config = {"id2label": {str(i): label for i, label in enumerate(labels)}}
    classifier = load_classifier(changed(tmp_path, "odyssey", config))
    assert classifier.labels == labels and classifier.head.groups[0].problem_type == problem


@pytest.mark.parametrize("labels", [{"0": "valence"}, None])
def test_the_challenges_single_dimensions(tmp_path: Path, labels: dict[str, str] | None):
    def keep_the_last(arrays: Arrays) -> None:
        for key in ("ser_model.out.0.weight", "ser_model.out.0.bias"):
            arrays[key] = arrays[key][2:]

    source = changed(tmp_path, "odyssey", {"num_classes": 1, "id2label": labels}, keep_the_last)
    assert load_classifier(source).labels == (("valence",) if labels else ("LABEL_0",))
    assert_parity(batched(source), "odyssey", rows=slice(2, None))


@pytest.mark.parametrize(("tied", "key"), [(None, "untied_logits"), (True, "logits")])
def test_whispers_last_state_is_that_of_the_version(tmp_path: Path, tied: bool | None, key: str):
    source = changed(tmp_path, "whisper-classifier", {"tie_last_hidden_states": tied})
    assert_parity(batched(source), "whisper-classifier", key)


def test_whispers_last_state_alone(tmp_path: Path):
    source = changed(
        tmp_path, "whisper-classifier", {"use_weighted_layer_sum": False}, lambda arrays: arrays.pop("layer_weights")
    )
    assert_parity(batched(source), "whisper-classifier", "last_logits")


def test_adapters_that_are_merged(tmp_path: Path):
    """A file whose adapters were added to the weights and removed has the same outputs."""

    def merge(arrays: Arrays) -> None:
        for key in [key for key in arrays if key.endswith(".lora_A")]:
            down, up = arrays.pop(key), arrays.pop(key.replace("lora_A", "lora_B"))
            arrays[key.replace("lora_A", "weight")] += up @ down / len(down)

    assert_parity(batched(changed(tmp_path, "vox-wavlm", change=merge)), "vox-wavlm")


@pytest.mark.parametrize("names", [["embed_positions"], ["backbone_model.encoder.embed_positions.weight"]])
def test_positions_under_either_name_or_both(tmp_path: Path, names: list[str]):
    def rename(arrays: Arrays) -> None:
        found = [key for key in arrays if "embed_positions" in key]
        positions = next(iter([arrays.pop(key) for key in found]))
        arrays.update(dict.fromkeys(names, positions))

    assert load_classifier(changed(tmp_path, "vox-whisper", change=rename)).labels == DIMENSIONS


def test_without_the_input_of_the_first_layer(tmp_path: Path):
    """`use_conv_output` says whether that hidden state is mixed too: a weight of nothing is none."""

    def drop_the_first(arrays: Arrays) -> None:
        arrays["weights"] = arrays["weights"][1:]

    def hide_the_first(arrays: Arrays) -> None:
        arrays["weights"][0] = -1e9

    without = batched(changed(tmp_path, "vox-wavlm", {"use_conv_output": False}, drop_the_first))
    hidden = batched(changed(tmp_path, "vox-wavlm", change=hide_the_first))
    np.testing.assert_allclose(without.logits, hidden.logits, rtol=0, atol=1e-6)


def test_windows_of_attentive_pooling_join(monkeypatch: pytest.MonkeyPatch):
    """The softmax of the weights is over the frames of all windows."""
    classifier = load_classifier(str(GOLDEN_HEADS / "odyssey"))
    checkpoint, backbone = classifier.checkpoint, classifier.checkpoint.backbone
    samples = np.concatenate([level * WAVEFORMS["long_samples"] for level in (0.01, 1.0, 0.2, 3.0, 0.5)])
    scaled = classifier.head.rescale(samples)
    frames, run = [], jax.jit(backbone.module().apply)
    windows = plan_windows(len(samples), backbone, 4 * 16_000)
    for start, stop, first, last in windows:
        lengths = jax.numpy.asarray([stop - start], jax.numpy.int32)
        output: Any = run({"params": checkpoint.params}, jax.numpy.asarray(scaled[None, start:stop]), lengths)
        frames.append(np.asarray(output.hidden[-1, 0, first:last], np.float64))
    x, head = np.concatenate(frames), checkpoint.head
    logits = np.tanh(x @ head["pool"]["kernel"] + np.asarray(head["pool"]["bias"])[None]) @ head["attention"]
    weights = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    monkeypatch.setattr(classifiers, "WINDOW_SECONDS", 4.0)
    found = classify_utterance(classifier, samples).pooled[0]
    assert len(windows) == 2
    np.testing.assert_allclose(found, (weights * np.concatenate([x, x**2], axis=1)).sum(axis=0), rtol=0, atol=1e-4)


def test_a_stream_is_no_wrapper():
    """A frozen or fine-tuned stream would lack the wrapper's own scaling of the waveform."""
    with pytest.raises(InputError, match="model_type is 'ser', expected one of wav2vec2, hubert"):
        find_pretrained(str(GOLDEN_HEADS / "odyssey"))


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("odyssey", {"mean": None, "std": None}, "config.json: has no mean and no std, expected those that the model"),
        ("odyssey", {"std": "1"}, "std is '1', expected "),
        ("odyssey", {"ssl_type": "facebook/hubert"}, "ssl_type is 'facebook/hubert', expected microsoft/wavlm-large"),
        ("odyssey", {"sampling_rate": 8000}, "sampling_rate is 8000, expected 16000"),
        ("odyssey", {"classifier_hidden_layers": 1}, "(3 labels: arousal, dominance, valence): fc_1/"),
        ("odyssey", {"num_classes": 4, "id2label": None}, "has no id2label, expected"),
        ("vox-wavlm", {"pretrain_model": "wavlm"}, "pretrain_model is 'wavlm', expected one of wavlm_large"),
        (
            "vox-wavlm",
            {"hidden_dim": 12},
            "(Vox-Profile's wavlm_large with a hidden_dim of 12): arousal_0/bias is [10]",
        ),
        (
            "vox-wavlm",
            {"pretrain_model": "whisper_large"},
            "its arrays differ from those expected by its config.json (whisper, 3 layers of 8)",
        ),
        ("vox-wavlm", {"output_class_num": 4}, "emotion_2/kernel is [10, 9], expected [10, 4]"),
    ],
)
def test_configs_that_do_not_fit(tmp_path: Path, name: str, config: dict[str, Any], said: str):
    found = refused(changed(tmp_path, name, config))
    assert said in found
    assert "\n" not in found


def test_other_classes_than_those_that_are_published(tmp_path: Path):
    def keep_four(arrays: Arrays) -> None:
        for key in ("emotion_layer.2.weight", "emotion_layer.2.bias"):
            arrays[key] = arrays[key][:4]

    said = refused(changed(tmp_path, "vox-wavlm", {"output_class_num": 4}, keep_four))
    assert "output_class_num is 4, expected 9: Anger, Contempt" in said


def test_an_adapter_that_does_not_fit(tmp_path: Path):
    def cut(arrays: Arrays) -> None:
        key = next(key for key in arrays if key.endswith("output_dense.lora_B"))
        arrays[key] = arrays[key][:3]

    said = refused(changed(tmp_path, "vox-wavlm", change=cut))
    assert "output_dense.lora_A is unexpected" in said and "output_dense.lora_B is unexpected" in said


def test_a_model_that_says_what_its_outputs_are():
    said = refused(str(GOLDEN_HEADS / "vox-whisper"), problem_type="regression")
    assert said.startswith("the option --problem_type is regression, expected none: ")
