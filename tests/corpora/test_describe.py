"""What is in a corpus: closed forms of its counts, quantiles and entropies, and nothing of what it lacks."""

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sejax.corpora.describe import describe_data, summarise_data
from sejax.corpora.schema import DIMENSIONS, Corpus, Dropped, Loss, Utterance

NAN = (math.nan, math.nan, math.nan)
CLASSES = ("angry", "sad")


def corpus(*utterances: Utterance, **facts: Any) -> Corpus:
    defaults: dict[str, Any] = {"name": "table", "classes": CLASSES, "vad_scale": (1.0, 5.0), "label_source": "unknown"}
    return Corpus(utterances=utterances, **(defaults | facts))


def utterance(number: int, **facts: Any) -> Utterance:
    return Utterance(**({"id": f"u{number:02d}", "path": f"/{number}.wav", "speaker": "s1", "corpus": "table"} | facts))


def test_counts_of_every_group() -> None:
    said = [("s1", "F", "angry", "train"), ("s1", "F", "sad", "train"), ("s2", "M", "angry", "test1")]
    said += [("s2", "M", None, "test2"), ("s10", None, "sad", "test2")]
    spoken = [
        utterance(n, speaker=speaker, gender=gender, label=label, split=split)
        for n, (speaker, gender, label, split) in enumerate(said)
    ]
    tree = describe_data(corpus(*spoken), {f"u{n:02d}": 1.0 + n for n in range(5)})
    assert [(row["class"], row["utterances"], row["speakers"], row["seconds"]) for row in tree["by_class"]] == [
        ("angry", 2, 2, 1.0 + 3.0),
        ("sad", 2, 2, 2.0 + 5.0),
        (None, 1, 1, 4.0),
    ]
    assert tree["by_gender"] == [
        {
            "gender": "F",
            "utterances": 2,
            "speakers": 1,
            "seconds": 3.0,
            "classes": {"angry": 1, "sad": 1},
            "unlabelled": 0,
        },
        {
            "gender": "M",
            "utterances": 2,
            "speakers": 1,
            "seconds": 7.0,
            "classes": {"angry": 1, "sad": 0},
            "unlabelled": 1,
        },
        {
            "gender": None,
            "utterances": 1,
            "speakers": 1,
            "seconds": 5.0,
            "classes": {"angry": 0, "sad": 1},
            "unlabelled": 0,
        },
    ]
    assert {row["split"]: row["utterances"] for row in tree["by_split"]} == {"train": 2, "test1": 1, "test2": 2}
    assert {row["speaker"]: row["gender"] for row in tree["by_speaker"]} == {"s1": "F", "s2": "M", "s10": None}
    assert tree["by_corpus"] == [] and (tree["utterances"], tree["speakers"]) == (5, 3)


def test_corpora_are_told_apart_where_there_are_several() -> None:
    both = [utterance(n, corpus=name, speaker=f"{name}:s{n}", label="sad") for n, name in enumerate("aab")]
    tree = describe_data(corpus(*both), {})
    assert [(row["corpus"], row["utterances"], row["speakers"]) for row in tree["by_corpus"]] == [
        ("a", 2, 2),
        ("b", 1, 1),
    ]
    assert "corpus: a 2, b 1" in summarise_data(tree)
    assert describe_data(corpus(*both[:2]), {})["by_corpus"] == []


def test_splits_have_their_order() -> None:
    names = ("val", "test10", None, "test2", "train", "test")
    tree = describe_data(corpus(*(utterance(n, split=name) for n, name in enumerate(names))), {})
    assert [row["split"] for row in tree["by_split"]] == ["train", "val", "test", "test2", "test10", None]


def test_sessions_of_two_corpora_are_not_the_same() -> None:
    said = [utterance(n, corpus=name, session="1") for n, name in enumerate("aab")]
    assert describe_data(corpus(*said), {})["sessions"] == 2


def test_durations_have_quantiles_and_a_histogram() -> None:
    spoken = [utterance(n, label="sad") for n in range(101)]
    durations = describe_data(corpus(*spoken), {u.id: 1 + n / 100 for n, u in enumerate(spoken)})["durations"]
    assert durations["utterances"] == 101 and durations["total"] == pytest.approx(101 * 1.5)
    assert durations["quantiles"] == {
        "0": 1.0,
        "0.05": 1.05,
        "0.25": 1.25,
        "0.5": 1.5,
        "0.75": 1.75,
        "0.95": 1.95,
        "1": 2.0,
    }
    bins = durations["histogram"]
    assert bins["step"] == 0.1 and len(bins["counts"]) == 20 and sum(bins["counts"]) == 101 and bins["above"] == 0
    assert bins["counts"][:10] == [0] * 10


def test_one_long_recording_does_not_squeeze_the_histogram() -> None:
    spoken = [utterance(n) for n in range(1000)]
    seconds = {u.id: 600.0 if n == 0 else 2.0 for n, u in enumerate(spoken)}
    bins = describe_data(corpus(*spoken), seconds)["durations"]["histogram"]
    assert bins["above"] == 1 and sum(bins["counts"]) == 999 and bins["step"] * len(bins["counts"]) < 3


@given(st.lists(st.floats(0.025, 1e5), min_size=1, max_size=40))
@example([0.025000000000000005] * 2)  # just above the edge of a bin
def test_every_duration_is_counted_once(lasting: list[float]) -> None:
    spoken = [utterance(n) for n in range(len(lasting))]
    found = describe_data(corpus(*spoken), {u.id: s for u, s in zip(spoken, lasting, strict=True)})["durations"]
    bins = found["histogram"]
    assert sum(bins["counts"]) + bins["above"] == len(lasting)
    assert len(bins["counts"]) <= 31
    assert bins["above"] <= math.ceil(0.01 * len(lasting))


def test_texts_that_several_speakers_say() -> None:
    said = [("s1", "a", "sad"), ("s2", "a", "angry"), ("s1", "b", "sad"), ("s1", "b", "sad"), ("s2", "c", "sad")]
    said += [("s2", None, "sad"), ("s1", "d", None), ("s1", "d", "sad")]
    spoken = [utterance(n, speaker=speaker, text=text, label=label) for n, (speaker, text, label) in enumerate(said)]
    # An unknown speaker may be one of the others.
    spoken.append(utterance(8, speaker="u08", speaker_known=False, text="c", label="angry"))
    assert describe_data(corpus(*spoken), {})["texts"] == {
        "utterances": 8,
        "texts": 4,
        "several_speakers": 2,
        "one_class": 2,
    }


def test_entropy_of_votes_in_bits() -> None:
    shares = [(1.0, 0.0, 0.0, 0.0), (0.5, 0.5, 0.0, 0.0), (0.25, 0.25, 0.25, 0.25), (0.5, 0.25, 0.25, 0.0)]
    classes = ("angry", "happy", "neutral", "sad")
    votes = [dict(zip(classes, share, strict=True)) for share in shares]
    labels = ("angry", None, None, "angry")
    voted = [utterance(n, label=labels[n], distribution=of) for n, of in enumerate(votes)]
    tree = describe_data(corpus(*voted, utterance(9, label="sad"), classes=classes), {})
    entropies = [0.0, 1.0, 2.0, 1.5]
    assert tree["votes"]["utterances"] == 4 and tree["votes"]["ties"] == 2
    entropy = tree["votes"]["entropy"]
    assert entropy["mean"] == pytest.approx(np.mean(entropies)) and entropy["most"] == 2.0
    filled = {place: n for place, n in enumerate(entropy["counts"]) if n}
    assert filled == {0: 1, 10: 1, 15: 1, 19: 1}
    by_class = {row["class"]: row.get("entropy") for row in tree["by_class"]}
    assert by_class == {"angry": 0.75, "happy": None, "neutral": None, "sad": None, None: 1.5}


def test_ratings_in_the_scale_of_the_corpus() -> None:
    rated = [
        utterance(0, label="sad", vad=(1.0, 2.0, math.nan)),
        utterance(1, label="sad", vad=(3.0, 2.0, math.nan)),
        utterance(2, label="angry", vad=(1.0, 2.0, math.nan)),
        utterance(3, label="angry", vad=(5.5, math.nan, math.nan)),
        utterance(4, label="angry"),
    ]
    tree = describe_data(corpus(*rated), {})
    ratings = tree["ratings"]
    assert ratings["scale"] == [1.0, 5.0] and ratings["outside"] == 1
    assert {name: (of["rated"], of["missing"]) for name, of in ratings["dimensions"].items()} == {
        "valence": (4, 1),
        "arousal": (3, 2),
        "dominance": (0, 5),
    }
    valence = [1.0, 3.0, 1.0, 5.5]
    assert ratings["dimensions"]["valence"]["mean"] == pytest.approx(np.mean(valence))
    assert ratings["dimensions"]["valence"]["sd"] == pytest.approx(np.std(valence, ddof=1))
    assert ratings["plane"] == {"utterances": 3, "places": [[1.0, 2.0, 2], [3.0, 2.0, 1]]}
    sad = next(row for row in tree["by_class"] if row["class"] == "sad")
    assert sad["valence"] == [2.0, pytest.approx(math.sqrt(2))] and sad["arousal"] == [2.0, 0.0]
    assert "dominance" not in sad


def test_many_different_ratings_are_counted_on_a_grid() -> None:
    random = np.random.default_rng(0)
    values = random.uniform(1, 7, (5000, 3))
    values[0] = 4.0, 2.5, 1.0
    rated = [utterance(n, vad=tuple(row)) for n, row in enumerate(values.tolist())]
    plane = describe_data(corpus(*rated, vad_scale=(1.0, 7.0)), {})["ratings"]["plane"]
    assert plane["step"] == 0.5 and len(plane["places"]) <= 13**2
    assert sum(number for *_, number in plane["places"]) == 5000
    counted = Counter((round(2 * v) / 2, round(2 * a) / 2) for v, a in values[:, :2].tolist())
    assert {(v, a): n for v, a, n in plane["places"]} == counted


def test_what_nobody_knows_is_counted() -> None:
    spoken = [utterance(n, speaker=f"u{n}", speaker_known=False, hidden=n == 0) for n in range(3)]
    spoken.append(utterance(3, secondary={"tired": 0.5}))
    lost = [Dropped("x", "/x", "no words", Loss.UNLABELLED), Dropped("y", "/y", "silent"), Dropped("z", "/z", "silent")]
    tree = describe_data(corpus(*spoken, dropped=tuple(lost)), {})
    assert (tree["unknown_speakers"], tree["speakers"], tree["hidden"]) == (3, 1, 1)
    assert [row["speaker"] for row in tree["by_speaker"]] == ["s1"]
    assert tree["dropped"] == [
        {"kind": "unusable audio", "utterances": 2, "by_design": False},
        {"kind": "no label", "utterances": 1, "by_design": True},
    ]
    words = summarise_data(tree)
    assert "3 (75 %) of the utterances have an unknown speaker" in words
    assert "1 (25 %) of the utterances have hidden labels" in words
    assert "raters named further emotion words for 1 (25 %) of the utterances" in words
    assert "1 utterance dropped, by design: no label" in words


# Any fact may be there or not.
RATING = st.just(math.nan) | st.floats(-3, 9)
FACTS = st.fixed_dictionaries(
    {
        "speaker": st.sampled_from(("s1", "s2", "3")),
        "corpus": st.sampled_from(("a", "b")),
        "gender": st.sampled_from((None, "F", "M")),
        "session": st.sampled_from((None, "1")),
        "text": st.sampled_from((None, "x", "y")),
        "split": st.sampled_from((None, "train", "test1")),
        "label": st.sampled_from((None, *CLASSES)),
        "distribution": st.none() | st.floats(0, 1).map(lambda share: {"angry": share, "sad": 1 - share}),
        "vad": st.tuples(RATING, RATING, RATING),
        "speaker_known": st.booleans(),
        "hidden": st.booleans(),
    }
)


@given(
    facts=st.lists(st.tuples(FACTS, st.none() | st.floats(0.03, 60)), min_size=1, max_size=12),
    classes=st.sampled_from((CLASSES, ("sad", "angry", "happy"))),
)
def test_any_corpus_can_be_described_and_nothing_is_counted_twice(facts: list[Any], classes: tuple[str, ...]) -> None:
    described = corpus(*(utterance(n, **of) for n, (of, _) in enumerate(facts)), classes=classes)
    seconds = {f"u{n:02d}": lasting for n, (_, lasting) in enumerate(facts) if lasting}
    tree = describe_data(described, seconds)
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    whole, spoken = len(described.utterances), described.utterances
    for name in ("class", "corpus", "split", "gender", "speaker"):
        rows = tree[f"by_{name}"]
        if rows and name != "speaker":
            assert sum(row["utterances"] for row in rows) == whole
        if name != "class":
            assert all(sum(row["classes"].values()) + row["unlabelled"] == row["utterances"] for row in rows)
        assert all(row["utterances"] for row in rows) or name == "class"
    assert sum(row["utterances"] for row in tree["by_speaker"]) + tree["unknown_speakers"] == whole
    # Nothing stands for what the corpus lacks.
    assert ("durations" in tree) == bool(seconds)
    assert ("texts" in tree) == any(u.text for u in spoken)
    assert ("votes" in tree) == any(u.distribution for u in spoken)
    assert ("ratings" in tree) == any(not math.isnan(value) for u in spoken for value in u.vad)
    assert bool(tree["by_gender"]) == any(u.gender for u in spoken)
    assert bool(tree["by_split"]) == any(u.split for u in spoken)
    assert bool(tree["by_corpus"]) == (len({u.corpus for u in spoken}) > 1)
    words = summarise_data(tree)
    assert ("votes" in words) == ("votes" in tree) and ("ratings" in words) == ("ratings" in tree)
    assert "nan" not in words.lower().split()
    rated = [name for place, name in enumerate(DIMENSIONS) if any(not math.isnan(u.vad[place]) for u in spoken)]
    assert [name for name in DIMENSIONS if name in words] == rated
