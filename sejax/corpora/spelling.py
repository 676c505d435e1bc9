"""Spellings: one speaker, label, session or fold has to be written in one way, or it counts as two.

`clean` brings words into the normal form NFC and trims them; that is always done. Two words that are then equal up to a
few steps are two spellings of one: an error. For names these are Unicode form, case, the form of numbers, and blanks.
Ids are names of files, where `sA/u1` and `sa/u1`, `1.1` and `1.10`, and the hashes `100` and `1e2` are different: only
what no eye tells apart is an error.
"""

import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from sejax.corpora.schema import Corpus, Utterance
from sejax.errors import InputError
from sejax.host.wording import count, printable

FIELDS = ("speaker", "label", "session", "fold", "id")
"""The fields of an utterance in which two spellings of one word are an error."""

# Characters that change no word, beside blanks and the category Cf (U+200B, U+FEFF, ...): fillers and selectors.
_NO_WIDTH = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# Characters that look alike and have no common compatibility form.
_ALIKE = str.maketrans({"\u2212": "-", **dict.fromkeys("\u2018\u2019\u02bc", "'")})
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?0*\d{1,3})?")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_NO_DECIMALS = re.compile(r"(?<![\d.,])(\d+)[.,]0+(?![\d.,])")
_LEADING_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")
_GAP = re.compile(r"[\s_]+")
# A gap beside a letter changes no name; between two digits it does.
_GAP_AT_A_LETTER = re.compile(r"(?<=[^\W\d_]) (?=\w)|(?<=\w) (?=[^\W\d_])")
_LONGEST_WORD = 60  # characters of a word that a message shows


def clean(text: str) -> str:
    """Returns a text in the normal form NFC, without blanks and characters without width at its ends."""
    return unicodedata.normalize("NFC", trim(text))


def trim(text: str) -> str:
    """Returns a text without blanks and characters without width at its ends."""
    if text.isascii() and text.isprintable():  # most words, and much faster
        return text.strip(" ")
    start, end = 0, len(text)
    while start < end and _is_blank(text[start]):
        start += 1
    while end > start and _is_blank(text[end - 1]):
        end -= 1
    return text[start:end]


def spelling_key(text: str) -> str:
    """Returns a form that two spellings of one name share: `1`, `1.0`, `01`, `1e0`; `Anna`, `ANNA`; `s 1`, `s_1`, `s1`.

    Decimals count (`1.1` and `1.10` are names of dialogs) unless all are zeros, which programs append to whole numbers.
    """
    return _key(text, _NAMES)


def _key(text: str, steps: Sequence["_Step"]) -> str:
    for step in steps:
        text = step.simplify(text)
    return text


def _with_one_look(text: str) -> str:
    text = unicodedata.normalize("NFKC", _NO_WIDTH.sub("", unicodedata.normalize("NFKC", text).translate(_ALIKE)))
    return "".join(_plain(c) for c in text if c.isspace() or not _is_blank(c))


def _plain(character: str) -> str:
    if unicodedata.category(character) == "Pd":
        return "-"
    return character if character.isascii() else str(unicodedata.decimal(character, character))


def _with_single_blanks(text: str) -> str:
    return " ".join(text.split())


def _without_case(text: str) -> str:
    # Turkish has a dotless i, whose capital is I, and a dotted I, which other languages fold to two characters.
    return unicodedata.normalize("NFKC", text.casefold()).replace("i\u0307", "i").replace("\u0131", "i")


def _with_plain_numbers(text: str) -> str:
    text = _ungrouped(text)
    if not _NUMBER.fullmatch(text):
        return _LEADING_ZEROS.sub("", _NO_DECIMALS.sub(r"\1", text))
    _, digits, exponent = Decimal(text.replace(",", ".")).as_tuple()
    whole, exponent = "".join(map(str, digits)).lstrip("0"), int(exponent)
    if exponent >= 0 or not whole[exponent:].strip("0"):
        significant = whole.rstrip("0")
        whole, exponent = significant, exponent + len(whole) - len(significant)
    return f"{'-' if text.startswith('-') else ''}{whole}e{exponent}" if whole else "0"


def _ungrouped(text: str) -> str:
    return _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)


def _without_gaps(text: str) -> str:
    return _GAP_AT_A_LETTER.sub("", _GAP.sub(" ", text))


class _Step(NamedTuple):
    """A step that makes spellings of a word equal. `difference` is what it takes away, for messages."""

    difference: str
    simplify: Callable[[str], str]


_LOOK = (_Step("Unicode form", _with_one_look), _Step("blanks", _with_single_blanks))
_NUMBERS = _Step("the form of numbers", _with_plain_numbers)
_NAMES = (*_LOOK, _Step("case", _without_case), _NUMBERS, _Step("blanks or _", _without_gaps))


def _difference(one: str, other: str, steps: Sequence[_Step]) -> str:
    """Returns what tells two spellings of one word apart, as a verb phrase."""
    enough = next((step for step in steps if step.simplify(one) == step.simplify(other)), None)
    if enough is _NUMBERS and all(_NUMBER.fullmatch(_ungrouped(word)) for word in (one, other)):
        return "are the same number"
    needed = [step for step in steps if len({_key(word, [s for s in steps if s != step]) for word in (one, other)}) > 1]
    return f"differ only in {' and '.join(step.difference for step in ([enough] if enough else needed or steps))}"


def hash_words(transcript: str) -> str | None:
    """Returns an id of the words of a transcript without case, punctuation and sounds in brackets; None without words.

    It is a hash, because the words are under the corpus's licence, and ids are written to results.
    """
    spoken = re.sub(r"\[[^\]]*\]", " ", transcript.lower().translate(_ALIKE))
    words = " ".join(re.findall(r"[^\W_]+", spoken.replace("'", "")))
    return hashlib.blake2b(words.encode(), digest_size=6).hexdigest() if words else None


def find_control(text: str) -> str | None:
    """Returns the name of the first control character or line separator of a text, None without one."""
    if text.isprintable():  # most words, and much faster
        return None
    for character in text:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs"):
            return {"\n": "a line break", "\r": "a carriage return", "\t": "a tab", "\0": "a NUL"}.get(
                character, f"the control character U+{ord(character):04X}"
            )
    return None


def show(text: str) -> str:
    """Returns a word in quotes for a message, shortened if it is long, invisible characters by their codes."""
    return repr(text if len(text) <= _LONGEST_WORD else text[: _LONGEST_WORD - 3] + "...")


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
    """Checks that no two values of a field of `FIELDS` are spellings of one word. Unknown speakers have none.

    Raises:
      InputError: two are, or an id occurs twice. The sentence shows both with their places.
    """
    for name in FIELDS:
        first: dict[str, Utterance] = {}  # by spelling
        for utterance in utterances:
            if name == "speaker" and not utterance.speaker_known:
                continue  # a name that a reader made up from the id
            spelling = getattr(utterance, name)
            if name == "id" and spelling in first:
                raise InputError(
                    f"{_place(utterance)}: the id {show(spelling)} occurs twice, first in {_place(first[spelling])}, "
                    "expected once"
                )
            if spelling is not None:
                first.setdefault(spelling, utterance)
        steps = _LOOK if name == "id" else _NAMES
        pairs = _spellings(first, steps)
        if pairs:
            (one, other), more = pairs[0], len(pairs) - 1
            also = f" (and there {'is' if more == 1 else 'are'} {count(more, 'more pair')})" if more else ""
            raise InputError(
                f"the {name}s {show(one)} ({_place(first[one])}) and {show(other)} ({_place(first[other])}) "
                f"{_difference(one, other, steps)}{also}, expected one spelling of each {name}"
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
        f"{count(len(texts) - len(first), 'text')} differ from others only in case, blanks, form of numbers or "
        f"Unicode form and are taken as the same: {show(other)} as {show(one)}"
    )
    unified = (u if u.text is None else dataclasses.replace(u, text=first[texts[u.text]]) for u in utterances)
    return tuple(unified), [note]


def _spellings(words: Iterable[str], steps: Sequence[_Step]) -> list[tuple[str, str]]:
    """Returns the pairs of words that are spellings of one, each with the first of them."""
    first: dict[str, str] = {}
    pairs = []
    for word in words:
        one = first.setdefault(_key(word, steps), word)
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
