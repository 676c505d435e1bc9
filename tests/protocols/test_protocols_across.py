"""The protocols over several corpora, as masks."""

import numpy as np
import pytest

from sejax.corpora.schema import Utterance
from sejax.errors import InputError
from sejax.protocols.folds import Fold, deal
from sejax.protocols.registry import PROTOCOLS, describe_protocol, make_folds


def union(*, a: int = 4, b: int = 3, each: int = 2, unknown: int = 0) -> list[Utterance]:
    """Returns the utterances of two corpora with so many speakers, and unknown speakers of the first."""
    speakers = [("a", f"a:s{i}", True) for i in range(a)] + [("b", f"b:s{i}", True) for i in range(b)]
    speakers += [("a", f"a:unknown-{i}", False) for i in range(unknown)]
    return [
        Utterance(
            f"{speaker}/{i}".replace(f"{corpus}:", f"{corpus}:", 1), "x.wav", speaker, corpus, speaker_known=known
        )
        for corpus, speaker, known in speakers
        for i in range(each if known else 1)
    ]


def speakers(utterances: list[Utterance], mask: np.ndarray) -> str:
    return " ".join(sorted({u.speaker for u, inside in zip(utterances, mask, strict=True) if inside}))


def plan(utterances: list[Utterance], folds: tuple[Fold, ...]) -> dict[str, tuple[str, str, str]]:
    return {
        fold.name: tuple(speakers(utterances, mask) for mask in (fold.train, fold.val, fold.test))  # type: ignore[misc]
        for fold in folds
    }


def test_cross_trains_on_each_and_tests_on_the_others_and_on_its_own():
    utterances = union()
    folds = make_folds(utterances, "cross")
    assert plan(utterances, folds) == {
        "a>": ("a:s1 a:s2 a:s3", "a:s0", "b:s0 b:s1 b:s2"),
        "a:s0": ("a:s2 a:s3", "a:s1", "a:s0"),
        "a:s1": ("a:s0 a:s3", "a:s2", "a:s1"),
        "a:s2": ("a:s0 a:s1", "a:s3", "a:s2"),
        "a:s3": ("a:s1 a:s2", "a:s0", "a:s3"),
        "b>": ("b:s1 b:s2", "b:s0", "a:s0 a:s1 a:s2 a:s3"),
        "b:s0": ("b:s2", "b:s1", "b:s0"),
        "b:s1": ("b:s0", "b:s2", "b:s1"),
        "b:s2": ("b:s1", "b:s0", "b:s2"),
    }
    assert {(fold.trained_on, fold.within) for fold in folds if fold.name.endswith(">")} == {("a", False), ("b", False)}
    assert all(fold.within for fold in folds if not fold.name.endswith(">"))


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_folds_within_a_corpus_are_those_of_the_corpus_alone(name):
    utterances = union()
    own = np.array([u.corpus == name for u in utterances])
    alone = [u for u in utterances if u.corpus == name]
    for fold, expected in zip(
        [fold for fold in make_folds(utterances, "cross") if fold.within and fold.trained_on == name],
        make_folds(alone, "loso"),
        strict=True,
    ):
        for split in ("train", "val", "test"):
            np.testing.assert_array_equal(getattr(fold, split)[own], getattr(expected, split))
            assert not getattr(fold, split)[~own].any()


def test_small_corpora_are_tested_where_they_cannot_be_trained():
    utterances = union(b=2)
    assert [fold.name for fold in make_folds(utterances, "cross") if fold.trained_on == "b"] == ["b>"]
    utterances = union(b=1)
    folds = make_folds(utterances, "cross")
    assert not any(fold.trained_on == "b" for fold in folds)
    assert plan(utterances, folds)["a>"][2] == "b:s0"
    with pytest.raises(InputError, match="no corpus has two speakers"):
        make_folds(union(a=1, b=1), "cross")
    with pytest.raises(InputError, match="the corpus b has fewer than 3 known speakers"):
        make_folds(union(b=2), "joint")


def test_leave_one_corpus_out():
    utterances = union(a=6)
    assert plan(utterances, make_folds(utterances, "leave_one_corpus_out")) == {
        "a": ("b:s1 b:s2", "b:s0", "a:s0 a:s1 a:s2 a:s3 a:s4 a:s5"),
        "b": ("a:s1 a:s2 a:s3 a:s4", "a:s0 a:s5", "b:s0 b:s1 b:s2"),
    }


def test_joint_tests_every_speaker_once_and_trains_on_both_corpora():
    utterances = union()
    folds = make_folds(utterances, "joint")
    assert plan(utterances, folds) == {
        "1": ("a:s2 a:s3 b:s2", "a:s1 b:s1", "a:s0 b:s0"),
        "2": ("a:s0 a:s3 b:s0", "a:s2 b:s2", "a:s1 b:s1"),
        "3": ("a:s0 a:s1 b:s1", "a:s3 b:s0", "a:s2 b:s2"),
        "4": ("a:s1 a:s2 b:s0 b:s2", "a:s0 b:s1", "a:s3"),
    }
    assert np.sum([fold.test for fold in folds], axis=0).tolist() == [1] * len(utterances)


def test_unknown_speakers_train_their_corpus_and_are_tested_as_another():
    utterances = union(unknown=2)
    rows = plan(utterances, make_folds(utterances, "cross"))
    assert "unknown" in rows["a:s0"][0] and "unknown" not in rows["a:s0"][1] + rows["a:s0"][2]
    assert rows["b>"][2].count("unknown") == 2
    alone = [u for u in utterances if u.corpus == "a"]
    assert len(make_folds(alone, "loso")) == 4


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name in ("cross", "leave_one_corpus_out", "joint")])
def test_one_corpus_is_refused(protocol):
    with pytest.raises(InputError, match=r"there is 1 corpus \(a\), expected several \(config\.corpora\)"):
        make_folds([u for u in union() if u.corpus == "a"], protocol)


def test_speakers_are_dealt_to_parts_of_about_equal_size():
    utterances = [
        Utterance(f"s{speaker}/{i}", "x.wav", f"s{speaker}")
        for speaker, n in enumerate((9, 1, 5, 3, 6, 6))
        for i in range(n)
    ]
    part = deal(utterances, 3)
    assert sorted(np.unique(part, return_counts=True)[1].tolist()) == [9, 10, 11]
    folds = make_folds(utterances, "loso", most=3)
    assert [fold.name for fold in folds] == ["1", "2", "3"]
    assert len(make_folds(utterances, "loso", most=6)) == 6  # as many as speakers: a fold each
    with pytest.raises(InputError, match=r"config\.folds is 3, expected 0 for the protocol official"):
        make_folds(utterances, "official", most=3)


def test_speakers_of_a_session_are_dealt_together():
    utterances = [Utterance(f"{s}/{i}", "x.wav", f"s{s}", session=f"d{s // 2}") for s in range(8) for i in range(3)]
    part = deal(utterances, 3)
    assert all(len(set(part[[u.session == f"d{d}" for u in utterances]])) == 1 for d in range(4))


def test_official_splits_may_have_several_test_sets_and_shared_speakers_are_asked_for():
    def split(*names: str) -> list[Utterance]:
        return [Utterance(f"u{i}", "x.wav", f"s{i}", split=name) for i, name in enumerate(names)]

    (fold,) = make_folds(split("train", "val", "test1", "test2", "test"), "official")
    assert fold.test.tolist() == [False, False, True, True, True]
    with pytest.raises(InputError, match="has the split 'dev', expected one of train, val, test"):
        make_folds(split("train", "val", "dev", "test"), "official")
    shared = [Utterance(f"u{i}", "x.wav", "one", split=name) for i, name in enumerate(("train", "val", "test"))]
    with pytest.raises(InputError, match=r"config\.allow_shared_speakers takes the splits as they are"):
        make_folds(shared, "official")
    folds = make_folds(shared, "official", allow_shared_speakers=True)
    protocol = describe_protocol(
        "official", normalisation="train", select_on_test=False, shared_speakers=True, seeds=1, folds=folds, most=0
    )
    assert protocol["optimistic"] and "TEST SPEAKERS ARE ALSO TRAINED ON" in protocol["description"]
