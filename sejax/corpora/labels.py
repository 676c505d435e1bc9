"""Label schemes: each maps the labels of a corpus to classes. The schemes of a corpus are defined beside its reader."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sejax.errors import InputError


@dataclass(frozen=True)
class LabelScheme:
    """A named mapping from a corpus's own labels to classes.

    Args:
      name: the word for the option `labels`.
      classes: the classes in their order.
      merge: the corpus's own label -> class. Utterances with other labels are outside the scheme.
      soft: whether to keep utterances outside the scheme if any rater voted for one of its classes.
    """

    name: str
    classes: tuple[str, ...]
    merge: Mapping[str, str]
    soft: bool = False


Scheme = TypeVar("Scheme", bound=LabelScheme)


def find_scheme(corpus: str, schemes: Mapping[str, Scheme], name: str, default: str) -> Scheme:
    """Returns the scheme called `name`. "default" is another name for the scheme called `default`.

    Raises:
      InputError: `name` is unknown. The message lists the schemes of `corpus`.
    """
    known = {"default": schemes[default], **schemes}
    if name not in known:
        raise InputError(f"config.labels is {name!r}, expected a label scheme of {corpus}: {', '.join(sorted(known))}")
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
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()} if total > 0 else None
