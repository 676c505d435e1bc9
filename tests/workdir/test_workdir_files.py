"""A workdir knows its config, its data and its owner, and says in a sentence what is damaged."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock
from tiny_study import (
    ROOT,
    command,
    environment,
    labelled_table,
    read_csv,
    table_config,
    write_table,
    write_voice,
)

from sejax.errors import InputError
from sejax.report.page import write_report
from sejax.study import train_and_evaluate


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache_dir: str) -> Path:
    """A folder with the table, the audio and the workdir of a finished study."""
    folder = tmp_path_factory.mktemp("data")
    train_and_evaluate(table_config(cache_dir, labelled_table(folder)), str(folder / "workdir"))
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "study"))


def start(folder: Path, cache_dir: str, *, train: bool = True):
    return train_and_evaluate(table_config(cache_dir, folder / "labelled.csv"), str(folder / "workdir"), train=train)


def change(folder: Path, what) -> None:
    rows = read_csv(folder / "labelled.csv")
    write_table(folder / "labelled.csv", what(rows) or rows)


def set_cells(column: str, values: dict[int, str]):
    """Returns a change of some cells of a column; the others of a new column are blank."""

    def what(rows):
        for place, row in enumerate(rows):
            row[column] = values.get(place, row.get(column, ""))

    return what


CHANGES = {
    "two speakers renamed": (
        set_cells("speaker", {0: "s9", 5: "s8"}),
        r"speaker of 2 of 16 utterances \(the first: '0' is 's9' now, was 's0'\)",
    ),
    "a label": (
        set_cells("label", {3: "angry"}),
        r"label of 1 of 16 utterances \(the first: '3' is 'angry' now, was 'sad'",
    ),
    "a blank label": (
        lambda rows: [
            row | ({"label": "", "valence": "3"} if row["path"] == "3.wav" else {"valence": ""}) for row in rows
        ],
        r"label of 1 of 16 .*is blank now, was 'sad'\); valence of 1 of 16",
    ),
    "names of the classes": (
        lambda rows: [row | {"label": "anger" if row["label"] == "angry" else row["label"]} for row in rows],
        r"classes \['anger', 'sad'\] \(was \['angry', 'sad'\]\); label of 8 of 16",
    ),
    "a row gone": (lambda rows: rows[:-1], r"1 utterance gone \(the first '15'\)"),
    "an id": (set_cells("id", {2: "two"}), r"1 utterance new \(the first 'two'\); 1 utterance gone \(the first '2'\)"),
    "sessions": (
        lambda rows: [row | {"session": row["speaker"][1]} for row in rows],
        r"session of 16 of 16 utterances \(the first: '0' is '0' now, was blank\)",
    ),
}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", CHANGES)
def test_a_workdir_refuses_other_data(folder: Path, cache_dir: str, name: str, train: bool):
    what, expected = CHANGES[name]
    before = (folder / "workdir" / "metrics.json").read_bytes()
    change(folder, what)
    with pytest.raises(InputError, match=rf"begun with other data than .*labelled.csv holds now: .*{expected}"):
        start(folder, cache_dir, train=train)
    assert (folder / "workdir" / "metrics.json").read_bytes() == before


def test_other_labels_are_refused_before_features_are_computed(folder: Path, tmp_path: Path):
    change(folder, set_cells("label", {3: "angry"}))
    with pytest.raises(InputError, match=r"label of 1 of 16"):
        start(folder, str(tmp_path / "cache"))
    assert not list(tmp_path.glob("cache/acoustic_features"))


def test_a_workdir_refuses_other_audio(folder: Path, cache_dir: str):
    write_voice(folder / "7.wav", seed=99)
    with pytest.raises(InputError, match=r"holds now: audio of 1 of 16 utterances \(the first: '7'\);"):
        start(folder, cache_dir)


def test_without_utterances_csv_the_column_is_known(folder: Path, cache_dir: str):
    (folder / "workdir" / "utterances.csv").unlink()
    start(folder, cache_dir)  # the digests in config.json are enough
    change(folder, set_cells("speaker", {0: "s9"}))
    with pytest.raises(InputError, match=r"the column speaker \(of which utterances cannot be said"):
        start(folder, cache_dir)


def test_the_same_data_elsewhere_and_in_another_order_continue(folder: Path, cache_dir: str):
    before = (folder / "workdir" / "predictions.csv").read_bytes()
    moved = folder.rename(folder.with_name("moved"))
    change(moved, lambda rows: rows[::-1])
    start(moved, cache_dir)
    assert (moved / "workdir" / "predictions.csv").read_bytes() == before


def test_a_workdir_of_an_older_version_is_accepted_once_with_a_note(folder: Path, cache_dir: str, capsys):
    path = folder / "workdir" / "config.json"
    older = json.loads(path.read_text())
    del older["data"]
    path.write_text(json.dumps(older))
    (folder / "workdir" / "utterances.csv").unlink()
    start(folder, cache_dir)
    assert "begun by an older version" in capsys.readouterr().err
    assert json.loads(path.read_text())["command"] == older["command"]
    change(folder, set_cells("speaker", {0: "s9"}))
    with pytest.raises(InputError, match="speaker of 1 of 16"):
        start(folder, cache_dir)


def test_the_report_refuses_metrics_of_other_data(folder: Path):
    workdir = folder / "workdir"
    metrics = json.loads((workdir / "metrics.json").read_text())
    metrics["corpus"]["digest"] = "0"
    (workdir / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(InputError, match=r"metrics.json was made from other data than config.json names"):
        write_report(str(workdir))


def test_two_starts_in_one_workdir(folder: Path, cache_dir: str):
    with FileLock(folder / "workdir" / ".lock"):
        for train in (True, False):
            with pytest.raises(InputError, match=r"workdir is in use: another process"):
                start(folder, cache_dir, train=train)
    start(folder, cache_dir)


DAMAGED = {
    "empty": "",
    "cut": '{"config": {"alpha',
    "list": "[]",
    "number": "3",
    "nul": "\0" * 100,
    "other": '{"config": 3}',
}


@pytest.mark.parametrize("name", ["config.json", "plan.json"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_named(folder: Path, cache_dir: str, name: str, damage: str):
    (folder / "workdir" / name).write_text(DAMAGED[damage])
    with pytest.raises(
        InputError, match=rf"{name} (is empty|holds NUL bytes|is no JSON|has no object|is no plan).*, expected "
    ):
        start(folder, cache_dir)


@pytest.mark.parametrize(
    "changed", [{"slots": 0}, {"slots": "2"}, {"chunks": 99}, {"frames_on": "moon"}, {"runs": [0]}]
)
def test_a_plan_of_other_runs_is_refused(folder: Path, cache_dir: str, changed: dict):
    path = folder / "workdir" / "plan.json"
    path.write_text(json.dumps([json.loads(path.read_text())[0] | changed]))
    with pytest.raises(InputError, match=r"plan.json is no plan of this study's programs.*planned again"):
        start(folder, cache_dir)


def test_a_config_json_of_another_shape_of_data_is_named(folder: Path, cache_dir: str):
    path = folder / "workdir" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": ["speaker"]}))
    with pytest.raises(InputError, match=r"config.json has no object 'digests' in 'data'"):
        start(folder, cache_dir)


def test_checkpoints_without_config_json_are_refused(folder: Path, cache_dir: str):
    (folder / "workdir" / "config.json").unlink()
    with pytest.raises(InputError, match=r"has checkpoints but its config.json is gone, expected"):
        start(folder, cache_dir)


@pytest.mark.parametrize(
    "line", ["", "nonsense\n", "[1]\n", '{"epoch": "x", "run": 0}\n', '{"epoch": 1}\n', "\0\0\0\n"]
)
def test_a_damaged_line_of_the_history(folder: Path, cache_dir: str, line: str):
    path = folder / "workdir" / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], line, *lines[1:]]))
    if not line:
        start(folder, cache_dir)
    else:
        with pytest.raises(InputError, match=r"history.jsonl, line 2: .*, expected a row of a training run"):
            start(folder, cache_dir)


def results(folder: Path) -> dict[str, bytes]:
    names = ("predictions.csv", "runs.csv", "metrics.json", "report.html")
    return {name: (folder / "workdir" / name).read_bytes() for name in names}


def test_an_unfinished_study_says_so_until_it_is_finished(folder: Path, cache_dir: str, capsys):
    finished = results(folder)
    shutil.rmtree(folder / "workdir" / "checkpoints" / "2")
    metrics = start(folder, cache_dir, train=False)
    assert [setting["unfinished"] for setting in metrics["settings"]] == [{"trained": 1, "epochs": 2}]
    remark = "only 1 of 2 epochs is trained (--mode train continues)"
    assert remark in capsys.readouterr().out
    assert remark in (folder / "workdir" / "report.html").read_text()
    start(folder, cache_dir)
    assert results(folder) == finished


@pytest.fixture(scope="module")
def other(trained: Path, tmp_path_factory, cache_dir: str) -> Path:
    """The same utterances by other speakers, whose names cannot be told apart by blanks."""
    folder = tmp_path_factory.mktemp("other") / "study"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("workdir"))
    change(folder, set_cells("speaker", {i: SPEAKERS[i // 4] for i in range(16)}))
    train_and_evaluate(table_config(cache_dir, folder / "labelled.csv"), str(folder / "workdir"))
    return folder


SPEAKERS = ("Anna", "Maria", "Anna Maria", "Zoë O'Brien")


def test_the_speakers_of_a_run_can_be_told_apart(other: Path):
    for row in read_csv(other / "workdir" / "runs.csv"):
        splits = [shlex.split(row[f"{split}_speakers"]) for split in ("train", "val", "test")]
        assert [len(speakers) for speakers in splits] == [2, 1, 1]
        assert sorted(speaker for speakers in splits for speaker in speakers) == sorted(SPEAKERS)


def test_checkpoints_of_another_study_are_refused(folder: Path, other: Path, cache_dir: str):
    shutil.rmtree(folder / "workdir" / "checkpoints")
    shutil.copytree(other / "workdir" / "checkpoints", folder / "workdir" / "checkpoints")
    before = results(folder)
    for train in (True, False):
        with pytest.raises(InputError, match=r"checkpoints/2 belongs to another study, expected a whole checkpoint"):
            start(folder, cache_dir, train=train)
    assert results(folder) == before


def test_the_history_of_another_study_is_refused(folder: Path, other: Path, cache_dir: str):
    before = results(folder)
    path = folder / "workdir" / "history.jsonl"
    shutil.copy(other / "workdir" / "history.jsonl", path)
    with pytest.raises(InputError, match=r"history.jsonl, line 1: is of run 0 of another study \(fold Anna, "):
        start(folder, cache_dir, train=False)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    runs = {run["run"]: run["fold"] for run in read_csv(folder / "workdir" / "runs.csv")}
    own = [row | {"fold": runs[str(row["run"])], "score": 0.123} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in own))
    with pytest.raises(InputError, match=r"history.jsonl has the score 0.123 for run 0 in epoch \d, expected the 0\."):
        start(folder, cache_dir, train=False)
    assert results(folder) == before


@pytest.mark.parametrize("kept", [None, 0, 5])
def test_lost_rows_of_the_history_are_noted_and_change_no_number(
    folder: Path, cache_dir: str, kept: int | None, capsys
):
    path = folder / "workdir" / "history.jsonl"
    before = start(folder, cache_dir, train=False)
    capsys.readouterr()
    if kept is None:
        path.unlink()
    else:
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    after = start(folder, cache_dir, train=False)
    assert f"note: {path} lacks {8 - (kept or 0)} rows of 8 (the first: epoch " in capsys.readouterr().err
    for setting in before["settings"]:
        setting["selection_score"] = pytest.approx(setting["selection_score"], rel=1e-5)
    assert after == before


@pytest.mark.parametrize("lost", ["checkpoints", "config.json"])
def test_a_refused_start_leaves_the_results_of_a_finished_study(folder: Path, cache_dir: str, lost: str):
    before = results(folder)
    (folder / "workdir" / lost).rename(folder / "lost")
    with pytest.raises(InputError):
        start(folder, cache_dir, train=False)
    assert results(folder) == before


def test_a_number_of_utterances_that_is_not_theirs_is_refused(folder: Path, cache_dir: str):
    path = folder / "workdir" / "config.json"
    path.write_text(path.read_text().replace('"utterances": 16', '"utterances": 15'))
    with pytest.raises(InputError, match=r"holds now: 16 utterances \(config.json names 15\); expected unchanged data"):
        start(folder, cache_dir, train=False)


def test_a_reader_that_leaves_early_costs_no_results(folder: Path, tmp_path: Path, cache_dir: str):
    config = tmp_path / "config.py"
    config.write_text("from tiny_study import table_config\n\ndef get_config():\n    return table_config('', '')\n")
    for name in ("metrics.json", "report.html"):
        (folder / "workdir" / name).unlink()
    options = f"--config.cache_dir={cache_dir}", f"--config.data_dir={folder}/labelled.csv", "--mode=evaluate"
    words = command("--config", str(config), "--workdir", str(folder / "workdir"), *options)
    line = f'{shlex.join(words)} | grep --quiet "continuing after"; exit "${{PIPESTATUS[0]}}"'
    ended = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: standard output is closed, expected a reader that stays")
    assert "Traceback" not in ended.stderr
    results(folder)


@pytest.mark.parametrize(
    ("kilobytes", "problem"),
    [
        (4, "{cache}: the features cannot be stored here ({reason}), expected a folder with room"),
        (60, "{workdir}/checkpoints: the checkpoint cannot be written ({reason}); the checkpoints before it are whole"),
    ],
)
def test_a_full_disk_is_one_sentence(folder: Path, tmp_path: Path, cache_dir: str, kilobytes: int, problem: str):
    """Files may not grow beyond so much: features do not fit, or a checkpoint and what jax compiles."""
    cache, workdir = tmp_path / "cache", tmp_path / "small"
    if kilobytes > 4:
        shutil.copytree(f"{cache_dir}/acoustic_features", cache / "acoustic_features")
    options = f"--config.cache_dir={cache}", f"--config.data_dir={folder}/labelled.csv"
    config = tmp_path / "config.py"
    config.write_text("from tiny_study import table_config\n\ndef get_config():\n    return table_config('', '')\n")
    words = command("--config", str(config), "--workdir", str(workdir), *options)
    # bash ignores SIGXFSZ, as Python does.
    limited = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", *words]
    ended = subprocess.run(limited, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    assert not re.search("Traceback|Warning|Exception", ended.stderr)
    *before, last = [line for line in ended.stderr.splitlines() if line.strip()]
    assert last.startswith("error: " + problem.format(cache=cache, workdir=workdir, reason=os.strerror(27)))
    assert not [line for line in before if line.startswith("error: ")]


def test_scores_of_the_speakers_of_each_gender(study: Path):
    metrics = json.loads((study / "metrics.json").read_text())
    for setting in metrics["settings"]:
        assert {part["gender"] for part in setting["genders"]} == {"F", "M"}
        assert sum(part["utterances"] for part in setting["genders"]) == metrics["corpus"]["utterances"]
