"""Bundles: what a study's folds predicted is what they predict, wherever the folder is; what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_study import read_csv

from sejax.errors import InputError
from sejax.inference.bundle import load_bundle
from sejax.inference.commands.export import main
from sejax.inference.export import export_bundle
from sejax.inference.model import Model

DIMENSIONS = ("valence", "arousal", "dominance")


def audio_of(workdir: Path) -> dict[str, str]:
    """The files of a study's utterances, by id."""
    config = json.loads((workdir / "config.json").read_text())["config"]
    folder = Path(config["cache_dir"], f"synthetic-{config['synthetic']['fraction']:g}-{config['synthetic']['seed']}")
    return {path.stem: str(path) for path in folder.rglob("*.wav")}


def check_folds(workdir: Path, setting: str, tmp_path: Path) -> None:
    """Every fold's own run, named, gives the test predictions of the study."""
    bundle = tmp_path / "bundle"
    export_bundle(str(workdir), str(bundle), runs=("folds",), setting=setting)
    files = audio_of(workdir)
    rows = [row for row in read_csv(workdir / "predictions.csv") if row["setting"] == setting]
    rows = [row for row in rows if row.get("split", "test") == "test"]
    by_run: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_run.setdefault(row["run"], []).append(row)
    assert len(by_run) > 2
    for number in list(by_run)[:: max(1, len(by_run) // 4)]:
        own = by_run[number]
        found = Model.load(bundle, runs=[number]).predict([files[row["id"]] for row in own])
        for row, record in zip(own, found, strict=True):
            assert not record.error
            for name, value in record.probabilities.items():
                assert abs(value - float(row[f"prob_{name}"])) < 1e-5
            for name, value in record.dimensions.items():
                assert abs(value - float(row[f"pred_{name}"])) < 1e-5
            assert record.probabilities or record.dimensions


@pytest.mark.parametrize("setting", ["alpha=0.5", "alpha=1.0", "alpha=0.0"])
def test_folds_predict_as_in_the_study(study: Path, setting: str, tmp_path: Path):
    """The joint model and the single-task models, two seeds."""
    check_folds(study, setting, tmp_path)


@pytest.mark.parametrize("which", ["encoded", "tuned", "probe"])
def test_folds_of_encoded_and_pretrained_models_predict_as_in_the_study(
    which: str, request: pytest.FixtureRequest, shared_folder: Path, tmp_path: Path
):
    request.getfixturevalue(f"{which}_bundle")
    workdir = shared_folder / f"{which}-study"
    (setting,) = (entry["name"] for entry in json.loads((workdir / "metrics.json").read_text())["settings"])
    check_folds(workdir, setting, tmp_path)


def test_a_moved_bundle_is_the_same(probe_bundle: Path, voice: str, tmp_path: Path):
    """Embedded checkpoints are found in the folder; nothing is a pickle."""
    moved = shutil.copytree(probe_bundle, tmp_path / "elsewhere" / "moved")
    assert Model.load(moved).predict([voice]) == Model.load(probe_bundle).predict([voice])
    assert {path.suffix for path in moved.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".md", ".csv"}
    assert len(load_file(moved / "model.safetensors")) > 1


def test_runs_of_a_fold_are_those_of_all_seeds(bundle: Path, voice: str):
    runs = json.loads((bundle / "config.json").read_text())["runs"]
    own = [str(run["number"]) for run in runs if run["fold"] == runs[0]["fold"]]
    assert len(own) == 2
    (together,) = Model.load(bundle, runs=[runs[0]["fold"]]).predict([voice])
    apart = [Model.load(bundle, runs=[number]).predict([voice])[0] for number in own]
    for name, value in together.probabilities.items():
        assert np.isclose(value, np.mean([record.probabilities[name] for record in apart]), atol=1e-7)


def set_normalisation(workdir: Path) -> None:
    metrics = json.loads((workdir / "metrics.json").read_text())
    metrics["protocol"]["normalisation"] = "speaker"
    (workdir / "metrics.json").write_text(json.dumps(metrics))


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        (set_normalisation, [], "normalised by all audio of their speaker"),
        (lambda workdir: None, [], "the study has no final model, expected one: train it"),
        (lambda workdir: None, ["--setting", "none"], "has no setting 'none', expected one of 'alpha=0.5'"),
        (lambda workdir: None, ["--runs", "none"], "has no run 'none', expected a fold ("),
        (lambda workdir: (workdir / "metrics.json").unlink(), [], "expected the workdir of a finished study"),
        (lambda workdir: shutil.rmtree(workdir / "trained"), ["--runs", "folds"], "evaluate"),
    ],
)
def test_what_cannot_be_exported(
    change: Callable[[Path], None],
    arguments: list[str],
    said: str,
    study: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    workdir = tmp_path / "workdir"
    workdir.mkdir()
    shutil.copyfile(study / "metrics.json", workdir / "metrics.json")
    shutil.copytree(study / "trained", workdir / "trained")
    change(workdir)
    assert main(["--workdir", str(workdir), "--to", str(tmp_path / "to"), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {workdir}") and said in line
    assert not (tmp_path / "to").exists()


def test_a_folder_in_use_is_left_alone(study: Path, bundle: Path, tmp_path: Path):
    (tmp_path / "in use").mkdir()
    (tmp_path / "in use" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds other files, expected an empty folder"):
        export_bundle(str(study), str(tmp_path / "in use"), runs=("folds",))
    assert [path.name for path in (tmp_path / "in use").iterdir()] == ["thesis.tex"]
    replaced = shutil.copytree(bundle, tmp_path / "older")
    exported = export_bundle(str(study), str(replaced), runs=("0",))
    assert len(exported.runs) == 1 == len(json.loads((replaced / "config.json").read_text())["runs"])


def edit(bundle: Path, **changes: object) -> None:
    tree = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps(tree | changes))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda bundle: cut(bundle / "model.safetensors"), "model.safetensors: cannot be read"),
        (lambda bundle: (bundle / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda bundle: edit(bundle, version=99), "has version 99, written by sejax"),
        (lambda bundle: edit(bundle, runs=[]), "expected 0 first: the runs of config.json"),
        (lambda bundle: edit(bundle, model={}), "its 'model' cannot be read"),
        (lambda bundle: edit(bundle, classes=None), "is not as sejax writes it"),
        (lambda bundle: (bundle / "metrics.json").write_text("{}"), "is the workdir of a study, expected a bundle"),
    ],
)
def test_a_damaged_bundle_is_a_sentence(damage: Callable[[Path], None], said: str, bundle: Path, tmp_path: Path):
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    damage(damaged)
    with pytest.raises(InputError) as caught:
        Model.load(damaged)
    assert str(damaged) in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


def test_another_checkpoint_is_refused(probe_bundle: Path, tmp_path: Path):
    changed = shutil.copytree(probe_bundle, tmp_path / "changed")
    (config,) = (changed / "pretrained").glob("*/config.json")
    config.write_text(config.read_text() + " ")
    (weights,) = (changed / "pretrained").glob("*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match=r"the checkpoint that the stream whisper of .* was trained with"):
        load_bundle(changed)
