"""Studies of corpora whose classes are not equally frequent, and whose raters disagree."""

import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_study import read_csv, table_config, train_interrupted, write_table, write_voice

from sejax.errors import InputError
from sejax.study import train_and_evaluate

CLASSES = ("angry", "happy", "sad")
WAYS = {
    "class_temperature": (1.0, 100.0),
    "loss.class_prior": ("none", "train"),
    "loss.vote_entropy": (0.0, 1.0),
}


def voted_table(folder: Path, name: str, *, garbage: bool = False) -> Path:
    """Writes a corpus of four speakers with three raters' votes: angry is frequent, and of each speaker a tie.

    Args:
      garbage: whether the first speaker's votes are others.
    """
    rows = []
    for i in range(32):
        path = folder / f"{i}.wav"
        if not path.exists():
            write_voice(path, seed=i)
        voted = {0: "happy", 1: "sad"}.get(i % 8, "angry")
        votes = {name: 2 * (name == voted) + (name == CLASSES[i % 3]) for name in CLASSES}
        if i % 8 == 7:
            votes = {"angry": 1, "happy": 1, "sad": 1}
        if garbage and i < 8:
            votes = {"angry": i % 2, "happy": 0, "sad": 3}
        rows.append({"path": str(path), "speaker": f"s{i // 8}", **{f"votes:{n}": votes[n] for n in CLASSES}})
    return write_table(folder / f"{name}.csv", rows)


def config_of(cache_dir: str, table: Path, *, varied: bool = True) -> ConfigDict:
    """Returns a study of votes with a focal loss and class weights, and a grid of the other ways."""
    config = table_config(cache_dir, table)
    config.alpha, config.epochs, config.loss.soft_labels, config.buckets = 1.0, 3, True, 2
    config.loss.focal_gamma, config.loss.class_weight = 2.0, "effective"
    if varied:
        config.grid.class_temperature = WAYS["class_temperature"]
        config.grid.loss.class_prior = WAYS["loss.class_prior"]
        config.grid.loss.vote_entropy = WAYS["loss.vote_entropy"]
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("imbalanced")


@pytest.fixture(scope="module")
def trained(folder, cache_dir) -> Path:
    """A grid of eight settings."""
    train_and_evaluate(config_of(cache_dir, voted_table(folder, "voted")), str(folder / "trained"))
    return folder / "trained"


def probabilities(workdir: Path, setting: str | None = None, fold: str | None = None) -> np.ndarray:
    rows = [
        row
        for row in read_csv(workdir / "predictions.csv")
        if setting in (None, row["setting"]) and fold in (None, row["fold"])
    ]
    return np.array([[float(row[f"prob_{name}"]) for name in CLASSES] for row in rows])


def test_every_way_is_a_run_of_one_program_and_changes_what_is_learned(trained: Path):
    (plan,) = json.loads((trained / "plan.json").read_text())
    assert len(plan["runs"]) == 4 * 8
    settings = {row["setting"] for row in read_csv(trained / "predictions.csv")}
    learned = {setting: probabilities(trained, setting) for setting in settings}
    (plain,) = (name for name in settings if all(f"{way}={off}" in name for way, (off, _) in WAYS.items()))
    for name, (off, on) in WAYS.items():
        other = plain.replace(f"{name}={off}", f"{name}={on}")
        assert np.abs(learned[other] - learned[plain]).max() > 1e-4, name


def test_a_way_changes_nothing_for_the_runs_beside_it(trained: Path, folder: Path, cache_dir: str):
    train_and_evaluate(config_of(cache_dir, folder / "voted.csv", varied=False), str(folder / "alone"))
    (off,) = (
        name
        for name in {row["setting"] for row in read_csv(trained / "predictions.csv")}
        if all(f"{way}={value}" in name for way, (value, _) in WAYS.items())
    )
    np.testing.assert_allclose(probabilities(trained, off), probabilities(folder / "alone"), atol=2e-5)


def test_votes_of_a_held_out_speaker_change_no_bit(trained: Path, folder: Path, cache_dir: str):
    """Neither what is learned nor how long an epoch is, by any way, in the fold that tests on him."""
    table = voted_table(folder, "garbage", garbage=True)
    train_and_evaluate(config_of(cache_dir, table), str(folder / "spoilt"))
    rows = [
        [{k: v for k, v in row.items() if k.startswith(("prob_", "id", "setting"))} for row in of_one]
        for of_one in (
            [row for row in read_csv(workdir / "predictions.csv") if row["fold"] == "s0"]
            for workdir in (trained, folder / "spoilt")
        )
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 8 * 16
    assert (probabilities(trained, fold="s2") != probabilities(folder / "spoilt", fold="s2")).any()


def test_an_interrupted_study_ends_with_the_same_bytes(trained: Path, folder: Path, cache_dir: str, monkeypatch):
    config = config_of(cache_dir, folder / "voted.csv")
    train_interrupted(config, str(folder / "cut"), epochs=1, monkeypatch=monkeypatch)
    train_and_evaluate(config, str(folder / "cut"))
    assert (folder / "cut" / "predictions.csv").read_bytes() == (trained / "predictions.csv").read_bytes()


def test_utterances_without_a_majority_are_learned_from_their_votes(
    trained: Path, folder: Path, cache_dir: str, capsys
):
    """With soft labels; a tie is no label, neither in validation nor in test."""
    config = config_of(cache_dir, folder / "voted.csv", varied=False)
    config.grid.loss.soft_labels = (True, False)
    metrics = train_and_evaluate(config, str(folder / "hard"))
    soft, hard = (probabilities(folder / "hard", f"loss.soft_labels={value}") for value in (True, False))
    assert np.abs(soft - hard).max() > 1e-3
    ties = [row for row in read_csv(folder / "hard" / "predictions.csv") if not row["label"]]
    assert len(ties) == 2 * 2 * 4  # val and test, two settings
    for setting in metrics["settings"]:
        found = setting["distributions"]
        assert (found["utterances"], found["without_label"]) == (32, 4)
        assert sum(fold["utterances"] for fold in setting["folds"]) == 32
    assert set(metrics["baselines"]["mean_votes"]) == {"js", "kl", "any_rater"}
    printed = capsys.readouterr().out
    assert "against raters' votes" in printed and "mean votes in training" in printed
    assert "against raters&#39; votes" in (folder / "hard" / "report.html").read_text()


def test_weights_by_votes_need_votes(folder: Path, cache_dir: str):
    rows = [{"path": str(folder / f"{i}.wav"), "speaker": f"s{i // 8}", "label": CLASSES[i % 2]} for i in range(32)]
    config = table_config(cache_dir, write_table(folder / "labels.csv", rows))
    config.loss.vote_entropy = 0.5
    with pytest.raises(InputError, match=r"config\.loss\.vote_entropy is 0\.5, expected 0: .* no votes"):
        train_and_evaluate(config, str(folder / "voteless"))
    config.loss.vote_entropy, config.settings = 0.0, ("loss.vote_entropy=0.5", "alpha=0.5")
    with pytest.raises(InputError, match=r"config\.loss\.vote_entropy is 0\.5, expected 0: .* no votes"):
        train_and_evaluate(config, str(folder / "voteless"))
    config.settings, config.search.draws, config.search.between.loss.vote_entropy = (), 2, (0.0, 1.0)
    with pytest.raises(InputError, match=r"config\.loss\.vote_entropy is 1, expected 0: .* no votes"):
        train_and_evaluate(config, str(folder / "voteless"))
