"""Studies over several corpora: the matrix, what its cells are, and corpora with different labels."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_study import read_csv, table_config, train_interrupted, write_table, write_voice

from sejax.errors import InputError
from sejax.study import train_and_evaluate

LABELS = ("angry", "happy", "sad")


def corpora(folder: Path) -> tuple[str, str]:
    """Writes two corpora with different numbers of speakers and utterances."""
    sources = []
    for name, n_speakers, each in (("one", 3, 3), ("two", 4, 5)):
        rows = []
        for speaker, (place, label), take in product(range(n_speakers), enumerate(LABELS), range(each)):
            path = folder / f"{name}_{speaker}_{label}_{take}.wav"
            write_voice(path, seed=len(rows) + 1000 * n_speakers)
            valence = (1.5, 4.5, 2.0)[place] - 0.1 * take
            rows.append({"path": str(path), "speaker": f"s{speaker}", "label": label, "valence": valence})
        sources.append(f"table:{write_table(folder / f'{name}.csv', rows)}")
    return sources[0], sources[1]


def config_of(cache_dir: str, sources: tuple[str, ...]) -> ConfigDict:
    config = table_config(cache_dir, Path())
    config.corpora, config.data_dir = sources, ""
    config.protocol, config.labels = "cross", "four"
    config.learning_rate = 1e-2
    config.epochs = 3
    return config


@pytest.fixture(scope="module")
def matrix(tmp_path_factory, cache_dir):
    """A trained matrix of two corpora: sources, workdir, and what is in metrics.json."""
    folder = tmp_path_factory.mktemp("across")
    sources = corpora(folder)
    metrics = train_and_evaluate(config_of(cache_dir, sources), str(folder / "workdir"))
    return sources, folder / "workdir", metrics


def cell(metrics, train, test):
    (found,) = (c for c in metrics["settings"][0]["tests"] if (c["train"], c["test"]) == (train, test))
    return found


def test_one_program_trains_the_whole_matrix(matrix):
    _, workdir, metrics = matrix
    (plan,) = json.loads((workdir / "plan.json").read_text())
    assert len(plan["runs"]) == metrics["protocol"]["folds"] == 3 + 4 + 2
    assert [(c["train"], c["test"], c["within"]) for c in metrics["settings"][0]["tests"]] == [
        ("one", "one", True),
        ("one", "two", False),
        ("two", "one", False),
        ("two", "two", True),
    ]
    assert cell(metrics, "one", "two")["utterances"] == 60
    assert cell(metrics, "two", "one")["speakers"] == 3


@pytest.mark.parametrize("place", [0, 1])
def test_a_cell_within_a_corpus_is_what_the_corpus_alone_gives(matrix, tmp_path, cache_dir, place):
    sources, workdir, metrics = matrix
    config = config_of(cache_dir, sources)
    config.corpora, config.protocol = (), "loso"
    config.data_dir = sources[place].removeprefix("table:")
    alone = train_and_evaluate(config, str(tmp_path / "alone"))
    name = ("one", "two")[place]
    expected = {(r["split"], r["id"]): r for r in read_csv(tmp_path / "alone" / "predictions.csv")}
    ours = [r for r in read_csv(workdir / "predictions.csv") if r["fold"].startswith(f"{name}:")]
    assert len(ours) == len(expected)
    for row in ours:
        there = expected[row["split"], row["id"].removeprefix(f"{name}:")]
        assert row["fold"] == f"{name}:{there['fold']}"
        for column in row:
            if column.startswith(("prob_", "pred_")) and row[column]:
                # The cosine of the learning rate is rounded otherwise where the number of steps is an argument.
                np.testing.assert_allclose(float(row[column]), float(there[column]), rtol=0, atol=2e-4)
    own, whole = cell(metrics, name, name)["metrics"], alone["settings"][0]["metrics"]
    assert own.keys() == whole.keys()
    assert own["ua"]["pooled"] == whole["ua"]["pooled"]


def test_every_other_number_is_of_folds_that_test_on_another_corpus(matrix):
    _, workdir, metrics = matrix
    rows = [r for r in read_csv(workdir / "predictions.csv") if r["split"] == "test" and r["fold"].endswith(">")]
    right = np.mean([max(LABELS, key=lambda name, row=row: float(row[f"prob_{name}"])) == row["label"] for row in rows])
    assert metrics["settings"][0]["metrics"]["wa"]["pooled"] == pytest.approx(right, abs=1e-12)
    assert {f["fold"] for f in metrics["settings"][0]["folds"]} == {"one>", "two>"}
    assert "test on other corpora" in metrics["protocol"]["description"]


def test_an_interrupted_matrix_ends_with_the_same_bytes(matrix, tmp_path, cache_dir, monkeypatch):
    sources, workdir, _ = matrix
    config = config_of(cache_dir, sources)
    train_interrupted(config, str(tmp_path / "workdir"), epochs=1, monkeypatch=monkeypatch)
    train_and_evaluate(config, str(tmp_path / "workdir"))
    for name in ("predictions.csv", "metrics.json", "runs.csv"):
        assert (tmp_path / "workdir" / name).read_bytes() == (workdir / name).read_bytes(), name


def test_a_matrix_has_final_models_and_one_corpus_has_nothing_to_balance(matrix, tmp_path, cache_dir):
    sources, workdir, _ = matrix
    config = config_of(cache_dir, sources)
    config.final, config.corpus_temperature = True, 5.0
    train_and_evaluate(config, str(tmp_path / "workdir"))
    assert (tmp_path / "workdir" / "predictions.csv").read_bytes() == (workdir / "predictions.csv").read_bytes()
    final = [row for row in read_csv(tmp_path / "workdir" / "runs.csv") if row["test_speakers"] == ""]
    assert len(final) == 1 and len(final[0]["train_speakers"].split()) == 7


def test_streamed_frames_give_the_same_matrix(matrix, tmp_path, cache_dir):
    sources, _, _ = matrix
    outcomes = []
    for place in ("device", "host"):
        config = config_of(cache_dir, sources)
        config.model.encoder.mfcc = "linear"
        config.frames_on = place
        train_and_evaluate(config, str(tmp_path / place))
        rows = read_csv(tmp_path / place / "predictions.csv")
        outcomes.append(np.array([[float(row[f"prob_{name}"]) for name in LABELS] for row in rows]))
    np.testing.assert_allclose(*outcomes, atol=1e-5)


@pytest.mark.parametrize("protocol", ["leave_one_corpus_out", "joint"])
def test_the_other_protocols_train_on_several_corpora(matrix, tmp_path, cache_dir, protocol):
    sources, _, _ = matrix
    config = config_of(cache_dir, sources)
    config.protocol, config.corpus_temperature = protocol, 4.0
    metrics = train_and_evaluate(config, str(tmp_path / "workdir"))
    cells = metrics["settings"][0]["tests"]
    assert [(c["train"], c["test"], c["within"]) for c in cells] == [(None, "one", False), (None, "two", False)]
    assert sum(c["utterances"] for c in cells) == 27 + 60


def test_classes_of_one_corpus_and_dimensions_of_the_other(matrix, tmp_path, cache_dir):
    """The union knows the classes of one corpus and the valence of the other; one model learns both."""
    sources, _, _ = matrix
    stripped = []
    for source, column in zip(sources, ("valence", "label"), strict=True):
        table = Path(source.removeprefix("table:"))
        rows = [{name: value for name, value in row.items() if name != column} for row in read_csv(table)]
        stripped.append(f"table:{write_table(tmp_path / table.name, rows)}")
    config = config_of(cache_dir, (stripped[0], stripped[1]))
    config.protocol = "joint"
    metrics = train_and_evaluate(config, str(tmp_path / "workdir"))
    own = {c["test"]: c["metrics"] for c in metrics["settings"][0]["tests"]}
    assert "ua" in own["one"] and "ccc_valence" not in own["one"]
    assert "ccc_valence" in own["two"] and "ua" not in own["two"]


def test_a_protocol_across_corpora_needs_several(tmp_path, cache_dir, matrix):
    sources, _, _ = matrix
    config = config_of(cache_dir, sources)
    config.corpora, config.data_dir = (), sources[0].removeprefix("table:")
    with pytest.raises(InputError, match=r"config\.corpora is \(\), expected two or more.* for the protocol cross"):
        train_and_evaluate(config, str(tmp_path / "workdir"))
