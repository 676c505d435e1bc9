"""The audit: leaks between the parts of a fold, and utterances that the corpus lost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sejax.corpora.schema import SPLITS, Dropped, Utterance
from sejax.corpora.spelling import FIELDS, require_one_spelling, show
from sejax.errors import InputError
from sejax.features.audioprint import Copy
from sejax.protocols.duplicates import (
    find_duplicates,
    groups_of_same_audio,
    require_no_duplicates,
    require_one_name,
    speakers_claimed_twice,
)
from sejax.protocols.folds import Fold, members, ordered, require_unseen_speakers, shared_speakers, speakers_of


def audit(
    utterances: Sequence[Utterance],
    folds: Sequence[Fold],
    classes: Sequence[str],
    *,
    digests: Mapping[str, str],
    copies: Sequence[Copy] = (),
    dropped: Sequence[Dropped],
    notes: Mapping[str, str],
    corpus_notes: Sequence[str] = (),
    allow_duplicates: bool = False,
    allow_shared_speakers: bool = False,
) -> dict[str, Any]:
    """Returns leaks of the folds and losses of the corpus, as a tree for JSON.

    Args:
      utterances: all utterances of the corpus.
      folds: masks over `utterances`.
      classes: the classes of the corpus.
      digests: utterance id -> digest of the decoded samples.
      copies: utterances of one recording whose samples are not equal; those of equal samples follow from `digests`.
      dropped: the utterances that cannot be used.
      notes: utterance id -> remarks on its audio, separated by "; ". A remark is counted under its words before a
        colon.
      corpus_notes: the remarks of the corpus's reader.
      allow_duplicates: whether audio of a test set may occur outside it, and its speakers under other names.
      allow_shared_speakers: whether a speaker of a test set may also be trained on.

    Returns:
      - `speakers_shared`: speakers both trained and tested on, per fold that has any. An error unless allowed.
      - `speakers_shared_with_validation`: the test speakers who are also in validation, per fold that has any.
      - `speakers_trained_and_validated`: the training speakers who are also in validation, per fold that has any.
      - `spellings_checked`: the fields in which no word has two spellings. It would be an error.
      - `texts_shared`: per fold, the number of test utterances with a text (`with_text`), the number of them whose
        text is in the training set (`shared`), and its share of all test utterances (`share`).
      - `duplicates`: groups of ids with the same audio. `across_test` has the groups of which a test set and
        another set of the same fold each contain some, with these folds; `elsewhere` has the others. `found_by` is
        "samples" if all samples of the group are equal and "fingerprint" otherwise; `copies` then has the ids of two
        utterances, how many seconds of the first come before the second begins (`offset`, negative if it begins
        before), the `seconds` that both have, and the `correlation` of the waveforms there.
      - `speakers_claimed_twice`: speakers of different names with the same audio: their names and corpora, the first
        utterance of each, the number of such pairs of utterances, and the folds that test one of the two and train on
        the other. Unknown speakers, whose names say nothing, are left out.
      - `unknown_speakers`: per fold and split, the utterances of unknown speakers. Whether these speak in another
        split too, no audit can tell.
      - `class_counts`: per fold and split, the utterances of each class; `unlabelled` counts those without a label.
      - `classes_untrained`: the classes that are tested but not trained, per fold that has any.
      - `dropped`: id, path, reason and its kind, of each utterance that cannot be used.
      - `notes`: the count of each remark.
      - `corpus_notes`: as given.

    Raises:
      InputError: a speaker is both trained and tested on, a word has two spellings, a label is not a class, there is
        one class and nothing else to learn; or there are duplicates `across_test` or folds of
        `speakers_claimed_twice` and `allow_duplicates` is false.
    """
    if not allow_shared_speakers:
        require_unseen_speakers(utterances, folds)
    require_one_spelling(utterances)
    require_labels(utterances, classes)
    counts = [_class_counts(utterances, fold, classes) for fold in folds]
    same_audio = groups_of_same_audio(utterances, digests, copies)
    duplicates = find_duplicates(utterances, folds, digests, same_audio, copies)
    claimed_twice = speakers_claimed_twice(utterances, folds, same_audio)
    if not allow_duplicates:
        require_no_duplicates(utterances, folds, duplicates["across_test"])
        require_one_name(claimed_twice)
    return {
        "speakers_shared": [
            {"fold": fold.name, "speakers": shared} for fold in folds if (shared := shared_speakers(utterances, fold))
        ],
        "speakers_shared_with_validation": _speakers_in_validation(utterances, folds, "test"),
        "speakers_trained_and_validated": _speakers_in_validation(utterances, folds, "train"),
        "spellings_checked": list(FIELDS),
        "texts_shared": [_texts_shared(utterances, fold) for fold in folds],
        "duplicates": duplicates,
        "speakers_claimed_twice": claimed_twice,
        "unknown_speakers": [_unknown_speakers(utterances, fold) for fold in folds],
        "class_counts": counts,
        "classes_untrained": [
            {"fold": entry["fold"], "classes": untrained}
            for entry in counts
            if (untrained := [name for name in classes if entry["test"][name] and not entry["train"][name]])
        ],
        "dropped": [
            {"id": lost.id, "path": lost.path, "reason": lost.reason, "kind": lost.kind.value} for lost in dropped
        ],
        "notes": _note_counts(notes),
        "corpus_notes": list(corpus_notes),
    }


def require_labels(utterances: Sequence[Utterance], classes: Sequence[str]) -> None:
    """Checks that the labels are classes, and that there is something to tell apart.

    Raises:
      InputError: a label is not a class, or there is one class, no votes and no valence, arousal or dominance.
    """
    labels = {utterance.label for utterance in utterances} - {None}
    if len(labels) == 1 and not any(u.distribution or np.isfinite(u.vad).any() for u in utterances):
        raise InputError(
            f"every label of the corpus is {show(str(*labels))}, expected two classes or more, or valence, arousal or "
            "dominance: there is nothing to tell apart"
        )
    for utterance in utterances:
        if utterance.label is not None and utterance.label not in classes:
            raise InputError(
                f"utterance {utterance.id} has the label {utterance.label!r}, expected one of {', '.join(classes)}"
            )


def _speakers_in_validation(utterances: Sequence[Utterance], folds: Sequence[Fold], split: str) -> list[dict[str, Any]]:
    """Returns the speakers of a split who are in validation too, per fold that has any."""
    shared = [
        (fold.name, speakers_of(utterances, fold.val) & speakers_of(utterances, getattr(fold, split))) for fold in folds
    ]
    return [{"fold": name, "speakers": ordered(speakers)} for name, speakers in shared if speakers]


def _texts_shared(utterances: Sequence[Utterance], fold: Fold) -> dict[str, Any]:
    trained = {utterance.text for utterance in members(utterances, fold.train)} - {None}
    tested = [utterance.text for utterance in members(utterances, fold.test)]
    shared = sum(text in trained for text in tested)
    return {
        "fold": fold.name,
        "with_text": sum(text is not None for text in tested),
        "shared": shared,
        "share": shared / len(tested) if tested else 0.0,
    }


def _unknown_speakers(utterances: Sequence[Utterance], fold: Fold) -> dict[str, Any]:
    counts = {
        split: sum(not utterance.speaker_known for utterance in members(utterances, getattr(fold, split)))
        for split in SPLITS
    }
    return {"fold": fold.name, **counts}


def _class_counts(utterances: Sequence[Utterance], fold: Fold, classes: Sequence[str]) -> dict[str, Any]:
    result: dict[str, Any] = {"fold": fold.name}
    unlabelled = {}
    for split in SPLITS:
        counts = Counter(utterance.label for utterance in members(utterances, getattr(fold, split)))
        result[split] = {name: counts[name] for name in classes}
        unlabelled[split] = counts[None]
    return result | {"unlabelled": unlabelled}


def _note_counts(notes: Mapping[str, str]) -> dict[str, int]:
    remarks = Counter(
        remark.split(":")[0].strip() for note in notes.values() for remark in note.split("; ") if remark.strip()
    )
    return dict(sorted(remarks.items()))
