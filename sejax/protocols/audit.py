"""The audit: what the folds leak and what the corpus lost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sejax.corpora.schema import Dropped, Utterance
from sejax.errors import InputError
from sejax.host.wording import count
from sejax.protocols.folds import (
    SPLITS,
    Fold,
    _members,
    _ordered,
    _require_unseen_speakers,
    _speakers,
)


def audit(
    utterances: Sequence[Utterance],
    folds: Sequence[Fold],
    classes: Sequence[str],
    *,
    digests: Mapping[str, str],
    dropped: Sequence[Dropped],
    notes: Mapping[str, str],
    corpus_notes: Sequence[str] = (),
    allow_duplicates: bool = False,
) -> dict[str, Any]:
    """What the folds leak and what the corpus lost, as a tree for JSON.

    `digests` and `notes` are by utterance id: a digest of the decoded samples, and what was done to the audio
    (several remarks are separated by "; ", and a remark is counted under its words before a colon).

    The result:

    - `speakers_shared`: speakers both trained and tested on in a fold. Always empty: else InputError.
    - `speakers_shared_with_validation`: per fold that has any, the test speakers who are also in validation.
    - `texts_shared`: per fold, how many test utterances have a text (`with_text`), how many of them say one
      that is in the training set (`shared`), and which share of all test utterances that is (`share`).
    - `duplicates`: groups of ids with the same audio: `across_test` with the folds in which the test set and
      another set hold some of them (InputError unless `allow_duplicates`), `elsewhere` the others.
    - `class_counts`: per fold and split, the utterances of each class; `unlabelled` those without a label.
    - `dropped`: id, path and reason of each utterance that cannot be used.
    - `notes`: how often each remark was made; `corpus_notes`: what the reader of the corpus remarked.
    """
    _require_unseen_speakers(utterances, folds)
    _require_known_labels(utterances, classes)
    duplicates = _duplicates(utterances, folds, digests)
    if duplicates["across_test"] and not allow_duplicates:
        groups = duplicates["across_test"]
        raise InputError(
            f"Audio of a test set occurs outside it too, {count(len(groups), 'time')}, first as "
            f"{' and '.join(groups[0]['ids'])} (fold {groups[0]['folds'][0]}), but what is tested on may not "
            "be trained or validated on: drop the copies, or allow duplicates."
        )
    return {
        "speakers_shared": [],
        "speakers_shared_with_validation": _speakers_shared_with_validation(utterances, folds),
        "texts_shared": [_texts_shared(utterances, fold) for fold in folds],
        "duplicates": duplicates,
        "class_counts": [_class_counts(utterances, fold, classes) for fold in folds],
        "dropped": [{"id": lost.id, "path": lost.path, "reason": lost.reason} for lost in dropped],
        "notes": _note_counts(notes),
        "corpus_notes": list(corpus_notes),
    }


def _require_known_labels(utterances: Sequence[Utterance], classes: Sequence[str]) -> None:
    for utterance in utterances:
        if utterance.label is not None and utterance.label not in classes:
            raise InputError(
                f"Utterance {utterance.id} has the label {utterance.label!r}, but the classes are {', '.join(classes)}."
            )


def _speakers_shared_with_validation(utterances: Sequence[Utterance], folds: Sequence[Fold]) -> list[dict[str, Any]]:
    shared = [(fold.name, _speakers(utterances, fold.val) & _speakers(utterances, fold.test)) for fold in folds]
    return [{"fold": name, "speakers": _ordered(speakers)} for name, speakers in shared if speakers]


def _texts_shared(utterances: Sequence[Utterance], fold: Fold) -> dict[str, Any]:
    trained = {utterance.text for utterance in _members(utterances, fold.train)} - {None}
    tested = [utterance.text for utterance in _members(utterances, fold.test)]
    shared = sum(text in trained for text in tested)
    return {
        "fold": fold.name,
        "with_text": sum(text is not None for text in tested),
        "shared": shared,
        "share": shared / len(tested) if tested else 0.0,
    }


def _duplicates(
    utterances: Sequence[Utterance], folds: Sequence[Fold], digests: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[int]] = {}
    for row, utterance in enumerate(utterances):
        if utterance.id in digests:
            groups.setdefault(digests[utterance.id], []).append(row)
    result: dict[str, list[dict[str, Any]]] = {"across_test": [], "elsewhere": []}
    for rows in groups.values():
        if len(rows) < 2:
            continue
        ids = [utterances[row].id for row in rows]
        crossed = [fold.name for fold in folds if fold.test[rows].any() and (fold.train | fold.val)[rows].any()]
        if crossed:
            result["across_test"].append({"ids": ids, "folds": crossed})
        else:
            result["elsewhere"].append({"ids": ids})
    return result


def _class_counts(utterances: Sequence[Utterance], fold: Fold, classes: Sequence[str]) -> dict[str, Any]:
    result: dict[str, Any] = {"fold": fold.name}
    unlabelled = {}
    for split in SPLITS:
        counts = Counter(utterance.label for utterance in _members(utterances, getattr(fold, split)))
        result[split] = {name: counts[name] for name in classes}
        unlabelled[split] = counts[None]
    return result | {"unlabelled": unlabelled}


def _note_counts(notes: Mapping[str, str]) -> dict[str, int]:
    remarks = Counter(
        remark.split(":")[0].strip() for note in notes.values() for remark in note.split("; ") if remark.strip()
    )
    return dict(sorted(remarks.items()))
