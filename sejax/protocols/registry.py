"""The protocols by name: adding one is one function over the utterances, and one row of `PROTOCOLS`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sejax.corpora.schema import Utterance
from sejax.errors import InputError
from sejax.host.wording import count
from sejax.protocols.across import across_corpora, leave_one_corpus_out, leave_speakers_out_of_all
from sejax.protocols.folds import (
    Fold,
    leave_one_session_out,
    leave_one_speaker_out,
    official_splits,
    require_unseen_speakers,
    table_folds,
)

NORMALISATIONS = ("train", "speaker", "corpus")
"""Whose audio normalises the features: that of the fold's training speakers; of each speaker, or of each corpus, those
that are tested too (transductive)."""


@dataclass(frozen=True)
class Protocol:
    """A way to divide the utterances into folds.

    Args:
      make: returns the folds of the utterances; and of a protocol that leaves speakers out, how many at most.
      sentence: the description of the protocol in results.
      divides_speakers: whether `make` takes the largest number of folds.
      across: whether it is over several corpora.
    """

    make: Callable[..., tuple[Fold, ...]]
    sentence: str
    divides_speakers: bool = False
    across: bool = False


PROTOCOLS: Mapping[str, Protocol] = {
    "loso": Protocol(leave_one_speaker_out, "leave one speaker out", divides_speakers=True),
    "loso_session": Protocol(leave_one_session_out, "leave one session out"),
    "official": Protocol(official_splits, "the corpus's own splits"),
    "table": Protocol(table_folds, "the folds of the table"),
    "cross": Protocol(
        across_corpora,
        "trained on each corpus and tested on each other (and on its own speakers: leave one speaker out)",
        divides_speakers=True,
        across=True,
    ),
    "leave_one_corpus_out": Protocol(leave_one_corpus_out, "leave one corpus out", across=True),
    "joint": Protocol(
        leave_speakers_out_of_all,
        "trained on all corpora, leave one speaker of each out",
        divides_speakers=True,
        across=True,
    ),
}


def make_folds(
    utterances: Sequence[Utterance], protocol: str, *, most: int = 0, allow_shared_speakers: bool = False
) -> tuple[Fold, ...]:
    """Returns the folds of a protocol, in the order of their names.

    Values that are all whole numbers are sorted as numbers, others as text.

    Args:
      utterances: all utterances of the corpus.
      protocol: a key of `PROTOCOLS`.
      most: the largest number of folds of a corpus, for a protocol that leaves speakers out; 0: one per speaker.
      allow_shared_speakers: whether a speaker of a test set may also be trained on.

    Raises:
      InputError: the protocol is unknown, an utterance lacks a value that the protocol needs, there are fewer than
        three parts, or a speaker of a test set is also trained on and that is not allowed.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"config.protocol is {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    if not utterances:
        raise InputError("the corpus has no utterances, expected some to make folds of")
    record = PROTOCOLS[protocol]
    if most and not record.divides_speakers:
        divide = [name for name, each in PROTOCOLS.items() if each.divides_speakers]
        raise InputError(
            f"config.folds is {most}, expected 0 for the protocol {protocol}: those of {', '.join(divide)} are speakers"
        )
    folds = record.make(utterances, most) if record.divides_speakers else record.make(utterances)
    if not allow_shared_speakers:
        require_unseen_speakers(utterances, folds)
    return folds


def describe_protocol(
    name: str,
    *,
    normalisation: str,
    select_on_test: bool,
    shared_speakers: bool,
    seeds: int,
    folds: Sequence[Fold],
    most: int,
    chooses_epoch: bool = True,
    chooses_setting: bool = False,
    refit: bool = False,
) -> dict[str, Any]:
    """Returns the description of a study's protocol that its numbers have to be quoted with, as a tree for JSON.

    Args:
      name: a key of `PROTOCOLS`.
      normalisation: one of `NORMALISATIONS`.
      select_on_test: whether the epoch is chosen on the test speakers.
      shared_speakers: whether a fold trains on speakers of its test set.
      seeds: number of seeds.
      folds: of the study.
      most: see `make_folds`.
      chooses_epoch: whether the epoch of a run is chosen; else the last one is tested.
      chooses_setting: whether each fold also chooses a setting where it chooses the epoch.
      refit: whether the runs that are tested are trained again on training and validation speakers.
    """
    transductive = normalisation != "train"
    chosen = [*(["epoch"] if chooses_epoch else []), *(["setting (row chosen)"] if chooses_setting else [])]
    where = "on the TEST speakers: optimistic" if select_on_test else "on validation"
    words = [PROTOCOLS[name].sentence, *([] if chooses_epoch else ["last epoch"])]
    words += [f"{' and '.join(chosen)} chosen {where}"] if chosen else ["nothing chosen"]
    if refit:
        words.append("then trained again on training and validation speakers, and tested once")
    if most:
        words.insert(1, f"speakers dealt to {count(most, 'fold')} at most")
    within = [fold.name for fold in folds if fold.within]
    if within:
        words.append("numbers over all corpora are of the folds that test on other corpora")
    if transductive:
        words.append(f"features normalised per {normalisation}, that of the test too: transductive")
    if shared_speakers:
        words.append("TEST SPEAKERS ARE ALSO TRAINED ON: optimistic")
    return {
        "name": name,
        "description": "; ".join(words),
        "normalisation": normalisation,
        "transductive": transductive,
        "select_on_test": select_on_test,
        "optimistic": select_on_test or shared_speakers,
        **({"refit": True} if refit else {}),
        **({"shared_speakers": True} if shared_speakers else {}),
        **({"within": within} if within else {}),
        "seeds": seeds,
        "folds": len(folds),
    }
