"""Nested choice: each fold takes the setting that is best on its own validation speakers."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from fabricated import study
from tiny_study import read_csv, read_history, table_config, tiny_config, write_table, write_voice

from sejax.corpora.schema import Corpus, Utterance
from sejax.engine.feed import Outcome
from sejax.engine.runs import Learnable, Setting, enumerate_runs
from sejax.errors import InputError
from sejax.evaluation.nested import choose_settings
from sejax.evaluation.results import compute_metrics
from sejax.evaluation.tables import format_table
from sejax.inference.export import export_bundle
from sejax.protocols.folds import Fold
from sejax.report.page import write_report
from sejax.study import train_and_evaluate

FOLDS = 10


def settings(**alphas: float) -> list[Setting]:
    return [Setting(name, {"alpha": alpha, "learning_rate": 1e-3}) for name, alpha in alphas.items()]


def choice(scores: Mapping[tuple[int, int, str], float], of: list[Setting], seeds: int = 1) -> dict[int, str]:
    """Returns what the folds choose, given the score of each fold, seed and setting (0 where none is given)."""
    folds = 1 + max(fold for fold, *_ in scores)
    runs = enumerate_runs(folds, of, range(seeds))
    best = np.array([scores.get((run.fold, run.seed, run.setting.name), 0.0) for run in runs], np.float32)
    return {fold: setting.name for fold, setting in choose_settings(runs, best).items()}


def test_each_fold_takes_the_mean_over_its_own_seeds():
    scores = {(0, 0, "a"): 0.9, (0, 1, "a"): 0.1, (0, 0, "b"): 0.6, (0, 1, "b"): 0.6, (1, 0, "a"): 0.2}
    assert choice(scores, settings(a=0.5, b=0.5), seeds=2) == {0: "b", 1: "a"}


def test_only_settings_of_the_same_tasks_compare_and_a_diverged_run_is_not_chosen():
    scores = {(0, 0, "class alone"): 0.99, (0, 0, "a"): 0.3, (0, 0, "b"): 0.2, (1, 0, "a"): -np.inf, (1, 0, "b"): 0.1}
    assert choice(scores, settings(**{"class alone": 1.0}, a=0.5, b=0.4)) == {0: "a", 1: "b"}
    assert choice({(0, 0, "a"): 0.3}, settings(a=0.5, b=1.0)) == {}


def test_a_config_without_settings_that_compare_is_refused(cache_dir: str, tmp_path: Path):
    config = tiny_config(cache_dir)
    config.choose = "setting"
    config.grid.alpha = (0.0, 1.0, 0.5)
    with pytest.raises(InputError, match=r"config.choose is 'setting', expected epoch where fewer than two settings"):
        train_and_evaluate(config, str(tmp_path))


@pytest.fixture(scope="module")
def finished(cache_dir: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study of a grid over both kinds of options, evaluated again with nested choice; and what that printed."""
    workdir = tmp_path_factory.mktemp("nested") / "workdir"
    config = tiny_config(cache_dir)
    config.epochs, config.seeds = 3, 2
    config.grid.learning_rate = (3e-3, 1e-2, 1e-8)
    config.grid.dropout = (0.0, 0.4)
    train_and_evaluate(config, str(workdir))
    before = {name: (workdir / name).read_bytes() for name in ("predictions.csv", "history.jsonl")}
    without = json.loads((workdir / "metrics.json").read_text())
    config.choose = "setting"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append("\n".join(map(str, words))))
        train_and_evaluate(config, str(workdir), train=False)
    assert before == {name: (workdir / name).read_bytes() for name in before}
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["settings"][1:] == without["settings"]
    return workdir, "\n".join(lines)


def test_the_row_has_the_predictions_that_the_folds_chose(finished: tuple[Path, str]):
    workdir, _ = finished
    chosen, other, *_ = json.loads((workdir / "metrics.json").read_text())["settings"]
    assert chosen["name"] == "chosen" and set(chosen["values"]) < set(other["values"])
    scores: dict[str, dict[str, list[float]]] = {}
    best = {row["run"]: row["best_epoch"] for row in read_csv(workdir / "runs.csv")}
    for row in read_history(workdir):
        if str(row["epoch"]) == best[str(row["run"])]:
            scores.setdefault(row["fold"], {}).setdefault(row["setting"], []).append(row["score"])
    by_hand = {fold: max(of_fold, key=lambda name: np.mean(of_fold[name])) for fold, of_fold in scores.items()}
    assert chosen["choice"]["folds"] == by_hand and len(set(by_hand.values())) > 1
    rows = [row for row in read_csv(workdir / "predictions.csv") if by_hand[row["fold"]] == row["setting"]]
    for seed in ("0", "1"):
        tested = [row for row in rows if row["split"] == "test" and row["seed"] == seed and row["label"]]
        recalls = []
        for label in sorted({row["label"] for row in tested}):
            own = [row for row in tested if row["label"] == label]
            classes = [name for name in own[0] if name.startswith("prob_")]
            hits = [max(classes, key=lambda name, row=row: float(row[name])) == f"prob_{label}" for row in own]
            recalls.append(np.mean(hits))
        scores.setdefault("ua", {}).setdefault("chosen", []).append(float(np.mean(recalls)))
    assert chosen["metrics"]["ua"]["pooled"] == pytest.approx(np.mean(scores["ua"]["chosen"]))
    assert set(by_hand) == {entry["fold"] for entry in chosen["folds"]}
    assert [entry["fold"] for entry in chosen["folds"]] == [entry["fold"] for entry in other["folds"]]


@pytest.mark.parametrize(
    ("alpha", "remark"),
    [(0.4, "chosen, b: only 3 of 4 epochs are trained"), (1.0, "b: only 3 of 4 epochs are trained")],
)
def test_it_may_change_while_settings_that_it_chooses_among_are_trained(alpha: float, remark: str):
    """Every fold takes `a`, which is finished; with alpha 1, `b` predicts no dimensions and is not among them."""
    rows = study(n_speakers=3, seeds=(0,), settings=("a", "b", "c"))
    first = rows.select(rows.setting == "a")
    utterances = tuple(
        Utterance(id=i, path="", speaker=speaker, label=rows.classes[label], vad=tuple(vad))
        for i, speaker, label, vad in zip(
            first.id, first.speaker.tolist(), first.label, first.vad.tolist(), strict=True
        )
    )
    speakers = [first.speaker == speaker for speaker in ("s0", "s1", "s2")]
    folds = [Fold(f"s{n}", train=speakers[n - 2], val=speakers[n - 1], test=speakers[n]) for n in range(len(speakers))]
    runs = enumerate_runs(len(folds), settings(a=0.5, b=alpha, c=0.3), range(1))
    metrics = compute_metrics(
        rows,
        runs,
        folds,
        Corpus(name="c", classes=rows.classes, vad_scale=(1.0, 5.0), utterances=utterances, dropped=(), notes=()),
        learnable={run.number: Learnable(True, (True, True, True)) for run in runs},
        outcome=Outcome(
            best_epoch=np.ones(len(runs), np.int32),
            best_score=np.array([{"a": 0.9, "b": 0.8, "c": 0.7}[run.setting.name] for run in runs]),
            trained=np.array([{"a": 2, "b": 3, "c": 4}[run.setting.name] for run in runs]),  # `a` lost patience
            finished=np.array([run.setting.name != "b" for run in runs]),
        ),
        classical={},
        epochs=4,
        history=[],
        protocol={"description": "", "folds": 3, "seeds": 1},
        corpus_facts={},
        audit={},
        n_bootstrap=10,
        nested=True,
    )
    assert set(metrics["settings"][0]["choice"]["folds"].values()) == {"a"}
    assert f"{remark} (--mode train continues)" in format_table(metrics).splitlines()


def test_its_gap_to_hindsight_is_that_of_the_best_row(finished: tuple[Path, str]):
    workdir, printed = finished
    chosen, *settings = json.loads((workdir / "metrics.json").read_text())["settings"]
    for key, found in chosen["choice"]["hindsight"].items():
        best = max(settings, key=lambda setting: setting["metrics"][key]["pooled"])
        assert found["setting"] == best["name"] and found["pooled"] == best["metrics"][key]["pooled"]
        assert found["gap"] == pytest.approx(found["pooled"] - chosen["metrics"][key]["pooled"])
    line = next(line for line in printed.splitlines() if line.startswith("chosen: each fold takes the setting"))
    ua = chosen["choice"]["hindsight"]["ua"]
    assert f"UA {100 * ua['pooled']:.1f} ({ua['setting']}, {100 * ua['gap']:.1f} more)" in line
    assert "epoch and setting (row chosen) chosen on validation" in printed


def test_the_report_leads_with_the_row_and_a_bundle_is_of_a_setting(finished: tuple[Path, str], tmp_path: Path):
    workdir, _ = finished
    page = Path(write_report(str(workdir))).read_text()
    assert "Of 6 settings, the row <b>chosen</b>: each fold takes the setting" in page
    assert page.count('class="setting"') in (0, 7) and "chosen by fold" in page
    assert "best score" not in page  # the row has the best of each fold, by construction
    exported = export_bundle(str(workdir), str(tmp_path / "bundle"), runs=("folds",))
    assert exported.setting.startswith("learning_rate=")
    with pytest.raises(InputError, match="has no setting 'chosen', expected one of 'learning_rate="):
        export_bundle(str(workdir), str(tmp_path / "bundle"), setting="chosen")


def test_the_choice_among_coin_tosses_stays_at_chance():
    """Two hundred studies of ten folds and twenty settings whose predictions are tossed."""
    rng = np.random.default_rng(0)
    runs = enumerate_runs(FOLDS, settings(**{f"s{n}": 0.5 for n in range(20)}), range(1))
    claimed, hindsight = [], []
    for _ in range(200):
        right = rng.random((2, len(runs), 24)) < 0.5  # [val or test, run, utterance]
        accuracy = right.mean(axis=2)
        picked = choose_settings(runs, accuracy[0].astype(np.float32))
        claimed.append(np.mean([accuracy[1, r.number] for r in runs if r.setting.name == picked[r.fold].name]))
        hindsight.append(accuracy[1].reshape(20, FOLDS).mean(axis=1).max())
    assert np.mean(claimed) == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(200 * FOLDS * 24))
    assert np.mean(hindsight) > 0.55


def test_a_study_of_tossed_labels_stays_at_chance(cache_dir: str, tmp_path: Path):
    rng = np.random.default_rng(3)
    rows = []
    for i in range(120):
        write_voice(tmp_path / f"{i}.wav", seed=i)
        rows.append({"path": f"{i}.wav", "speaker": f"s{i // 12}", "label": ("angry", "sad")[rng.integers(2)]})
    config = table_config(cache_dir, write_table(tmp_path / "tossed.csv", rows))
    config.choose, config.batch_size, config.alpha = "setting", 16, 1.0
    config.grid.learning_rate = tuple(np.geomspace(1e-4, 3e-2, 10).tolist())
    config.grid.dropout = (0.0, 0.5)
    chosen = train_and_evaluate(config, str(tmp_path / "workdir"))["settings"][0]
    assert abs(chosen["metrics"]["wa"]["pooled"] - 0.5) < 3 * 0.5 / np.sqrt(120)
    assert chosen["selection_score"] > 0.55  # what would be claimed without test speakers
    assert chosen["choice"]["hindsight"]["ua"]["gap"] > 0


def test_the_last_epoch_may_be_tested_without_a_choice(cache_dir: str, tmp_path: Path):
    config = tiny_config(cache_dir)
    config.epochs, config.learning_rate = 4, 3e-2
    config.test_epoch = "last"
    metrics = train_and_evaluate(config, str(tmp_path / "workdir"))
    assert {row["best_epoch"] for row in read_csv(tmp_path / "workdir" / "runs.csv")} == {"4"}
    assert metrics["protocol"]["description"].endswith("last epoch; nothing chosen")
    scores = [row["score"] for row in read_history(tmp_path / "workdir") if row["epoch"] == 4]
    assert metrics["settings"][0]["selection_score"] == pytest.approx(np.mean(scores))
    config.patience = 2
    with pytest.raises(InputError, match=r"config.patience is 2, expected 0 with config.test_epoch=last"):
        train_and_evaluate(config, str(tmp_path / "other"))
