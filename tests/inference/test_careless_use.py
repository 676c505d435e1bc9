"""What a careless user does, which must neither be predicted in silence nor delete anything."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from tiny_study import GOLDEN_SSL

from sejax.errors import InputError
from sejax.inference.commands.export import main
from sejax.inference.model import Model
from sejax.inference.sources import find_audio
from sejax.inference.windows import Windows

SAMPLES = 0.1 * np.random.default_rng(0).normal(size=16_000)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ((SAMPLES * 32_768).astype(np.int16), "its samples are int16 of shape [16000]"),
        (np.stack([SAMPLES, SAMPLES], 1), "its samples are float64 of shape [16000, 2]"),
        (SAMPLES * 32_768, "has samples up to"),
    ],
)
def test_a_stream_takes_floats_of_full_scale_alone(samples: np.ndarray, said: str):
    with pytest.raises(InputError) as error:
        list(Windows(16_000, every=0.5, length=1.0).add(samples))
    assert said in str(error.value)


def test_windows_without_an_end_are_a_sentence():
    with pytest.raises(InputError, match="windows of inf s"):
        Windows(16_000, every=1.0, length=float("inf"))


@pytest.mark.parametrize("shape", [(0,), (0, 2), (100, 0)])
def test_no_samples_are_a_sentence(shape: tuple[int, ...]):
    with pytest.raises(InputError, match="expected floats"):
        Model.load(GOLDEN_SSL / "wavlm-classifier").predict_samples(np.zeros(shape, np.float32), 16_000)


def test_what_macos_adds_to_an_archive_is_no_audio(tmp_path: Path):
    path = tmp_path / "mac.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/one.wav", "__MACOSX/a/._one.wav", "a/.hidden.wav", "folder.wav/", "../two.wav"):
            archive.writestr(name, b"")
    found = [segment.path for segment in find_audio([str(path)], ())]
    assert found == [f"{path}::a/one.wav", f"{path}::../two.wav"]


def test_an_export_deletes_nothing_but_a_bundle(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bundle, beside = tmp_path / "bundle", tmp_path / "bundle.partial"
    beside.mkdir()
    (beside / "mine").touch()
    command = ["--workdir", str(study), "--runs", "folds", "--to"]
    assert main([*command, str(bundle)]) == 0
    assert main([*command, str(bundle)]) == 0  # a bundle alone is replaced
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle.partial"]
    assert (beside / "mine").is_file()
    (tmp_path / "link").symlink_to(bundle)
    assert main([*command, str(tmp_path / "link")]) == 0
    (bundle / ".git").mkdir()
    (bundle / "speech.wav").touch()
    assert main([*command, str(bundle)]) == 1
    assert "holds .git, speech.wav beside a bundle, which would be deleted" in capsys.readouterr().err
    assert (bundle / ".git").is_dir() and (bundle / "speech.wav").is_file()


def test_an_export_to_the_current_folder(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["--workdir", str(study), "--runs", "folds", "--to", "."]) == 1
    assert "is the current folder, expected another one" in capsys.readouterr().err


def test_one_path_is_not_a_list_of_letters(bundle: Path):
    with pytest.raises(InputError, match=r"was given 'a\.wav', expected a list of files"):
        Model.load(bundle).predict("a.wav")


def test_a_stream_ends_once(bundle: Path):
    stream = Model.load(bundle).stream(16_000)
    stream.add(SAMPLES)
    assert len(stream.close()) == 1
    for again in (stream.close, lambda: stream.add(SAMPLES)):
        with pytest.raises(InputError, match="the stream is closed"):
            again()


def test_foreign_audio_in_a_folder_is_not_passed_over(tmp_path: Path):
    for name in ("a.m4a", "b.txt", "c.wav"):
        (tmp_path / name).touch()
    assert [Path(segment.path).name for segment in find_audio([str(tmp_path)], [])] == ["a.m4a", "c.wav"]


def test_a_portable_model_deletes_nothing_else(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("flatbuffers", reason="the extra stablehlo is absent")
    folder = tmp_path / "portable"
    folder.mkdir()
    for name in ("model.json", "notes.txt"):
        (folder / name).write_text("{}")
    assert main(["--model", str(bundle), "--to", str(folder), "--format", "stablehlo"]) == 1
    assert "holds notes.txt beside a model of --format stablehlo, which would be deleted" in capsys.readouterr().err
    assert (folder / "notes.txt").read_text() == "{}"
