"""Label schemes: each maps the labels of a corpus to classes. The schemes of a corpus are defined beside its reader."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from sejax.corpora.common_classes import COMMON_SCHEMES
from sejax.corpora.schema import Utterance
from sejax.errors import InputError


@dataclass(frozen=True)
class LabelScheme:
    """A named mapping from a corpus's own labels to classes.

    Args:
      name: the word for the option `labels`.
      classes: the classes in their order.
      merge: the corpus's own label -> class. Utterances with other labels are outside the scheme.
      soft: whether to keep utterances outside the scheme if any rater voted for one of its classes.
      keep_rated: whether to keep utterances outside the scheme, without a class, if they have ratings of valence,
        arousal or dominance.
      source: where the labels come from, see `Corpus.label_source`.
    """

    name: str
    classes: tuple[str, ...]
    merge: Mapping[str, str]
    soft: bool = False
    keep_rated: bool = False
    source: str = "unknown"


Scheme = TypeVar("Scheme", bound=LabelScheme)


def find_scheme(corpus: str, schemes: Mapping[str, Scheme], name: str, default: str) -> Scheme:
    """Returns the scheme called `name`. "default" is another name for the scheme called `default`.

    Raises:
      InputError: `name` is unknown. The message lists the schemes of `corpus`.
    """
    known = {"default": schemes[default], **schemes}
    if name not in known:
        raise InputError(
            f"config.labels is {name!r}, expected a label scheme of {corpus}: {', '.join(sorted(known))}; or common "
            f"classes: {', '.join(COMMON_SCHEMES)}, or a CSV file with the columns label and class"
        )
    return known[name]


def vote_shares(votes: Iterable[Sequence[str]], scheme: LabelScheme) -> dict[str, float] | None:
    """Returns the raters' votes as a distribution over the scheme's classes, None without a vote for any of them.

    Every rater has one vote, which is split evenly over the labels that the rater named. Votes for labels
    outside the scheme are left out, and the shares of the rest are scaled to sum to 1.

    Args:
      votes: one sequence of the corpus's own labels per rater.
      scheme: maps the labels to classes.
    """
    shares = dict.fromkeys(scheme.classes, 0.0)
    for labels in votes:
        for label in labels:
            if label in scheme.merge:
                shares[scheme.merge[label]] += 1.0 / len(labels)
    return as_distribution(shares)


def as_distribution(weights: Mapping[str, float]) -> dict[str, float] | None:
    """Returns votes, or parts of votes, per class as shares that sum to 1; None without any."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()} if total > 0 else None


def most_voted(weights: Mapping[str, float]) -> str | None:
    """Returns the class with the most votes, None for a tie and without votes."""
    most = max(weights.values(), default=0.0)
    first = [name for name, weight in weights.items() if most - weight < 1e-9]
    return first[0] if most > 0 and len(first) == 1 else None


def plurality(votes: Iterable[Sequence[str]]) -> str | None:
    """Returns the label that most raters named, None for a tie and without votes.

    Args:
      votes: the labels that each rater named; a rater who named several has a part of a vote for each.
    """
    shares: dict[str, float] = {}
    for labels in votes:
        for label in labels:
            shares[label] = shares.get(label, 0.0) + 1 / len(labels)
    return most_voted(shares)


class Labelled(NamedTuple):
    """An utterance whose `label` is the corpus's own word, None if the raters did not agree, and the raters' votes."""

    utterance: Utterance
    votes: tuple[tuple[str, ...], ...] = ()  # the corpus's own words that each rater named


def classify(labelled: Iterable[Labelled], scheme: LabelScheme) -> tuple[list[Utterance], list[str]]:
    """Returns the utterances that belong to a scheme, with classes and vote shares, and notes about the others.

    An utterance whose own label is outside the scheme is left out, unless the scheme keeps it for its votes (`soft`)
    or its ratings (`keep_rated`), or the corpus hides its labels. It then has no class. The notes count both kinds by
    their own labels.
    """
    utterances, left_out, unclassified = [], Counter[str](), Counter[str]()
    for utterance, votes in labelled:
        shares = vote_shares(votes, scheme)
        label = None if utterance.label is None else scheme.merge.get(utterance.label)
        if label is None and not utterance.hidden:
            kept = (scheme.soft and shares is not None) or (scheme.keep_rated and utterance.is_rated)
            (unclassified if kept else left_out)[utterance.label or "no agreement"] += 1
            if not kept:
                continue
        utterances.append(replace(utterance, label=label, distribution=shares))
    notes = []
    for counted, words in ((left_out, "left out"), (unclassified, "kept without a class")):
        if counted:
            counts = ", ".join(f"{label} {n}" for label, n in sorted(counted.items()))
            notes.append(f"utterances outside the label scheme {scheme.name}, {words}: {counts}")
    return utterances, notes
