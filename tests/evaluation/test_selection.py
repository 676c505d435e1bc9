"""The validation scores that choose the epochs."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from sejax.corpora.schema import DIMENSIONS
from sejax.engine import losses
from sejax.engine.runs import Learnable, RunKey, Setting
from sejax.errors import InputError
from sejax.evaluation.selection import (
    check_rows,
    diverged_epochs,
    read_history,
    score,
    selection_scores,
    unselected_runs,
    validate_runs,
    validation_metrics,
)

CLASS_METRICS = {"val_loss_class", "val_wa", "val_ua"}
VAD_METRICS = {f"val_loss_{name}" for name in ("vad", *DIMENSIONS)} | {
    f"val_ccc_{name}" for name in (*DIMENSIONS, "mean")
}
EVERYTHING = Learnable(True, (True, True, True))


def outputs(rows=20, rng_seed=0):
    rng = np.random.default_rng(rng_seed)
    prob = rng.dirichlet(np.ones(3), rows)
    return prob, rng.normal(size=(rows, 3)), np.eye(3)[rng.integers(0, 3, rows)], rng.normal(size=(rows, 3))


def labels_of(target):
    return np.where(target.any(axis=1), target.argmax(axis=1), -1)


@pytest.mark.parametrize("vad_loss", losses.VAD_LOSSES)
def test_vad_losses_are_those_of_training(vad_loss):
    prob, vad, target, true_vad = outputs()
    metrics = validation_metrics(prob, vad, target, true_vad, label=labels_of(target), vad_loss=vad_loss)
    expected = np.asarray(
        losses.dimension_losses(vad_loss, *(jnp.asarray(x, jnp.float32) for x in (vad, true_vad, np.ones_like(vad))))
    )
    names = [f"val_loss_{name}" for name in ("valence", "arousal", "dominance")]
    np.testing.assert_allclose([metrics[name] for name in names], expected, rtol=1e-5)
    assert metrics["val_loss_vad"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_what_has_no_labels_is_left_out():
    prob, vad, target, true_vad = outputs()
    true_vad[:, 1] = np.nan

    def metrics(target, true_vad):
        return validation_metrics(prob, vad, target, true_vad, label=labels_of(target), vad_loss="ccc")

    without_arousal = metrics(target, true_vad)
    assert set(without_arousal) == {*CLASS_METRICS, *VAD_METRICS} - {"val_ccc_arousal", "val_loss_arousal"}
    assert set(metrics(0 * target, true_vad)).isdisjoint(CLASS_METRICS)
    assert set(metrics(target, true_vad * np.nan)) == set(CLASS_METRICS)


def test_votes_without_a_label_count_in_the_loss_alone():
    prob, vad, target, true_vad = outputs()
    label = labels_of(target)
    label[:5], target[:5] = -1, 1 / 3
    found = validation_metrics(prob, vad, target, true_vad, label=label, vad_loss="ccc")
    assert found["val_wa"] == pytest.approx((prob.argmax(axis=1) == label)[5:].mean())
    assert found["val_loss_class"] == pytest.approx(-(target * np.log(prob)).sum(axis=1).mean())
    nobody = validation_metrics(prob, vad, target, true_vad, label=np.full(20, -1), vad_loss="ccc")
    assert "val_ua" not in nobody and nobody["val_loss_class"] == found["val_loss_class"]


@pytest.mark.parametrize(("alpha", "names"), [(1.0, {*CLASS_METRICS}), (0.0, {*VAD_METRICS}), (0.1, None)])
def test_a_run_is_scored_on_the_tasks_that_it_trains(alpha, names):
    prob, vad, target, true_vad = outputs()
    columns = np.array([[3, 5, 8, 13, -1], [0, 1, 2, 4, 6]])
    runs = [RunKey(0, 1, 0, Setting("a", {"alpha": 0.5})), RunKey(1, 0, 0, Setting("b", {"alpha": alpha}))]
    stacked = np.stack([prob[columns[run.fold]] for run in runs]), np.stack([vad[columns[run.fold]] for run in runs])
    label = labels_of(target)
    arguments = columns, *stacked, target, true_vad
    both, metrics = validate_runs(runs, [EVERYTHING] * 2, *arguments, label=label, vad_loss="mae")
    assert set(both) == {*CLASS_METRICS, *VAD_METRICS, "score"}
    assert set(metrics) == (names or {*CLASS_METRICS, *VAD_METRICS}) | {"score"}
    rows = columns[0][:4]  # without the padding
    of_rows = prob[rows], vad[rows], target[rows], true_vad[rows]
    alone = validation_metrics(*of_rows, label=label[rows], vad_loss="mae")
    assert {name: metrics[name] for name in metrics if name != "score"} == {n: alone[n] for n in metrics if n in alone}
    assert metrics["score"] == score({name: alone[name] for name in metrics if name in alone})


def validated(learnable, *, alpha=0.5, prob=None, vad=None):
    default_prob, default_vad, target, true_vad = outputs()
    prob, vad = default_prob if prob is None else prob, default_vad if vad is None else vad
    columns = np.array([[*range(20), -1]])
    run = RunKey(0, 0, 0, Setting("a", {"alpha": alpha}))
    arrays = prob[columns[0]][None], vad[columns[0]][None]
    arguments = columns, *arrays, target, true_vad
    (metrics,) = validate_runs([run], [learnable], *arguments, label=labels_of(target), vad_loss="ccc")
    return metrics


def test_what_has_no_labels_in_training_is_not_scored():
    everything = validated(EVERYTHING)
    without_class = validated(Learnable(False, (True, True, True)))
    assert set(without_class) == VAD_METRICS | {"score"}
    assert without_class["score"] == everything["val_ccc_mean"]
    without_arousal = validated(Learnable(True, (True, False, True)))
    assert set(everything) - set(without_arousal) == {"val_ccc_arousal", "val_loss_arousal"}
    two = [everything[f"val_ccc_{name}"] for name in ("valence", "dominance")]
    assert without_arousal["val_ccc_mean"] == pytest.approx(np.mean(two))
    assert validated(Learnable(False, (False,) * 3)) == {"score": 0.0}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_run_with_predictions_that_are_not_finite_has_no_score(value):
    prob, vad, _, _ = outputs()
    prob[3, 1] = value
    vad[4, 1] = value
    for arguments in ({"prob": prob}, {"vad": vad}, {"prob": prob, "vad": vad}):
        metrics = validated(EVERYTHING, **arguments)
        assert set(metrics) == {"score"} and np.isnan(metrics["score"])
    # A head that is not trained may predict anything.
    assert validated(EVERYTHING, alpha=0.0, prob=prob) == validated(EVERYTHING, alpha=0.0)
    assert validated(EVERYTHING, alpha=1.0, vad=vad) == validated(EVERYTHING, alpha=1.0)
    without_arousal = Learnable(True, (True, False, True))
    assert validated(without_arousal, vad=vad) == validated(without_arousal)


def test_the_epoch_in_which_a_run_diverged():
    scores = {0: (0.1, 0.2, 0.3), 1: (0.1, None, None), 2: (float("nan"),) * 3}
    rows = [{"run": run, "epoch": e, "score": score} for run, own in scores.items() for e, score in enumerate(own, 1)]
    assert diverged_epochs(rows) == {1: 2, 2: 1}


def test_runs_without_labels_in_validation():
    rows = [
        {"run": 0, "score": 0.0, "val_ua": 0.0},
        {"run": 1, "score": 0.0, "val_ccc_mean": 0.0},
        {"run": 2, "score": 0.0, "loss_class": 1.0},
        {"run": 3, "score": None},
    ]
    assert unselected_runs(rows) == {2}


def test_setting_trains():
    tasks = ("class", "vad", "valence", "arousal", "dominance")
    for alpha, trained in ((0, (False, *[True] * 4)), (1, (True, *[False] * 4)), (0.3, (True,) * 5)):
        assert tuple(Setting("x", {"alpha": alpha}).trains(task) for task in tasks) == trained


def test_score():
    assert score({"val_ua": 0.5, "val_ccc_mean": 0.25, "val_wa": 0.9}) == 0.375
    assert score({"val_ua": 0.5}) == 0.5
    assert score({}) == 0


def test_selection_scores_are_means_at_the_chosen_epochs(tmp_path):
    rows = [
        {"epoch": epoch, "run": run, "setting": "ab"[run % 2], "score": 10 * run + epoch}
        for epoch in (1, 2, 3)
        for run in range(4)
    ]
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = selection_scores(read_history(str(path)), {0: 3, 1: 1, 2: 2})
    assert scores == {"a": (3 + 22) / 2, "b": 11}


@pytest.mark.parametrize("content", [None, "{torn\n"])
def test_a_broken_history_is_a_sentence(tmp_path, content):
    path = tmp_path / "history.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        InputError, match=r"history\.jsonl(, line 1)?: .*, expected (the history|a row) of a training run"
    ):
        read_history(str(path))


ROW = {"epoch": 2, "run": 1, "fold": "f", "setting": "a", "loss_class": 0.5, "score": 0.5}


@pytest.mark.parametrize("changed", [{"loss_class": "0.5"}, {"score": [1]}, {"epoch": None}, {"val_ua": 10**400}])
def test_a_row_holds_numbers(tmp_path, changed):
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | changed) + "\n")
    name = next(iter(changed))
    with pytest.raises(InputError, match=rf"history\.jsonl, line 2: {name} is no number, expected .*; remove the line"):
        read_history(str(path))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"run": 99}, "is of run 99, expected one of the study's 2 runs"),
        ({"setting": "b"}, r"is of run 1 of another study \(fold f, setting b\), expected fold f, setting a"),
        ({"fold": "g"}, r"is of run 1 of another study \(fold g, setting a\)"),
        ({"epoch": 4}, "is of epoch 4, expected one from 1 to 3"),
        ({"epoch": 0}, "is of epoch 0"),
        ({}, "is of run 1 and epoch 2, expected one line of them and not two"),
    ],
)
def test_rows_are_those_of_the_study(changed, problem):
    runs = {0: ("f", "a"), 1: ("f", "a")}
    check_rows([ROW, ROW | {"epoch": 3}], runs, epochs=3, path="h")
    with pytest.raises(InputError, match=f"h, line 2: {problem}.*; remove the line: only that point"):
        check_rows([ROW, ROW | changed], runs, epochs=3, path="h")


def test_a_last_line_that_a_killed_process_left_is_skipped(tmp_path):
    path = tmp_path / "history.jsonl"
    row = {"epoch": 1, "run": 0, "setting": "a", "score": None}
    path.write_text(json.dumps(row) + '\n{"epo')
    assert read_history(str(path)) == [row]
