"""What the audit says about the same audio in several utterances, and about the speakers who own it."""

from dataclasses import replace

import pytest

from sejax.corpora.schema import Utterance
from sejax.errors import InputError
from sejax.features.audioprint import Alike, Copy
from sejax.protocols.audit import audit
from sejax.protocols.registry import make_folds

# u1 and u4 of speakers a and b: 2.5 s of u1, from its second 0.5 on, are u4.
COPY = Copy("u1", "u4", Alike(0.5, 2.5, 0.98765))


def corpus(*speakers: str, split: str = "", **fields) -> list[Utterance]:
    """Returns an utterance of each speaker, named u0, u1, ...; the splits are words of one letter or more."""
    return [
        Utterance(
            id=f"u{n}",
            path=f"u{n}.wav",
            speaker=speaker,
            label=("angry", "happy")[n % 2],
            split=split.split()[n] if split else None,
            **fields,
        )
        for n, speaker in enumerate(speakers)
    ]


def audited(utterances: list[Utterance], *, protocol: str = "loso", **changes):
    digests = {utterance.id: utterance.id for utterance in utterances}
    arguments = {"digests": digests, "copies": [COPY], "dropped": (), "notes": {}} | changes
    return audit(utterances, make_folds(utterances, protocol), ("angry", "happy"), **arguments)


def test_a_copy_across_a_test_set_is_refused_in_a_sentence():
    with pytest.raises(InputError) as error:
        audited(corpus(*"aaabbbccc"))
    assert str(error.value).startswith(
        "audio of a test set occurs outside it too 1 time, first as u1 and u4 (fold a tests on u1 and validates on u4; "
        "2.50 s of u1 and u4 are one recording, which begins 0.50 s into the first and 0.00 s into the second: their "
        "waveforms correlate by 0.988), expected no audio"
    )
    with pytest.raises(InputError, match=r"0\.00 s into the first and 0\.20 s into the second"):
        audited(corpus(*"aaabbbccc"), copies=[Copy("u1", "u4", Alike(-0.2, 2.5, 0.9))])


def test_an_allowed_copy_is_reported_with_its_evidence():
    found = audited(corpus(*"aaabbbccc"), allow_duplicates=True)
    evidence = {"ids": ["u1", "u4"], "offset": 0.5, "seconds": 2.5, "correlation": 0.9877}
    assert found["duplicates"] == {
        "across_test": [{"ids": ["u1", "u4"], "found_by": "fingerprint", "copies": [evidence], "folds": ["a", "b"]}],
        "elsewhere": [],
    }
    assert found["speakers_claimed_twice"] == [
        {"speakers": ["a", "b"], "corpora": ["", ""], "ids": ["u1", "u4"], "pairs": 1, "folds": ["b"]}
    ]  # fold a validates on b, fold b trains on a


def test_copies_and_equal_samples_join_one_group():
    utterances = corpus(*"aaabbbccc")
    digests = {row.id: row.id for row in utterances} | {"u4": "same", "u8": "same"}
    found = audited(utterances, digests=digests, allow_duplicates=True)
    (group,) = found["duplicates"]["across_test"]
    assert group["ids"] == ["u1", "u4", "u8"] and group["found_by"] == "fingerprint"
    assert [pair["speakers"] for pair in found["speakers_claimed_twice"]] == [["a", "b"], ["a", "c"], ["b", "c"]]


def test_a_copy_by_one_speaker_is_reported():
    found = audited(corpus(*"aabbacc"))
    (group,) = found["duplicates"]["elsewhere"]
    assert group["ids"] == ["u1", "u4"] and "folds" not in group
    assert found["speakers_claimed_twice"] == []


def test_a_speaker_of_two_names_is_not_tested_and_trained_on():
    """The copies are in training and in validation; a further utterance of one of the two names is tested."""
    utterances = corpus(*"aabbbc", split="train train train test val test")
    utterances[2] = replace(utterances[2], speaker="d")
    sentence = "fold official tests on one of the speakers 'a' and 'b' and trains on the other, but u1 and u4 are one"
    with pytest.raises(InputError, match=sentence):
        audited(utterances, protocol="official")
    (pair,) = audited(utterances, protocol="official", allow_duplicates=True)["speakers_claimed_twice"]
    assert pair["folds"] == ["official"]


def test_corpora_are_named_and_pairs_are_counted():
    utterances = [replace(row, corpus="emodb" if row.speaker == "b" else "table") for row in corpus(*"abcabc")]
    links = [Copy("u0", "u1", COPY.alike), Copy("u4", "u3", COPY.alike)]
    (pair,) = audited(utterances, copies=links, allow_duplicates=True)["speakers_claimed_twice"]
    assert pair["speakers"] == ["a", "b"] and pair["corpora"] == ["table", "emodb"]
    assert pair["pairs"] == 2 and pair["ids"] == ["u0", "u1"]


def test_unknown_speakers_are_counted_and_claim_no_name():
    utterances = corpus(*"abcde")
    utterances[1:3] = [replace(row, speaker_known=False) for row in utterances[1:3]]
    found = audited(utterances, allow_duplicates=True)
    counts = {row.pop("fold"): row for row in found["unknown_speakers"]}
    # They train every fold; nobody leaves them out.
    assert counts == {key: {"train": 2, "val": 0, "test": 0} for key in "ade"}
    assert found["duplicates"]["across_test"][0]["ids"] == ["u1", "u4"]
    assert found["speakers_claimed_twice"] == []
