"""The same audio in several utterances: across a test set, and under the names of several speakers."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sejax.corpora.schema import Utterance
from sejax.corpora.spelling import show
from sejax.errors import InputError
from sejax.features.audioprint import Copy
from sejax.host.wording import count
from sejax.protocols.folds import Fold, speakers_of


def groups_of_same_audio(
    utterances: Sequence[Utterance], digests: Mapping[str, str], copies: Sequence[Copy]
) -> list[list[int]]:
    """Returns the rows of the utterances of each recording that there is more than once, in order."""
    first: dict[str, int] = {}  # row of a digest
    group = np.arange(len(utterances))  # the lowest row of the same recording
    for row, utterance in enumerate(utterances):
        if utterance.id in digests:
            group[row] = first.setdefault(digests[utterance.id], row)
    rows = {utterance.id: row for row, utterance in enumerate(utterances)}
    for copy in copies:
        low, high = sorted(group[[rows[copy.first], rows[copy.second]]])
        group[group == high] = low
    members_of: dict[int, list[int]] = {}
    for row, lowest in enumerate(group.tolist()):
        members_of.setdefault(lowest, []).append(row)
    return [rows for rows in members_of.values() if len(rows) > 1]


def find_duplicates(
    utterances: Sequence[Utterance],
    folds: Sequence[Fold],
    digests: Mapping[str, str],
    groups: Sequence[Sequence[int]],
    copies: Sequence[Copy],
) -> dict[str, list[dict[str, Any]]]:
    """Returns `duplicates` of the audit, of the groups of the same audio."""
    result: dict[str, list[dict[str, Any]]] = {"across_test": [], "elsewhere": []}
    of_group = {utterances[row].id: number for number, rows in enumerate(groups) for row in rows}
    linked: list[list[Copy]] = [[] for _ in groups]
    for copy in copies:
        linked[of_group[copy.first]].append(copy)
    for rows, own in zip(groups, linked, strict=True):
        ids = [utterances[row].id for row in rows]
        entry: dict[str, Any] = {"ids": ids, "found_by": "samples"}
        if len({digests.get(name) for name in ids}) > 1:
            entry |= {"found_by": "fingerprint", "copies": [_evidence(copy) for copy in own]}
        if crossed := [fold.name for fold in folds if fold.test[rows].any() and (fold.train | fold.val)[rows].any()]:
            result["across_test"].append(entry | {"folds": crossed})
        else:
            result["elsewhere"].append(entry)
    return result


def _evidence(copy: Copy) -> dict[str, Any]:
    offset, seconds, correlation = copy.alike
    return {
        "ids": [copy.first, copy.second],
        "offset": round(offset, 4),
        "seconds": round(seconds, 3),
        "correlation": round(correlation, 4),
    }


def require_no_duplicates(
    utterances: Sequence[Utterance], folds: Sequence[Fold], groups: Sequence[Mapping[str, Any]]
) -> None:
    """Checks that no audio is both inside and outside a test set.

    Raises:
      InputError: some is.
    """
    if not groups:
        return
    group = groups[0]
    fold = next(fold for fold in folds if fold.name == group["folds"][0])
    rows = {utterance.id: row for row, utterance in enumerate(utterances)}
    tested = next(name for name in group["ids"] if fold.test[rows[name]])
    other = next(name for name in group["ids"] if (fold.train | fold.val)[rows[name]])
    there = "trains" if fold.train[rows[other]] else "validates"
    raise InputError(
        f"audio of a test set occurs outside it too {count(len(groups), 'time')}, first as "
        f"{' and '.join(group['ids'])} (fold {fold.name} tests on {tested} and {there} on {other}; "
        f"{_how_alike(group)}), expected no audio that is tested on in training or validation: drop the copies, or "
        "allow duplicates (config.allow_duplicates)"
    )


def _how_alike(group: Mapping[str, Any]) -> str:
    if group["found_by"] == "samples":
        return "their samples are equal"
    copy = group["copies"][0]
    return (
        f"{copy['seconds']:.2f} s of {' and '.join(copy['ids'])} are one recording, which begins "
        f"{max(copy['offset'], 0):.2f} s into the first and {max(-copy['offset'], 0):.2f} s into the second: their "
        f"waveforms correlate by {copy['correlation']:.3f}"
    )


def speakers_claimed_twice(
    utterances: Sequence[Utterance], folds: Sequence[Fold], groups: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """Returns `speakers_claimed_twice` of the audit, of the groups of the same audio."""
    shared: dict[tuple[str, str], list[tuple[Utterance, Utterance]]] = {}
    for rows in groups:
        known = [utterances[row] for row in rows if utterances[row].speaker_known]
        for pair in itertools.combinations(known, 2):
            one, other = sorted(pair, key=lambda utterance: utterance.speaker)
            if one.speaker != other.speaker:
                shared.setdefault((one.speaker, other.speaker), []).append((one, other))
    tested = [speakers_of(utterances, fold.test) for fold in folds] if shared else []
    trained = [speakers_of(utterances, fold.train) for fold in folds] if shared else []
    result = []
    for (speaker, namesake), pairs in shared.items():
        crossed = [
            fold.name
            for fold, test, train in zip(folds, tested, trained, strict=True)
            if (speaker in test and namesake in train) or (namesake in test and speaker in train)
        ]
        result.append(
            {
                "speakers": [speaker, namesake],
                "corpora": [utterance.corpus for utterance in pairs[0]],
                "ids": [utterance.id for utterance in pairs[0]],
                "pairs": len(pairs),
                "folds": crossed,
            }
        )
    return result


def require_one_name(claimed_twice: Sequence[Mapping[str, Any]]) -> None:
    """Checks that no fold tests a speaker whom it trains on under another name.

    Raises:
      InputError: a fold does.
    """
    across = [entry for entry in claimed_twice if entry["folds"]]
    if across:
        (one, other), (id_of_one, id_of_other) = across[0]["speakers"], across[0]["ids"]
        raise InputError(
            f"fold {across[0]['folds'][0]} tests on one of the speakers {show(one)} and {show(other)} and trains on "
            f"the other, but {id_of_one} and {id_of_other} are one recording, expected one name of a speaker "
            f"({count(len(across), 'such pair')} of names): correct the names, or allow duplicates "
            "(config.allow_duplicates)"
        )
