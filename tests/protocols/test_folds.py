import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sejax.corpora.schema import Dropped, Utterance
from sejax.errors import InputError
from sejax.protocols.audit import audit
from sejax.protocols.folds import Fold
from sejax.protocols.registry import make_folds

CLASSES = ("angry", "happy")


def utterance(number, speaker, session=None, **fields):
    fields = {"label": CLASSES[number % 2]} | fields
    return Utterance(id=f"u{number:02d}", path=f"u{number:02d}.wav", speaker=speaker, session=session, **fields)


def speak(*speakers, sessions=None, each=2, **columns):
    """`each` utterances per speaker, in turn; a column gives one value per speaker."""
    sessions = sessions or [None] * len(speakers)
    rows = []
    for _ in range(each):
        for index, (speaker, session) in enumerate(zip(speakers, sessions, strict=True)):
            fields = {name: values[index] for name, values in columns.items()}
            rows.append(utterance(len(rows), speaker, session, **fields))
    return rows


def speakers_of(utterances, mask):
    return {utterances[row].speaker for row in np.flatnonzero(mask)}


def plan(utterances, folds):
    """Fold name -> (validation speakers, test speakers)."""
    return {fold.name: (speakers_of(utterances, fold.val), speakers_of(utterances, fold.test)) for fold in folds}


def no_leaks(utterances, folds, **changes):
    arguments = {"digests": {}, "dropped": (), "notes": {}} | changes
    return audit(utterances, folds, CLASSES, **arguments)


# --------------------------------------------------------------------------------------------- protocols


def test_loso_validates_on_the_other_speaker_of_the_session():
    """IEMOCAP: ten speakers, five sessions of two."""
    speakers = [f"Ses{session:02d}{letter}" for session in range(1, 6) for letter in "FM"]
    utterances = speak(*speakers, sessions=[name[3:5] for name in speakers])
    folds = make_folds(utterances, "loso")
    assert [fold.name for fold in folds] == speakers
    for fold in folds:
        other = fold.name[:-1] + {"F": "M", "M": "F"}[fold.name[-1]]
        assert speakers_of(utterances, fold.test) == {fold.name}
        assert speakers_of(utterances, fold.val) == {other}
        assert speakers_of(utterances, fold.train) == set(speakers) - {fold.name, other}


def test_loso_without_sessions_validates_on_the_next_speaker():
    """EmoDB."""
    utterances = speak("03", "08", "09", "10")
    assert plan(utterances, make_folds(utterances, "loso")) == {
        "03": ({"08"}, {"03"}),
        "08": ({"09"}, {"08"}),
        "09": ({"10"}, {"09"}),
        "10": ({"03"}, {"10"}),
    }


def test_loso_with_sessions_of_other_sizes():
    """Three in a session take turns; one alone, and one of two sessions, fall back on the next speaker."""
    utterances = [
        *speak("a", "b", "c", "d", "e", sessions=["1", "1", "1", "2", "3"]),
        utterance(50, "e", "4"),
        utterance(51, "f", "4"),
        utterance(52, "g", "4"),
    ]
    validation = {name: val for name, (val, _) in plan(utterances, make_folds(utterances, "loso")).items()}
    assert validation == {
        "a": {"b"},
        "b": {"c"},
        "c": {"a"},
        "d": {"e"},
        "e": {"f"},
        "f": {"g"},
        "g": {"e"},
    }


def test_loso_where_only_some_speakers_have_a_session():
    utterances = speak("a", "b", "c", "d", sessions=["1", "1", None, None])
    validation = {name: val for name, (val, _) in plan(utterances, make_folds(utterances, "loso")).items()}
    assert validation == {"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"a"}}


def test_numbers_are_sorted_as_numbers():
    utterances = speak("10", "9", "1", "2")
    assert [fold.name for fold in make_folds(utterances, "loso")] == ["1", "2", "9", "10"]


def test_loso_session():
    utterances = speak("a", "b", "c", "d", "e", "f", sessions=["1", "1", "2", "2", "10", "10"])
    assert plan(utterances, make_folds(utterances, "loso_session")) == {
        "1": ({"c", "d"}, {"a", "b"}),
        "2": ({"e", "f"}, {"c", "d"}),
        "10": ({"a", "b"}, {"e", "f"}),
    }


def test_table():
    utterances = speak("a", "b", "c", "d", fold=["x", "y", "z", "x"])
    assert plan(utterances, make_folds(utterances, "table")) == {
        "x": ({"b"}, {"a", "d"}),
        "y": ({"c"}, {"b"}),
        "z": ({"a", "d"}, {"c"}),
    }


def test_official():
    utterances = speak("a", "b", "c", "d", split=["train", "val", "test", "train"])
    (fold,) = make_folds(utterances, "official")
    assert fold.name == "official"
    assert speakers_of(utterances, fold.train) == {"a", "d"}
    assert speakers_of(utterances, fold.val) == {"b"}
    assert speakers_of(utterances, fold.test) == {"c"}


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from(["1", "2", "3", None])), min_size=1, max_size=30),
    st.sampled_from(["loso", "loso_session"]),
)
def test_masks_are_disjoint_cover_all_and_part_the_speakers(rows, protocol):
    utterances = [utterance(number, speaker, session) for number, (speaker, session) in enumerate(rows)]
    try:
        folds = make_folds(utterances, protocol)
    except InputError:
        speakers = {speaker for speaker, _ in rows}
        sessions = {session for _, session in rows}
        mixed = len({(speaker, session) for speaker, session in rows}) > len(speakers)
        if protocol == "loso":
            assert len(speakers) < 3
        else:
            assert None in sessions or len(sessions) < 3 or mixed
        return
    for fold in folds:
        assert (fold.train.astype(int) + fold.val + fold.test == 1).all()
        assert fold.train.any() and fold.val.any() and fold.test.any()
        assert not speakers_of(utterances, fold.train) & speakers_of(utterances, fold.test)
        if protocol == "loso":
            assert not speakers_of(utterances, fold.train) & speakers_of(utterances, fold.val)
    assert sum(fold.test for fold in folds).tolist() == [1] * len(utterances)  # each is tested once
    assert folds == () or no_leaks(utterances, folds)["speakers_shared"] == []


BAD = {
    "two speakers": (speak("a", "b"), "loso", r"2 speakers \(a, b\).*at least 3.*with two, config\.protocol=official"),
    "one speaker": (speak("a"), "loso", r"1 speaker \(a\).* one voice cannot be tested by another"),
    "two sessions": (speak("a", "b", sessions=["1", "2"]), "loso_session", r"2 sessions \(1, 2\).*protocol=loso needs"),
    "no session": (
        speak("a", "b", "c", sessions=["1", None, "3"]),
        "loso_session",
        "2 of 6 utterances have no session .*u01",
    ),
    "two folds": (speak("a", "b", fold=["x", "y"]), "table", r"2 folds \(x, y\)"),
    "no fold": (speak("a", "b", "c"), "table", "6 of 6 utterances have no fold"),
    "no split": (speak("a", "b", "c"), "official", "no split"),
    "unknown split": (
        speak("a", "b", "c", split=["train", "dev", "test"]),
        "official",
        "u01.*'dev'.*train, val, test",
    ),
    "no validation": (speak("a", "b", "c", split=["train", "train", "test"]), "official", "'val'"),
    "unknown protocol": (speak("a", "b", "c"), "kfold", "'kfold'.*loso, loso_session, official, table"),
    "nothing": ([], "loso", "no utterances"),
}


@pytest.mark.parametrize(("utterances", "protocol", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_is_a_sentence(utterances, protocol, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        make_folds(utterances, protocol)
    assert not str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_fold_column_that_parts_a_speaker_is_refused_by_name():
    utterances = [
        *speak("a", "b", "c", fold=["1", "2", "3"]),
        utterance(50, "a", fold="3"),
        utterance(51, "b", fold="1"),
    ]
    with pytest.raises(InputError, match=r"fold 1 tests on 1 speaker whom it also trains on \(a\)"):
        make_folds(utterances, "table")


def test_sessions_and_splits_that_part_a_speaker_are_refused_by_name():
    utterances = speak("a", "b", "c", "d", "d", sessions=["1", "2", "3", "3", "1"])
    with pytest.raises(InputError, match=r"\(d\)"):
        make_folds(utterances, "loso_session")
    utterances = speak("a", "b", "c", "c", split=["train", "val", "test", "train"])
    with pytest.raises(InputError, match=r"fold official.*\(c\)"):
        make_folds(utterances, "official")


# ------------------------------------------------------------------------------------------------- audit


def test_audit_is_json_and_counts():
    utterances = [
        *speak("a", "b", "c", "d", text=["t1", None, "t1", None], each=2),
        utterance(50, "a", label=None, text="t9"),
    ]
    folds = make_folds(utterances, "loso")
    result = no_leaks(
        utterances,
        folds,
        dropped=[Dropped("u99", "u99.wav", "The file is silent.")],
        notes={
            "u00": "48000 Hz resampled to 16000 Hz; clipped: 2.1 % of the samples at full scale",
            "u01": "clipped: 9.9 % of the samples at full scale",
            "u02": "",
        },
        corpus_notes=["3 values lie outside the scale."],
    )
    assert json.loads(json.dumps(result)) == result
    assert result["speakers_shared"] == [] and result["speakers_shared_with_validation"] == []
    texts = {row["fold"]: row for row in result["texts_shared"]}
    # Fold a trains on c and d: of a's three utterances, two say t1 as c does, the third is a text of its own.
    assert texts["a"] == {"fold": "a", "with_text": 3, "shared": 2, "share": pytest.approx(2 / 3)}
    # b trains on d and a, of whom d has no text either: no text is not a text in common.
    assert texts["b"] == {"fold": "b", "with_text": 0, "shared": 0, "share": 0.0}
    assert texts["d"] == {"fold": "d", "with_text": 0, "shared": 0, "share": 0.0}
    counts = {row["fold"]: row for row in result["class_counts"]}
    assert counts["a"]["test"] == {"angry": 2, "happy": 0}
    assert counts["a"]["val"] == {"angry": 0, "happy": 2}
    assert counts["a"]["train"] == {"angry": 2, "happy": 2}
    assert counts["a"]["unlabelled"] == {"train": 0, "val": 0, "test": 1}
    assert counts["c"]["unlabelled"] == {"train": 1, "val": 0, "test": 0}
    assert result["dropped"] == [
        {"id": "u99", "path": "u99.wav", "reason": "The file is silent.", "kind": "unusable audio"}
    ]
    assert result["spellings_checked"] == ["speaker", "label", "session", "fold", "id"]
    assert result["speakers_trained_and_validated"] == []
    assert result["notes"] == {"48000 Hz resampled to 16000 Hz": 1, "clipped": 2}
    assert result["corpus_notes"] == ["3 values lie outside the scale."]
    assert result["duplicates"] == {"across_test": [], "elsewhere": []}


def test_audit_refuses_shared_speakers():
    utterances = speak("a", "b", "c")
    (fold, *_) = make_folds(utterances, "loso")
    leaking = dataclasses.replace(fold, train=fold.train | fold.test, test=fold.test)
    with pytest.raises(InputError, match=r"\(a\)"):
        no_leaks(utterances, [leaking])


def test_audit_reports_test_speakers_in_validation():
    """Official splits may do that: the epoch is then chosen on voices of the test set."""
    utterances = [
        *speak("a", "b", "c", fold=["1", "2", "3"]),
        utterance(50, "d", fold="1"),
        utterance(51, "d", fold="2"),
    ]
    with pytest.raises(InputError, match=r"\(d\)"):  # fold 2 tests on d and trains on d
        make_folds(utterances, "table")
    speaker = np.array([row.speaker for row in utterances])
    number = np.array([row.fold for row in utterances])
    fold = Fold("1", train=number == "3", val=number == "2", test=number == "1")
    assert set(speaker[fold.val]) & set(speaker[fold.test]) == {"d"}
    assert no_leaks(utterances, [fold])["speakers_shared_with_validation"] == [{"fold": "1", "speakers": ["d"]}]


def test_audit_reports_training_speakers_in_validation():
    """Two speakers: one is trained and validated on, the other is tested."""
    utterances = speak("a", "b", split=["train", "test"], each=4)
    utterances = [dataclasses.replace(row, split="val") if row.id in ("u00", "u02") else row for row in utterances]
    found = no_leaks(utterances, make_folds(utterances, "official"))
    assert found["speakers_trained_and_validated"] == [{"fold": "official", "speakers": ["a"]}]
    assert found["speakers_shared_with_validation"] == []


def test_audit_names_classes_that_are_tested_but_not_trained():
    utterances = [*speak("a", "b", "c", label=["angry"] * 3), utterance(50, "a", label="happy")]
    found = no_leaks(utterances, make_folds(utterances, "loso"))
    assert found["classes_untrained"] == [{"fold": "a", "classes": ["happy"]}]


def test_audit_refuses_two_spellings():
    utterances = speak("a", "A", "c", "d")
    with pytest.raises(InputError, match=r"the speakers 'a' \(u00\.wav\) and 'A' \(u01\.wav\) differ only in case"):
        no_leaks(utterances, make_folds(utterances, "loso"))


def test_a_single_class_is_nothing_to_learn():
    utterances = speak("a", "b", "c", label=["angry"] * 3)
    folds = make_folds(utterances, "loso")
    with pytest.raises(InputError, match="every label of the corpus is 'angry', expected two classes or more, or val"):
        no_leaks(utterances, folds)
    rated = [dataclasses.replace(row, vad=(math.nan, 2.0, math.nan)) for row in utterances]
    assert no_leaks(rated, folds)["speakers_shared"] == []


def test_duplicates_across_a_test_set_are_an_error_unless_allowed():
    utterances = speak("a", "b", "c", "d", sessions=["1", "1", "2", "2"])
    folds = make_folds(utterances, "loso")
    digests = {row.id: row.id for row in utterances} | {"u00": "same", "u02": "same"}  # of a and of c
    with pytest.raises(InputError, match=r"1 time, first as u00 and u02 \(fold a tests on u00 and trains on u02; t"):
        no_leaks(utterances, folds, digests=digests)
    result = no_leaks(utterances, folds, digests=digests, allow_duplicates=True)
    assert result["duplicates"] == {
        "across_test": [{"ids": ["u00", "u02"], "found_by": "samples", "folds": ["a", "c"]}],
        "elsewhere": [],
    }


def test_duplicates_between_validation_and_test_are_an_error():
    utterances = speak("a", "b", "c", split=["train", "val", "test"])
    folds = make_folds(utterances, "official")
    with pytest.raises(InputError, match="u01 and u02"):
        no_leaks(utterances, folds, digests={"u01": "same", "u02": "same"})


def test_duplicates_on_one_side_are_reported():
    """The pair of one RAVDESS actor: always in the same set."""
    utterances = speak("a", "b", "c")
    folds = make_folds(utterances, "loso")
    result = no_leaks(utterances, folds, digests={"u00": "same", "u03": "same", "u01": "other"})
    assert result["duplicates"] == {"across_test": [], "elsewhere": [{"ids": ["u00", "u03"], "found_by": "samples"}]}
    utterances = speak("a", "b", "c", split=["train", "val", "test"])
    result = no_leaks(
        utterances, make_folds(utterances, "official"), digests={"u00": "same", "u01": "same"}
    )  # training and validation: no test number is touched
    assert result["duplicates"]["elsewhere"] == [{"ids": ["u00", "u01"], "found_by": "samples"}]


def test_a_label_that_is_no_class_is_refused():
    utterances = [*speak("a", "b", "c"), utterance(50, "a", label="furious")]
    with pytest.raises(InputError, match=r"u50.*'furious'.*angry, happy"):
        no_leaks(utterances, make_folds(utterances, "loso"))


def test_utterances_without_vad_or_text_pass():
    utterances = speak("a", "b", "c")
    assert all(math.isnan(value) for row in utterances for value in row.vad)
    assert no_leaks(utterances, make_folds(utterances, "loso"))["texts_shared"][0]["with_text"] == 0
