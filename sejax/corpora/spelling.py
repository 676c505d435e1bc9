"""Spellings: one speaker, label, session or fold has to be written in one way, or it counts as two.

Words are compared in three steps. `clean` brings them into the normal form NFC and trims them; that is always done.
What is then equal without case, form of numbers and compatibility form is two spellings of one word: an error.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from sejax.corpora.schema import Corpus, Utterance
from sejax.errors import InputError
from sejax.host.wording import count

FIELDS = ("speaker", "label", "session", "fold", "id")
"""The fields of an utterance in which two spellings of one word are an error."""

# Characters that change no word, beside blanks and the category Cf (U+200B, U+FEFF, ...): fillers and selectors.
_NO_WIDTH = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?")
_LONGEST_WORD = 60  # characters of a word that a message shows


def clean(text: str) -> str:
    """Returns a text in the normal form NFC, without blanks and characters without width at its ends."""
    return unicodedata.normalize("NFC", trim(text))


def trim(text: str) -> str:
    """Returns a text without blanks and characters without width at its ends."""
    start, end = 0, len(text)
    while start < end and _is_blank(text[start]):
        start += 1
    while end > start and _is_blank(text[end - 1]):
        end -= 1
    return text[start:end]


def spelling_key(text: str, *, padded: bool = True) -> str:
    """Returns a form that two spellings of one word share: `1`, `1.0`, `01`, `1e0`; `Anna`, `ANNA`.

    Args:
      text: the word.
      padded: whether numbers within the word are equal up to leading zeros too (`s1`, `s01`).
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    plain = " ".join("".join(c for c in _NO_WIDTH.sub("", plain) if c.isspace() or not _is_blank(c)).split())
    if _NUMBER.fullmatch(plain):
        _, digits, exponent = Decimal(plain).as_tuple()
        sign = "-" if plain.startswith("-") else ""
        whole = "".join(map(str, digits)).lstrip("0")
        significant = whole.rstrip("0")
        return f"{sign}{significant}e{int(exponent) + len(whole) - len(significant)}" if significant else "0"
    return re.sub(r"(?<![\d.,])0+(?=\d)", "", plain) if padded else plain


def find_control(text: str) -> str | None:
    """Returns the name of the first control character or line separator of a text, None without one."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs"):
            return {"\n": "a line break", "\r": "a carriage return", "\t": "a tab", "\0": "a NUL"}.get(
                character, f"the control character U+{ord(character):04X}"
            )
    return None


def show(text: str) -> str:
    """Returns a word in quotes for a message, shortened if it is long, invisible characters by their codes."""
    return repr(text if len(text) <= _LONGEST_WORD else text[: _LONGEST_WORD - 3] + "...")


def printable(text: str) -> str:
    """Returns a text with its invisible characters, and bytes that are no text, shown by their codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unify(corpus: Corpus) -> Corpus:
    """Returns a corpus whose words are all clean, and in which no word has two spellings, sorted by id.

    Texts are compared like other words, but only the audit reads them: spellings of one text are taken as one, and a
    note says so.

    Raises:
      InputError: a word holds a control character, or a speaker, a label, a session, a fold or an id has two spellings.
    """
    cleaned = [_cleaned(utterance) for utterance in corpus.utterances]
    require_one_spelling(cleaned)
    utterances, notes = _with_one_spelling_per_text(cleaned)
    return dataclasses.replace(
        corpus,
        classes=tuple(dict.fromkeys(map(clean, corpus.classes))),
        utterances=tuple(sorted(utterances, key=lambda utterance: utterance.id)),
        notes=(*corpus.notes, *notes),
    )


def require_one_spelling(utterances: Sequence[Utterance]) -> None:
    """Checks that no two values of a field of `FIELDS` are spellings of one word.

    Raises:
      InputError: two are, or an id occurs twice. The sentence shows both with their places.
    """
    for name in FIELDS:
        first: dict[str, Utterance] = {}  # by spelling
        for utterance in utterances:
            spelling = getattr(utterance, name)
            if name == "id" and spelling in first:
                raise InputError(
                    f"{_place(utterance)}: the id {show(spelling)} occurs twice, first in {_place(first[spelling])}, "
                    "expected once"
                )
            if spelling is not None:
                first.setdefault(spelling, utterance)
        pairs = _spellings(first, padded=name != "id")
        if pairs:
            (one, other), more = pairs[0], len(pairs) - 1
            also = f", and so do {count(more, 'more pair')}" if more else ""
            raise InputError(
                f"the {name}s {show(one)} ({_place(first[one])}) and {show(other)} ({_place(first[other])}) differ "
                f"only in case, form of numbers or Unicode form{also}, expected one spelling of each {name}"
            )


def _with_one_spelling_per_text(utterances: Sequence[Utterance]) -> tuple[tuple[Utterance, ...], list[str]]:
    first: dict[str, str] = {}  # by key
    texts = {u.text: spelling_key(u.text) for u in utterances if u.text is not None}
    for text, key in texts.items():
        first.setdefault(key, text)
    if len(first) == len(texts):
        return tuple(utterances), []
    one, other = next((first[key], text) for text, key in texts.items() if first[key] != text)
    note = (
        f"{count(len(texts) - len(first), 'text')} differ from others only in case, form of numbers or Unicode form "
        f"and are taken as the same: {show(other)} as {show(one)}"
    )
    unified = (u if u.text is None else dataclasses.replace(u, text=first[texts[u.text]]) for u in utterances)
    return tuple(unified), [note]


def _spellings(words: Iterable[str], *, padded: bool) -> list[tuple[str, str]]:
    """Returns the pairs of words that are spellings of one, each with the first of them."""
    first: dict[str, str] = {}
    pairs = []
    for word in words:
        one = first.setdefault(spelling_key(word, padded=padded), word)
        if one != word:
            pairs.append((one, word))
    return pairs


def _cleaned(utterance: Utterance) -> Utterance:
    changes: dict[str, Any] = {}
    for name in (*FIELDS, "text"):
        value = getattr(utterance, name)
        if value is None:
            continue
        cleaned = clean(value)
        if control := find_control(cleaned):
            raise InputError(
                f"{_place(utterance)}: the {name} {show(cleaned)} has {control} in it, expected text without any"
            )
        if cleaned != value:
            changes[name] = cleaned
    distribution = utterance.distribution
    if distribution is not None and any(clean(name) != name for name in distribution):
        changes["distribution"] = {clean(name): share for name, share in distribution.items()}
    return dataclasses.replace(utterance, **changes) if changes else utterance


def _is_blank(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) == "Cf"


def _place(utterance: Utterance) -> str:
    return utterance.place or printable(utterance.path)
