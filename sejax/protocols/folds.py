"""Protocols: how the utterances are divided into folds, as masks, and the sentence that describes each. Numpy only."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from sejax.corpora.schema import SPLITS, Utterance
from sejax.errors import InputError
from sejax.host.wording import count

NORMALISATIONS = ("train", "speaker")
"""The speakers whose audio normalises the features: the fold's training speakers, or each speaker (transductive)."""

_MINIMUM = 3  # one part for training, one for validation, one for testing


@dataclass(frozen=True)
class Fold:
    """One division of the utterances: three disjoint masks, none of them empty."""

    name: str
    train: Bool[np.ndarray, " utterance"]
    val: Bool[np.ndarray, " utterance"]
    test: Bool[np.ndarray, " utterance"]


@dataclass(frozen=True)
class Protocol:
    """A way to divide the utterances into folds.

    Args:
      make: returns the folds of the utterances.
      sentence: the description of the protocol in results.
    """

    make: Callable[[Sequence[Utterance]], tuple[Fold, ...]]
    sentence: str


def make_folds(utterances: Sequence[Utterance], protocol: str) -> tuple[Fold, ...]:
    """Returns the folds of a protocol, in the order of their names.

    - "loso": a fold per speaker. Validation is the other speaker of the test speaker's session: the next one
      in sorted order, cyclic, if a session has more than two. If a speaker has no session, several sessions, or
      one to themselves, validation is the next speaker of the corpus. Neither is trained on.
    - "loso_session": a fold per session. Validation is the next session, cyclic.
    - "official": one fold, the corpus's own splits (`Utterance.split`).
    - "table": a fold per value of the column `fold`. Validation is the next value, cyclic.

    Values that are all whole numbers are sorted as numbers, others as text.

    Args:
      utterances: all utterances of the corpus.
      protocol: a key of `PROTOCOLS`.

    Raises:
      InputError: the protocol is unknown, an utterance lacks a value that the protocol needs, there are fewer than
        three parts, or a speaker of a test set is also trained on.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"config.protocol is {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    if not utterances:
        raise InputError("the corpus has no utterances, expected some to make folds of")
    folds = PROTOCOLS[protocol].make(utterances)
    require_unseen_speakers(utterances, folds)
    return folds


def describe_protocol(name: str, *, normalisation: str, select_on_test: bool, seeds: int, folds: int) -> dict[str, Any]:
    """Returns the description of a study's protocol that its numbers have to be quoted with, as a tree for JSON.

    Args:
      name: a key of `PROTOCOLS`.
      normalisation: "train", or "speaker" for statistics of each speaker, including the test speakers.
      select_on_test: whether the epoch is chosen on the test speakers.
      seeds: number of seeds.
      folds: number of folds.
    """
    transductive = normalisation == "speaker"
    chosen = "epoch chosen on the TEST speakers: optimistic" if select_on_test else "epoch chosen on validation"
    normalised = "features normalised per speaker, the test speaker too: transductive"
    return {
        "name": name,
        "description": "; ".join([PROTOCOLS[name].sentence, chosen, *([normalised] if transductive else [])]),
        "normalisation": normalisation,
        "transductive": transductive,
        "select_on_test": select_on_test,
        "optimistic": select_on_test,
        "seeds": seeds,
        "folds": folds,
    }


def _loso(utterances: Sequence[Utterance]) -> tuple[Fold, ...]:
    speaker = np.array([utterance.speaker for utterance in utterances])
    speakers = _at_least_three("speaker", speaker)
    partners = _session_partners(utterances)
    folds = []
    for test in speakers:
        val = partners.get(test) or _next(speakers, test)
        folds.append(_fold(test, is_val=speaker == val, is_test=speaker == test))
    return tuple(folds)


def _session_partners(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Returns the next speaker of the session for each speaker who has exactly one session and shares it."""
    sessions: dict[str, set[str | None]] = {}
    speakers: dict[str | None, set[str]] = {}
    for utterance in utterances:
        sessions.setdefault(utterance.speaker, set()).add(utterance.session)
        speakers.setdefault(utterance.session, set()).add(utterance.speaker)
    partners = {}
    for speaker, of_speaker in sessions.items():
        if len(of_speaker) == 1 and None not in of_speaker:
            (session,) = of_speaker
            if len(speakers[session]) > 1:
                partners[speaker] = _next(ordered(speakers[session]), speaker)
    return partners


def _loso_session(utterances: Sequence[Utterance]) -> tuple[Fold, ...]:
    return _leave_one_out("session", _column(utterances, "session"))


def _table(utterances: Sequence[Utterance]) -> tuple[Fold, ...]:
    return _leave_one_out("fold", _column(utterances, "fold"))


def _leave_one_out(what: str, part: np.ndarray) -> tuple[Fold, ...]:
    parts = _at_least_three(what, part)
    return tuple(_fold(test, is_val=part == _next(parts, test), is_test=part == test) for test in parts)


def _official(utterances: Sequence[Utterance]) -> tuple[Fold, ...]:
    split = _column(utterances, "split")
    unknown = sorted(set(split.tolist()) - set(SPLITS))
    if unknown:
        raise InputError(
            f"utterance {utterances[int(np.argmax(split == unknown[0]))].id} has the split {unknown[0]!r}, expected "
            f"one of {', '.join(SPLITS)} for the official protocol"
        )
    for name in SPLITS:
        if not (split == name).any():
            raise InputError(
                f"no utterance has the split {name!r}, expected {', '.join(SPLITS)} for the official protocol"
            )
    return (_fold("official", is_val=split == "val", is_test=split == "test"),)


PROTOCOLS: Mapping[str, Protocol] = {
    "loso": Protocol(_loso, "leave one speaker out"),
    "loso_session": Protocol(_loso_session, "leave one session out"),
    "official": Protocol(_official, "the corpus's own splits"),
    "table": Protocol(_table, "the folds of the table"),
}


def _fold(name: str, *, is_val: Bool[np.ndarray, " utterance"], is_test: Bool[np.ndarray, " utterance"]) -> Fold:
    return Fold(name=name, train=~is_val & ~is_test, val=is_val, test=is_test)


def _column(utterances: Sequence[Utterance], name: str) -> np.ndarray:
    """Returns one field of all utterances, as text.

    Raises:
      InputError: an utterance has no value.
    """
    values = [getattr(utterance, name) for utterance in utterances]
    missing = [utterance.id for utterance, value in zip(utterances, values, strict=True) if value is None]
    if missing:
        raise InputError(
            f"{len(missing)} of {count(len(values), 'utterance')} have no {name} (the first: {missing[0]}), "
            f"expected a {name} in every one for this protocol"
        )
    return np.array(values)


def _at_least_three(what: str, column: np.ndarray) -> list[str]:
    values = ordered(column.tolist())
    if len(values) < _MINIMUM:
        raise InputError(
            f"the utterances have {count(len(values), what)} ({', '.join(values)}), expected at least {_MINIMUM}: "
            "to train on, to validate on and to test on"
        )
    return values


def ordered(values: Iterable[str]) -> list[str]:
    """Returns each value once, sorted as numbers if all are whole numbers and as text otherwise."""
    once = sorted(set(values))
    return sorted(once, key=int) if all(value.isdecimal() for value in once) else once


def _next(values: Sequence[str], value: str) -> str:
    return values[(values.index(value) + 1) % len(values)]


def require_unseen_speakers(utterances: Sequence[Utterance], folds: Sequence[Fold]) -> None:
    """Checks that no fold trains on a speaker of its test set.

    Raises:
      InputError: a fold does. The message names the fold and the speakers.
    """
    for fold in folds:
        shared = speakers_of(utterances, fold.train) & speakers_of(utterances, fold.test)
        if shared:
            raise InputError(
                f"fold {fold.name} tests on {count(len(shared), 'speaker')} whom it also trains on "
                f"({', '.join(ordered(shared))}), expected each speaker in only one of the two"
            )


def speakers_of(utterances: Sequence[Utterance], mask: Bool[np.ndarray, " utterance"]) -> set[str]:
    """Returns the speakers of the utterances in the mask."""
    return {utterance.speaker for utterance in members(utterances, mask)}


def members(utterances: Sequence[Utterance], mask: Bool[np.ndarray, " utterance"]) -> list[Utterance]:
    """Returns the utterances in the mask."""
    return [utterances[row] for row in np.flatnonzero(mask).tolist()]
