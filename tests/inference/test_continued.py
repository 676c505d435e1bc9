"""Tables that a later start continues: no row is lost, doubled, or of another model."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_study import GOLDEN_SSL, ROOT, write_voice

from sejax.errors import InputError
from sejax.features.extract import Segment
from sejax.inference.bundle import choose_runs
from sejax.inference.commands.predict import main
from sejax.inference.export import export_bundle
from sejax.inference.output import continued
from sejax.inference.records import Names, Record
from sejax.workdir.trained import TrainedRun

MODEL = str(GOLDEN_SSL / "wavlm-classifier")
NAMES = Names(("calm",), (), intervals=False, spread=False)


@pytest.fixture
def speech(tmp_path: Path) -> list[str]:
    """Two recordings of 2 s."""
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{name}.wav") for name in "ab"]
    for path in paths:
        soundfile.write(path, 0.1 * rng.normal(size=32_000), 16_000)
    return paths


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_all(path: Path, how: str, records: Sequence[Record], segments: Sequence[Segment], **made_by: float) -> int:
    """Continues a table with those of the records that are left, and returns how many these were."""
    with continued(str(path), NAMES, how, made_by, segments) as (write, left):
        for record in records:
            if record.file in {each.path for each in left}:
                write(record)
    return len(left)


@pytest.mark.parametrize("how", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "name", ["line\nfeed", 'a, "b"', "separator\u2028", "next\x85line", "-x", "no \udcff UTF-8", ""]
)
def test_names_of_files_are_found_again(tmp_path: Path, how: str, name: str):
    path, segments = tmp_path / "table", [Segment(f"{name}.wav", None, None), Segment("other.wav", None, None)]
    records = [Record(*each, label="calm") for each in segments]
    assert write_all(path, how, records, segments) == 2
    before = path.read_bytes()
    assert write_all(path, how, records, segments) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("more", [[], ["--every", "0.5", "--window", "0.5"]])
def test_parts_of_files_are_not_predicted_twice(tmp_path: Path, speech: list[str], more: list[str]):
    a, b = (Path(path).name for path in speech)
    table, out = tmp_path / "parts.csv", tmp_path / "out.csv"
    table.write_text(f"path,start,end\n{a},0.12345,1.23456\n{b},,\n{a},1,1.98765\n")
    command = ["--model", MODEL, *more, "--out", str(out), str(table)]
    assert main(command) == 0
    whole = out.read_text()
    assert main(command) == 0
    assert out.read_text() == whole
    lines = whole.splitlines(keepends=True)
    for kept in (1, len(lines) - 1):  # as a killed process leaves it
        out.write_text("".join(lines[:kept]) + lines[kept][:5])
        assert main(command) == 0
        assert out.read_text() == whole


def test_a_recording_that_fails_later_is_tried_again_whole(tmp_path: Path):
    segments = [Segment("bad.wav", None, None), Segment("good.wav", None, None)]
    records = [
        Record("bad.wav", 0.0, 3.0, label="calm"),
        Record("bad.wav", None, None, error="bad.wav: is damaged"),
        Record("good.wav", 0.0, 3.0, label="calm"),
        Record("good.wav", 1.0, 4.0, label="calm"),
    ]
    path = tmp_path / "table.csv"
    write_all(path, "csv", records, segments, every=1.0)
    for _ in range(2):
        assert write_all(path, "csv", records, segments, every=1.0) == 2
        assert [row["error"] for row in rows_of(path)] == ["", "bad.wav: is damaged", "", ""]


@pytest.mark.parametrize("cells", ["a.wav,abc,,calm,1,1,,", "a.wav,,,calm,1,1,,,more", "a.wav,,"])
def test_an_edited_table_is_a_sentence(tmp_path: Path, cells: str):
    path, segments = tmp_path / "table.csv", [Segment("a.wav", None, None)]
    write_all(path, "csv", [Record("a.wav", label="calm")], segments)
    path.write_text(path.read_text().splitlines()[0] + f"\n{cells}\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match="cannot be read"):
        write_all(path, "csv", [], segments)
    assert path.read_bytes() == before


def test_a_table_of_other_runs_is_refused(
    study: Path, tmp_path: Path, speech: list[str], capsys: pytest.CaptureFixture[str]
):
    bundle, out = tmp_path / "bundle", tmp_path / "out.csv"
    runs = export_bundle(str(study), str(bundle), runs=("folds",)).runs
    command = ["--model", str(bundle), "--out", str(out)]
    assert main([*command, "--runs", str(runs[0].number), speech[0]]) == 0
    before = out.read_bytes()
    assert main([*command, "--runs", str(runs[1].number), *speech]) == 1
    assert f"was begun with another runs (['{runs[0].number}'], now ['{runs[1].number}'])" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_fold_is_not_also_the_number_of_a_run():
    """Speaker 10 of EmoDB is a fold, and the run number 10 may be one that has trained on them."""
    runs = [
        TrainedRun(
            number=number,
            fold=fold,
            final=fold == "all",
            seed=0,
            setting="static",
            epoch=1,
            label=True,
            dimensions=(False, False, False),
        )
        for number, fold in [(9, "09"), (8, "10"), (10, "all")]
    ]
    assert [choose_runs(runs, [name], "here") for name in ("10", "9", "all")] == [[1], [0], [2]]


def test_a_name_that_is_no_utf8(tmp_path: Path, speech: list[str]):
    """The names of files are bytes; the command is a process of its own, whose output refuses what is no UTF-8."""
    name = os.fsencode(tmp_path) + b"/\xff.wav"
    shutil.copyfile(speech[0], name)
    command = [sys.executable, "-m", "sejax.predict", "--model", MODEL, "-"]
    environment = os.environ | {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input=name + b"\n", capture_output=True, env=environment, cwd=ROOT)
    assert (done.returncode, done.stderr.count(b"Traceback")) == (0, 0)
    assert b"\xff.wav" in done.stdout


def test_two_processes_do_not_write_one_table(tmp_path: Path):
    out = str(tmp_path / "out.csv")
    with (
        continued(out, NAMES, "csv", {}, []),
        pytest.raises(InputError, match="another process writes it now"),
        continued(out, NAMES, "csv", {}, []),
    ):
        pass
    with continued(out, NAMES, "csv", {}, []):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.csv.made_by.json"]


def test_relative_names_are_of_their_folder(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch):
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        write_voice(tmp_path / name / "a.wav", seed=number)
    words = ["--model", str(bundle), "--out", str(tmp_path / "out.csv"), "a.wav"]
    monkeypatch.chdir(tmp_path / "one")
    assert main(words) == 0
    monkeypatch.chdir(tmp_path / "two")
    assert main(words) == 1  # it is another file
