"""Label schemes: which of a corpus's own labels become which class, and which utterances take part."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sejax.errors import InputError


@dataclass(frozen=True)
class LabelScheme:
    """A named way of turning a corpus's labels into classes.

    Args:
      name: what the user writes as `labels=`.
      classes: the classes in their order.
      merge: the corpus's own label -> class; labels that are absent here are outside the scheme.
      improvised_only: leave scripted turns out.
      soft: also keep utterances without a class of their own when any rater voted for one of the classes.
    """

    name: str
    classes: tuple[str, ...]
    merge: Mapping[str, str]
    improvised_only: bool = False
    soft: bool = False


_FOUR = {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"}
_FOUR_CLASSES = ("angry", "happy", "sad", "neutral")
_FOUR_EXC_CLASSES = ("angry", "excited", "sad", "neutral")
_FOUR_HAP = {"ang": "angry", "hap": "happy", "sad": "sad", "neu": "neutral"}
_FOUR_EXC = {"ang": "angry", "exc": "excited", "sad": "sad", "neu": "neutral"}
_SIX = {**_FOUR_HAP, "exc": "excited", "fru": "frustrated"}

# The number of utterances in the full release stands beside each; "default" is `four`.
IEMOCAP_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        LabelScheme("four", _FOUR_CLASSES, _FOUR),  # 5,531
        LabelScheme("four_hap", _FOUR_CLASSES, _FOUR_HAP),  # 4,490: without excitement
        LabelScheme("four_exc", _FOUR_EXC_CLASSES, _FOUR_EXC),  # 4,936: excitement in place of happiness
        LabelScheme("four_improvised", _FOUR_CLASSES, _FOUR, improvised_only=True),  # 2,943
        LabelScheme("five", (*_FOUR_CLASSES, "frustrated"), {**_FOUR, "fru": "frustrated"}),  # 7,380
        LabelScheme("six", ("angry", "happy", "excited", "sad", "neutral", "frustrated"), _SIX),  # 7,380
        LabelScheme("soft", _FOUR_CLASSES, _FOUR, soft=True),
    )
}

EMODB_SCHEMES = {
    "default": LabelScheme(
        "default",
        ("anger", "boredom", "neutral", "happiness", "fear", "sadness", "disgust"),
        {
            "W": "anger",
            "L": "boredom",
            "N": "neutral",
            "F": "happiness",
            "A": "fear",
            "T": "sadness",
            "E": "disgust",
        },
    )
}


def find_scheme(corpus: str, schemes: Mapping[str, LabelScheme], name: str, default: str) -> LabelScheme:
    """The scheme called `name`, or `default` for "default"; InputError lists those that exist."""
    known = {"default": schemes[default], **schemes}
    if name not in known:
        raise InputError(f"labels={name!r}: {corpus} has the label schemes {', '.join(sorted(known))}")
    return known[name]


def vote_shares(votes: Iterable[Sequence[str]], scheme: LabelScheme) -> dict[str, float] | None:
    """The raters' votes as a distribution over the scheme's classes, or None if nobody voted for any of them.

    Every rater has one vote, split evenly over the labels that the rater named (`votes` holds one sequence of
    the corpus's own labels per rater). Votes for labels outside the scheme are left out; the rest is scaled
    to sum to 1.
    """
    shares = dict.fromkeys(scheme.classes, 0.0)
    for labels in votes:
        for label in labels:
            if label in scheme.merge:
                shares[scheme.merge[label]] += 1.0 / len(labels)
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()} if total > 0 else None
