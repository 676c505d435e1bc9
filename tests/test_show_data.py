"""`--mode data`: what is in a corpus, before an expensive build, and without claiming the workdir."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_study import config_file, labelled_table, run_command, study_config, table_config, tiny_config

from sejax.build import build, options, preview
from sejax.errors import InputError
from sejax.study import show_data
from sejax.workdir import files


def test_the_command_prints_a_summary_and_writes_a_page(tmp_path: Path, capsys):
    table, workdir = labelled_table(tmp_path), tmp_path / "workdir"
    words = f"--config.corpus=table --config.data_dir={table} --config.cache_dir={tmp_path / 'cache'}".split()
    done = run_command(f"--config={config_file(tmp_path, 'default_config')}", *words, "--mode=data")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "table: 16 utterances, 4 speakers, 0.1 min",
        "label source: unknown",
        "  angry       8   50.0 %  4 speakers, 0.1 min, median 0.5 s",
        "  sad         8   50.0 %  4 speakers, 0.1 min, median 0.5 s",
        "durations: 0.5 to 0.5 s, median 0.5 s",
        "folds: 4, leave one speaker out",
        "  train  8 utterances",
        "  val    4 utterances",
        "  test   4 utterances",
    ]
    show_data(table_config(str(tmp_path / "cache"), table), str(workdir))
    assert capsys.readouterr().out == f"{done.stdout}data: {workdir}/data.html\n"
    assert os.listdir(workdir) == ["data.html"] and not (tmp_path / "cache").exists()


def test_a_study_of_any_config_may_begin_where_data_were_shown(tmp_path: Path, study: Path, cache_dir: str):
    workdir, config = str(tmp_path / "workdir"), study_config(cache_dir)
    show_data(config, workdir)
    config.seed = 3
    files.check_workdir(workdir, options(config), must_exist=False)
    files.claim_workdir(workdir, options(config), build(config))
    assert set(os.listdir(workdir)) == {"data.html", "config.json", "utterances.csv"}
    begun = {name: (tmp_path / "workdir" / name).stat().st_mtime_ns for name in ("config.json", "utterances.csv")}
    show_data(config, workdir)
    assert begun == {name: (tmp_path / "workdir" / name).stat().st_mtime_ns for name in begun}
    # It belongs to that study from now on.
    config.seed = 4
    with pytest.raises(InputError, match="belongs to another config"):
        show_data(config, workdir)


def test_it_shows_what_the_study_then_stores(study: Path, cache_dir: str):
    stored = json.loads((study / "data.json").read_text())
    assert stored["votes"] and stored["ratings"] and stored["texts"] and stored["by_gender"]
    # Headers say how long files last but for rounding.
    assert dict(leaves(preview(study_config(cache_dir)).data)) == pytest.approx(dict(leaves(stored)), abs=2e-3)
    report = (study / "report.html").read_text()
    assert "Raters&#39; disagreement" in report and "Between genders and speakers" in report


def leaves(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of a tree by their places."""
    if isinstance(tree, dict | list):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{place}/{name}")
    else:
        yield place, tree


def test_unusable_files_are_shown_before_they_are_refused(tmp_path: Path, cache_dir: str, capsys):
    config = table_config(cache_dir, labelled_table(tmp_path))
    (tmp_path / "3.wav").write_bytes((tmp_path / "3.wav").read_bytes()[:-4000])
    with pytest.raises(InputError, match=r"no usable audio for at least 1 of 16 utterances .*3\.wav"):
        show_data(config, str(tmp_path / "workdir"))
    assert "1 utterance dropped: unusable audio" in capsys.readouterr().out
    assert "3.wav" in (tmp_path / "workdir" / "data.html").read_text()
    config.max_bad_fraction = 0.1
    show_data(config, None)


def test_what_a_study_refuses_is_refused(tmp_path: Path, cache_dir: str):
    config = table_config(cache_dir, labelled_table(tmp_path))
    config.protocol = "loso_session"
    with pytest.raises(InputError, match="session"):
        show_data(config, str(tmp_path / "workdir"))
    config = tiny_config(cache_dir)
    config.epochs = 0
    with pytest.raises(InputError, match=r"config\.epochs is 0"):
        show_data(config, None)
