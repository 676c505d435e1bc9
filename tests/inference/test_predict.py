"""The command that predicts: its table, its sentences and its exit status."""

import csv
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_study import GOLDEN_SSL, ROOT

from sejax.inference import predict
from sejax.inference.predict import main
from sejax.pretrained.convert import load_checkpoint
from sejax.pretrained.heads import load_classifier

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


def table(printed: str) -> tuple[list[str], list[str], np.ndarray]:
    """The header, the files and the numbers of a CSV."""
    header, *rows = csv.reader(io.StringIO(printed))
    return header, [row[0] for row in rows], np.array([[float(x) for x in row[1:]] for row in rows])


@pytest.mark.parametrize(
    ("model", "labels"),
    [("wavlm-classifier", ["neu", "hap", "ang", "sad"]), ("dimensional", ["arousal", "dominance", "valence"])],
)
def test_prints_what_pytorch_computes(
    model: str, labels: list[str], files: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main(["--model", str(GOLDEN_SSL / model), *files]) == 0
    printed = capsys.readouterr()
    header, named, values = table(printed.out)
    assert header == ["file", *labels] and named == files and printed.err == ""
    golden = np.load(GOLDEN_SSL / model / "outputs.npz")
    logits = [golden[f"{name}_logits"] for name in NAMES]
    expected = logits if model == "dimensional" else [softmax(x) for x in logits]
    np.testing.assert_allclose(values, expected, rtol=0, atol=3e-5)


def test_bad_files_do_not_keep_the_good_ones(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    silent, text = tmp_path / "silent.wav", tmp_path / "text.wav"
    soundfile.write(silent, np.zeros(16_000), 16_000)
    text.write_text("no audio")
    given = [str(silent), files[0], str(tmp_path / "none.wav"), files[1], str(text)]
    assert main(["--model", str(GOLDEN_SSL / "dimensional"), *given]) == 1
    printed = capsys.readouterr()
    assert table(printed.out)[1] == files[:2]
    silence, absence, nonsense = printed.err.splitlines()
    assert silence.startswith(f"error: {silent}: is silent")
    assert absence == f"error: {tmp_path / 'none.wav'}: no such file"
    assert nonsense.startswith(f"error: {text}: is a text: ")


def test_too_short_for_the_model(files: list[str]):
    """Audio has 25 ms at least, one window of the usual models; another one may need more."""
    classifier = load_classifier(str(GOLDEN_SSL / "dimensional"))
    backbone: Any = classifier.checkpoint.backbone
    backbone = replace(backbone, conv_kernel=(10, 3, 3, 3, 3, 2, 30))
    wide = replace(classifier, checkpoint=replace(classifier.checkpoint, backbone=backbone))
    with pytest.raises(ValueError, match=r"lasts 130\.0 ms, expected at least the \d+\.\d ms"):
        predict.predict(wide, files[0])


@pytest.mark.parametrize("model", ["none", "hubert-base"])
def test_a_bad_model_is_a_sentence(model: str, files: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["--model", str(GOLDEN_SSL / model), files[0]]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and len(printed.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["--model", "x"], ["a.wav"], ["--model", "x", "--json", "a.wav"]])
def test_the_command_line_is_checked(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and "usage: python -m sejax.predict" in capsys.readouterr().err


def test_the_revision_is_handed_on(monkeypatch: pytest.MonkeyPatch, files: list[str]):
    asked = []

    def load(source: str, *, revision: str):
        asked.append((source, revision))
        return load_checkpoint(str(GOLDEN_SSL / "dimensional"))

    monkeypatch.setattr("sejax.pretrained.heads.load_checkpoint", load)
    assert main(["--model", "someone/emotion", "--revision", "v2", files[0]]) == 0
    assert main(["--model", "someone/emotion", files[0]]) == 0
    assert asked == [("someone/emotion", "v2"), ("someone/emotion", "main")]


def test_help_starts_no_jax():
    program = (
        "import runpy, sys; sys.modules['jax'] = sys.modules['librosa'] = None; sys.argv[1:] = ['--help']; "
        "runpy.run_module('sejax.predict', run_name='__main__')"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "--model" in found.stdout and "--revision" in found.stdout
