import dataclasses

import fabricated
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from sejax.evaluation.distributions import (
    any_rater,
    jensen_shannon,
    kullback_leibler,
    mean_votes,
    score_distributions,
)
from sejax.evaluation.temperature import temper
from sejax.protocols.folds import Fold

RNG = np.random.default_rng(0)
VOTES = RNG.multinomial(3, [0.5, 0.3, 0.2], 40) / 3
PROB = RNG.dirichlet(np.ones(3), 40)


def test_divergences_equal_scipy():
    np.testing.assert_allclose(kullback_leibler(VOTES, PROB), entropy(VOTES, PROB, axis=1), rtol=1e-12)
    np.testing.assert_allclose(jensen_shannon(VOTES, PROB), jensenshannon(VOTES, PROB, base=2, axis=1) ** 2, rtol=1e-9)


def test_divergences_at_their_ends():
    one, other = np.eye(2)[[0]], np.eye(2)[[1]]
    assert jensen_shannon(one, other) == pytest.approx(1.0) and jensen_shannon(one, one) == 0
    assert kullback_leibler(one, one) == 0 and 80 < kullback_leibler(one, other)[0] < 100  # not infinite


def test_any_rater():
    assert any_rater(np.array([[2, 1, 0], [0, 0, 3]]) / 3, np.array([1, 1])).tolist() == [True, False]


def study(*, without=0):
    """Two seeds of one setting; the first utterances have no label. Votes of all but the last one."""
    rows = fabricated.study(settings=("a",)).rounded()
    ids = sorted(set(rows.id.tolist()))
    votes = {name: VOTES[place] for place, name in enumerate(ids[:-1])}
    return dataclasses.replace(rows, label=np.where(np.isin(rows.id, ids[:without]), -1, rows.label)), votes, ids


def test_scores_are_means_over_everyone_with_votes():
    rows, votes, _ = study(without=3)
    found = score_distributions(rows, votes, dict.fromkeys(set(rows.fold.tolist()), 2.0), n_bootstrap=50)
    counted = rows.select(np.isin(rows.id, list(votes)))
    of_raters = np.stack([votes[name] for name in counted.id])
    assert found["utterances"] == 39 and found["without_label"] == 3
    expected = {
        "js": jensenshannon(of_raters, counted.prob, base=2, axis=1) ** 2,
        "kl": entropy(of_raters, counted.prob, axis=1),
        "any_rater": np.take_along_axis(of_raters, counted.prob.argmax(axis=1)[:, None], axis=1)[:, 0] > 0,
    }
    assert set(found["metrics"]) == set(expected)
    for name, values in expected.items():
        metric = found["metrics"][name]
        assert metric["pooled"] == pytest.approx(values.mean(), rel=1e-5)  # six digits need not sum to 1
        assert metric["fold_mean"] == pytest.approx(
            np.mean([values[counted.fold == fold].mean() for fold in set(counted.fold)]), rel=1e-5
        )
        assert metric["ci95"][0] < metric["pooled"] < metric["ci95"][1]
    tempered = temper(counted.prob, np.full(len(counted.prob), 2.0))
    assert found["tempered"]["kl"]["pooled"] == pytest.approx(entropy(of_raters, tempered, axis=1).mean())
    assert set(found["tempered"]) == {"js", "kl"}


def test_nothing_without_votes_or_without_a_prediction():
    rows, votes, _ = study()
    assert score_distributions(rows, {}, {}, n_bootstrap=20) == {}
    prob = rows.prob.copy()
    prob[0] = np.nan
    assert score_distributions(dataclasses.replace(rows, prob=prob), votes, {}, n_bootstrap=20) == {}


def test_the_baseline_is_the_mean_of_the_votes_in_training():
    rows, votes, ids = study()
    speaker = dict(zip(rows.id.tolist(), rows.speaker.tolist(), strict=True))
    own = np.array([speaker[name] for name in ids])
    folds = [Fold(name, own != name, own == name, own == name) for name in dict.fromkeys(own.tolist())]
    found = mean_votes(rows, votes, ids, folds, n_bootstrap=0)
    voted = np.array([name in votes for name in ids])
    values = []
    for name in votes:
        prior = np.mean([votes[ids[row]] for row in np.flatnonzero(voted & (own != speaker[name]))], axis=0)
        values.append(entropy(votes[name], prior))
    assert found["kl"]["pooled"] == pytest.approx(np.mean(values))
    assert set(found) == {"js", "kl", "any_rater"}
