"""The command that predicts: its table, its sentences and its exit status."""

import csv
import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import soundfile
from tiny_study import GOLDEN_SSL, ROOT

from sejax.inference.commands.predict import main
from sejax.inference.model import Model
from sejax.inference.published import Published
from sejax.pretrained.convert import load_checkpoint
from sejax.pretrained.heads import classifier as classifiers
from sejax.pretrained.heads.classifier import load_classifier

# Samples of the golden utterances, which the tiny models' PyTorch outputs belong to.
NAMES = ("short", "middle", "long")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The golden utterances as wav files: 16 bits hold them exactly."""
    found = np.load(GOLDEN_SSL / "waveforms.npz")
    paths = [tmp_path / f"{name}, spoken.wav" for name in NAMES]
    for name, path in zip(NAMES, paths, strict=True):
        soundfile.write(path, found[f"{name}_samples"], 16_000, subtype="PCM_16")
    return [str(path) for path in paths]


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


BESIDE = ("file", "start", "end", "label", "confidence", "note", "error")


def table(printed: str) -> tuple[list[str], list[str], np.ndarray]:
    """The columns of outputs in a CSV, and the files without an error with their numbers there."""
    rows = [row for row in csv.DictReader(io.StringIO(printed)) if not row["error"]]
    outputs = [name for name in next(csv.reader(io.StringIO(printed))) if name not in BESIDE]
    return outputs, [row["file"] for row in rows], np.array([[float(row[name]) for name in outputs] for row in rows])


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        ("wavlm-classifier", ["prob_neu", "prob_hap", "prob_ang", "prob_sad"]),
        ("dimensional", ["valence", "arousal", "dominance"]),
    ],
)
def test_prints_what_pytorch_computes(
    model: str, labels: list[str], files: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main(["--model", str(GOLDEN_SSL / model), *files]) == 0
    printed = capsys.readouterr()
    header, named, values = table(printed.out)
    assert header == labels and named == files
    kind = "values, not probabilities (as problem_type in config.json says)" if model == "dimensional" else "probab"
    assert printed.err.startswith(f"note: columns are {kind}") and len(printed.err.splitlines()) == 1
    golden = np.load(GOLDEN_SSL / model / "outputs.npz")
    logits = [golden[f"{name}_logits"] for name in NAMES]
    # The model's own order is arousal, dominance, valence.
    expected = [x[[2, 0, 1]] for x in logits] if model == "dimensional" else [softmax(x) for x in logits]
    np.testing.assert_allclose(values, expected, rtol=0, atol=3e-5)


def test_bad_files_do_not_keep_the_good_ones(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    silent, text = tmp_path / "silent.wav", tmp_path / "text.wav"
    soundfile.write(silent, np.zeros(16_000), 16_000)
    text.write_text("no audio")
    given = [str(silent), files[0], str(tmp_path / "none.wav"), files[1], str(text)]
    assert main(["--model", str(GOLDEN_SSL / "dimensional"), *given]) == 1
    printed = capsys.readouterr()
    assert table(printed.out)[1] == files[:2]
    _, silence, absence, nonsense = printed.err.splitlines()
    assert silence.startswith(f"error: {silent}: is silent")
    assert absence == f"error: {tmp_path / 'none.wav'}: no such file"
    assert nonsense.startswith(f"error: {text}: is a text: 'no audio'")


def test_what_is_unusual_about_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    clipped, long = tmp_path / "clipped.wav", tmp_path / "long.wav"
    time = np.arange(16_000 * 60) / 16_000
    loud = np.clip(3 * np.sin(2000 * time), -1, 1)
    soundfile.write(clipped, np.stack([loud, loud], axis=1)[:8000], 16_000)
    soundfile.write(long, 0.3 * np.sin(2000 * time), 16_000)
    assert main(["--model", str(GOLDEN_SSL / "dimensional"), str(long), str(clipped)]) == 0
    printed = capsys.readouterr()
    assert table(printed.out)[1] == [str(long), str(clipped)]
    of_long, of_clipped = (row["note"] for row in csv.DictReader(io.StringIO(printed.out)))
    assert of_long == "lasts 60 s, read in overlapping windows of 58 s"
    assert of_clipped.startswith("stereo mixed to mono; clipped: ")


@pytest.mark.parametrize("failure", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 13\nGB"), MemoryError(), np.nan])
def test_a_file_that_the_model_fails_on(
    failure: Any, files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The files after it are predicted."""
    compute, shortest = classifiers.classify_utterance, soundfile.info(files[0]).frames

    def fail_on_the_first(classifier: Any, samples: np.ndarray) -> Any:
        found = compute(classifier, samples)
        if len(samples) > shortest:
            return found
        if isinstance(failure, Exception):
            raise failure
        return found._replace(values=found.values * failure)

    monkeypatch.setattr(classifiers, "classify_utterance", fail_on_the_first)
    assert main(["--model", str(GOLDEN_SSL / "dimensional"), *files[:2]]) == 1
    printed = capsys.readouterr()
    assert table(printed.out)[1] == files[1:2]
    _, said = printed.err.splitlines()
    assert said.startswith(f"error: {files[0]}: the model ") and "expected" in said


def test_what_the_outputs_are_is_an_option(tmp_path: Path, files: list[str], capsys: pytest.CaptureFixture[str]):
    folder = shutil.copytree(GOLDEN_SSL / "classifier-last", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(i): f"LABEL_{i}" for i in range(4)}
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["--model", str(folder), files[0]]) == 1
    assert "give it as the option --problem_type" in capsys.readouterr().err
    assert main(["--model", str(folder), "--problem_type", "single_label_classification", files[0]]) == 0
    printed = capsys.readouterr()
    assert printed.err == (
        "note: columns are probabilities of classes that exclude each other (as the option --problem_type says)\n"
    )
    assert table(printed.out)[2].sum() == pytest.approx(1, abs=1e-5)


def test_interrupted(files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(classifiers, "classify_utterance", interrupt)
    assert main(["--model", str(GOLDEN_SSL / "dimensional"), files[0]]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "error: interrupted, the rows that are written are complete"


def test_too_short_for_the_model(files: list[str]):
    """Audio has 25 ms at least, one window of the usual models; another one may need more."""
    classifier = load_classifier(str(GOLDEN_SSL / "dimensional"))
    backbone: Any = classifier.checkpoint.backbone
    backbone = replace(backbone, conv_kernel=(10, 3, 3, 3, 3, 2, 30))
    wide = replace(classifier, checkpoint=replace(classifier.checkpoint, backbone=backbone))
    (record,) = Model(Published(wide)).predict(files[:1])
    assert record.error.startswith(f"{files[0]}: has 2080 samples at 16000 Hz, expected at least one window of ")


@pytest.mark.parametrize("model", ["none", "hubert-base"])
def test_a_bad_model_is_a_sentence(model: str, files: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["--model", str(GOLDEN_SSL / model), files[0]]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--model", "x"],
        ["a.wav"],
        ["--model", "x", "--json", "a.wav"],
        ["--model", "x", "--problem_type", "y", "a.wav"],
    ],
)
def test_the_command_line_is_checked(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and "usage: python -m sejax.predict" in capsys.readouterr().err


def test_the_revision_is_handed_on(monkeypatch: pytest.MonkeyPatch, files: list[str]):
    asked = []

    def load(source: str, *, revision: str, wrappers: Any):
        asked.append((source, revision))
        return load_checkpoint(str(GOLDEN_SSL / "dimensional"))

    def look(source: str, revision: str, name: str) -> None:
        asked.append((source, revision))

    monkeypatch.setattr("sejax.inference.bundle.locate_file", look)
    monkeypatch.setattr("sejax.pretrained.heads.classifier.load_checkpoint", load)
    assert main(["--model", "someone/emotion", "--revision", "v2", files[0]]) == 0
    assert main(["--model", "someone/emotion", files[0]]) == 0
    assert asked == [("someone/emotion", "v2")] * 2 + [("someone/emotion", "main")] * 2


def test_help_starts_no_jax():
    program = (
        "import runpy, sys; sys.modules['jax'] = sys.modules['librosa'] = None; sys.argv[1:] = ['--help']; "
        "runpy.run_module('sejax.predict', run_name='__main__')"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "--model" in found.stdout and "--revision" in found.stdout


@pytest.mark.parametrize(
    ("output", "status", "said"),
    [
        ("| head -1", 128 + signal.SIGPIPE, ""),
        ("> /dev/full", 1, "error: standard output cannot be written (No space left on device), expected a disk"),
    ],
)
def test_standard_output_that_takes_no_more(files: list[str], output: str, status: int, said: str):
    words = [sys.executable, "-m", "sejax.predict", "--model", str(GOLDEN_SSL / "wavlm-classifier"), *files * 2]
    line = f'{shlex.join(words)} {output}; exit "${{PIPESTATUS[0]}}"'
    ended = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    last = [line for line in ended.stderr.splitlines() if not line.startswith("note: ")]
    assert (ended.returncode, len(last)) == (status, bool(said))
    assert ended.stderr.splitlines()[-1].startswith(said or "note: ")
