"""One word, one spelling: of speakers, labels, sessions, folds and ids, in a table and in every other corpus."""

import dataclasses
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_study import write_table

from sejax.corpora.read import read_corpus
from sejax.corpora.schema import Corpus, Utterance
from sejax.corpora.spelling import clean, show, spelling_key, unify
from sejax.errors import InputError

# Spellings of one word that become equal when a table is read.
SAME = {
    "NFC and NFD": ("Müller", "Mu\u0308ller"),
    "blanks": ("anna", " anna  "),
    "a no-break space": ("anna", "anna\u00a0"),
    "a zero-width space": ("anna", "\u200banna"),
    "a byte order mark": ("anna", "\ufeffanna"),
    "a word joiner": ("anna", "anna\u2060"),
    "the angstrom sign": ("Å", "\u212b"),
}
# Spellings of one name that remain different, and are refused: with what is said of them. Those of `LOOK` are refused
# for ids too.
NUMBER = "are the same number"
FORM = "differ only in the form of numbers"
UNICODE = "differ only in Unicode form"
CASE = "differ only in case"
LOOK = {
    "full-width digits": ("12", "１２", UNICODE),
    "arabic digits": ("12", "١٢", UNICODE),
    "arabic digits within": ("s3", "s٣", UNICODE),
    "a superscript": ("2", "²", UNICODE),
    "full-width letters": ("anna", "ａｎｎａ", UNICODE),
    "a ligature": ("fine", "ﬁne", UNICODE),
    "a zero-width space within": ("anna", "an\u200bna", UNICODE),
    "a soft hyphen": ("anna", "an\u00adna", UNICODE),
    "a variation selector": ("\u2764", "\u2764\ufe0f", UNICODE),
    "a no-break space within": ("anna b", "anna\u00a0b", UNICODE),
    "a no-break hyphen": ("Jean-Luc", "Jean\u2011Luc", UNICODE),
    "an en dash": ("Jean-Luc", "Jean\u2013Luc", UNICODE),
    "a minus": ("-1", "\u22121", UNICODE),
    "an apostrophe": ("O'Neil", "O\u2019Neil", UNICODE),
    "two spaces": ("anna b", "anna  b", "differ only in blanks"),
}
TWO = LOOK | {
    "an integer and a float": ("1", "1.0", NUMBER),
    "a decimal comma": ("1", "1,0", NUMBER),
    "a leading zero": ("1", "01", NUMBER),
    "thousands": ("1001", "1,001", NUMBER),
    "millions": ("1001001.0", "1,001,001", NUMBER),
    "an exponent": ("1", "1e0", NUMBER),
    "a long exponent": ("1", "1e0000", NUMBER),
    "a large exponent": ("100", "1E+2", NUMBER),
    "a plus": ("7", "+7", NUMBER),
    "decimals": (".5", "0.5", NUMBER),
    "a comma in decimals": ("1.5", "1,5", NUMBER),
    "zeros": ("0", "-0.00", NUMBER),
    "padded numbers": ("s1", "s01", FORM),
    "a float within": ("s1", "s1.0", FORM),
    "thousands within": ("s1001", "s1,001", FORM),
    "capitals": ("anna", "Anna", CASE),
    "a sharp s": ("Strauß", "STRAUSS", CASE),
    "a Turkish I": ("İpek", "ipek", CASE),
    "a dotless i": ("Işıl", "IŞIL", CASE),
    "a blank before a number": ("Speaker 1", "Speaker1", "differ only in blanks or _"),
    "an underscore": ("Anna_Maria", "Anna Maria", "differ only in blanks or _"),
    "several": ("Speaker 01", "speaker_1.0", "differ only in case and the form of numbers and blanks or _"),
}
DIFFERENT = [
    ("1", "10"),
    ("1", "1.5"),
    ("1.1", "1.10"),
    ("d1.1", "d1.10"),
    ("s1", "s1.2.0"),
    ("1 1", "11"),
    ("s1_0", "s10"),
    ("anger+", "anger-"),
    ("1.05", "1.5"),
    ("v1.05", "v1.5"),
    ("-1", "1"),
    ("s1", "s10"),
    ("s1", "s11"),
    ("Müller", "Muller"),
    ("1e5", "1e6"),
    ("12345678901234567890123456789012345", "12345678901234567890123456789012346"),
    ("1e999999999", "1e999999998"),
]


def table(folder: Path, column: str, one: str, other: str) -> str:
    rows = [
        {"path": f"{letter}.wav", "speaker": f"voice {letter}", "label": f"mood {letter}", "id": f"take {letter}"}
        | {column: value}
        for letter, value in (("a", one), ("b", other))
    ]
    for row in rows:
        (folder / row["path"]).touch()
    return str(write_table(folder / "table.csv", rows))


@pytest.mark.parametrize("column", ["speaker", "label", "session", "fold"])
@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_forms_that_nobody_sees_are_one_word(tmp_path, column, one, other):
    corpus = read_corpus("table", table(tmp_path, column, one, other))
    assert {getattr(utterance, column) for utterance in corpus.utterances} == {clean(one)}
    if column == "label":
        assert corpus.classes == (clean(one),)


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_an_id_in_two_forms_occurs_twice(tmp_path, one, other):
    with pytest.raises(InputError, match=r"csv, line 3: the id .* occurs twice, first in .*csv, line 2, expected once"):
        read_corpus("table", table(tmp_path, "id", one, other))


@pytest.mark.parametrize(
    ("column", "one", "other", "said"),
    [
        *(("speaker", *words) for words in TWO.values()),
        *((column, *TWO["an integer and a float"]) for column in ("label", "session", "fold")),
        *(("id", *words) for words in LOOK.values()),
    ],
)
def test_two_spellings_are_shown_with_their_lines(tmp_path, column, one, other, said):
    path = table(tmp_path, column, one, other)
    with pytest.raises(InputError) as caught:
        read_corpus("table", path)
    sentence = str(caught.value)
    assert sentence == (
        f"the {column}s {show(one)} ({path}, line 2) and {show(other)} ({path}, line 3) {said}, expected one spelling "
        f"of each {column}"
    )
    assert sentence.isprintable()  # what cannot be seen is shown by its code


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *((one, other) for name, (one, other, _) in TWO.items() if name not in LOOK),
        ("100", "1e2"),  # hashes
        ("0e1", "0e2"),
        ("sA/u1", "sa/u1"),
    ],
)
def test_ids_are_names_of_files(tmp_path, one, other):
    corpus = read_corpus("table", table(tmp_path, "id", one, other))
    assert {utterance.id for utterance in corpus.utterances} == {one, other}


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
@pytest.mark.parametrize("column", ["speaker", "id"])
def test_other_words_stay_apart(tmp_path, column, one, other):
    corpus = read_corpus("table", table(tmp_path, column, one, other))
    assert {getattr(utterance, column) for utterance in corpus.utterances} == {one, other}


def test_the_other_pairs_are_counted(tmp_path):
    rows = [{"path": f"{n}.wav", "speaker": name, "label": "x"} for n, name in enumerate(("1", "2", "1.0", "2.0", "3"))]
    for row in rows:
        (tmp_path / row["path"]).touch()
    with pytest.raises(InputError, match=r"are the same number \(and there is 1 more pair\), expected"):
        read_corpus("table", str(write_table(tmp_path / "table.csv", rows)))


@pytest.mark.parametrize(("one", "other"), [words[:2] for words in TWO.values()], ids=TWO)
def test_spellings_of_a_text_are_taken_as_one_with_a_note(tmp_path, one, other):
    """A leak of texts must not hide behind a capital; the network never sees them."""
    corpus = read_corpus("table", table(tmp_path, "text", one, other))
    assert [utterance.text for utterance in corpus.utterances] == [one, one]
    (note,) = (note for note in corpus.notes if "text" in note)
    assert f"{show(other)} as {show(one)}" in note


def test_every_reader_is_checked_by_file():
    """A corpus whose file names hold names, read on a Mac and on Linux."""
    one = Utterance("a", "/x/a.wav", "Mu\u0308ller", label="joy", distribution={"joy ": 1.0})
    other = Utterance("b", "/x/b.wav", "Müller", label="joy")
    corpus = unify(Corpus("toy", ("joy ", "rage"), (1.0, 5.0), (other, one)))
    assert [(u.id, u.speaker) for u in corpus.utterances] == [("a", "Müller"), ("b", "Müller")]
    assert corpus.classes == ("joy", "rage") and corpus.utterances[0].distribution == {"joy": 1.0}
    shouted = dataclasses.replace(other, speaker="MÜLLER")
    with pytest.raises(InputError, match=r"the speakers 'Müller' \(/x/a\.wav\) and 'MÜLLER' \(/x/b\.wav\) differ only"):
        unify(Corpus("toy", ("joy",), (1.0, 5.0), (one, shouted)))
    with pytest.raises(InputError, match=r"/x/b\.wav: the id 'a' occurs twice, first in /x/a\.wav"):
        unify(Corpus("toy", ("joy",), (1.0, 5.0), (one, dataclasses.replace(other, id="a\u200b"))))
    with pytest.raises(InputError, match=r"/x/b\.wav: the label 'jo\\ny' has a line break in it"):
        unify(Corpus("toy", ("joy",), (1.0, 5.0), (one, dataclasses.replace(other, label="jo\ny"))))


def test_a_healthy_corpus_is_unchanged():
    utterances = tuple(Utterance(f"u{n}", f"u{n}.wav", f"s{n}", label="joy", text=f"t{n}") for n in range(3))
    corpus = Corpus("toy", ("joy",), (1.0, 5.0), utterances)
    assert unify(corpus) == corpus


WORDS = st.text(st.characters(categories=("L", "N", "Zs", "Cf", "P", "M", "S")), max_size=12)


@given(WORDS)
def test_clean_and_key_are_stable(word):
    cleaned = clean(word)
    assert clean(cleaned) == cleaned and unicodedata.is_normalized("NFC", cleaned)
    key = spelling_key(cleaned)
    for other in (word, cleaned.upper().lower(), unicodedata.normalize("NFKD", cleaned), f"\u200b{cleaned}\u00a0"):
        if unicodedata.normalize("NFKC", other.casefold()) == unicodedata.normalize("NFKC", cleaned.casefold()):
            assert spelling_key(other) == key


@given(st.integers(-(10**9), 10**9), st.integers(0, 3), st.integers(0, 3))
def test_forms_of_a_number_have_one_key(number, zeros, decimals):
    sign, digits = ("-" if number < 0 else ""), str(abs(number))
    padded = sign + "0" * zeros + digits
    forms = [str(number), padded, f"{padded}." + "0" * decimals, f"{number}e0", f"{number}0E-1", f"{number:,}"]
    assert len({spelling_key(form) for form in forms}) == 1
    assert spelling_key(str(number)) != spelling_key(str(number + 1))
