"""The protocols by name: adding one is one function over the utterances, and one row of `PROTOCOLS`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sejax.corpora.schema import Utterance
from sejax.errors import InputError
from sejax.protocols.folds import (
    Fold,
    leave_one_session_out,
    leave_one_speaker_out,
    official_splits,
    require_unseen_speakers,
    table_folds,
)

NORMALISATIONS = ("train", "speaker")
"""The speakers whose audio normalises the features: the fold's training speakers, or each speaker (transductive)."""


@dataclass(frozen=True)
class Protocol:
    """A way to divide the utterances into folds.

    Args:
      make: returns the folds of the utterances.
      sentence: the description of the protocol in results.
    """

    make: Callable[[Sequence[Utterance]], tuple[Fold, ...]]
    sentence: str


PROTOCOLS: Mapping[str, Protocol] = {
    "loso": Protocol(leave_one_speaker_out, "leave one speaker out"),
    "loso_session": Protocol(leave_one_session_out, "leave one session out"),
    "official": Protocol(official_splits, "the corpus's own splits"),
    "table": Protocol(table_folds, "the folds of the table"),
}


def make_folds(utterances: Sequence[Utterance], protocol: str) -> tuple[Fold, ...]:
    """Returns the folds of a protocol, in the order of their names.

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
