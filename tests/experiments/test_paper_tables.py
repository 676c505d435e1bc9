"""The paper's tables: all rows and all folds, a program for each structure, one table."""

import json
from pathlib import Path

import pytest
from tiny_study import GOLDEN_SSL, read_csv, shrink

from experiments import train
from experiments.paper import tables
from sejax.config import STRUCTURAL, settings_of
from sejax.report.read import read_study

CHECKPOINTS = {stream: str(GOLDEN_SSL / f"{stream}-base") for stream in tables.PRETRAINED}


def _cells(table: str) -> dict[str, list[str]]:
    """Returns the cells of a Markdown table by those of its first column."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {first: rest for first, *rest in lines}


def test_the_rows_are_those_of_the_paper_with_and_without_raw_audio():
    acoustic, whole = tables.rows_of([]), tables.rows_of(list(CHECKPOINTS))
    titles = [title for rows in acoustic.values() for title in rows.values()]
    assert len(titles) == len(set(titles)) == 19
    assert not any("raw audio" in title for title in titles)
    assert set(whole["streams"].values()) - set(titles) == {
        "raw audio by Wav2Vec 2.0 alone",
        "raw audio by HuBERT alone",
        "parallel streams without raw audio",
        "parallel streams, raw audio by Wav2Vec 2.0 only",
        "parallel streams, raw audio by HuBERT only",
    }
    assert whole["weighting"] == acoustic["weighting"]
    # What is tested is in the tables.
    settings = {name for rows in acoustic.values() for name in rows} | {tables.CHOSEN}
    assert {name for pair in tables.PAIRS for name in pair[:2]} <= settings


@pytest.mark.parametrize("checkpoints", [{}, CHECKPOINTS], ids=["acoustic", "raw_audio"])
def test_programs_are_as_many_as_structures(checkpoints: dict[str, str]):
    configs = tables.study_configs("synthetic", "", checkpoints)
    rows = tables.rows_of(list(checkpoints))
    structures = set()
    for config in configs.values():
        for setting in settings_of(config):
            own = {"streams": config.streams, "model.self_attention": True, "model.co_attention": True}
            structures.add(tuple((own | setting.values)[name] for name in own))
            assert not {name for name in setting.values if name in STRUCTURAL} - own.keys()
    printed = tables.plan(configs, rows)
    assert printed.endswith(f" rows in {len(structures)} programs, each with all folds and seeds")
    assert sum(", program " in line for line in printed.splitlines()) == len(structures)
    for name, title in (item for of_study in rows.values() for item in of_study.items()):
        assert f"\n  {title} ({name})" in printed


def test_the_plan_needs_no_corpus_and_a_study_needs_a_workdir(capsys: pytest.CaptureFixture[str]):
    tables.main(["--plan", "--corpus", "iemocap", "--hubert", "facebook/hubert-base-ls960"])
    printed = capsys.readouterr().out
    assert "\nno rows of Wav2Vec 2.0: --wav2vec2 names no checkpoint\n" in printed
    assert "raw audio by HuBERT alone (streams=hubert)" in printed
    assert "no rows of HuBERT" not in printed
    with pytest.raises(SystemExit):
        tables.main([])
    assert "--workdir is missing, expected a folder, or --plan" in capsys.readouterr().err


def test_all_rows_and_folds_in_one_table(
    tmp_path: Path, cache_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole = tables.study_configs

    def small(corpus: str, data_dir: str, checkpoints: dict[str, str]):
        return {name: shrink(config, cache_dir) for name, config in whole(corpus, data_dir, checkpoints).items()}

    monkeypatch.setattr(tables, "study_configs", small)
    monkeypatch.setattr("sejax.study.write_report", lambda workdir: "")  # a quarter of the time, and tested elsewhere
    words = ["--workdir", str(tmp_path), "--epochs", "1", "--fraction", "0.01"]
    tables.main(words)
    printed = capsys.readouterr().out
    table = (tmp_path / "table.md").read_text()
    assert printed.endswith(table)
    results, tests = table.split("\n\n")

    # Every row has its numbers, from all folds; programs are as many as the plan says.
    rows, programs = tables.rows_of([]), 0
    for study, of_study in rows.items():
        runs = read_csv(tmp_path / study / "runs.csv")
        folds = {run["fold"] for run in runs}
        assert len(folds) == 10
        assert {(run["setting"], run["fold"]) for run in runs} == {(name, fold) for name in of_study for fold in folds}
        programs += len(json.loads((tmp_path / study / "plan.json").read_text()))
    assert f"19 rows in {programs} programs" in printed
    cells = _cells(results)
    for name, title in (item for of_study in rows.values() for item in of_study.items()):
        assert cells[title][0] == name
        assert bool(cells[title][2]) == (name != tables.VAD_ONLY)
        assert bool(cells[title][6]) == (name != tables.CLASS_ONLY)

    # The chosen row, the baselines, and what is published.
    study = read_study(str(tmp_path / "weighting"))
    chosen = next(entry for entry in study.settings if entry.name == tables.CHOSEN)
    assert cells["joint, each fold's own choice of these"][2].startswith(f"{100 * chosen.metrics['ua'].pooled:.1f}")
    assert cells["joint, each fold's own choice of these"][7] == f"{chosen.lookup['ccc_mean'].pooled:.3f}"
    assert set(chosen.choice.values()) <= {name for name in rows["weighting"] if name not in ("alpha=1.0", "alpha=0.0")}
    assert cells["majority class"][2].startswith(f"{100 * study.majority['ua'].pooled:.1f}")
    paper = cells["published, IEMOCAP: Bautista & Shin 2025, their best"]
    assert paper == ["leave one subject out", "72.66", "73.22", "", "", "", "0.3717", ""]

    # What is tested: the difference of the pooled numbers that the first table has.
    (first, *_), n = [line for line in tests.splitlines() if "| UA % " in line], len(tests.splitlines())
    _, row, other, metric, difference, _, _, _ = (cell.strip() for cell in first.split("|"))
    assert (row, other, metric) == ("joint, alpha 0.5, both attentions", "class only", "UA %")
    of_row = {entry.name: entry.metrics for entry in study.settings}
    expected = of_row[tables.JOINT]["ua"].pooled - of_row[tables.CLASS_ONLY]["ua"].pooled
    assert difference.startswith(f"{100 * expected:+.1f} [")
    assert n == 2 + len(tables.PAIRS)

    # A finished workdir is only read.
    monkeypatch.setattr(train, "train_and_evaluate", None)
    tables.main(words)
    assert (tmp_path / "table.md").read_text() == table
