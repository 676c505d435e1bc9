"""Protocols as masks over the utterances, and the audit of what they leak. Numpy only."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from ml_collections import ConfigDict

from sejax.corpora.schema import Utterance
from sejax.errors import InputError
from sejax.host.wording import count

SPLITS = ("train", "val", "test")
NORMALISATIONS = ("train", "speaker")
"""Whose audio the features are normalised by: the fold's training speakers, or each speaker (transductive)."""

_MINIMUM = 3  # one part each to train on, to validate on and to test on


@dataclass(frozen=True)
class Fold:
    """One way to part the utterances: three masks, disjoint, none of them empty."""

    name: str
    train: Bool[np.ndarray, " utterance"]
    val: Bool[np.ndarray, " utterance"]
    test: Bool[np.ndarray, " utterance"]


def make_folds(utterances: Sequence[Utterance], protocol: str) -> tuple[Fold, ...]:
    """The folds of a protocol, in the order of their names.

    - "loso": a fold per speaker. Validation is the other speaker of the test speaker's session: the next one
      in sorted order, cyclic, where a session has more than two. If a speaker has no session, several
      sessions, or one to themselves, it is the next speaker of the corpus. Neither is trained on.
    - "loso_session": a fold per session; validation is the next session, cyclic.
    - "official": one fold, the corpus's own splits (`Utterance.split`).
    - "table": a fold per value of the column `fold`; validation is the next value, cyclic.

    Values that are all whole numbers are sorted as numbers, others as text.

    Raises InputError for an unknown protocol, a value that a protocol needs and an utterance lacks, fewer
    than three parts, and speakers of a test set who are also trained on.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"The protocol is {protocol!r}, but it has to be one of {', '.join(PROTOCOLS)}.")
    if not utterances:
        raise InputError("There are no utterances to make folds of.")
    folds = PROTOCOLS[protocol](utterances)
    _require_unseen_speakers(utterances, folds)
    return folds


# --------------------------------------------------------------------------------------------- protocols


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
    """For each speaker of exactly one session that has others too: the next speaker of that session."""
    sessions: dict[str, set[str | None]] = {}
    speakers: dict[str | None, set[str]] = {}
    for utterance in utterances:
        sessions.setdefault(utterance.speaker, set()).add(utterance.session)
        speakers.setdefault(utterance.session, set()).add(utterance.speaker)
    partners = {}
    for speaker, own in sessions.items():
        if len(own) == 1 and None not in own:
            (session,) = own
            if len(speakers[session]) > 1:
                partners[speaker] = _next(_ordered(speakers[session]), speaker)
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
            f"Utterance {utterances[int(np.argmax(split == unknown[0]))].id} is of split {unknown[0]!r}, but "
            f"the official protocol knows {', '.join(SPLITS)}."
        )
    for name in SPLITS:
        if not (split == name).any():
            raise InputError(f"No utterance is of split {name!r}, but the official protocol needs {', '.join(SPLITS)}.")
    return (_fold("official", is_val=split == "val", is_test=split == "test"),)


PROTOCOLS: dict[str, Callable[[Sequence[Utterance]], tuple[Fold, ...]]] = {
    "loso": _loso,
    "loso_session": _loso_session,
    "official": _official,
    "table": _table,
}


def _fold(name: str, *, is_val: Bool[np.ndarray, " utterance"], is_test: Bool[np.ndarray, " utterance"]) -> Fold:
    return Fold(name=name, train=~is_val & ~is_test, val=is_val, test=is_test)


def _column(utterances: Sequence[Utterance], name: str) -> np.ndarray:
    """One field of all utterances, as text; InputError if some have none."""
    values = [getattr(utterance, name) for utterance in utterances]
    missing = [utterance.id for utterance, value in zip(utterances, values, strict=True) if value is None]
    if missing:
        raise InputError(
            f"{len(missing)} of {count(len(values), 'utterance')} have no {name} (the first: {missing[0]}), "
            f"but this protocol needs the {name} of every one."
        )
    return np.array(values)


def _at_least_three(what: str, column: np.ndarray) -> list[str]:
    values = _ordered(column.tolist())
    if len(values) < _MINIMUM:
        raise InputError(
            f"The utterances have {count(len(values), what)} ({', '.join(values)}), but this protocol needs "
            f"at least {_MINIMUM}: to train on, to validate on and to test on."
        )
    return values


def _ordered(values: Iterable[str]) -> list[str]:
    """Each value once, sorted: as numbers if all are whole numbers, else as text."""
    once = sorted(set(values))
    return sorted(once, key=int) if all(value.isdecimal() for value in once) else once


def _next(values: Sequence[str], value: str) -> str:
    return values[(values.index(value) + 1) % len(values)]


# ------------------------------------------------------------------------------------------------- audit


def _require_unseen_speakers(utterances: Sequence[Utterance], folds: Sequence[Fold]) -> None:
    for fold in folds:
        shared = _speakers(utterances, fold.train) & _speakers(utterances, fold.test)
        if shared:
            raise InputError(
                f"Fold {fold.name} tests on {count(len(shared), 'speaker')} whom it also trains on "
                f"({', '.join(_ordered(shared))}), but a speaker may only be in one of the two."
            )


def _speakers(utterances: Sequence[Utterance], mask: Bool[np.ndarray, " utterance"]) -> set[str]:
    return {utterance.speaker for utterance in _members(utterances, mask)}


def _members(utterances: Sequence[Utterance], mask: Bool[np.ndarray, " utterance"]) -> list[Utterance]:
    return [utterances[row] for row in np.flatnonzero(mask).tolist()]


def protocol(config: ConfigDict, folds: int) -> dict[str, Any]:
    """What every number of this study has to be quoted with."""
    left_out = {
        "loso": "leave one speaker out",
        "loso_session": "leave one session out",
        "official": "the corpus's own splits",
        "table": "the folds of the table",
    }[config.protocol]
    transductive = config.normalisation == "speaker"
    chosen = "epoch chosen on the TEST speakers: optimistic" if config.select_on_test else "epoch chosen on validation"
    normalised = "features normalised per speaker, the test speaker too: transductive"
    return {
        "name": config.protocol,
        "description": "; ".join([left_out, chosen, *([normalised] if transductive else [])]),
        "normalisation": config.normalisation,
        "transductive": transductive,
        "select_on_test": config.select_on_test,
        "optimistic": config.select_on_test,
        "seeds": config.seeds,
        "folds": folds,
    }
