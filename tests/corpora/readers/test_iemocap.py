"""The IEMOCAP reader on small trees in the exact layout of the release, and on a full one without sound."""

import dataclasses
import math
import os
import re
import string
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sejax.corpora.labels import vote_shares
from sejax.corpora.read import CORPORA, read_corpus
from sejax.corpora.readers import iemocap
from sejax.corpora.readers.iemocap import (
    CODE_COUNTS,
    IEMOCAP_SCHEMES,
    Turn,
    check_full_release,
    iemocap_shape,
    parse_categories,
    parse_evaluation,
    parse_transcript,
    parse_turn,
    text_id,
)
from sejax.corpora.schema import Loss
from sejax.corpora.synthetic.turns import recordings
from sejax.errors import InputError

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"


def block(turn: str, code: str, *raters: str, vad: str = "2.5000, 2.5000, 2.5000", times=(6.2901, 8.2357)):
    lines = [f"[{times[0]:.4f} - {times[1]:.4f}]\t{turn}\t{code}\t[{vad}]", *raters]
    return "\n".join(lines) + "\n\n"


def write_tree(
    root: Path,
    evaluations: dict[str, str],
    transcripts: dict[str, str] | None = None,
) -> str:
    """Writes recordings (name -> EmoEvaluation blocks) and an audio file for every turn in them."""
    for recording, blocks in evaluations.items():
        session = root / f"Session{int(recording[3:5])}"
        path = session / "dialog" / "EmoEvaluation" / f"{recording}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + blocks, "utf-8")
        (session / "dialog" / "transcriptions").mkdir(exist_ok=True)
        words = (transcripts or {}).get(recording, "")
        (session / "dialog" / "transcriptions" / f"{recording}.txt").write_text(words, "utf-8")
        (session / "sentences" / "wav" / recording).mkdir(parents=True, exist_ok=True)
    for turn in re.findall(r"\t(Ses\w+)\t", "".join(evaluations.values())):
        (root / f"Session{turn[4]}" / "sentences" / "wav" / turn[:-5] / f"{turn}.wav").touch()
    return str(root)


# ---- the speaker rule


@pytest.mark.parametrize(
    ("turn", "recording", "speaker"),
    [
        ("Ses01F_impro01_F000", "Ses01F_impro01", "Ses01F"),
        ("Ses01F_impro01_M000", "Ses01F_impro01", "Ses01M"),
        ("Ses02M_script03_2_F033", "Ses02M_script03_2", "Ses02F"),
        ("Ses03M_impro05a_F010", "Ses03M_impro05a", "Ses03F"),
        ("Ses03M_impro05b_M001", "Ses03M_impro05b", "Ses03M"),
        ("Ses03M_impro08b_F000", "Ses03M_impro08b", "Ses03F"),
        ("Ses05M_script01_1b_F003", "Ses05M_script01_1b", "Ses05F"),
        ("Ses05M_script01_1b_M003", "Ses05M_script01_1b", "Ses05M"),
    ],
)
def test_the_speaker_is_the_letter_of_the_last_block(tmp_path, turn, recording, speaker):
    corpus = read_corpus("iemocap", write_tree(tmp_path, {recording: block(turn, "ang")}))
    (utterance,) = corpus.utterances
    assert utterance.id == turn
    assert utterance.speaker == speaker
    assert utterance.gender == speaker[-1]
    assert utterance.session == speaker[:5]
    assert utterance.path.endswith(f"sentences/wav/{recording}/{turn}.wav")


# ---- what a tree says


RATERS = (
    "C-E2:\tAnger;\t()",
    'C-E3:\tAnger; Frustration;\t(says "no"; twice)',
    "C-E4:\tNeutral;\t()",
    "C-M1:\tSadness;\t()",
    "A-E3:\tval 2; act 4; dom  4;\t()",
    "A-E4:\tval 2; act 5;\t()",
    "A-M1:\tval 1; act 4; dom  4;\t()",
)


def test_everything_of_a_turn_is_read(tmp_path):
    recording = "Ses04F_script02_1"
    blocks = block(f"{recording}_M007", "ang", *RATERS, vad="2.0000, 4.5000, 5.5000", times=(1.5, 4.25))
    words = f"{recording}_M007 [001.5000-004.2500]: I said: no!\n"
    corpus = read_corpus("iemocap", write_tree(tmp_path, {recording: blocks}, {recording: words}))
    assert corpus.name == "iemocap"
    assert corpus.classes == ("angry", "happy", "sad", "neutral")
    assert corpus.vad_scale == (1.0, 5.0)
    (utterance,) = corpus.utterances
    assert (utterance.corpus, utterance.label) == ("iemocap", "angry")
    assert utterance.vad == (2.0, 4.5, 5.5)  # valence, arousal, dominance, and 5.5 is kept
    assert utterance.duration == pytest.approx(2.75)
    assert (utterance.start, utterance.end) == (None, None)
    # E2 anger 1; E3 anger 1/2 (and frustration 1/2, outside); E4 neutral 1; the actor does not count.
    assert utterance.distribution == pytest.approx({"angry": 0.6, "happy": 0.0, "sad": 0.0, "neutral": 0.4})
    assert utterance.text is not None and utterance.text.startswith("script02_")
    assert "dominance lies outside the scale 1 to 5 in 1 utterances (kept as it is)" in corpus.notes
    assert not any(note.startswith("valence") for note in corpus.notes)
    assert any("external raters (C-E) only" in note for note in corpus.notes)
    assert any("not a full release (1 of 5 sessions, 1 of 151 recordings)" in note for note in corpus.notes)


def test_missing_dimensions_are_nan_and_counted(tmp_path):
    blocks = block("Ses01F_impro01_F000", "neu", vad="2.0000, 3.0000, nan")
    blocks += block("Ses01F_impro01_F001", "neu", vad="2.0000, 3.0000")
    corpus = read_corpus("iemocap", write_tree(tmp_path, {"Ses01F_impro01": blocks}))
    for utterance in corpus.utterances:
        assert utterance.vad[:2] == (2.0, 3.0)
        assert math.isnan(utterance.vad[2])
    assert "dominance is missing in 2 utterances" in corpus.notes


def test_utterances_are_sorted_and_debris_of_macos_is_skipped(tmp_path):
    write_tree(
        tmp_path / "IEMOCAP_full_release",
        {
            "Ses02M_impro01": block("Ses02M_impro01_M000", "sad") + block("Ses02M_impro01_F000", "exc"),
            "Ses01F_impro01": block("Ses01F_impro01_F000", "neu"),
        },
    )
    dialog = tmp_path / "IEMOCAP_full_release" / "Session1" / "dialog"
    for folder in ("EmoEvaluation", "transcriptions"):
        (dialog / folder / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    (dialog / "EmoEvaluation" / "Categorical").mkdir()
    (tmp_path / "IEMOCAP_full_release" / "._Session3").touch()
    corpus = read_corpus("iemocap", str(tmp_path))  # the folder above the release tree
    ids = [utterance.id for utterance in corpus.utterances]
    assert ids == ["Ses01F_impro01_F000", "Ses02M_impro01_F000", "Ses02M_impro01_M000"]


def test_the_same_scripted_line_has_one_text_id_in_every_session(tmp_path):
    lines = {
        "Ses01F_script01_1": "Ses01F_script01_1_F000 [001.0000-002.0000]: You're the one [LAUGHTER], Joe.",
        "Ses05M_script01_1b": "Ses05M_script01_1b_F003 [001.0000-002.0000]: Youre the one -- Joe",
        "Ses02F_script02_1": "Ses02F_script02_1_M000 [001.0000-002.0000]: You're the one, Joe.",
        "Ses03F_impro01": "Ses03F_impro01_F000 [001.0000-002.0000]: You're the one, Joe.",
        "Ses04F_script01_1": "Ses04F_script01_1_F000 [001.0000-002.0000]: [BREATHING]",
    }
    turns = {recording: block(line.split()[0], "neu") for recording, line in lines.items()}
    lines["Ses01F_script01_1"] += "\nM: [GARBAGE]\nSes01F_script01_1_FXX0 [003.0000-004.0000]: Hm.\n"
    corpus = read_corpus("iemocap", write_tree(tmp_path, turns, lines))
    text = {utterance.session: utterance.text for utterance in corpus.utterances}
    assert text["Ses01"] is not None
    assert text["Ses01"] == text["Ses05"]
    assert text["Ses02"] is not None and text["Ses02"] != text["Ses01"]  # another play
    assert text["Ses03"] is None  # improvised
    assert text["Ses04"] is None  # no words
    assert "1 lines of the transcriptions name no turn and were left out" in corpus.notes


def test_without_transcriptions_there_is_no_text_id(tmp_path):
    write_tree(tmp_path, {"Ses01F_script01_1": block("Ses01F_script01_1_F000", "neu")})
    folder = tmp_path / "Session1" / "dialog" / "transcriptions"
    (folder / "Ses01F_script01_1.txt").unlink()
    folder.rmdir()
    corpus = read_corpus("iemocap", str(tmp_path))
    assert corpus.utterances[0].text is None
    assert any("Session1 has no dialog/transcriptions" in note for note in corpus.notes)


# ---- label schemes


def all_codes() -> dict[str, str]:
    improvised = "".join(block(f"Ses01F_impro01_F{i:03d}", code) for i, code in enumerate(CODE_COUNTS))
    scripted = "".join(block(f"Ses01F_script01_1_M{i:03d}", code) for i, code in enumerate(CODE_COUNTS))
    return {"Ses01F_impro01": improvised, "Ses01F_script01_1": scripted}


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("default", {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"}),
        ("four", {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"}),
        ("four_hap", {"ang": "angry", "hap": "happy", "sad": "sad", "neu": "neutral"}),
        ("four_exc", {"ang": "angry", "exc": "excited", "sad": "sad", "neu": "neutral"}),
        ("four_improvised", {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"}),
        (
            "five",
            {
                "ang": "angry",
                "hap": "happy",
                "exc": "happy",
                "sad": "sad",
                "neu": "neutral",
                "fru": "frustrated",
            },
        ),
        (
            "six",
            {
                "ang": "angry",
                "hap": "happy",
                "exc": "excited",
                "sad": "sad",
                "neu": "neutral",
                "fru": "frustrated",
            },
        ),
    ],
)
def test_a_scheme_keeps_its_labels_and_counts_the_others(tmp_path, scheme, expected):
    corpus = read_corpus("iemocap", write_tree(tmp_path, all_codes()), labels=scheme)
    recordings_kept = (
        ["Ses01F_impro01_F"] if scheme == "four_improvised" else ["Ses01F_impro01_F", "Ses01F_script01_1_M"]
    )
    codes = list(CODE_COUNTS)
    found = {utterance.id: utterance.label for utterance in corpus.utterances}
    assert found == {
        f"{recording}{codes.index(code):03d}": label
        for recording in recordings_kept
        for code, label in expected.items()
    }
    assert set(corpus.classes) == set(expected.values())
    (note,) = [note for note in corpus.notes if note.startswith("turns outside the label scheme")]
    assert "xxx" in note
    assert ("scripted 11" in note) == (scheme == "four_improvised")


def test_the_soft_scheme_keeps_what_raters_heard_without_a_majority(tmp_path):
    turn = "Ses01F_impro01_F{:03d}".format
    blocks = (
        block(turn(0), "xxx", "C-E2:\tHappiness;\t()", "C-E3:\tExcited;\t()", "C-E4:\tSadness;\t()")
        + block(turn(1), "fru", "C-E2:\tFrustration;\t()", "C-E3:\tFrustration;\t()", "C-E4:\tNeutral state;\t()")
        + block(turn(2), "ang", "C-E2:\tAnger;\t()", "C-E3:\tAnger;\t()", "C-E4:\tOther;\t(mocking)")
        + block(turn(3), "xxx", "C-E2:\tSurprise;\t()", "C-E3:\tFear;\t()", "C-F1:\tNeutral;\t()")
        + block(turn(4), "sad")
    )
    corpus = read_corpus("iemocap", write_tree(tmp_path, {"Ses01F_impro01": blocks}), labels="soft")
    found = {utterance.id: utterance for utterance in corpus.utterances}
    # Turn 3: no external rater named one of the classes (the actor's own vote does not count).
    assert sorted(found) == [turn(0), turn(1), turn(2), turn(4)]
    assert found[turn(0)].label is None
    assert found[turn(0)].distribution == pytest.approx({"angry": 0, "happy": 2 / 3, "sad": 1 / 3, "neutral": 0})
    assert found[turn(1)].label is None
    assert found[turn(1)].distribution == {"angry": 0.0, "happy": 0.0, "sad": 0.0, "neutral": 1.0}
    assert found[turn(2)].label == "angry"
    assert found[turn(2)].distribution == {"angry": 1.0, "happy": 0.0, "sad": 0.0, "neutral": 0.0}
    assert (found[turn(4)].label, found[turn(4)].distribution) == ("sad", None)
    assert "1 utterances have no vote of an external rater for any class of the scheme" in corpus.notes


@given(
    votes=st.lists(st.lists(st.sampled_from(sorted(CODE_COUNTS)), min_size=1, unique=True), max_size=5),
    scheme=st.sampled_from(sorted(IEMOCAP_SCHEMES)),
)
def test_vote_shares_are_a_distribution_over_the_classes(votes, scheme):
    chosen = IEMOCAP_SCHEMES[scheme]
    shares = vote_shares(votes, chosen)
    if shares is None:
        assert not any(code in chosen.merge for labels in votes for code in labels)
    else:
        assert tuple(shares) == chosen.classes
        assert min(shares.values()) >= 0
        assert sum(shares.values()) == pytest.approx(1)


# ---- lines


@given(
    start=st.integers(0, 10_000_000),
    length=st.integers(1, 400_000),
    number=st.integers(0, 999),
    code=st.sampled_from(sorted(CODE_COUNTS)),
    vad=st.tuples(*[st.sampled_from([0.5, 1.0, 2.3333, 3.5, 5.0, 5.5])] * 3),
)
def test_a_written_turn_is_read_back(start, length, number, code, vad):
    start, end = start / 10_000, (start + length) / 10_000
    numbers = ", ".join(f"{value:.4f}" for value in vad)
    line = f"[{start:.4f} - {end:.4f}]\tSes03M_impro08b_F{number:03d}\t{code}\t[{numbers}]"
    turn = parse_turn(line, "here")
    assert turn == Turn(f"Ses03M_impro08b_F{number:03d}", start, end, code, vad)


LINES = st.text(st.sampled_from(string.ascii_letters + string.digits + "[](){}.,;:-_%# \t\n"), max_size=120)


@given(LINES)
def test_no_text_makes_the_parsers_fail_without_a_sentence(text):
    for parse in (
        lambda: parse_turn(text, "here"),
        lambda: parse_categories(text, text, "here"),
        lambda: parse_evaluation(text, "here"),
        lambda: parse_transcript(text),
    ):
        try:
            parse()
        except InputError as error:
            assert "here" in str(error)


@given(st.data())
def test_a_damaged_turn_is_refused_or_read_as_a_turn(data):
    line = "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]"
    start = data.draw(st.integers(0, len(line) - 1))
    damaged = line[:start] + data.draw(LINES) + line[data.draw(st.integers(start, len(line))) :]
    try:
        turn = parse_turn(damaged, "the file, line 3")
    except InputError as error:
        assert repr(damaged) in str(error) and "the file, line 3" in str(error)
    else:
        assert 0 <= turn.start < turn.end
        assert turn.code in CODE_COUNTS
        assert all(math.isnan(value) or 0 <= value <= 6 for value in turn.vad)


@given(
    st.lists(st.sampled_from(["Neutral state", "Neutral", "Anger", "Excited", "Other", ""]), max_size=4),
    st.text(),
)
def test_categories_are_read_whatever_the_comment_says(categories, comment):
    named = parse_categories("\t" + ";".join(categories) + f";\t({comment})", "the line", "here")
    codes = {"Neutral state": "neu", "Neutral": "neu", "Anger": "ang", "Excited": "exc", "Other": "oth"}
    assert named == tuple(dict.fromkeys(codes[category] for category in categories if category))


def test_a_comment_may_run_over_several_lines():
    text = HEADER + block(
        "Ses01F_impro01_F000", "neu", "C-E2:\tNeutral;\t(first", "second", "third)", "C-E3:\tAnger;\t()"
    )
    (turn,) = parse_evaluation(text, "here")
    assert turn.votes == (("neu",), ("ang",))


def test_windows_line_ends_and_undecodable_comments_do_no_harm(tmp_path):
    root = write_tree(tmp_path, {"Ses01F_impro01": block("Ses01F_impro01_F000", "neu", "C-E2:\tNeutral;\t(x)")})
    path = tmp_path / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    path.write_bytes(path.read_bytes().replace(b"(x)", b"(\xe9\x85)").replace(b"\n", b"\r\n"))
    (utterance,) = read_corpus("iemocap", root).utterances
    assert utterance.distribution is not None and utterance.distribution["neutral"] == 1.0


# ---- bad input


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu", "expected '[start - end] turn label [V, A, D]'"),
        ("[8.2357 - 6.2901]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]", "start before end"),
        ("[six - eight]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]", "start before end"),
        ("[6.2901 - 8.2357]\tSes01F_impro01_FXX0\tneu\t[2.5, 2.5, 2.5]", "a turn like Ses01F_impro01_F000"),
        ("[6.2901 - 8.2357]\tSes01F_impro01_F000\tjoy\t[2.5, 2.5, 2.5]", "unknown label 'joy'"),
        ("[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5, two, 2.5]", "'two' is not a number"),
        ("[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5, 25, 2.5]", "25 lies far outside the scale"),
        ("[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5, 2.5]", "4 values"),
        ("Ses01F_impro01_F000 neu", "expected a turn"),
        ("C-E2:\tBliss;\t()", "unknown category 'Bliss'"),
    ],
)
def test_a_malformed_line_is_quoted_with_its_place(tmp_path, line, what):
    root = write_tree(tmp_path, {"Ses01F_impro01": block("Ses01F_impro01_F001", "neu")})
    path = tmp_path / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError) as caught:
        read_corpus("iemocap", root)
    assert what in str(caught.value)
    assert repr(line) in str(caught.value)
    assert f"{path}, line 5" in str(caught.value)


def test_a_rater_before_the_first_turn_is_refused():
    with pytest.raises(InputError, match="line 3: a rater's line before the first turn"):
        parse_evaluation(HEADER + "C-E2:\tNeutral;\t()\n", "here")


def test_a_turn_that_occurs_twice_is_refused(tmp_path):
    root = write_tree(tmp_path, {"Ses01F_impro01": block("Ses01F_impro01_F000", "neu") * 2})
    with pytest.raises(InputError, match="Ses01F_impro01_F000 occurs twice"):
        read_corpus("iemocap", root)


def test_a_labelled_turn_without_audio_is_dropped_with_a_sentence(tmp_path):
    blocks = "".join(block(f"Ses01F_impro01_F{i:03d}", code) for i, code in enumerate(("neu", "ang", "fru")))
    root = write_tree(tmp_path, {"Ses01F_impro01": blocks})
    wav = tmp_path / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    (wav / "Ses01F_impro01_F001.wav").unlink()
    (wav / "Ses01F_impro01_F002.wav").unlink()  # outside the scheme: nobody misses it
    corpus = read_corpus("iemocap", root)
    assert [utterance.id for utterance in corpus.utterances] == ["Ses01F_impro01_F000"]
    (dropped,) = corpus.dropped
    assert dropped.id == "Ses01F_impro01_F001"
    assert dropped.kind is Loss.ABSENT
    assert dropped.reason == f"the turn Ses01F_impro01_F001 has a label, but there is no audio file {dropped.path}"
    assert dropped.path.endswith("Ses01F_impro01_F001.wav")


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no IEMOCAP at .*nowhere.*expected the folder IEMOCAP_full_release"):
        read_corpus("iemocap", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="expected folders Session1 to Session5"):
        read_corpus("iemocap", str(tmp_path))
    (tmp_path / "Session2").mkdir()
    with pytest.raises(InputError, match="Session2 has no folder sentences/wav"):
        read_corpus("iemocap", str(tmp_path))
    (tmp_path / "Session2" / "sentences" / "wav").mkdir(parents=True)
    with pytest.raises(InputError, match="EmoEvaluation is missing"):
        read_corpus("iemocap", str(tmp_path))
    (tmp_path / "Session2" / "dialog" / "EmoEvaluation").mkdir(parents=True)
    with pytest.raises(InputError, match="no usable utterance"):
        read_corpus("iemocap", str(tmp_path))


def test_an_unknown_scheme_lists_those_that_exist(tmp_path):
    known = "default, five, four, four_exc, four_hap, four_improvised, six, soft"
    with pytest.raises(InputError, match=rf"config\.labels is 'seven', expected a label scheme of iemocap: {known}"):
        read_corpus("iemocap", str(tmp_path), labels="seven")


def test_an_unknown_corpus_and_a_missing_data_dir(tmp_path):
    with pytest.raises(InputError, match=rf"config\.corpus is 'iemocapp', expected one of {', '.join(CORPORA)}"):
        read_corpus("iemocapp", str(tmp_path))
    with pytest.raises(
        InputError, match=r"config\.data_dir is '', expected emodb\.zip or its unpacked folder: .* emodb needs data_dir"
    ):
        read_corpus("emodb", "")


# ---- a full release


def full_release() -> dict[str, list[tuple[str, str]]]:
    """Recording -> turns (id, label) with the published counts."""
    places = {session: recordings(session) for session in range(1, 6)}
    happiness, excitement = CODE_COUNTS["hap"], CODE_COUNTS["exc"]
    labels: list[tuple[str, str, bool]] = []  # speaker, label, scripted
    for speaker, facts in iemocap_shape()["speakers"].items():
        codes = ["ang"] * facts["counts"]["angry"] + ["sad"] * facts["counts"]["sad"]
        codes += ["neu"] * facts["counts"]["neutral"]
        happy = min(facts["counts"]["happy"], happiness)
        codes += ["hap"] * happy + ["exc"] * (facts["counts"]["happy"] - happy)
        happiness -= happy
        excitement -= facts["counts"]["happy"] - happy
        labels += [(speaker, code, i < facts["scripted"]) for i, code in enumerate(codes)]
    assert (happiness, excitement) == (0, 0)
    for code in ("fru", "fea", "sur", "dis", "oth", "xxx"):
        labels += [("Ses02F", code, i % 2 == 0) for i in range(CODE_COUNTS[code])]
    turns: dict[str, list[tuple[str, str]]] = {
        recording: [] for improvised, scripted in places.values() for recording in improvised + scripted
    }
    for i, (speaker, code, is_scripted) in enumerate(labels):
        names = places[int(speaker[3:5])][is_scripted]
        recording = names[i % len(names)]
        turns[recording].append((f"{recording}_{speaker[-1]}{len(turns[recording]):03d}", code))
    return turns


def full_release_turns() -> list[Turn]:
    members = [member for turns in full_release().values() for member in turns]
    return [Turn(turn, 0.0, 1.0, code, (3.0, 3.0, 3.0)) for turn, code in members]


def test_a_full_release_has_the_published_counts(tmp_path):
    turns = full_release()
    evaluations = {
        recording: "".join(block(turn, code) for turn, code in members) for recording, members in turns.items()
    }
    corpus = read_corpus("iemocap", write_tree(tmp_path, evaluations))
    assert len(corpus.utterances) == 5531
    assert "full release: all 10,039 turns have the published counts per label and speaker" in corpus.notes
    (note,) = [note for note in corpus.notes if note.startswith("turns outside")]
    assert note.endswith(": dis 2, fea 40, fru 1849, oth 3, sur 107, xxx 2507")
    assert Counter(utterance.label for utterance in corpus.utterances) == {
        "angry": 1103, "happy": 1636, "sad": 1084, "neutral": 1708,
    }  # fmt: skip
    assert Counter(utterance.speaker for utterance in corpus.utterances) == {
        "Ses01F": 528, "Ses01M": 557, "Ses02F": 481, "Ses02M": 542, "Ses03F": 522,
        "Ses03M": 629, "Ses04F": 528, "Ses04M": 503, "Ses05F": 590, "Ses05M": 651,
    }  # fmt: skip
    improvised = [utterance for utterance in corpus.utterances if "_impro" in utterance.id]
    assert len(improvised) == 2943


@pytest.mark.parametrize(
    ("scheme", "total"),
    [("four", 5531), ("four_hap", 4490), ("four_exc", 4936), ("five", 7380), ("six", 7380)],
)
def test_the_schemes_have_the_published_sizes(scheme, total):
    assert sum(CODE_COUNTS[code] for code in IEMOCAP_SCHEMES[scheme].merge) == total


def test_all_recordings_with_other_counts_are_refused(tmp_path, monkeypatch):
    root = write_tree(tmp_path, {"Ses01F_impro01": block("Ses01F_impro01_M000", "ang")})
    monkeypatch.setattr(iemocap, "N_SESSIONS", 1)
    monkeypatch.setattr(iemocap, "N_RECORDINGS", 1)
    with pytest.raises(InputError, match="has all recordings but not the published counts: Ses01F angry 0 in"):
        read_corpus("iemocap", root, labels="six")


def test_the_check_says_which_counts_differ():
    turns = full_release_turns()
    check_full_release(turns, "here")
    index = next(i for i, turn in enumerate(turns) if turn.speaker == "Ses03M" and turn.code == "neu")
    turns[index] = dataclasses.replace(turns[index], code="ang")
    with pytest.raises(InputError) as caught:
        check_full_release(turns, "here")
    assert str(caught.value) == (
        "here has all recordings but not the published counts: Ses03M angry 149 instead of 148, "
        "Ses03M neutral 189 instead of 190, ang 1104 instead of 1103, neu 1707 instead of 1708, expected an unchanged "
        "release"
    )


def test_the_check_notices_the_wrong_speaker():
    """Reading the speaker from the letter after SesNN keeps all label counts and must still be noticed."""
    wrong = [
        dataclasses.replace(turn, id=f"{turn.recording}_{turn.id[5]}{turn.id[-3:]}") for turn in full_release_turns()
    ]
    with pytest.raises(InputError, match=r"Ses01F angry \d+ instead of 147"):
        check_full_release(wrong, "here")


def test_a_text_id_needs_words():
    turn = Turn("Ses01F_script01_1_F000", 0.0, 1.0, "neu", (3.0, 3.0, 3.0))
    assert text_id(turn, "") is None
    assert text_id(turn, "...?!") is None
    assert text_id(turn, "No.") == text_id(turn, "no")


# ---- a release that was unpacked in part


def test_a_release_without_most_of_its_audio_names_the_first_path(tmp_path):
    root = write_tree(
        tmp_path,
        {"Ses01F_impro01": "".join(block(f"Ses01F_impro01_F{number:03d}", "ang") for number in range(40))},
    )
    wav = tmp_path / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    for number in range(40):
        if number % 5:
            (wav / f"Ses01F_impro01_F{number:03d}.wav").unlink()
    (wav / "Ses01F_impro01_F001.wav").mkdir()
    os.mkfifo(wav / "Ses01F_impro01_F002.wav")
    with pytest.raises(InputError) as caught:
        read_corpus("iemocap", root).require_usable(0.01)
    sentence = str(caught.value)
    assert (
        "no usable audio for at least 32 of 40 utterances (no such file 30, a folder 1, no regular file 1)" in sentence
    )
    assert f"there is no audio file {wav}/Ses01F_impro01_F003.wav" in sentence
    for path in wav.glob("*0.wav"):
        path.unlink()
    for path in wav.glob("*5.wav"):
        path.unlink()
    with pytest.raises(
        InputError, match=r"at least 40 of 40 utterances .* expected audio for at least one; the first: "
    ):
        read_corpus("iemocap", root)


def test_what_is_no_text_file_of_the_release_is_refused(tmp_path):
    root = write_tree(tmp_path, {"Ses01F_impro01": block("Ses01F_impro01_F000", "ang")})
    stray = tmp_path / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro02.txt"
    os.mkfifo(stray)
    with pytest.raises(InputError, match=r"Ses01F_impro02\.txt is a FIFO, expected a text file of the release"):
        read_corpus("iemocap", root)
    stray.unlink()
    stray.mkdir()
    with pytest.raises(InputError, match=r"Ses01F_impro02\.txt is a folder, expected a text file of the release"):
        read_corpus("iemocap", root)
