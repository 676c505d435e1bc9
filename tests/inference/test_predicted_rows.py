"""The command's sources and tables: what paths name, what rows say, and how a table is continued."""

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_over_time import spoken

from sejax.errors import InputError
from sejax.features.extract import Segment
from sejax.inference.commands.predict import main
from sejax.inference.sources import find_audio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four utterances, one of them silent, below a folder."""
    place = tmp_path / "audio"
    (place / "inner").mkdir(parents=True)
    for number, name in enumerate(("a, b.wav", "c.flac", "inner/d.WAV")):
        soundfile.write(place / name, spoken(0.6 + 0.1 * number, 16_000), 16_000, format=Path(name).suffix[1:].upper())
    soundfile.write(place / "silent.wav", np.zeros(8000), 16_000)
    (place / "notes.txt").write_text("no audio")
    return place


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_what_paths_name(folder: Path, tmp_path: Path):
    names = ["a, b.wav", "c.flac", "inner/d.WAV", "silent.wav"]
    assert [s.path for s in find_audio([str(folder)], [])] == [str(folder / name) for name in names]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in names:
            archive.write(folder / name, name)
    inside = [f"{tmp_path / 'all.zip'}::{name}" for name in names]
    assert [s.path for s in find_audio([str(tmp_path / "all.zip")], [])] == inside
    table = tmp_path / "parts.csv"
    table.write_text('path,start,end,speaker\n"audio/a, b.wav",0.1,0.5,x\naudio/c.flac,,,y\n')
    parts = [Segment(str(folder / "a, b.wav"), 0.1, 0.5), Segment(str(folder / "c.flac"), None, None)]
    assert find_audio([str(table)], []) == parts
    assert find_audio(["-", "x.wav"], ["y z.wav\n", "\n", "w.wav"]) == [
        Segment(name, None, None) for name in ("y z.wav", "w.wav", "x.wav")
    ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("file\na.wav\n", "column path is missing"),
        ("path,start\na.wav,soon\n", "line 2: start 'soon' is not a number of seconds"),
        ("path,start,end\na.wav,2,1\n", "line 2: start 2 and end 1 are no span"),
        ("path\n", "has no audio files in it"),
        ("path,start\n ,1\n", "line 2: path is blank"),
    ],
)
def test_tables_that_name_nothing(table: str, said: str, tmp_path: Path):
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(InputError, match=said):
        find_audio([str(tmp_path / "t.csv")], [])


def test_a_table_is_continued(bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.csv"
    words = ["--model", str(bundle), "--out", str(out)]
    assert main([*words, str(folder)]) == 1  # one is silent
    whole = out.read_text()
    files = [row["file"] for row in rows_of(whole)]
    assert [Path(name).name for name in files] == ["a, b.wav", "c.flac", "d.WAV", "silent.wav"]
    assert [bool(row["error"]) for row in rows_of(whole)] == [False, False, False, True]
    # A killed process leaves a row without its end; a file that could not be used is mended.
    header, first, second, _, _ = whole.splitlines(keepends=True)
    out.write_text(header + first + second[:-9])
    soundfile.write(folder / "silent.wav", spoken(0.6, 16_000), 16_000)
    capsys.readouterr()
    assert main([*words, str(folder)]) == 0
    assert "1 of 4 are in" in capsys.readouterr().err
    again = out.read_text()
    assert again.splitlines()[:4] == whole.splitlines()[:4]
    assert [row["file"] for row in rows_of(again)] == files and not rows_of(again)[3]["error"]
    # Nothing is left to do, and nothing changes.
    assert main([*words, str(folder)]) == 0 and out.read_text() == again
    assert main([*words, "--abstain", "0.9", str(folder)]) == 1
    assert "begun with another abstain (0.0, now 0.9)" in capsys.readouterr().err
    assert out.read_text() == again
    Path(f"{out}.made_by.json").unlink()
    assert main([*words, str(folder)]) == 1 and "does not say how it was made" in capsys.readouterr().err


def test_a_table_over_time_is_continued(bundle: Path, folder: Path, tmp_path: Path):
    (folder / "silent.wav").unlink()
    out = tmp_path / "out.jsonl"
    words = ["--model", str(bundle), "--out", str(out), "--every", "0.1", "--window", "0.4", str(folder)]
    assert main(words) == 0
    whole = out.read_text()
    rows = [json.loads(line) for line in whole.splitlines()]
    assert [Path(row["file"]).name for row in rows] == ["a, b.wav"] * 3 + ["c.flac"] * 4 + ["d.WAV"] * 5
    assert [row["end"] for row in rows[:3]] == pytest.approx([0.4, 0.5, 0.6])
    out.write_text("".join(whole.splitlines(keepends=True)[:5]))  # killed within the second file
    assert main(words) == 0
    assert out.read_text() == whole


def test_an_unsure_model_says_so(bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "silent.wav").unlink()
    assert main(["--model", str(bundle), str(folder)]) == 0
    sure = rows_of(capsys.readouterr().out)
    limit = sum(sorted(float(row["confidence"]) for row in sure)[:2]) / 2
    assert main(["--model", str(bundle), "--abstain", str(limit), str(folder)]) == 0
    unsure = rows_of(capsys.readouterr().out)
    assert [row["label"] == "unsure" for row in unsure].count(True) == 1
    assert all(one["confidence"] == other["confidence"] for one, other in zip(sure, unsure, strict=True))
    assert main(["--model", str(bundle), "--abstain", "1.5", str(folder)]) == 1


def test_the_row_says_what_the_bundle_knows(bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    """A joint model's ensemble of folds: probabilities sum to 1, intervals are around the values, runs differ."""
    assert main(["--model", str(bundle), str(folder / "c.flac")]) == 0
    printed = capsys.readouterr()
    (row,) = rows_of(printed.out)
    probabilities = {name: float(value) for name, value in row.items() if name.startswith("prob_")}
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert max(probabilities, key=probabilities.__getitem__) == f"prob_{row['label']}"
    assert 1 / len(probabilities) <= float(row["confidence"]) <= 1 and float(row["spread_label"]) > 0
    for name in ("valence", "arousal", "dominance"):
        low, value, high = (float(row[column]) for column in (f"{name}_low", name, f"{name}_high"))
        assert low < value < high and value - low == pytest.approx(high - value, rel=1e-3)
        assert float(row[f"spread_{name}"]) > 0
    assert "on a scale from 1 to 5; 90 % of the intervals" in printed.err
