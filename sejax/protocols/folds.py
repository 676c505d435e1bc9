"""Folds: divisions of the utterances, as masks. Numpy only."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from sejax.corpora.schema import SPLITS, Utterance, is_split
from sejax.errors import InputError
from sejax.host.wording import count

_MOST_NAMED = 10  # speakers in a message
_MINIMUM = 3  # one part for training, one for validation, one for testing


@dataclass(frozen=True)
class Fold:
    """One division of the utterances: three disjoint masks, none of them empty but those of `everyone` and `refitted`.

    Args:
      name: of the fold, unique among the folds of a study.
      train, val, test: the masks.
      trained_on: the one corpus of several that the fold trains on; empty if it trains on what is not held out.
      within: whether it tests on other speakers of that corpus. Such folds are the diagonal of a matrix of corpora.
    """

    name: str
    train: Bool[np.ndarray, " utterance"]
    val: Bool[np.ndarray, " utterance"]
    test: Bool[np.ndarray, " utterance"]
    trained_on: str = ""
    within: bool = False


def leave_one_speaker_out(utterances: Sequence[Utterance], most: int = 0) -> tuple[Fold, ...]:
    """Returns a fold per speaker, or `most` folds of several speakers each.

    Validation is the other speaker of the test speaker's session: the next one in sorted order, cyclic, if a session
    has more than two. If a speaker has no session, several sessions, or one to themselves, validation is the next
    speaker of the corpus. Neither is trained on. Utterances of unknown speakers train every fold, and are never
    tested: see the audit's `unknown_speakers`.

    Args:
      utterances: of all speakers.
      most: if there are more speakers, they are dealt to so many folds of about equal size; speakers of one session
        stay together, and validation is the next fold's part. 0: a fold per speaker.
    """
    speaker = np.array([utterance.speaker for utterance in utterances])
    known = np.array([utterance.speaker_known for utterance in utterances])
    speakers = _at_least_three("speaker", speaker[known])
    if 0 < most < len(speakers):
        return leave_one_out("fold", deal([u for u in utterances if u.speaker_known], most), known)
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


def deal(utterances: Sequence[Utterance], parts: int) -> np.ndarray:
    """Returns the part, "1" to "<parts>", of each utterance: speakers are dealt so that the parts are about equal.

    Those of one session stay together where there are as many sessions as parts. The largest are dealt first, each to
    the part that is the smallest so far, so that the same utterances always give the same parts.
    """
    sessions = {u.session for u in utterances}
    whole = None not in sessions and len(sessions) >= parts
    unit = [(u.session or "") if whole else u.speaker for u in utterances]
    sizes = Counter(unit)
    filled = [0] * parts
    part_of = {}
    for name in sorted(ordered(sizes), key=lambda name: -sizes[name]):
        smallest = filled.index(min(filled))
        part_of[name] = str(smallest + 1)
        filled[smallest] += sizes[name]
    return np.array([part_of[name] for name in unit])


def leave_one_session_out(utterances: Sequence[Utterance]) -> tuple[Fold, ...]:
    """Returns a fold per session; validation is the next session, cyclic."""
    return leave_one_out("session", column(utterances, "session"))


def table_folds(utterances: Sequence[Utterance]) -> tuple[Fold, ...]:
    """Returns a fold per value of the column `fold`; validation is the next value, cyclic."""
    return leave_one_out("fold", column(utterances, "fold"))


def leave_one_out(
    what: str, part: np.ndarray, divided: Bool[np.ndarray, " utterance"] | None = None
) -> tuple[Fold, ...]:
    """Returns a fold per value of `part`, which is tested on; validation is the next value, cyclic.

    Args:
      what: the name of the parts, for messages.
      part: each utterance's part, as text.
      divided: the utterances that `part` is about, where it is not all; the others train every fold.

    Raises:
      InputError: there are fewer than three parts.
    """
    parts = _at_least_three(what, part)

    def mask(name: str) -> Bool[np.ndarray, " utterance"]:
        if divided is None:
            return np.asarray(part == name)
        whole = np.zeros(len(divided), bool)
        whole[divided] = part == name
        return whole

    return tuple(_fold(test, is_val=mask(_next(parts, test)), is_test=mask(test)) for test in parts)


def official_splits(utterances: Sequence[Utterance]) -> tuple[Fold, ...]:
    """Returns one fold, the corpus's own splits (`Utterance.split`); several test sets are tested together."""
    split = column(utterances, "split")
    for row, name in enumerate(split.tolist()):
        if not is_split(name):
            raise InputError(
                f"utterance {utterances[row].id} has the split {name!r}, expected one of {', '.join(SPLITS)} (test1, "
                "test2, ... where there are several) for the official protocol"
            )
    part = np.array([SPLITS[-1] if name.startswith(SPLITS[-1]) else name for name in split.tolist()])
    for name in SPLITS:
        if not (part == name).any():
            raise InputError(
                f"no utterance has the split {name!r}, expected {', '.join(SPLITS)} for the official protocol"
            )
    return (_fold("official", is_val=part == "val", is_test=part == "test"),)


def _fold(name: str, *, is_val: Bool[np.ndarray, " utterance"], is_test: Bool[np.ndarray, " utterance"]) -> Fold:
    return Fold(name=name, train=~is_val & ~is_test, val=is_val, test=is_test)


def everyone(folds: Sequence[Fold]) -> Fold:
    """Returns the division that trains on every utterance of the folds, and holds out none."""
    train = folds[0].train
    return Fold(name="all", train=np.ones_like(train), val=np.zeros_like(train), test=np.zeros_like(train))


def refitted(fold: Fold) -> Fold:
    """Returns the division that also trains on the fold's validation utterances, and tests on the same."""
    return replace(fold, train=fold.train | fold.val, val=np.zeros_like(fold.val))


def column(utterances: Sequence[Utterance], name: str) -> np.ndarray:
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
        hint = "config.protocol=loso needs speakers only"
        if what == "speaker" and len(values) == 1:
            hint = "one voice cannot be tested by another"
        elif what == "speaker":
            hint = (
                "with two, config.protocol=official may train and validate on one and test on the other (in a table by "
                "the column split)"
            )
        raise InputError(
            f"the utterances have {count(len(values), what)} ({', '.join(values)}), expected at least {_MINIMUM}: "
            f"to train on, to validate on and to test on; {hint}"
        )
    return values


def ordered(values: Iterable[str]) -> list[str]:
    """Returns each value once, sorted as numbers if all are whole numbers and as text otherwise."""
    once = sorted(set(values))
    return sorted(once, key=int) if all(value.isdecimal() for value in once) else once


def _next(values: Sequence[str], value: str) -> str:
    return values[(values.index(value) + 1) % len(values)]


def shared_speakers(utterances: Sequence[Utterance], fold: Fold) -> list[str]:
    """Returns the speakers whom a fold both trains and tests on."""
    return ordered(speakers_of(utterances, fold.train) & speakers_of(utterances, fold.test))


def require_unseen_speakers(utterances: Sequence[Utterance], folds: Sequence[Fold]) -> None:
    """Checks that no fold trains on a speaker of its test set.

    Raises:
      InputError: a fold does. The message names the fold and the speakers.
    """
    for fold in folds:
        if shared := shared_speakers(utterances, fold):
            some = ", ".join(shared[:_MOST_NAMED]) + ("" if len(shared) <= _MOST_NAMED else ", ...")
            raise InputError(
                f"fold {fold.name} tests on {count(len(shared), 'speaker')} whom it also trains on "
                f"({some}), expected each speaker in only one of the two (config.allow_shared_speakers takes the "
                "splits as they are, and marks every number)"
            )


def speakers_of(utterances: Sequence[Utterance], mask: Bool[np.ndarray, " utterance"]) -> set[str]:
    """Returns the speakers of the utterances in the mask."""
    return {utterance.speaker for utterance in members(utterances, mask)}


def members(utterances: Sequence[Utterance], mask: Bool[np.ndarray, " utterance"]) -> list[Utterance]:
    """Returns the utterances in the mask."""
    return [utterances[row] for row in np.flatnonzero(mask).tolist()]
