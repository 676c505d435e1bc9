"""The cells of a matrix of corpora, in closed form."""

from dataclasses import replace

import numpy as np
import pytest

from sejax.corpora.schema import Corpus, Utterance
from sejax.evaluation.metrics import ccc, pcc
from sejax.evaluation.predictions import Predictions
from sejax.evaluation.tables import format_table
from sejax.evaluation.test_sets import exchanged_classes, names_of_test_sets, score_test_sets
from sejax.protocols.registry import make_folds

CLASSES = ("angry", "happy", "sad")


def corpus() -> Corpus:
    """Returns two corpora of four speakers; the second has no sad utterance and other ratings."""
    utterances = [
        Utterance(
            f"{name}:{speaker}-{take}",
            "x.wav",
            f"{name}:s{speaker}",
            name,
            label=CLASSES[take % (3 if name == "a" else 2)],
            vad=(1.0 + take + 0.1 * speaker, np.nan, np.nan),
        )
        for name in ("a", "b")
        for speaker in range(4)
        for take in range(3)
    ]
    return Corpus("a+b", CLASSES, (1.0, 5.0), tuple(utterances))


def predicted(of: Corpus, shift: float = 0.0) -> Predictions:
    """Returns the predictions of all folds of a matrix: those of folds on b call everything angry."""
    folds = make_folds(of.utterances, "cross")
    rows = [(fold, row) for fold in folds for row in np.flatnonzero(fold.test).tolist()]
    truth = [of.utterances[row] for _, row in rows]
    label = np.array([CLASSES.index(u.label) for u in truth])
    named = np.where([fold.trained_on == "b" for fold, _ in rows], 0, label)
    vad = np.array([u.vad for u in truth])
    return Predictions(
        classes=CLASSES,
        run=np.array([folds.index(fold) for fold, _ in rows]),
        fold=np.array([fold.name for fold, _ in rows]),
        seed=np.zeros(len(rows), int),
        setting=np.full(len(rows), "static"),
        split=np.full(len(rows), "test"),
        id=np.array([u.id for u in truth]),
        speaker=np.array([u.speaker for u in truth]),
        label=label,
        prob=np.eye(3)[named] * 0.7 + 0.1,
        vad=vad,
        pred_vad=np.where(np.isnan(vad), np.nan, 0.5 * vad + shift),
    )


def cells(of: Corpus, **kwargs):
    folds = make_folds(of.utterances, "cross")
    return score_test_sets(predicted(of, **kwargs), folds, of, n_bootstrap=20)["static"]


def test_each_pair_of_corpora_has_a_cell():
    found = cells(corpus())
    assert [(c["train"], c["test"], c["within"], c["utterances"], c["speakers"]) for c in found] == [
        ("a", "a", True, 12, 4),
        ("a", "b", False, 12, 4),
        ("b", "a", False, 12, 4),
        ("b", "b", True, 12, 4),
    ]
    ua = [c["metrics"]["ua"]["pooled"] for c in found]
    assert ua == pytest.approx([1.0, 1.0, 1 / 3, 1 / 2])


def test_ua_over_the_classes_that_both_have():
    found = cells(corpus())
    assert found[2]["classes"] == ["angry", "happy"]
    assert found[2]["shared"]["ua"]["pooled"] == pytest.approx(1 / 2)  # sad, which b does not have, is left out
    assert "shared" not in found[1]  # a trains all that is tested


def test_pcc_stands_beside_ccc_and_does_not_see_scale_and_shift():
    (first, *_) = cells(corpus(), shift=1.0)
    truth = np.array([u.vad[0] for u in corpus().utterances if u.corpus == "a"])
    assert first["metrics"]["pcc_valence"]["pooled"] == pytest.approx(1.0)
    assert first["metrics"]["ccc_valence"]["pooled"] == pytest.approx(ccc(0.5 * truth + 1.0, truth), abs=1e-6)
    assert first["metrics"]["ccc_valence"]["pooled"] < 0.9
    assert "class_mean_lookup" in first["baselines"]


def test_pcc_is_numpys():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50)) + 1e4
    assert pcc(x, y + x) == pytest.approx(np.corrcoef(x, x + y)[0, 1], abs=1e-9)
    assert pcc(-x, x) == pytest.approx(-1.0)
    assert np.isnan(pcc(np.ones(5), y[:5])) and np.isnan(pcc(x[:1], y[:1]))


def test_one_test_set_has_no_cells_and_numbered_splits_have():
    of = corpus()
    alone = replace(of, name="a", utterances=tuple(u for u in of.utterances if u.corpus == "a"))
    assert names_of_test_sets(alone.utterances) is None
    splits = ("train", "val", "test1", "test2") * 3
    official = [replace(u, split=split) for u, split in zip(alone.utterances, splits, strict=True)]
    assert names_of_test_sets(official) == list(splits)


def test_the_terminal_shows_the_matrix():
    metric = {"pooled": 0.5, "ci95": [0.4, 0.6]}
    exchanged = {"classes": {"angry": "sad", "sad": "angry"}, "ua": 0.9}
    cell = {"train": "a", "test": "b", "within": False, "metrics": {"ua": metric}, "exchanged": exchanged}
    setting = {
        "name": "static",
        "metrics": {"ua": metric},
        "baselines": {},
        "tests": [{"train": "a", "test": "a", "within": True, "metrics": {"ua": metric}}, cell],
    }
    protocol = {"description": "d", "folds": 2, "seeds": 1}
    table = format_table({"settings": [setting], "baselines": {"majority": {}}, "protocol": protocol})
    assert "static: UA %                     a                  b" in table
    assert "  trained on a  50.0 [40.0, 60.0]*  50.0 [40.0, 60.0]" in table
    assert "* other speakers of the corpus that is trained on" in table
    told = "static, trained on a, tested on b: UA would be 90.0 instead of 50.0 if angry were sad, sad were angry: do"
    assert told in table


def test_labels_that_are_exchanged_are_told_and_change_no_number():
    of = corpus()
    folds = make_folds(of.utterances, "cross")
    rows = predicted(of)
    swapped = rows.prob[:, [1, 0, 2]]  # every model takes angry for happy and happy for angry
    other = np.array([not fold.within for fold in folds])[rows.run]
    rows = replace(rows, prob=np.where(other[:, None], swapped, rows.prob))
    found = score_test_sets(rows, folds, of, n_bootstrap=0)["static"]
    first = found[1]  # trained on a, tested on b
    assert first["metrics"]["ua"]["pooled"] == 0.0
    assert first["exchanged"] == {"classes": {"angry": "happy", "happy": "angry"}, "ua": 1.0}
    assert "exchanged" not in found[0] and "exchanged" not in found[2]  # at chance no exchange helps
    assert exchanged_classes(predicted(of)) is None


def test_a_fold_without_predictions_leaves_no_exchange_of_classes():
    of = corpus()
    folds = make_folds(of.utterances, "cross")
    rows = predicted(of)
    swapped = np.where([[not folds[run].within] for run in rows.run], rows.prob[:, [1, 0, 2]], rows.prob)
    stopped = rows.fold == next(fold.name for fold in folds if fold.trained_on == "a" and not fold.within)
    rows = replace(rows, prob=np.where((stopped & (rows.speaker == "b:s0"))[:, None], np.nan, swapped))
    cell = score_test_sets(rows, folds, of, n_bootstrap=0)["static"][1]  # trained on a, tested on b
    assert "ua" not in cell["metrics"] and "exchanged" not in cell
