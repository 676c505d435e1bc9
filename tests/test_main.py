"""Whole studies: what a workdir holds, that its numbers hang together, and that nothing is lost on the way."""

import collections
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_study import (
    BOOTSTRAP,
    EPOCHS,
    ROOT,
    command,
    config_file,
    environment,
    labelled_table,
    read_csv,
    read_history,
    study_config,
    table_config,
    tiny_config,
    train_interrupted,
    write_table,
    write_voice,
)

from sejax.config import STACKED
from sejax.corpora.schema import DIMENSIONS
from sejax.evaluation.calibration import calibrate
from sejax.evaluation.intervals import summarise
from sejax.evaluation.predictions import Predictions
from sejax.study import train_and_evaluate
from sejax.weighting import SCHEMES

CLASSES = ("angry", "happy", "sad", "neutral")
CLASS_METRICS = {"wa", "ua", "macro_f1"}
VAD_METRICS = {"ccc_mean", *(f"{metric}_{d}" for metric in ("ccc", "rmse", "pcc") for d in DIMENSIONS)}


@pytest.fixture(scope="module")
def metrics(study: Path) -> dict:
    return json.loads((study / "metrics.json").read_text())


@pytest.fixture(scope="module")
def predictions(study: Path) -> list[dict[str, str]]:
    return [row for row in read_csv(study / "predictions.csv") if row["split"] == "test"]


@pytest.fixture(scope="module")
def runs(study: Path) -> list[dict[str, str]]:
    return read_csv(study / "runs.csv")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------------------ the workdir


def test_workdir_holds_the_files_of_the_design(study: Path):
    assert set(os.listdir(study)) == {
        ".lock",
        "config.json",
        "utterances.csv",
        "runs.csv",
        "history.jsonl",
        "predictions.csv",
        "data.json",
        "metrics.json",
        "report.html",
        "checkpoints",
        "plan.json",
        "parameters.txt",
        "tensorboard",
        "trained",
    }
    assert os.listdir(study / "tensorboard")
    config = json.loads((study / "config.json").read_text())
    assert set(config) == {"config", "command", "versions", "git", "device", "started", "data"}
    assert config["config"]["grid"]["alpha"] == [0.5, 1.0, 0.0]


def test_tables_have_the_columns_of_the_design(study: Path, predictions, runs, metrics):
    probabilities = [f"prob_{name}" for name in CLASSES]
    predicted = [f"pred_{d}" for d in DIMENSIONS]
    keys = ["run", "fold", "seed", "setting", "split", "id", "speaker", "label"]
    assert list(predictions[0]) == [*keys, *probabilities, *DIMENSIONS, *predicted]
    speakers = [f"{split}_speakers" for split in ("train", "val", "test")]
    assert list(runs[0]) == ["run", "fold", "seed", "setting", *STACKED, *speakers, "best_epoch"]
    assert set(metrics) == {"protocol", "corpus", "settings", "baselines", "audit"}
    identity = {"epoch", "run", "fold", "seed", "setting"}
    joint = next(row for row in read_history(study) if row["setting"] == "alpha=0.5")
    task = {f"{what}_{t}" for what in ("loss", "weight", "val_loss") for t in ("class", "vad")}
    validation = {"val_wa", "val_ua", "val_ccc_mean", *(f"val_ccc_{d}" for d in DIMENSIONS)}
    assert identity | task | validation | {"score"} <= set(joint)


def test_metrics_are_those_of_predictions_csv(study: Path, metrics):
    read = Predictions.read(str(study / "predictions.csv"))
    found = {setting["name"]: setting for setting in metrics["settings"]}
    pairs = (("metrics", read), ("seeds_averaged", read.average_seeds()))
    for key, rows in pairs:
        recomputed = {entry["name"]: entry["metrics"] for entry in summarise(rows, n_bootstrap=BOOTSTRAP)}
        assert json.loads(json.dumps(recomputed)) == {name: found[name][key] for name in found}


def test_validation_predictions_are_kept_for_calibration_alone(study: Path, metrics, runs):
    kept = Predictions.read(str(study / "predictions.csv"), split=None)
    for run in runs:
        for split in ("val", "test"):
            rows = kept.select((kept.run == int(run["run"])) & (kept.split == split))
            assert set(rows.speaker.tolist()) == set(shlex.split(run[f"{split}_speakers"]))
    votes = {
        row["id"]: np.array([json.loads(row["distribution"]).get(name, 0.0) for name in CLASSES])
        for row in read_csv(study / "utterances.csv")
        if row["distribution"]
    }
    assert votes
    found = {setting["name"]: setting["calibration"] for setting in metrics["settings"]}
    assert found == {name: calibrate(rows, votes) for name, rows in kept.by("setting").items()}
    assert set(found["alpha=0.5"]) == {
        *("temperature", "ece", "brier", "nll", "aurc"),
        *("intervals", "votes", "spread"),
    }
    assert set(found["alpha=0.0"]) == {"intervals", "spread"}


def test_metrics_by_hand(predictions, metrics):
    rows = [row for row in predictions if row["setting"] == "alpha=0.5"]
    by_seed: dict[str, list[float]] = collections.defaultdict(list)
    for seed in ("0", "1"):
        own = [row for row in rows if row["seed"] == seed]
        truth = np.array([CLASSES.index(row["label"]) for row in own])
        guess = np.array([[float(row[f"prob_{name}"]) for name in CLASSES] for row in own]).argmax(axis=1)
        by_seed["wa"].append(float(np.mean(truth == guess)))
        by_seed["ua"].append(float(np.mean([np.mean(guess[truth == c] == c) for c in np.unique(truth)])))
        for d in DIMENSIONS:
            y, x = (np.array([float(row[name]) for row in own]) for name in (d, f"pred_{d}"))
            ccc = 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
            by_seed[f"ccc_{d}"].append(ccc)
            by_seed[f"rmse_{d}"].append(float(np.sqrt(np.mean((x - y) ** 2))))
    reported = metrics["settings"][0]["metrics"]
    for name, values in by_seed.items():
        assert reported[name]["pooled"] == pytest.approx(np.mean(values), abs=1e-6), name


def test_every_utterance_is_predicted_once_per_setting_and_seed(predictions, metrics):
    counted = collections.Counter((row["setting"], row["seed"], row["id"]) for row in predictions)
    assert set(counted.values()) == {1}
    studies = collections.Counter((setting, seed) for setting, seed, _ in counted)
    assert len(studies) == 6
    assert set(studies.values()) == {metrics["corpus"]["utterances"]}


def test_runs_keep_speakers_apart_and_test_their_own(predictions, runs):
    assert len(runs) == 10 * 3 * 2
    tested = collections.defaultdict(set)
    for row in predictions:
        tested[row["run"]].add(row["speaker"])
    for run in runs:
        train, val, test = (set(shlex.split(run[f"{split}_speakers"])) for split in ("train", "val", "test"))
        assert (len(train), len(val), len(test)) == (8, 1, 1)
        assert len(train | val | test) == 10
        assert tested[run["run"]] == test == {run["fold"]}


def test_best_epoch_is_the_last_with_the_best_validation_score(study: Path, runs):
    scores = {(row["run"], row["epoch"]): row["score"] for row in read_history(study)}
    assert len(scores) == len(runs) * EPOCHS
    epochs = set()
    for run in runs:
        own = [scores[int(run["run"]), epoch] for epoch in range(1, EPOCHS + 1)]
        best = int(run["best_epoch"])
        assert own[best - 1] == max(own)
        assert max(own[best:], default=-1) < max(own) or best == EPOCHS
        epochs.add(best)
    assert len(epochs) > 1


def test_single_task_settings_report_their_task_only(study: Path, predictions, metrics):
    found = {setting["name"]: setting for setting in metrics["settings"]}
    assert list(found) == ["alpha=0.5", "alpha=1.0", "alpha=0.0"]
    assert set(found["alpha=0.5"]["metrics"]) == CLASS_METRICS | VAD_METRICS
    assert set(found["alpha=1.0"]["metrics"]) == CLASS_METRICS
    assert set(found["alpha=0.0"]["metrics"]) == VAD_METRICS
    assert set(found["alpha=1.0"]["baselines"]) == {"class_mean_lookup"}
    assert found["alpha=0.0"]["baselines"] == {}
    assert not any("unpredicted" in setting for setting in metrics["settings"])
    for row in predictions:
        if row["setting"] == "alpha=1.0":
            assert row["pred_valence"] == "" != row["prob_sad"]
        if row["setting"] == "alpha=0.0":
            assert row["prob_sad"] == "" != row["pred_valence"]
    for row in read_history(study):
        assert ("val_ua" in row) == (row["setting"] != "alpha=0.0")
        assert ("val_ccc_mean" in row) == (row["setting"] != "alpha=1.0")


def test_seeds_differ(predictions):
    first, second = (
        [row["prob_sad"] for row in predictions if row["setting"] == "alpha=0.5" and row["seed"] == seed]
        for seed in ("0", "1")
    )
    assert first != second


def test_evaluating_and_training_again_change_nothing(study: Path, tmp_path: Path, cache_dir: str):
    workdir = tmp_path / "workdir"
    shutil.copytree(study, workdir)
    before = contents(workdir)
    (workdir / "predictions.csv").unlink()
    (workdir / "metrics.json").unlink()
    train_and_evaluate(study_config(cache_dir), str(workdir), train=False)
    assert contents(workdir) == before
    train_and_evaluate(study_config(cache_dir), str(workdir))
    assert contents(workdir) == before


# ---------------------------------------------------------------------------------------------- killing


def _kill_when(arguments: list[str], env: dict[str, str], seen: Callable[[], bool], log: Path) -> None:
    """Starts the command, and ends it at once when `seen`: it is held still while that is looked at."""
    with log.open("w") as file:
        process = subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=file, stderr=file)
    deadline = time.monotonic() + 120
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if seen():
                process.send_signal(signal.SIGSTOP)
                time.sleep(0.02)
                if seen():
                    break
                process.send_signal(signal.SIGCONT)
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL, log.read_text()[-2000:]


def test_killed_twice_ends_as_if_never_killed(study: Path, tmp_path: Path, cache_dir: str):
    """Also: neither tensorflow nor torch is asked for, were they installed."""
    for name in ("tensorflow", "torch"):
        (tmp_path / "traps" / name).mkdir(parents=True)
        trap = f"open({str(tmp_path / 'imported')!r}, 'a').write('{name} ')\nraise ImportError\n"
        (tmp_path / "traps" / name / "__init__.py").write_text(trap)
    env = environment(str(tmp_path / "traps"))
    workdir = tmp_path / "workdir"
    checkpoints = workdir / "checkpoints"
    file = config_file(tmp_path, "study_config")
    arguments = command("--config", f"{file}:{cache_dir}", "--workdir", str(workdir))
    log = tmp_path / "log.txt"

    _kill_when(arguments, env, (checkpoints / "2").exists, log)
    assert not (workdir / "predictions.csv").exists()

    def saving() -> bool:
        # A save of an epoch that the killed process before cannot have begun.
        found = [p.name.partition(".") for p in checkpoints.iterdir()]
        return any(rest and int(number) >= 6 for number, _, rest in found if number.isdigit())

    _kill_when(arguments, env, saving, log)
    assert saving()
    assert "continuing after epoch" in log.read_text()

    finished = subprocess.run(arguments, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert "SIGILL" not in finished.stderr  # XLA's false alarm on reading its cache
    assert (workdir / "predictions.csv").read_bytes() == (study / "predictions.csv").read_bytes()
    assert (workdir / "metrics.json").read_bytes() == (study / "metrics.json").read_bytes()
    assert (workdir / "runs.csv").read_bytes() == (study / "runs.csv").read_bytes()
    assert (workdir / "history.jsonl").read_bytes() == (study / "history.jsonl").read_bytes()
    assert not saving()
    assert not (tmp_path / "imported").exists()


def test_signals_save_what_is_done_and_say_so_in_one_line(study: Path, tmp_path: Path, cache_dir: str):
    workdir = tmp_path / "workdir"
    file = config_file(tmp_path, "study_config")
    arguments = command("--config", f"{file}:{cache_dir}", "--workdir", str(workdir), "--config.checkpoint_every=4")
    for number, epoch in ((signal.SIGTERM, 2), (signal.SIGINT, 5)):
        log = tmp_path / f"{number.name}.txt"
        with log.open("w") as file:
            process = subprocess.Popen(arguments, cwd=ROOT, env=environment(), stdout=file, stderr=file)
        history = workdir / "history.jsonl"
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if history.exists() and f'"epoch": {epoch},' in history.read_text():
                process.send_signal(number)
                break
            time.sleep(0.005)
        assert process.wait(60) == 128 + number, log.read_text()[-2000:]
        last = log.read_text().splitlines()[-1]
        # Ctrl-C may leave the folder of an epoch that is being written.
        saved = max(int(folder.name) for folder in (workdir / "checkpoints").iterdir() if folder.name.isdecimal())
        assert (
            last
            == f"stopped: epoch {saved} is saved in {workdir}, computed features are kept; the same command continues"
        )
        assert "Traceback" not in log.read_text()
        if number == signal.SIGTERM:  # the epoch that is done, although only every fourth is saved
            assert saved == max(row["epoch"] for row in read_history(workdir))
    finished = subprocess.run(arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr[-2000:]
    for name in ("predictions.csv", "metrics.json", "runs.csv", "history.jsonl"):
        assert (workdir / name).read_bytes() == (study / name).read_bytes()


# ---------------------------------------------------------------------------------------------- studies


def test_all_weightings_are_runs_of_one_program_and_continue(
    tmp_path: Path, cache_dir: str, monkeypatch: pytest.MonkeyPatch
):
    config = tiny_config(cache_dir)
    config.tasks = ("class", *DIMENSIONS)
    config.grid.weighting = tuple(SCHEMES)
    config.epochs = 3  # dwa begins in the third
    found = train_and_evaluate(config, str(tmp_path / "whole"))
    assert len(json.loads((tmp_path / "whole" / "plan.json").read_text())) == 1
    assert [s["name"] for s in found["settings"]] == [f"weighting={name}" for name in SCHEMES]
    weights = collections.defaultdict(list)
    for row in read_history(tmp_path / "whole"):
        own = [row[f"weight_{task}"] for task in config.tasks]
        weights[row["setting"].removeprefix("weighting=")].append(own)
        for task, mean in zip(config.tasks, own, strict=True):
            assert row[f"weight_min_{task}"] <= mean + 1e-5 <= row[f"weight_max_{task}"] + 2e-5
            assert np.isfinite(row[f"loss_{task}"])
    for name, own in weights.items():
        assert np.sum(own, axis=1) == pytest.approx(4, abs=1e-3), name
    assert weights["static"] == [pytest.approx([2, *[2 / 3] * 3], abs=1e-4)] * len(weights["static"])
    assert np.array(weights.pop("imtl_l")) == pytest.approx(np.array(weights["uncertainty"]), abs=1e-4)  # one rule
    assert len({tuple(np.ravel(own)) for own in weights.values()}) == len(weights)

    train_interrupted(config, str(tmp_path / "parts"), epochs=2, monkeypatch=monkeypatch)
    train_and_evaluate(config, str(tmp_path / "parts"))
    for name in ("predictions.csv", "runs.csv", "history.jsonl", "metrics.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_settings_of_other_structure_are_other_programs_and_continue(
    tmp_path: Path, cache_dir: str, monkeypatch: pytest.MonkeyPatch
):
    config = tiny_config(cache_dir)
    config.grid.streams = (("mfcc",), ("mfcc", "mel"))
    config.grid.alpha = (0.5, 1.0)
    config.final = True
    found = train_and_evaluate(config, str(tmp_path / "whole"))
    names = {f"alpha={alpha} streams={streams}" for streams in ("mfcc", "mfcc+mel") for alpha in (0.5, 1.0)}
    assert {s["name"] for s in found["settings"]} == names
    plan = json.loads((tmp_path / "whole" / "plan.json").read_text())
    assert [own["structure"] for own in plan] == [{"streams": "mfcc"}, {"streams": "mfcc+mel"}]
    assert sorted(run for own in plan for run in own["runs"]) == list(range(40))
    assert plan[1]["needed_bytes"] > plan[0]["needed_bytes"] > 0
    assert {row["streams"] for row in read_csv(tmp_path / "whole" / "runs.csv")} == {"mfcc", "mfcc+mel"}

    final = [row for row in read_csv(tmp_path / "whole" / "runs.csv") if row["fold"] == "all"]
    assert [int(row["run"]) for row in final] == [40, 41, 42, 43]
    assert {row["setting"] for row in final} == names
    assert set(os.listdir(tmp_path / "whole" / "checkpoints" / "final")) == {"program-1", "program-2"}

    # The runs with MFCC alone are those of a study that has nothing else.
    config = tiny_config(cache_dir)
    config.grid.alpha = (0.5, 1.0)
    train_and_evaluate(config, str(tmp_path / "alone"))

    def predicted(workdir: str, prefix: str) -> dict[tuple[str, ...], list[str]]:
        rows = read_csv(tmp_path / workdir / "predictions.csv")
        return {
            (row["setting"].replace(prefix, ""), row["fold"], row["id"]): [row["prob_sad"], row["pred_valence"]]
            for row in rows
            if "mel" not in row["setting"]
        }

    assert predicted("whole", " streams=mfcc") == predicted("alone", "")

    # Interrupted in the second program.
    config = tiny_config(cache_dir)
    config.grid.streams = (("mfcc",), ("mfcc", "mel"))
    config.grid.alpha = (0.5, 1.0)
    config.final = True
    train_interrupted(config, str(tmp_path / "parts"), epochs=1, monkeypatch=monkeypatch, program=2)
    train_and_evaluate(config, str(tmp_path / "parts"))
    for name in ("predictions.csv", "runs.csv", "history.jsonl", "metrics.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_corpus_without_dimensions(tmp_path: Path, cache_dir: str):
    found = train_and_evaluate(table_config(cache_dir, labelled_table(tmp_path)), str(tmp_path / "workdir"))
    assert set(found["settings"][0]["metrics"]) == CLASS_METRICS
    assert found["settings"][0]["baselines"] == {}
    assert set(found["baselines"]["majority"]) == CLASS_METRICS
    rows = read_csv(tmp_path / "workdir" / "predictions.csv")
    assert {row[name] for row in rows for d in DIMENSIONS for name in (d, f"pred_{d}")} == {""}
    for row in rows:
        assert float(row["prob_angry"]) + float(row["prob_sad"]) == pytest.approx(1, abs=1e-5)
    assert not any("vad" in key or "ccc" in key for row in read_history(tmp_path / "workdir") for key in row)


def test_corpus_without_classes_in_stereo_at_another_rate(tmp_path: Path, cache_dir: str):
    rows = []
    for i in range(16):
        name = f"{i}.{('wav', 'flac')[i % 2]}"
        write_voice(tmp_path / name, seed=i, sampling_rate=44_100, channels=2)
        values = {d: round(1 + (i * (k + 3) % 9) / 2, 1) for k, d in enumerate(DIMENSIONS)}
        rows.append({"path": name, "speaker": f"s{i // 4}", **values})
    config = table_config(cache_dir, write_table(tmp_path / "rated.csv", rows))
    found = train_and_evaluate(config, str(tmp_path / "workdir"))
    assert found["corpus"]["classes"] == []
    assert set(found["settings"][0]["metrics"]) == VAD_METRICS
    assert found["baselines"]["majority"] == {}
    notes = found["audit"]["notes"]
    assert sum(n for note, n in notes.items() if "44100 Hz" in note) == 16
    assert sum(n for note, n in notes.items() if "stereo" in note) == 16
    predicted = read_csv(tmp_path / "workdir" / "predictions.csv")
    assert {row["label"] for row in predicted} == {""}
    assert all(float(row["pred_arousal"]) for row in predicted)
    assert not any(key.endswith(("_class", "_ua", "_wa")) for row in read_history(tmp_path / "workdir") for key in row)


def test_transductive_and_optimistic_numbers_are_marked(tmp_path: Path, cache_dir: str, capsys):
    config = table_config(cache_dir, labelled_table(tmp_path))
    config.normalisation = "speaker"
    config.select_on_test = True
    found = train_and_evaluate(config, str(tmp_path / "workdir"))
    protocol = found["protocol"]
    assert protocol["transductive"] and protocol["select_on_test"] and protocol["optimistic"]
    kept = read_csv(tmp_path / "workdir" / "predictions.csv")  # also where the epoch is not chosen on validation
    assert {row["fold"] for row in kept if row["split"] == "val"} == {"s0", "s1", "s2", "s3"}
    report = (tmp_path / "workdir" / "report.html").read_text()
    for shown in (protocol["description"], capsys.readouterr().out, report):
        assert "optimistic" in shown.lower()
        assert "transductive" in shown.lower()


def test_honest_numbers_are_not_marked(study: Path, metrics):
    protocol = metrics["protocol"]
    assert not (protocol["transductive"] or protocol["select_on_test"] or protocol["optimistic"])
    for shown in (protocol["description"], study.with_name("printed.txt").read_text()):
        assert "optimistic" not in shown.lower()
        assert "transductive" not in shown.lower()
