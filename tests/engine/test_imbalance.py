import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_study import hyperparameters

from sejax.corpora.schema import Corpus, Utterance
from sejax.engine.imbalance import class_prior, class_terms, class_weight, label_weight
from sejax.engine.losses import cross_entropy
from sejax.engine.runs import enumerate_runs
from sejax.engine.search import expand_grid
from sejax.protocols.folds import Fold


def corpus_of(votes: list[dict[str, float] | None]) -> Corpus:
    utterances = tuple(
        Utterance(str(row), "", f"s{row}", "own", distribution=of_one) for row, of_one in enumerate(votes)
    )
    return Corpus("own", ("a", "b"), (1.0, 5.0), utterances)


# --------------------------------------------------------------------------------------------- class weights


def test_balanced_class_weight_is_n_over_k_n_c():
    target = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 0, 1, 1, 2]]
    assert_allclose(class_weight("balanced", target), [8 / (3 * 5), 8 / (3 * 2), 8 / (3 * 1)], rtol=1e-6)


@pytest.mark.parametrize("kind", ["balanced", "effective"])
def test_class_weights_count_soft_mass_and_leave_out_absent_classes_and_unlabelled_rows(kind: str):
    target = np.array([[0.75, 0.25, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    weight = class_weight(kind, target, beta=0.5)
    inverse = np.array([1 / 1.75, 1 / 0.25])
    if kind == "effective":
        inverse = 0.5 / (1 - 0.5 ** np.array([1.75, 0.25]))
    expected = inverse * 2 / (inverse * [1.75, 0.25]).sum()
    assert_allclose(weight, [*expected, 0.0], rtol=1e-6)
    assert_allclose((target @ weight).sum() / target.sum(), 1.0, rtol=1e-6)


def test_the_effective_number_lies_between_no_weights_and_balanced_ones():
    target = np.eye(3, dtype=np.float32)[[0] * 50 + [1] * 9 + [2]]
    assert_allclose(class_weight("effective", target, beta=0.0), np.ones(3), rtol=1e-6)
    assert_allclose(class_weight("effective", target, beta=1 - 1e-6), class_weight("balanced", target), rtol=1e-4)
    between = class_weight("effective", target, beta=0.9)
    assert (np.abs(np.log(between)) < np.abs(np.log(class_weight("balanced", target)))).all()


def test_class_weights_without_labels_are_zero():
    assert_array_equal(class_weight("balanced", np.zeros((3, 2), np.float32)), np.zeros(2))


# ---------------------------------------------------------------------------------------------- class priors


def test_class_priors_are_those_of_each_corpus_in_training():
    target = np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 1, 0]]
    corpora = ["a", "a", "a", "a", "b", "b", "b"]
    trained = np.array([True, True, True, True, True, True, False])
    prior = class_prior(target, corpora, trained)
    assert_allclose(np.exp(prior.log), [[4 / 6, 2 / 6], [1 / 4, 3 / 4]], rtol=1e-6)
    assert prior.corpus.tolist() == [0, 0, 0, 0, 1, 1, 1]
    together = class_prior(target, corpora, trained, kind="train")
    assert_allclose(np.exp(together.log), [[4 / 8, 4 / 8]] * 2, rtol=1e-6)
    assert_array_equal(class_prior(target, corpora, trained, kind="none").log, np.zeros((2, 2)))


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_the_balanced_softmax_is_that_of_the_formula(tau: float):
    """-log(n_y^tau e^(f_y) / sum_j n_j^tau e^(f_j)), with one utterance more of each class."""
    label = np.array([0] * 7 + [1] * 2 + [2])
    target = np.eye(3, dtype=np.float32)[label]
    logits = np.random.default_rng(0).normal(size=(10, 3))
    prior = class_prior(target, [""] * 10, np.ones(10, bool), kind="train", tau=tau)
    adjusted = jnp.asarray(logits + prior.log[prior.corpus], jnp.float32)
    ours = cross_entropy(adjusted, jnp.asarray(target), jnp.ones(10))
    weighted = np.array([8.0, 3.0, 2.0]) ** tau * np.exp(logits)
    expected = -np.log(weighted[np.arange(10), label] / weighted.sum(axis=1)).mean()
    assert_allclose(ours, expected, rtol=1e-6)


# --------------------------------------------------------------------------------------------------- agreement


def test_raters_who_disagree_weigh_less():
    corpus = corpus_of([{"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.5}, {"a": 0.75, "b": 0.25}, None])
    entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert_allclose(label_weight(corpus, 1.0), [1, 0, 1 - entropy, 1], atol=1e-6)
    assert_allclose(label_weight(corpus, 0.4), [1, 0.6, 1 - 0.4 * entropy, 1], atol=1e-6)
    assert_array_equal(label_weight(corpus, 0.0), np.ones(4))


# ------------------------------------------------------------------------------------------------ terms of runs


def test_terms_are_of_each_run_and_of_its_folds_training_utterances():
    corpus = corpus_of([{"a": 1.0}, {"a": 0.5, "b": 0.5}, None, None])
    target = np.eye(2, dtype=np.float32)[[0, 0, 1, 1]]
    masks = np.array([[True, True, True, False], [True, False, True, True]])
    folds = [Fold(str(i), mask, ~mask, ~mask) for i, mask in enumerate(masks)]
    grid = {"loss.class_weight": ("none", "balanced"), "loss.class_prior": ("none", "train")}
    runs = enumerate_runs(2, expand_grid(hyperparameters(), grid), [0])
    found = class_terms(runs, folds, corpus, target)
    spoilt = class_terms(runs, folds, corpus, np.where(masks[:1].T, target, np.nan))  # fold 0 does not see the last
    assert found.label_weight is None
    assert found.prior is not None and spoilt.prior is not None
    for place, run in enumerate(runs):
        own = target[masks[run.fold]]
        assert_array_equal(found.class_weight[place], class_weight(run.setting.values["loss.class_weight"], own))
        off = run.setting.values["loss.class_prior"] == "none"
        assert_allclose(found.prior.log[place], [np.zeros(2) if off else np.log((1 + own.sum(axis=0)) / 5)], rtol=1e-6)
        if run.fold == 0:
            assert_array_equal(spoilt.class_weight[place], found.class_weight[place])
            assert_array_equal(spoilt.prior.log[place], found.prior.log[place])
    plain = class_terms(enumerate_runs(2, expand_grid(hyperparameters(), {}), [0]), folds, corpus, target)
    assert_array_equal(plain.class_weight, np.ones((2, 2)))
    assert plain.prior is None and plain.label_weight is None
